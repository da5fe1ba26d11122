//! The options of a cached function.

use std::time::Duration;

use crate::call::{Policy, request};
use crate::validity::SchemaFlags;

/// The options of a call. All but the mode hold for every call of the function.
#[derive(Debug, Default)]
pub struct CallOptions {
    pub(super) flags: SchemaFlags,
    pub(super) is_by_key: bool,
    pub(crate) stale: Duration,
    jitter: Jitter,
    pub(super) has_handle: bool,
    mode: CallMode,
    pub(super) is_quiet: bool,
}

/// The use of the cache by a call, according to the conditions of the attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum CallMode {
    #[default]
    Ordinary,
    Refresh,
    Bypass,
}

impl CallOptions {
    /// Returns whether the call may be served from the cache: it has no condition that is true, and no entry makes it.
    #[inline]
    pub(super) fn is_ordinary(&self) -> bool {
        self.mode == CallMode::Ordinary && !(self.has_handle && request::exists())
    }

    /// Returns whether the call runs its function without the cache.
    #[inline]
    pub(super) fn is_bypassed(&self) -> bool {
        self.mode == CallMode::Bypass
    }

    /// Returns whether the call runs its function, alone or with other refreshes, and stores the value.
    #[inline]
    pub(super) fn is_refreshed(&self) -> bool {
        self.mode == CallMode::Refresh
    }

    #[inline]
    pub(super) fn add_flags(&mut self, flags: SchemaFlags) {
        self.flags = self.flags.with(flags);
    }

    /// Returns whether a part of the ttl is subtracted at random.
    #[inline]
    pub(super) fn has_jitter(&self) -> bool {
        self.jitter.0 != 0
    }

    /// Returns the ttl of one entry: `ttl`, less a random part. `random` returns any number.
    #[inline]
    pub(super) fn jittered(&self, ttl: Duration, random: impl FnOnce() -> u64) -> Duration {
        self.jitter.apply(ttl, random)
    }
}

impl<K, H, Z, L> Policy<K, H, Z, L> {
    /// Marks the entry as one with tags, which are passed by [`Tagged`].
    #[inline]
    #[must_use]
    pub fn with_tags(mut self) -> Self {
        self.options.add_flags(SchemaFlags::TAGS);
        self
    }

    /// Marks the function as one with an idle time.
    #[inline]
    #[must_use]
    pub fn with_idle(mut self) -> Self {
        self.options.add_flags(SchemaFlags::IDLE);
        self
    }

    /// Marks the function as one that names a serializer of its own.
    #[inline]
    #[must_use]
    pub fn with_own_serializer(mut self) -> Self {
        self.options.add_flags(SchemaFlags::SERIALIZER);
        self
    }

    /// Sets how long past its ttl a value may be served while it is refreshed
    /// (stale-while-revalidate) or when the function fails (stale-if-error).
    #[inline]
    #[must_use]
    pub fn stale(mut self, stale: Duration) -> Self {
        self.options.stale = stale;
        self
    }

    /// Sets the maximum part of the ttl that is subtracted at random, in thousandths.
    #[inline]
    #[must_use]
    pub fn jitter(mut self, thousandths: u16) -> Self {
        self.options.jitter = Jitter(thousandths);
        self
    }

    /// Lets handles force a refresh of entries of this function.
    #[inline]
    #[must_use]
    pub fn with_handle(mut self) -> Self {
        self.options.has_handle = true;
        self
    }

    /// Runs the function without the cache if `condition` is true.
    #[inline]
    #[must_use]
    pub fn bypass_if(mut self, condition: bool) -> Self {
        if condition {
            self.options.mode = CallMode::Bypass;
        }
        self
    }

    /// Runs the function and stores its value even if one is stored, if `condition` is true. Calls that do
    /// so at the same time share one run.
    #[inline]
    #[must_use]
    pub fn refresh_if(mut self, condition: bool) -> Self {
        if condition && !self.options.is_bypassed() {
            self.options.mode = CallMode::Refresh;
        }
        self
    }

    /// Turns log events off.
    #[inline]
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.options.is_quiet = true;
        self
    }
}

/// The maximum part of a ttl that is subtracted at random, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
struct Jitter(u16);

impl Jitter {
    #[inline]
    fn apply(self, ttl: Duration, random: impl FnOnce() -> u64) -> Duration {
        if self.0 == 0 || ttl == Duration::MAX { ttl } else { self.shorten(ttl, random()) }
    }

    #[cold]
    fn shorten(self, ttl: Duration, random: u64) -> Duration {
        let most = ttl / 1000 * u32::from(self.0.min(1000));
        let random = u32::try_from(random >> 32).expect("32 bits");
        ttl.saturating_sub(most.mul_f64(f64::from(random) / f64::from(u32::MAX)))
    }
}

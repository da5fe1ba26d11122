//! The options of a cached function.

use std::time::Duration;

use crate::validity::SchemaFlags;

/// The options that hold for every call of a function.
#[derive(Debug, Default)]
pub struct CallOptions {
    pub(super) flags: SchemaFlags,
    pub(super) is_by_key: bool,
    pub(super) stale: Duration,
    jitter: Jitter,
    pub(super) has_handle: bool,
    pub(super) is_quiet: bool,
}

impl CallOptions {
    #[inline]
    pub(super) fn add_flags(&mut self, flags: SchemaFlags) {
        self.flags = self.flags.with(flags);
    }

    #[inline]
    pub(super) fn set_jitter(&mut self, thousandths: u16) {
        self.jitter = Jitter(thousandths);
    }

    /// Returns the ttl of one entry: `ttl`, less a random part. `random` returns any number.
    pub(super) fn jittered(&self, ttl: Duration, random: impl FnOnce() -> u64) -> Duration {
        self.jitter.apply(ttl, random)
    }
}

/// The maximum part of a ttl that is subtracted at random, in thousandths.
#[derive(Debug, Clone, Copy, Default)]
struct Jitter(u16);

impl Jitter {
    fn apply(self, ttl: Duration, random: impl FnOnce() -> u64) -> Duration {
        if self.0 == 0 || ttl == Duration::MAX {
            return ttl;
        }
        let most = ttl / 1000 * u32::from(self.0.min(1000));
        let random = u32::try_from(random() >> 32).expect("32 bits");
        ttl.saturating_sub(most.mul_f64(f64::from(random) / f64::from(u32::MAX)))
    }
}

//! The flags of a cache.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::backend::{Backend, Capabilities};
use crate::pause_all::is_everything_paused;

/// All that makes a call of a cache differ from an ordinary one, in one word, which a call loads once:
/// the pauses in progress, and whether there are observers, watches, and generations of this process or of the backend.
///
/// A change that has returned is visible to every call that begins later.
#[derive(Debug)]
pub(super) struct CacheFlags(AtomicU32);

const OBSERVED: u32 = 1;
const HAS_LOCAL_BUMPS: u32 = 2;
const WATCHED: u32 = 4;
const IS_SHARED: u32 = 8;
/// The pauses are counted in the bits from here on.
const ONE_PAUSE: u32 = 16;

impl CacheFlags {
    /// Returns the flags of a cache on this backend.
    pub(super) fn new(backend: &impl Backend) -> Self {
        let Capabilities { generations, invalidation_feed, .. } = backend.capabilities();
        let is_shared = generations.is_some() || invalidation_feed.is_some();
        Self(AtomicU32::new(if is_shared { IS_SHARED } else { 0 }))
    }

    #[inline]
    pub(super) fn load(&self) -> Flags {
        Flags(self.0.load(Ordering::Relaxed))
    }

    /// Returns whether calls were not observed before.
    pub(super) fn set_observed(&self) -> bool {
        self.0.fetch_or(OBSERVED, Ordering::SeqCst) & OBSERVED == 0
    }

    pub(super) fn set_watched(&self, is_watched: bool) {
        if is_watched {
            self.0.fetch_or(WATCHED, Ordering::SeqCst);
        } else {
            self.0.fetch_and(!WATCHED, Ordering::SeqCst);
        }
    }

    pub(super) fn set_has_local_bumps(&self) {
        self.0.fetch_or(HAS_LOCAL_BUMPS, Ordering::SeqCst);
    }

    pub(super) fn begin_pause(&self) {
        self.0.fetch_add(ONE_PAUSE, Ordering::SeqCst);
    }

    pub(super) fn end_pause(&self) {
        self.0.fetch_sub(ONE_PAUSE, Ordering::SeqCst);
    }
}

/// The flags of a cache at some time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags(u32);

impl Flags {
    /// Returns whether the cache, or every cache, is paused.
    #[inline]
    pub(crate) fn is_paused(self) -> bool {
        self.0 >= ONE_PAUSE || is_everything_paused()
    }

    /// Returns whether a generation of this process was bumped.
    #[inline]
    pub(super) fn has_local_bumps(self) -> bool {
        self.0 & HAS_LOCAL_BUMPS != 0
    }

    /// Returns whether a generation of this process was bumped, or the backend has generations or an invalidation feed.
    #[inline]
    pub(crate) fn may_have_changed(self) -> bool {
        self.0 & (HAS_LOCAL_BUMPS | IS_SHARED) != 0
    }

    /// Returns whether calls are observed, or may be watched.
    #[inline]
    pub(super) fn is_observed(self) -> bool {
        self.0 & (OBSERVED | WATCHED) != 0
    }

    /// Returns whether there is no pause, no observer and no watch, so that a hit need not be reported.
    #[inline(always)]
    pub(crate) fn is_ordinary(self) -> bool {
        self.0 & !(HAS_LOCAL_BUMPS | IS_SHARED) == 0 && !is_everything_paused()
    }

    /// Returns whether calls may be watched.
    pub(crate) fn is_watched(self) -> bool {
        self.0 & WATCHED != 0
    }
}

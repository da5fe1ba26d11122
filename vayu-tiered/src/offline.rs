//! Generations of a backing tier that can be unreachable.
//!
//! The cache keeps the generations that it has fetched, and fetches them again when the change count
//! here has changed. While the backing tier is unreachable, unknown generations are replaced by a random
//! number of this process: memory keeps working, and the number is replaced after reconnecting, so that
//! nothing computed offline is served then.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use vayu_core::__internal::process_id;
use vayu_core::{Group, Result};

/// The change count of generations, and the generation of all groups while offline.
#[derive(Debug)]
pub(crate) struct OfflineState {
    change_count: AtomicU64,
    /// Set when a generation could not be fetched, cleared when one was.
    is_offline: AtomicBool,
    offline_generation: AtomicU64,
}

impl OfflineState {
    pub(crate) fn new() -> Self {
        Self {
            change_count: AtomicU64::new(0),
            is_offline: AtomicBool::new(false),
            offline_generation: AtomicU64::new(random()),
        }
    }

    /// Returns the number of times that generations may have changed.
    #[inline]
    pub(crate) fn change_count(&self) -> u64 {
        self.change_count.load(Ordering::Acquire)
    }

    /// Records that any generation may have changed.
    pub(crate) fn record_change(&self) {
        self.change_count.fetch_add(1, Ordering::AcqRel);
    }

    /// Replaces the offline generation: no entry that was computed offline is found any more.
    pub(crate) fn rotate_offline_generation(&self) {
        self.offline_generation.store(random(), Ordering::Release);
    }

    /// Returns the generation of a group that could not be fetched.
    pub(crate) fn offline_generation(&self, group: Group) -> u64 {
        self.is_offline.store(true, Ordering::Release);
        self.offline_generation.load(Ordering::Acquire) ^ group.number()
    }

    /// Records whether a generation was fetched, and returns `result`.
    pub(crate) fn record_fetch<T>(&self, result: Result<T>) -> Result<T> {
        if result.is_ok() && self.is_offline.swap(false, Ordering::AcqRel) {
            self.rotate_offline_generation();
        }
        result
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(process_id()) | 1
}

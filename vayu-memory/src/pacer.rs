//! When to look for expired entries.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use vayu_core::__internal::Instant;
use vayu_core::Timestamp;

/// The schedule of sweeps. A sweep visits every entry and removes those that have expired.
///
/// There is no thread for it: writers and most misses check the schedule, and sweep when an entry has
/// expired. After a sweep none begins for [`COOLDOWN_FACTOR`] times as long as it took, so that
/// sweeping never takes more than a small part of the time of callers.
#[derive(Debug)]
pub(crate) struct SweepPacer {
    /// The earliest expiry of an entry; `NEVER` also while a sweep runs.
    due: AtomicI64,
    /// The end of the cooldown after the last sweep.
    earliest_next: AtomicI64,
    /// Entries that sweeps have removed.
    expirations: AtomicU64,
}

/// The length of the cooldown, in lengths of the sweep before it.
const COOLDOWN_FACTOR: u32 = 64;

impl SweepPacer {
    pub(crate) fn new() -> Self {
        Self {
            due: AtomicI64::new(Timestamp::NEVER.as_micros()),
            earliest_next: AtomicI64::new(i64::MIN),
            expirations: AtomicU64::new(0),
        }
    }

    /// Records that an entry was written that expires at `end`.
    #[inline]
    pub(crate) fn record_expiry(&self, end: Timestamp) {
        if end.as_micros() < self.due.load(Ordering::Relaxed) {
            self.due.fetch_min(end.as_micros(), Ordering::Relaxed);
        }
    }

    /// Returns whether a sweep is due.
    #[inline]
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let now = now.as_micros();
        now >= self.due.load(Ordering::Relaxed) && now >= self.earliest_next.load(Ordering::Relaxed)
    }

    /// Sweeps, unless another thread does. `sweep` removes expired entries, and returns their number and
    /// when the first of the others expires.
    #[cold]
    pub(crate) fn run(&self, now: Timestamp, sweep: impl FnOnce() -> (u64, Timestamp)) {
        let due = self.due.swap(Timestamp::NEVER.as_micros(), Ordering::Relaxed);
        if due > now.as_micros() {
            self.record_expiry(Timestamp::from_micros(due));
            return;
        }
        let started = Instant::now();
        let (dropped, next) = sweep();
        let earliest_next = now.saturating_add(started.elapsed() * COOLDOWN_FACTOR);
        self.expirations.fetch_add(dropped, Ordering::Relaxed);
        self.earliest_next.store(earliest_next.as_micros(), Ordering::Relaxed);
        self.record_expiry(next);
    }

    pub(crate) fn expirations(&self) -> u64 {
        self.expirations.load(Ordering::Relaxed)
    }
}

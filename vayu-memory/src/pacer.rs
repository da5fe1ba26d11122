//! When to look for expired entries.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

use vayu_core::Timestamp;

/// The schedule of a sweep, which looks at every entry and drops those that have expired.
///
/// There is no thread for it. Whoever writes or misses looks at the schedule and sweeps when
/// something has expired. A sweep that took long is followed by a pause that is longer by
/// [`COOLDOWN_FACTOR`], so that sweeping never takes more than a small part of anybody's time.
#[derive(Debug)]
pub(crate) struct SweepPacer {
    /// The earliest time at which an entry may be dropped; `NEVER` also while a sweep runs.
    due: AtomicI64,
    /// The end of the pause after the last sweep.
    earliest_next: AtomicI64,
    /// Entries that sweeps have dropped.
    expirations: AtomicU64,
}

/// How many times longer than a sweep the pause after it is.
const COOLDOWN_FACTOR: u32 = 64;

impl SweepPacer {
    pub(crate) fn new() -> Self {
        Self {
            due: AtomicI64::new(Timestamp::NEVER.as_micros()),
            earliest_next: AtomicI64::new(i64::MIN),
            expirations: AtomicU64::new(0),
        }
    }

    /// An entry was written that may be dropped at `end`.
    #[inline]
    pub(crate) fn record_expiry(&self, end: Timestamp) {
        if end.as_micros() < self.due.load(Ordering::Relaxed) {
            self.due.fetch_min(end.as_micros(), Ordering::Relaxed);
        }
    }

    /// Whether it is worth to sweep.
    #[inline]
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let now = now.as_micros();
        now >= self.due.load(Ordering::Relaxed) && now >= self.earliest_next.load(Ordering::Relaxed)
    }

    /// Sweeps, unless somebody else does. `sweep` drops what has expired, and answers how many
    /// entries that were and when the first of the others will.
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

//! What a cache has done so far.

mod striped;

use std::sync::atomic::{AtomicU64, Ordering};

use self::striped::{Event, StripedCounters};
use crate::backend::Usage;
use crate::error::ErrorKind;

/// What a cache has done since it was made, and how full it is.
///
/// Each call counts once, as a hit, a miss, a wait, stale or a refresh; a refresh in a task counts as
/// a call of its own. The numbers are read one after another while calls go on, so they may be apart
/// by the calls of that moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that were answered from the backend.
    pub hits: u64,
    /// Calls that ran the function.
    pub misses: u64,
    /// Calls that were answered by the run of another caller.
    pub coalesced: u64,
    /// Calls that were answered with a value past its ttl, at once or because the function failed.
    pub stale: u64,
    /// Calls that ran the function to replace a value past its ttl, or because they were asked to
    /// by [`Entry::refresh`](crate::Entry::refresh), and answered what it gave.
    pub refreshes: u64,
    /// Runs of the function that were to replace a value past its ttl and gave none.
    pub failed_refreshes: u64,
    /// Values that were stored.
    pub inserts: u64,
    /// Faults that were survived, of all kinds.
    pub errors: u64,
    /// Computations under way at this moment.
    pub in_flight: usize,
    /// How full the backend is, and what it has dropped.
    pub usage: Usage,
    /// Why the cache is [off](crate::Cache::off), if it could not be opened: the error and its causes.
    pub off: Option<String>,
    errors_by_kind: [u64; ErrorKind::ALL.len()],
}

impl Stats {
    /// Calls in all.
    pub fn calls(&self) -> u64 {
        self.hits + self.misses + self.coalesced + self.stale + self.refreshes
    }

    /// Faults of one kind that were survived.
    pub fn errors_of(&self, kind: ErrorKind) -> u64 {
        self.errors_by_kind[kind as usize]
    }
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    striped: StripedCounters,
    coalesced: AtomicU64,
    stale: AtomicU64,
    refreshes: AtomicU64,
    failed_refreshes: AtomicU64,
    errors: [AtomicU64; ErrorKind::ALL.len()],
}

impl Counters {
    #[inline]
    pub(crate) fn hit(&self) {
        self.striped.add(Event::Hit);
    }

    pub(crate) fn miss(&self) {
        self.striped.add(Event::Miss);
    }

    pub(crate) fn coalesced(&self) {
        self.coalesced.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stale(&self) {
        self.stale.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refresh(&self) {
        self.refreshes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed_refresh(&self) {
        self.failed_refreshes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn insert(&self) {
        self.striped.add(Event::Insert);
    }

    pub(crate) fn error(&self, kind: ErrorKind) {
        self.errors[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, in_flight: usize, usage: Usage) -> Stats {
        let errors_by_kind = self.errors.each_ref().map(|count| count.load(Ordering::Relaxed));
        Stats {
            hits: self.striped.sum(Event::Hit),
            misses: self.striped.sum(Event::Miss),
            coalesced: self.coalesced.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
            refreshes: self.refreshes.load(Ordering::Relaxed),
            failed_refreshes: self.failed_refreshes.load(Ordering::Relaxed),
            inserts: self.striped.sum(Event::Insert),
            errors: errors_by_kind.iter().sum(),
            in_flight,
            off: None,
            usage,
            errors_by_kind,
        }
    }
}

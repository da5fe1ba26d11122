//! Statistics of a cache.

mod striped;

use std::sync::atomic::{AtomicU64, Ordering};

use self::striped::{Event, StripedCounters};
use crate::backend::Usage;
use crate::error::ErrorKind;
use crate::outcome::CallOutcome;

/// Statistics of a cache since it was created.
///
/// Each call counts once, as a hit, a miss, coalesced, stale, a refresh or an error hit; a refresh in a task counts as
/// a call of its own. The numbers are read one after another while calls go on, so they may differ by
/// the calls of that moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that returned a value from the backend.
    pub hits: u64,
    /// Calls that ran the function.
    pub misses: u64,
    /// Calls that returned the value, or the error, of the run of another caller at the time.
    pub coalesced: u64,
    /// Calls that returned a value past its ttl, at once or because the function failed.
    pub stale: u64,
    /// Calls that ran the function to replace a value past its ttl, or because
    /// [`Entry::refresh`](crate::Entry::refresh) forced them to, and returned the new value.
    pub refreshes: u64,
    /// Calls that returned a cached error (`err_ttl`).
    pub error_hits: u64,
    /// Runs of the function to replace a value past its ttl that returned none.
    pub failed_refreshes: u64,
    /// Values that were stored.
    pub inserts: u64,
    /// Errors of all kinds. The calls went on without the cache.
    pub errors: u64,
    /// Computations in progress.
    pub in_flight: usize,
    /// Groups (tags, functions and prefixes) whose invalidation has not reached the backend. It is tried again until it
    /// has.
    pub pending_invalidations: usize,
    /// The usage of the backend.
    pub usage: Usage,
    /// The error for which the cache is [off](crate::Cache::off), with its causes.
    pub off: Option<String>,
    errors_by_kind: [u64; ErrorKind::ALL.len()],
}

impl Stats {
    /// Returns the number of calls.
    pub fn calls(&self) -> u64 {
        self.hits + self.misses + self.coalesced + self.stale + self.refreshes + self.error_hits
    }

    /// Returns the number of errors of one kind.
    pub fn errors_of(&self, kind: ErrorKind) -> u64 {
        self.errors_by_kind[kind as usize]
    }
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    events: StripedCounters,
    errors: [AtomicU64; ErrorKind::ALL.len()],
}

impl Counters {
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn call(&self, outcome: CallOutcome) {
        self.events.add(Event::Call(outcome));
    }

    pub(crate) fn failed_refresh(&self) {
        self.events.add(Event::FailedRefresh);
    }

    #[inline]
    pub(crate) fn insert(&self) {
        self.events.add(Event::Insert);
    }

    pub(crate) fn error(&self, kind: ErrorKind) {
        self.errors[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self, in_flight: usize, usage: Usage) -> Stats {
        let errors_by_kind = self.errors.each_ref().map(|count| count.load(Ordering::Relaxed));
        let calls = |outcome| self.events.sum(Event::Call(outcome));
        Stats {
            hits: calls(CallOutcome::Hit),
            misses: calls(CallOutcome::Miss),
            coalesced: calls(CallOutcome::Coalesced),
            stale: calls(CallOutcome::Stale),
            refreshes: calls(CallOutcome::Refresh),
            error_hits: calls(CallOutcome::ErrorHit),
            failed_refreshes: self.events.sum(Event::FailedRefresh),
            inserts: self.events.sum(Event::Insert),
            errors: errors_by_kind.iter().sum(),
            in_flight,
            pending_invalidations: 0,
            off: None,
            usage,
            errors_by_kind,
        }
    }
}

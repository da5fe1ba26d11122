//! Invalidations that have not reached the backend, and their delivery.
//!
//! A group is pending if its generation could not be bumped, or if the future of the caller was dropped in between,
//! until it is bumped. While it is:
//!
//! - A call of this process whose entry is in the group uses no generation that was fetched. It delivers the
//!   invalidation first; if that fails, it goes on as if the generation could not be read.
//! - A thread tries to deliver it again and again, with a backoff, for the other processes. It ends with the last
//!   pending group, or with the cache.
//!
//! An invalidation says nothing but that the entries of a group are outdated, so a group is pending once, for the last
//! of its invalidations. If too many groups are pending, all entries are invalidated in their place.
//!
//! One caller delivers a group at a time, and the others wait for it, up to [`LONGEST_WAIT`]. After a failure, an
//! invalidation is pending at once for the time of the backoff.

mod delivery;
#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests;
// A model checker has no thread: its calls deliver.
#[cfg(not(any(vayu_loom, vayu_shuttle)))]
mod thread;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::generation::Group;
use crate::panic::catch_panic;
use crate::sync::IgnorePoison;

/// The groups whose invalidation has not reached the backend.
#[derive(Debug, Default)]
pub(super) struct PendingInvalidations {
    /// `true` if there are any.
    exist: AtomicBool,
    /// The number of invalidations that were begun, pending or not.
    begun: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: HashMap<Group, Pending>,
    /// The number of the last invalidation of any group.
    last: u64,
    /// The number of failed deliveries since the last one that succeeded.
    failures: u32,
    /// The last failed delivery, unless one has succeeded since.
    failure: Option<Failure>,
    /// The process whose thread delivers.
    deliverer: Option<u32>,
}

/// A pending group.
#[derive(Debug, Default, Clone, Copy)]
struct Pending {
    /// The number of its last invalidation.
    number: u64,
    is_in_delivery: bool,
}

/// A failed delivery.
#[derive(Debug)]
struct Failure {
    at: Timestamp,
    kind: ErrorKind,
    /// The error with its causes.
    message: String,
    is_logged: bool,
}

/// The maximum number of pending groups. Past that, all entries are invalidated.
const MAX_PENDING: usize = if cfg!(miri) { 16 } else { 4096 };

/// The first and the longest pause between two deliveries.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The longest time that a call waits for another caller that delivers. Its thread may be that of this caller.
const LONGEST_WAIT: Duration = Duration::from_millis(250);

impl PendingInvalidations {
    /// Returns whether there are any.
    #[inline]
    pub(super) fn exist(&self) -> bool {
        self.exist.load(Ordering::Acquire)
    }

    /// Returns whether a group is pending.
    #[inline]
    pub(super) fn contains(&self, group: Group) -> bool {
        self.number_of(group).is_some()
    }

    /// Returns the number of pending groups.
    pub(super) fn len(&self) -> usize {
        if self.exist() { self.state().groups.len() } else { 0 }
    }

    /// Counts an invalidation that begins, after the write for which it is.
    pub(super) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::AcqRel);
    }

    /// Returns the number of invalidations that were begun.
    pub(super) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Adds a group, under a new number. Returns whether all entries are pending in the place of too many groups from now
    /// on.
    fn add(&self, group: Group) -> bool {
        let mut state = self.state();
        // All entries are pending: no group need be.
        let is_all = state.groups.contains_key(&Group::ALL);
        let is_full = state.groups.len() >= MAX_PENDING && !state.groups.contains_key(&group);
        let group = if is_all || is_full {
            state.groups.clear();
            Group::ALL
        } else {
            group
        };
        state.last += 1;
        let number = state.last;
        state.groups.entry(group).or_default().number = number;
        self.exist.store(true, Ordering::Release);
        is_full && !is_all
    }

    /// Removes a group, unless it was invalidated again.
    fn remove(&self, group: Group, number: u64) {
        let mut state = self.state();
        if state.groups.get(&group).is_some_and(|pending| pending.number == number) {
            state.groups.remove(&group);
            self.exist.store(!state.groups.is_empty(), Ordering::Release);
        }
    }

    /// Returns the number of the last invalidation of a pending group.
    pub(super) fn number_of(&self, group: Group) -> Option<u64> {
        if !self.exist() {
            return None;
        }
        self.state().groups.get(&group).map(|pending| pending.number)
    }

    /// Claims the delivery of a group for one caller.
    fn claim(&self, group: Group) -> Claim {
        let mut state = self.state();
        match state.groups.get_mut(&group) {
            None => Claim::NotPending,
            Some(pending) if pending.is_in_delivery => Claim::InDelivery(pending.number),
            Some(pending) => {
                pending.is_in_delivery = true;
                Claim::Claimed(pending.number)
            }
        }
    }

    /// Ends the delivery of a group.
    fn release(&self, group: Group) {
        if let Some(pending) = self.state().groups.get_mut(&group) {
            pending.is_in_delivery = false;
        }
    }

    fn all(&self) -> Vec<Group> {
        self.state().groups.keys().copied().collect()
    }

    /// Records the result of a delivery. An error that is not [temporary](may_succeed_later) is not recorded: no delivery
    /// waits for its end.
    fn record<T>(&self, result: &Result<T>, now: Timestamp) {
        // Before the lock is taken: the error of a backend may panic when it is formatted.
        let failure = match result {
            Ok(_) => None,
            Err(error) if may_succeed_later(error) => {
                let formatted = catch_panic("format error", || Ok(format!("{error:?}")));
                Some(Failure {
                    at: now,
                    kind: error.kind(),
                    message: formatted.unwrap_or_else(|_| "it cannot be formatted".to_owned()),
                    is_logged: error.is_logged_by_backend(),
                })
            }
            Err(_) => return,
        };
        let mut state = self.state();
        state.failures = if failure.is_some() { state.failures.saturating_add(1) } else { 0 };
        state.failure = failure;
    }

    /// Returns the error of the last delivery if it has failed so recently that the next one would fail, too.
    fn check_backoff(&self, now: Timestamp) -> Result<()> {
        let state = self.state();
        match &state.failure {
            Some(failure) if now.is_within(failure.at, state.pause()) => {
                let error = Error::new(failure.kind, failure.message.clone());
                Err(if failure.is_logged { error.logged_by_backend() } else { error })
            }
            _ => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().ignore_poison()
    }
}

impl State {
    /// Returns the pause before the next delivery.
    fn pause(&self) -> Duration {
        FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
    }
}

/// The result of claiming the delivery of a group.
enum Claim {
    NotPending,
    /// Another caller delivers it.
    InDelivery(u64),
    /// It is for the caller to deliver, for this invalidation.
    Claimed(u64),
}

/// Returns whether a delivery that has failed with this error may succeed later. After a panic it is unknown whether
/// the generation was bumped.
fn may_succeed_later(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Backend | ErrorKind::Timeout | ErrorKind::Panic)
}

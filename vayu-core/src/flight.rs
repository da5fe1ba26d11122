//! Single flight (request coalescing): of the concurrent callers of one key, one computes the value
//! and the others wait for it.
//!
//! A flight is one computation. The first caller that misses is its *leader*: it inserts the
//! flight into the table of the cache ([`Flights`]), computes, stores the value and completes the
//! flight, which removes it from the table. The table is empty when nothing runs. Until then the flight
//! is an entry of the table and no more. A later caller that *joins* it makes it a [`Flight`], which
//! both share, draws a [`Ticket`] and waits for the outcome. If the leader panics or is dropped, the
//! caller with the lowest ticket becomes the leader.
//!
//! An invalidation, or a leader that replaces this one, *detaches* the flight: it leaves the table,
//! its leader computes on, and the value is returned to the callers that joined. A detached leader
//! stores its value only if the key was not invalidated and no newer value is stored. An invalidation
//! that comes while the leader stores marks the flight as outdated instead, and the leader deletes
//! what it stored.
//!
//! A flight that takes long is *hedged*: one waiting caller computes in parallel, and the first value completes the
//! flight. An error completes it only if no other run of the flight is in progress: if the leader fails while a hedge
//! runs, the flight stays in the table and the hedge ends it. A caller that must not wait for a flight, because the
//! flight waits for it, runs its function uncoordinated and stores nothing ([`wait_graph`] detects that).

mod context;
mod deadline;
mod hedge;
mod lead;
mod leader_future;
mod leased;
#[cfg(all(test, vayu_loom))]
mod loom_tests;
mod map;
mod phase;
mod table;
mod ticket;
mod unlocked;
mod wait_graph;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

pub use self::context::FlightContext;
pub(crate) use self::context::{enter, innermost_flight, mark};
pub(crate) use self::deadline::Deadline;
pub(crate) use self::hedge::HedgeGuard;
use self::hedge::{HedgeTimes, Hedges};
pub(crate) use self::lead::{Completion, Computed, Lead, StorePermission};
pub(crate) use self::leader_future::{HostedLeader, LeaderFuture, enter_polled};
use self::phase::{AtomicPhase, Phase};
pub(crate) use self::table::join::Join;
pub(crate) use self::table::{Completions, Flights};
pub(crate) use self::ticket::{Ticket, Turn};
pub(crate) use self::wait_graph::{BatchRun, Waiting};
use crate::clock::Timestamp;
use crate::panic::QuietDrop;
use crate::shared_error::SharedError;
use crate::sync::{Event, Mutex, OnceLock, lock, notify_all};

/// The end of a flight.
#[derive(Debug, Clone)]
pub(crate) enum Outcome<R> {
    /// A value for all callers. It `is_stored` if a later call may find it.
    Computed { value: QuietDrop<R>, is_stored: bool },
    /// An error for all callers that joined before the function failed.
    Failed { error: SharedError, compute_time: Duration },
    /// An output for the leader only: an error that is not `Clone`, or a value that is not cached.
    NotShareable,
    /// No value: the leader panicked or was dropped.
    Abandoned,
}

impl<R> Outcome<R> {
    /// Returns the error, if the function has failed.
    pub(crate) fn error(&self) -> Option<&SharedError> {
        match self {
            Self::Failed { error, .. } => Some(error),
            Self::Computed { .. } | Self::NotShareable | Self::Abandoned => None,
        }
    }
}

/// A running computation that other callers than its leader have a reference to.
#[derive(Debug)]
pub(crate) struct Flight<R> {
    id: FlightId,
    phase: AtomicPhase,
    outcome: OnceLock<Arc<Outcome<R>>>,
    /// The tickets of the waiting callers, in ascending order.
    tickets: Mutex<VecDeque<u64>>,
    pub(crate) hedges: Hedges,
    /// The time at which the computation began, in microseconds, as far as callers with `patience` need it.
    began: AtomicI64,
    /// Notified when the flight is completed, and when its lead becomes vacant.
    completed: Event,
}

/// The id of a flight, unique among all caches of the process.
///
/// Ids are never reused: a [`FlightContext`] may outlive the flights that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlightId(u64);

/// Ids for flights of one shard, taken from the counter of the process in blocks.
#[derive(Debug, Default)]
struct FlightIds {
    /// The next id. A multiple of [`BLOCK`](Self::BLOCK) means that the block is used up.
    next: u64,
}

impl FlightIds {
    const BLOCK: u64 = 1 << 16;

    fn assign(&mut self) -> FlightId {
        static BLOCKS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        if self.next.is_multiple_of(Self::BLOCK) {
            self.next = BLOCKS.fetch_add(Self::BLOCK, Ordering::Relaxed);
        }
        self.next += 1;
        FlightId(self.next - 1)
    }
}

impl<R> Outcome<R> {
    /// Creates the outcome of a computation, whose value is not stored yet.
    pub(crate) fn computed(value: impl Into<QuietDrop<R>>) -> Self {
        Self::Computed { value: value.into(), is_stored: false }
    }

    /// Sets whether a later call may find the value.
    pub(crate) fn set_stored(&mut self, stored: bool) {
        if let Self::Computed { is_stored, .. } = self {
            *is_stored = stored;
        }
    }
}

impl<R> Flight<R> {
    /// The begin of a computation of which that is unknown.
    const UNKNOWN: i64 = i64::MIN;

    fn new(id: FlightId, phase: Phase) -> Arc<Self> {
        let phase = AtomicPhase::new(phase);
        let (outcome, completed) = (OnceLock::new(), Event::new());
        let (tickets, hedges) = (Mutex::new(VecDeque::new()), Hedges::default());
        let began = AtomicI64::new(Self::UNKNOWN);
        Arc::new(Self { id, phase, outcome, tickets, hedges, began, completed })
    }

    /// Returns the id of the flight.
    pub(crate) fn id(&self) -> FlightId {
        self.id
    }

    /// Returns whether the computation began `limit` ago or earlier. The first call for a flight sets its begin to `now`.
    pub(crate) fn is_overdue(&self, now: Timestamp, limit: Duration) -> bool {
        let order = Ordering::Relaxed;
        match self.began.compare_exchange(Self::UNKNOWN, now.as_micros(), order, order) {
            Ok(_) => false,
            Err(began) => now.is_far_from(Timestamp::from_micros(began), limit),
        }
    }

    /// Sets the outcome and wakes all waiting callers.
    fn complete(&self, outcome: Arc<Outcome<R>>) {
        // The leader and one that replaced it may both set it: the first outcome counts.
        let _ = self.outcome.set(outcome);
        notify_all(&self.completed);
    }

    /// Returns whether an invalidation or another leader has detached the flight from its leader. Once the
    /// flight is completed, this does not change.
    pub(crate) fn is_detached(&self) -> bool {
        self.phase.get() == Phase::Detached
    }

    /// Returns the outcome, once the flight is completed.
    pub(crate) fn outcome(&self) -> Option<&Outcome<R>> {
        self.outcome.get().map(|outcome| &**outcome)
    }

    /// Leaves the lead to one of the waiting callers, unless the value was being stored. Returns whether
    /// there is one. Only under the lock of the table that the flight is in.
    fn vacate(&self) -> bool {
        let tickets = lock(&self.tickets);
        let is_vacated = !tickets.is_empty() && self.phase.get() == Phase::Computing;
        if is_vacated {
            self.phase.set(Phase::Vacant);
        }
        is_vacated
    }

    /// Leaves the flight to the hedges that are running, whose leader has failed. Returns whether there are
    /// any. Only under the lock of the table that the flight is in.
    fn leave_to_hedges(&self) -> bool {
        let is_left = self.hedges.running() > 0
            && matches!(self.phase.get(), Phase::Computing | Phase::Storing);
        if is_left {
            self.phase.set(Phase::Hedged);
        }
        is_left
    }

    /// Waits until the flight is completed, or its leader is gone without a value. Returns `false` if
    /// `deadline` is over first.
    pub(crate) async fn completed(&self, deadline: &mut Deadline) -> bool {
        loop {
            let listener = self.completed.listen();
            if self.outcome().is_some()
                || matches!(self.phase.get(), Phase::Vacant | Phase::Deserted)
            {
                return true;
            }
            if !deadline.limit(listener).await {
                return self.outcome().is_some();
            }
        }
    }
}

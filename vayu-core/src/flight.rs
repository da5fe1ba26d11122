//! Single flight: of the callers of one key, one computes and the others wait for it.
//!
//! A [`Flight`] is one computation. It is in the table of its cache ([`Flights`]) from the moment
//! its leader sets out until it has landed, so the table is empty when nothing runs. Only a leader
//! whose flight is in the table stores what it computed. Whoever may not wait for a flight (it is
//! its own, directly or around a cycle, or it may never land) computes beside it and stores
//! nothing.

mod context;
mod deadline;
mod hedge;
mod lead;
#[cfg(all(test, vayu_loom))]
mod loom_tests;
mod phase;
mod table;
mod ticket;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub use self::context::FlightContext;
pub(crate) use self::context::{Hosted, Waiting, inside};
pub(crate) use self::deadline::Deadline;
use self::hedge::{HedgeTimes, Hedges};
pub(crate) use self::lead::{Landing, Lead, Permission};
use self::phase::{AtomicPhase, Phase};
pub(crate) use self::table::{Flights, Join, Landings};
pub(crate) use self::ticket::{Ticket, Turn};
use crate::panic::QuietDrop;
use crate::sync::{Event, Mutex, OnceLock, lock, notify_all};

/// How a flight ended.
#[derive(Debug, Clone)]
pub(crate) enum Outcome<R> {
    /// With a value that others can use.
    Computed(QuietDrop<R>),
    /// With a value that is the leader's alone.
    Unshared,
    /// With a panic, or because the leader was dropped.
    Abandoned,
}

/// One computation under way.
#[derive(Debug)]
pub(crate) struct Flight<R> {
    id: FlightId,
    /// The process that it set out in, as its table knew: after a fork, the child has a copy that
    /// never lands.
    process: u32,
    phase: AtomicPhase,
    outcome: OnceLock<Arc<Outcome<R>>>,
    /// The tickets of those who wait, in the order in which they came.
    tickets: Mutex<VecDeque<u64>>,
    pub(crate) hedges: Hedges,
    /// It has landed, or its lead is vacant.
    landed: Event,
}

/// Identifies a flight among those of all caches of the process. It is never reused: a
/// [`FlightContext`] may outlive the flights that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlightId(u64);

/// The ids that one shard assigns, a block of them at a time.
#[derive(Debug, Default)]
struct FlightIds {
    /// At a multiple of [`BLOCK`](Self::BLOCK) there is no id left.
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

impl<R> Flight<R> {
    fn new(id: FlightId, process: u32, phase: Phase) -> Arc<Self> {
        let phase = AtomicPhase::new(phase);
        let (outcome, landed) = (OnceLock::new(), Event::new());
        let (tickets, hedges) = (Mutex::new(VecDeque::new()), Hedges::default());
        Arc::new(Self { id, process, phase, outcome, tickets, hedges, landed })
    }

    pub(crate) fn id(&self) -> FlightId {
        self.id
    }

    fn land(&self, outcome: Arc<Outcome<R>>) {
        // The first of its leader and of one that replaced it counts.
        let _ = self.outcome.set(outcome);
        notify_all(&self.landed);
    }

    fn outcome(&self) -> Option<&Outcome<R>> {
        self.outcome.get().map(|outcome| &**outcome)
    }

    /// Leaves the lead to one of those who wait. Whether that could be done.
    fn vacate(&self) -> bool {
        let tickets = lock(&self.tickets);
        !tickets.is_empty() && self.phase.vacate()
    }

    /// The outcome of the flight, or `None` if `deadline` came first.
    pub(crate) async fn landed(&self, deadline: &mut Deadline) -> Option<&Outcome<R>> {
        loop {
            let listener = self.landed.listen();
            if let Some(outcome) = self.outcome() {
                return Some(outcome);
            }
            if !deadline.limit(listener).await {
                return self.outcome();
            }
        }
    }
}

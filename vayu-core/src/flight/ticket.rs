//! The queue of the callers that wait for a flight, in FIFO order.
//!
//! If a leader is dropped or panics, the waiter that has waited longest takes the lead. If any of them
//! could take it, callers with short time limits would take it from one another, and a caller
//! with enough time would never lead.
//!
//! That waiter may be a future that is not polled any more. So all waiters are woken, and the others
//! yield a bounded number of times. After that any of them takes the lead.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::flight::deadline::Waited;
use crate::flight::hedge::{HedgeGuard, Hedges};
use crate::flight::{Deadline, Flight, Flights, Lead, Outcome, Phase};
use crate::key::Key;
use crate::sync::lock;

/// The number of times that a waiter yields to those before it.
const MAX_YIELDS: usize = if cfg!(any(vayu_loom, vayu_shuttle)) { 2 } else { 64 };

/// A place in the queue of a flight, given up on drop.
#[derive(Debug)]
pub(crate) struct Ticket<'a, R> {
    flights: &'a Flights<R>,
    key: &'a Key,
    stamp: u64,
    flight: Arc<Flight<R>>,
    number: u64,
}

/// The end of a wait.
pub(crate) enum Turn<'a, 't, R> {
    /// The flight is completed.
    Completed(&'t Outcome<R>),
    /// This waiter has taken the vacant lead of the flight.
    Lead(Lead<'a, R>),
    /// The flight has ended without a leader: join again.
    Again,
    /// The flight takes long: this waiter is its hedge, and computes in parallel.
    Hedge(HedgeGuard<'a, R>),
    /// The deadline is over.
    TimedOut,
}

impl<'a, R> Ticket<'a, R> {
    /// Adds a waiter to the queue. Only under the lock of the table that the flight is in.
    pub(super) fn enqueue(
        flights: &'a Flights<R>,
        key: &'a Key,
        stamp: u64,
        flight: &Arc<Flight<R>>,
    ) -> Self {
        let mut tickets = lock(&flight.tickets);
        let number = tickets.back().map_or(0, |last| last + 1);
        tickets.push_back(number);
        drop(tickets);
        Self { flights, key, stamp, flight: Arc::clone(flight), number }
    }

    /// Returns the flight.
    pub(crate) fn flight(&self) -> &Arc<Flight<R>> {
        &self.flight
    }

    /// Waits until the flight is completed, until this waiter takes the lead, or until `deadline`. A
    /// leader that takes longer than `hedge_after` is hedged, and again after twice that time.
    pub(crate) async fn turn(
        &self,
        deadline: &mut Deadline,
        hedge_after: Duration,
    ) -> Turn<'a, '_, R> {
        let mut yields = 0;
        // The hedges before the running part of the time. `None` if an earlier wait began the part.
        let mut hedges = None;
        loop {
            let listener = self.flight.completed.listen();
            if let Some(outcome) = self.flight.outcome() {
                return Turn::Completed(outcome);
            }
            match self.flight.phase.get() {
                Phase::Deserted => return Turn::Again,
                Phase::Vacant if yields == MAX_YIELDS || self.is_first() => {
                    let lead = self.flights.take_lead(self.key, self.stamp, &self.flight);
                    if let Some(lead) = lead {
                        return Turn::Lead(lead);
                    }
                }
                Phase::Vacant => {
                    yields += 1;
                    drop(listener);
                    yield_now().await;
                }
                Phase::Computing
                | Phase::Storing
                | Phase::Outdated
                | Phase::Detached
                | Phase::Hedged => {
                    yields = 0;
                    let known = self.flight.hedges.get();
                    if !deadline.is_running() {
                        hedges = Some(known);
                    }
                    let part = Hedges::next_after(known, hedge_after);
                    let waited = deadline.limit_part(listener, part).await;
                    if waited == Waited::Ready {
                        continue;
                    }
                    if let Some(outcome) = self.flight.outcome() {
                        return Turn::Completed(outcome);
                    }
                    if waited == Waited::TimedOut {
                        return Turn::TimedOut;
                    }
                    if self.flight.phase.get() == Phase::Detached {
                        return Turn::Again;
                    }
                    if hedges.take().is_some_and(|hedges| self.flight.hedges.begin(hedges))
                        && let Some(hedge) = self.flights.begin_hedge(self.key, &self.flight)
                    {
                        return Turn::Hedge(hedge);
                    }
                }
            }
        }
    }

    /// Returns the end of a wait for this flight if nothing is to be waited for.
    pub(crate) fn try_turn(&self) -> Option<Turn<'a, '_, R>> {
        if let Some(outcome) = self.flight.outcome() {
            return Some(Turn::Completed(outcome));
        }
        match self.flight.phase.get() {
            Phase::Deserted => Some(Turn::Again),
            Phase::Vacant if self.is_first() => {
                self.flights.take_lead(self.key, self.stamp, &self.flight).map(Turn::Lead)
            }
            _ => None,
        }
    }

    /// Returns whether this waiter has waited longest.
    fn is_first(&self) -> bool {
        lock(&self.flight.tickets).front() == Some(&self.number)
    }
}

impl<R> Drop for Ticket<'_, R> {
    fn drop(&mut self) {
        let is_deserted = {
            let mut tickets = lock(&self.flight.tickets);
            if let Ok(index) = tickets.binary_search(&self.number) {
                tickets.remove(index);
            }
            tickets.is_empty() && self.flight.phase.get() == Phase::Vacant
        };
        if is_deserted {
            self.flights.clear_deserted(self.key, &self.flight);
        }
    }
}

/// Yields to the tasks that are ready to run.
async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

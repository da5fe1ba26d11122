//! A place in the queue of those who wait for a flight.
//!
//! Where a leader is dropped or panics, the lead goes to the waiter that has waited longest. If any
//! of them could take it, callers with short time limits would take it from one another, and a
//! caller whose time suffices would never lead.
//!
//! That waiter may be a future that is not polled any more. So all are woken, and the others let it
//! go first a bounded number of times: then any of them takes the lead.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use crate::flight::deadline::Waited;
use crate::flight::hedge::Hedges;
use crate::flight::{Deadline, Flight, Flights, Lead, Outcome, Phase};
use crate::key::Key;
use crate::sync::lock;

/// How often a waiter lets those go first that came before it.
const PASSES: usize = if cfg!(any(vayu_loom, vayu_shuttle)) { 2 } else { 64 };

/// The place of one who waits for a flight. It is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Ticket<'a, R> {
    flights: &'a Flights<R>,
    key: &'a Key,
    stamp: u64,
    flight: Arc<Flight<R>>,
    number: u64,
}

/// How a wait ends.
pub(crate) enum Turn<'a, 't, R> {
    /// The flight has landed.
    Landed(&'t Outcome<R>),
    /// The lead of the flight was vacant, and is this waiter's.
    Lead(Lead<'a, R>),
    /// The flight has ended without a leader: join again.
    Again,
    /// The flight takes so long that this waiter is to compute, too.
    Hedge,
    /// The deadline came first.
    Late,
}

impl<'a, R> Ticket<'a, R> {
    /// The last place. Only with the lock of the table, in which the flight is.
    pub(super) fn draw(
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

    pub(crate) fn flight(&self) -> &Arc<Flight<R>> {
        &self.flight
    }

    /// Waits until the flight has landed, until this waiter is to lead, or until `deadline`. A
    /// leader that takes longer than `hedge_after` is hedged, and again after twice that time.
    pub(crate) async fn turn(
        &self,
        deadline: &mut Deadline,
        hedge_after: Duration,
    ) -> Turn<'a, '_, R> {
        let mut passes = 0;
        // Those before the running part of the time. `None` if it began in an earlier wait.
        let mut hedges = None;
        loop {
            let listener = self.flight.landed.listen();
            if let Some(outcome) = self.flight.outcome() {
                return Turn::Landed(outcome);
            }
            match self.flight.phase.get() {
                Phase::Deserted => return Turn::Again,
                Phase::Vacant if passes == PASSES || self.is_first() => {
                    let lead = self.flights.take_lead(self.key, self.stamp, &self.flight);
                    if let Some(lead) = lead {
                        return Turn::Lead(lead);
                    }
                }
                Phase::Vacant => {
                    passes += 1;
                    drop(listener);
                    let_others_run().await;
                }
                Phase::Computing | Phase::Storing | Phase::Outdated | Phase::Dismissed => {
                    passes = 0;
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
                        return Turn::Landed(outcome);
                    }
                    if waited == Waited::Late {
                        return Turn::Late;
                    }
                    if self.flight.phase.get() == Phase::Dismissed {
                        return Turn::Again;
                    }
                    if hedges.take().is_some_and(|hedges| self.flight.hedges.begin(hedges)) {
                        return Turn::Hedge;
                    }
                }
            }
        }
    }

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

/// Is woken at once, behind those that are to run by now.
async fn let_others_run() {
    let mut is_over = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

//! The right, and the duty, to compute for all who wait.

use std::mem;
use std::sync::Arc;

use crate::flight::table::Flights;
use crate::flight::{Flight, FlightId, Outcome};
use crate::key::Key;

/// The lead of a flight. Dropped without a value, the flight is abandoned, and one of those who
/// wait takes the lead of the next.
#[derive(Debug)]
pub(crate) struct Lead<'a, R> {
    flights: &'a Flights<R>,
    key: &'a Key,
    flight: Arc<Flight<R>>,
    stamp: u64,
    invalidations: u64,
    /// A flight whose waiting callers get the value of this one, too.
    pub(super) replaces: Option<Arc<Flight<R>>>,
    is_over: bool,
}

/// A lead whose computation has ended. Its outcome is what those who wait get, even if the leader is
/// dropped before it has landed.
#[derive(Debug)]
pub(crate) struct Computed<'a, R> {
    lead: Lead<'a, R>,
    outcome: Outcome<R>,
}

/// Whether a leader may store its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// It may.
    Granted,
    /// It may, unless what is stored was made after this flight set out.
    UnlessNewer,
    /// The key was invalidated, or another value is being stored.
    Refused,
}

/// What is left to do at the end of a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Landing {
    /// Nothing.
    Done,
    /// The key was invalidated while its value was being stored: delete it and land again.
    MustDelete,
}

impl<'a, R> Lead<'a, R> {
    pub(super) fn new(
        flights: &'a Flights<R>,
        key: &'a Key,
        flight: Arc<Flight<R>>,
        stamp: u64,
        invalidations: u64,
    ) -> Self {
        Self { flights, key, flight, stamp, invalidations, replaces: None, is_over: false }
    }

    pub(crate) fn id(&self) -> FlightId {
        self.flight.id()
    }

    /// Prevents hedges of this flight, or allows them again. A leader that waits for another process is
    /// not hedged: a hedge has no lease.
    pub(crate) fn allow_hedges(&self, is_allowed: bool) {
        self.flight.hedges.allow(is_allowed);
    }

    /// Says how the computation ended.
    pub(crate) fn computed(self, outcome: Outcome<R>) -> Computed<'a, R> {
        Computed { lead: self, outcome }
    }
}

impl<R> Drop for Lead<'_, R> {
    fn drop(&mut self) {
        if !self.is_over {
            // It cannot come back: nothing was being stored, or nothing is left to delete.
            let _ = self.flights.land(self.key, &self.flight, None, Outcome::Abandoned);
        }
    }
}

impl<R> Computed<'_, R> {
    /// Asks whether the value may be stored. Where it may, an invalidation of the key waits for
    /// this flight from here on.
    pub(crate) fn begin_store(&self) -> Permission {
        let Lead { flights, key, flight, stamp, invalidations, .. } = &self.lead;
        flights.begin_store(key, flight, *stamp, *invalidations)
    }

    /// Ends the flight, and wakes those who wait.
    pub(crate) fn land(&mut self) -> Landing {
        let outcome = mem::replace(&mut self.outcome, Outcome::Abandoned);
        let Lead { flights, key, flight, replaces, .. } = &self.lead;
        match flights.land(key, flight, replaces.as_deref(), outcome) {
            Ok(()) => {
                self.lead.is_over = true;
                Landing::Done
            }
            Err(outcome) => {
                self.outcome = outcome;
                Landing::MustDelete
            }
        }
    }
}

impl<R> Drop for Computed<'_, R> {
    fn drop(&mut self) {
        // Where it must be deleted, nobody is left to do so: the caller that invalidated the key
        // does it, once the lead is dropped as abandoned.
        if !self.lead.is_over {
            self.land();
        }
    }
}

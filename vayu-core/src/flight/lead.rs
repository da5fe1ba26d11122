//! The leader's handle of a flight.

use std::mem;
use std::sync::Arc;

use crate::flight::table::Flights;
use crate::flight::{Flight, FlightId, Outcome};
use crate::key::Key;

/// The lead of a flight: its holder computes the value for all callers that joined.
///
/// Dropped without a value, it abandons the flight, and one of the waiting callers takes the lead.
#[derive(Debug)]
pub(crate) struct Lead<'a, R> {
    flights: &'a Flights<R>,
    key: &'a Key,
    flight: Arc<Flight<R>>,
    stamp: u64,
    invalidations: u64,
    /// The flight that this one has replaced. Its waiting callers get the value of this one, too.
    pub(super) replaces: Option<Arc<Flight<R>>>,
    is_over: bool,
}

/// A lead whose computation has ended.
///
/// The waiting callers get its outcome, even if it is dropped before the flight is completed.
#[derive(Debug)]
pub(crate) struct Computed<'a, R> {
    lead: Lead<'a, R>,
    outcome: Outcome<R>,
}

/// The permission of a leader to store its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StorePermission {
    /// The value may be stored.
    Granted,
    /// It may be stored, unless the stored one was computed after this flight started.
    UnlessNewer,
    /// It must not be stored: the key was invalidated, or another value is being stored.
    Refused,
}

/// The result of completing a flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Completion {
    /// The flight is completed.
    Done,
    /// The key was invalidated while its value was being stored: delete it and complete again.
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

    /// Returns the id of the flight.
    pub(crate) fn id(&self) -> FlightId {
        self.flight.id()
    }

    /// Prevents hedges of this flight, or allows them again. A leader that waits for another process is
    /// not hedged: a hedge has no lease.
    pub(crate) fn allow_hedges(&self, is_allowed: bool) {
        self.flight.hedges.allow(is_allowed);
    }

    /// Ends the computation with an outcome.
    pub(crate) fn computed(self, outcome: Outcome<R>) -> Computed<'a, R> {
        Computed { lead: self, outcome }
    }
}

impl<R> Drop for Lead<'_, R> {
    fn drop(&mut self) {
        if !self.is_over {
            // The outcome cannot be returned: only one that is not abandoned is.
            let _ = self.flights.complete(self.key, &self.flight, None, Outcome::Abandoned);
        }
    }
}

impl<R> Computed<'_, R> {
    /// Requests the permission to store the value. Once it is granted, an invalidation of the key
    /// waits for this flight.
    pub(crate) fn begin_store(&self) -> StorePermission {
        let Lead { flights, key, flight, stamp, invalidations, .. } = &self.lead;
        flights.begin_store(key, flight, *stamp, *invalidations)
    }

    /// Completes the flight and wakes the waiting callers.
    pub(crate) fn complete(&mut self) -> Completion {
        let outcome = mem::replace(&mut self.outcome, Outcome::Abandoned);
        let Lead { flights, key, flight, replaces, .. } = &self.lead;
        match flights.complete(key, flight, replaces.as_deref(), outcome) {
            Ok(()) => {
                self.lead.is_over = true;
                Completion::Done
            }
            Err(outcome) => {
                self.outcome = outcome;
                Completion::MustDelete
            }
        }
    }
}

impl<R> Drop for Computed<'_, R> {
    fn drop(&mut self) {
        // If the value must be deleted, the caller that invalidated the key does so, once the lead
        // is dropped as abandoned.
        if !self.lead.is_over {
            self.complete();
        }
    }
}

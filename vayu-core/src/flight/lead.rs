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
    outcome: Outcome<R>,
    is_over: bool,
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
        let outcome = Outcome::Abandoned;
        Self { flights, key, flight, stamp, invalidations, outcome, is_over: false }
    }

    pub(crate) fn id(&self) -> FlightId {
        self.flight.id()
    }

    /// Says how the computation ended. From here on that is what those who wait get, even if the
    /// leader is dropped before it has landed.
    pub(crate) fn computed(&mut self, outcome: Outcome<R>) {
        self.outcome = outcome;
    }

    /// Asks whether the value may be stored. Where it may, an invalidation of the key waits for
    /// this flight from here on.
    pub(crate) fn begin_store(&self) -> Permission {
        self.flights.begin_store(self.key, &self.flight, self.stamp, self.invalidations)
    }

    /// Ends the flight, and wakes those who wait.
    pub(crate) fn land(&mut self) -> Landing {
        let outcome = mem::replace(&mut self.outcome, Outcome::Abandoned);
        match self.flights.land(self.key, &self.flight, outcome) {
            Ok(()) => {
                self.is_over = true;
                Landing::Done
            }
            Err(outcome) => {
                self.outcome = outcome;
                Landing::MustDelete
            }
        }
    }
}

impl<R> Drop for Lead<'_, R> {
    fn drop(&mut self) {
        // Nobody is left to delete: whoever invalidated the key does it, once this has landed.
        if !self.is_over && self.land() == Landing::MustDelete {
            self.outcome = Outcome::Abandoned;
            self.land();
        }
    }
}

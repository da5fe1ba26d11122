//! The leader's handle of a flight.

use std::mem;
use std::sync::Arc;

use crate::flight::table::{End, Ended, Flights};
use crate::flight::{Flight, FlightId, Outcome};
use crate::key::Key;
use crate::sync::notify_all;

/// The lead of a flight: its holder computes the value for all callers that joined.
///
/// Dropped without a value, it abandons the flight, and one of the waiting callers takes the lead.
#[derive(Debug)]
pub(crate) struct Lead<'a, R> {
    flights: &'a Flights<R>,
    pub(super) key: &'a Key,
    pub(super) id: FlightId,
    pub(super) stamp: u64,
    pub(super) invalidations: u64,
    /// The flight that this one has replaced. Its waiting callers get the value of this one, too.
    pub(super) replaces: Option<Arc<Flight<R>>>,
    /// `true` if the flight is a refresh, also for a leader that did not begin it.
    pub(super) is_refresh: bool,
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
        id: FlightId,
        stamp: u64,
        invalidations: u64,
    ) -> Self {
        Self {
            flights,
            key,
            id,
            stamp,
            invalidations,
            replaces: None,
            is_refresh: false,
            is_over: false,
        }
    }

    /// Returns the id of the flight.
    pub(crate) fn id(&self) -> FlightId {
        self.id
    }

    /// Returns whether the lead is over, and has nothing to drop.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.is_over && self.replaces.is_none()
    }

    /// Returns whether the flight is a refresh: callers have joined it that need a value that is computed from now on.
    pub(crate) fn is_refresh(&self) -> bool {
        self.is_refresh
    }

    /// Prevents hedges of this flight, or allows them again. A leader that waits for another process is
    /// not hedged: a hedge has no lease.
    pub(crate) fn allow_hedges(&self, is_allowed: bool) {
        self.flights.allow_hedges(self.key, self.id, is_allowed);
    }

    /// Announces that the leader is about to acquire the lease of the key, so that an update of the key
    /// waits for this flight and not for the lease. Returns `false` if an update or a write has replaced
    /// the flight: the leader must not acquire the lease before that is over.
    pub(crate) fn begin_lease(&self) -> bool {
        self.flights.begin_lease(self.key, self.id)
    }

    /// Ends [`begin_lease`](Self::begin_lease) without a lease.
    pub(crate) fn end_lease(&self) {
        self.flights.end_lease(self.key, self.id);
    }

    /// Returns whether invalidations of the key wait for this flight, which stores its value. They do not in a child process
    /// that has made a table of its own since.
    pub(crate) fn is_known(&self) -> bool {
        self.flights.is_known(self.key, self.id)
    }

    /// Ends the computation with an outcome.
    pub(crate) fn computed(self, outcome: Outcome<R>) -> Computed<'a, R> {
        Computed { lead: self, outcome }
    }

    /// Requests the permission to store the value. Once it is granted, an invalidation of the key
    /// waits for this flight.
    #[inline]
    pub(crate) fn begin_store(&self) -> StorePermission {
        self.flights.begin_store(self)
    }

    /// Requests the permission to store an error. Once it is granted, an invalidation of the key waits for
    /// this flight. An error is not stored by a leader that was replaced, nor while a hedge is running.
    pub(crate) fn begin_error(&self) -> bool {
        self.flights.begin_error(self.key, self.id)
    }

    /// Completes the flight and wakes the waiting callers. `outcome` makes the outcome, if there may be any.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn complete(&mut self, outcome: impl FnOnce() -> Outcome<R>) -> Completion {
        let flight = match self.flights.end(self.key, self.id, End::Completed) {
            Ended::MustDelete => return Completion::MustDelete,
            Ended::Shared(flight) => Some(flight),
            Ended::Unshared | Ended::Vacated(_) | Ended::Hedged => None,
        };
        self.is_over = true;
        if flight.is_some() || self.replaces.is_some() {
            self.wake_callers(flight, outcome());
        }
        Completion::Done
    }

    /// Completes the flight without a value. `outcome` makes the outcome, if any caller waits for it. An
    /// error, that is a `failure`, is not made while a hedge is running: that ends the flight.
    ///
    /// The callers of a flight that this one has replaced still wait for the leader of that.
    #[cold]
    pub(crate) fn fail(
        &mut self,
        is_failure: bool,
        outcome: impl FnOnce() -> Outcome<R>,
    ) -> Completion {
        let end = if is_failure { End::Failed } else { End::Completed };
        let ended = self.flights.end(self.key, self.id, end);
        if let Ended::MustDelete = ended {
            return Completion::MustDelete;
        }
        self.is_over = true;
        if let Ended::Shared(flight) = ended {
            flight.complete(Arc::new(outcome()));
        }
        Completion::Done
    }

    #[cold]
    fn wake_callers(&mut self, flight: Option<Arc<Flight<R>>>, outcome: Outcome<R>) {
        let outcome = Arc::new(outcome);
        if let (Some(replaced), Outcome::Computed { .. }) = (self.replaces.take(), &*outcome) {
            replaced.complete(Arc::clone(&outcome));
        }
        if let Some(flight) = flight {
            flight.complete(outcome);
        }
    }
}

impl<R> Drop for Lead<'_, R> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_over {
            self.abandon();
        }
    }
}

impl<R> Lead<'_, R> {
    #[cold]
    fn abandon(&mut self) {
        match self.flights.end(self.key, self.id, End::Abandoned) {
            Ended::Shared(flight) => flight.complete(Arc::new(Outcome::Abandoned)),
            Ended::Vacated(flight) => notify_all(&flight.completed),
            Ended::Unshared | Ended::MustDelete | Ended::Hedged => {}
        }
    }
}

impl<R> Computed<'_, R> {
    /// Requests the permission to store the value, see [`Lead::begin_store`].
    pub(crate) fn begin_store(&self) -> StorePermission {
        self.lead.begin_store()
    }

    /// Sets whether a later call may find the value.
    pub(crate) fn set_stored(&mut self, is_stored: bool) {
        self.outcome.set_stored(is_stored);
    }

    /// Completes the flight and wakes the waiting callers.
    pub(crate) fn complete(&mut self) -> Completion {
        let Self { lead, outcome } = self;
        lead.complete(|| mem::replace(outcome, Outcome::NotShareable))
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

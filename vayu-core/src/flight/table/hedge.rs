//! Hedges: callers that compute a value in parallel to a leader that takes long.

use std::sync::Arc;

use crate::flight::table::Flights;
use crate::flight::{Flight, FlightId, HedgeGuard, Phase};
use crate::key::Key;

/// The state of a flight of which a hedge has ended.
pub(in crate::flight) enum HedgeEnd {
    /// Its leader or another hedge completes it.
    NotLast,
    /// This was its last run. It has left the table.
    Last,
    /// It had left the table, without a leader. Its callers join again.
    Deserted,
}

impl<R> Flights<R> {
    /// Allows or prevents hedges of a flight.
    pub(in crate::flight) fn allow_hedges(&self, key: &Key, id: FlightId, is_allowed: bool) {
        let mut guard = self.locked(key);
        let state = &mut *guard;
        // A flight that is not shared has no caller that could begin a hedge, and later ones may.
        match state.flights.get_by_id(key, id) {
            Some(entry) if !is_allowed || entry.flight().is_some() => {
                entry.share().hedges.allow(is_allowed);
            }
            Some(_) => {}
            None => state
                .detached
                .iter()
                .filter(|flight| flight.id() == id)
                .for_each(|flight| flight.hedges.allow(is_allowed)),
        }
    }

    /// Counts a hedge of a flight that starts, unless the flight has left the table.
    pub(in crate::flight) fn begin_hedge<'a>(
        &'a self,
        key: &'a Key,
        flight: &Arc<Flight<R>>,
    ) -> Option<HedgeGuard<'a, R>> {
        let mut state = self.locked(key);
        state.flights.get_mut(key).filter(|entry| entry.is(flight))?;
        flight.hedges.start();
        Some(HedgeGuard::new(self, key, Arc::clone(flight)))
    }

    /// Counts a hedge of a flight that ends, which is then the leader of another flight or has no value.
    pub(in crate::flight) fn end_hedge(&self, key: &Key, flight: &Arc<Flight<R>>) -> HedgeEnd {
        let mut state = self.locked(key);
        flight.hedges.end();
        match flight.phase.get() {
            Phase::Hedged if flight.hedges.running() == 0 => {
                state.flights.remove(key, flight.id());
                state.shard.count_completion();
                HedgeEnd::Last
            }
            Phase::Deserted => HedgeEnd::Deserted,
            _ => HedgeEnd::NotLast,
        }
    }
}

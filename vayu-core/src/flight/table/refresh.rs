//! Refreshes: flights of callers that need a value that is computed from now on.
//!
//! A refresh counts as an invalidation of its key, so that no computation that began before is stored.

use std::sync::Arc;

use crate::flight::table::{Flights, ShardState};
use crate::flight::{Flight, Join, Lead, Phase, Ticket};
use crate::key::Key;

impl<R> Flights<R> {
    /// Starts a flight, unless one is running. If it `is_refresh`, other refreshes may join it, and no computation that
    /// began before is stored.
    pub(crate) fn try_lead<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        is_refresh: bool,
    ) -> Option<Lead<'a, R>> {
        let mut state = self.locked(key);
        if self.find(&mut state, key).is_some() {
            return None;
        }
        if !is_refresh {
            return Some(self.start_flight(&mut state, key, stamp, Phase::Computing));
        }
        state.invalidations += 1;
        Some(self.start_refresh(&mut state, key, stamp))
    }

    /// Starts a flight that computes the value again, in the place of a running computation. Refreshes that begin later
    /// may join it.
    ///
    /// # Errors
    ///
    /// Returns the running flight if its value is being stored at this moment.
    pub(crate) fn lead_refresh<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Result<Lead<'a, R>, Arc<Flight<R>>> {
        let mut state = self.locked(key);
        let mut lead = self.lead_in_place(&mut state, key, stamp, Phase::Computing)?;
        state.mark_refresh(key);
        lead.is_refresh = true;
        Ok(lead)
    }

    /// Joins a refresh of a key, or starts one in the place of a running computation.
    pub(crate) fn join_refresh<'a>(&'a self, key: &'a Key, stamp: u64) -> Join<'a, R> {
        let mut guard = self.locked(key);
        let state = &mut *guard;
        if let Some(entry) = self.find(state, key) {
            let is_joined =
                entry.is_refresh && entry.stamp == stamp && entry.phase() != Phase::Outdated;
            if is_joined || !entry.detach() {
                let ticket = Ticket::enqueue(self, key, stamp, entry.share());
                return Join::Wait { ticket, outdated: !is_joined };
            }
        }
        state.invalidations += 1;
        Join::Lead { lead: self.start_refresh(state, key, stamp), recheck: false }
    }

    /// Inserts the flight of a refresh, which other refreshes join, and returns its lead.
    #[cold]
    pub(super) fn start_refresh<'a>(
        &'a self,
        state: &mut ShardState<R>,
        key: &'a Key,
        stamp: u64,
    ) -> Lead<'a, R> {
        let mut lead = self.start_flight(state, key, stamp, Phase::Computing);
        state.mark_refresh(key);
        lead.is_refresh = true;
        lead
    }
}

impl<R> ShardState<R> {
    /// Marks the flight of a key as a refresh, so that other refreshes join it.
    #[cold]
    fn mark_refresh(&mut self, key: &Key) {
        if let Some(entry) = self.flights.get_mut(key) {
            entry.is_refresh = true;
        }
    }
}

#[cfg(all(test, not(vayu_loom)))]
mod tests {
    use super::*;
    use crate::flight::{Outcome, StorePermission, Turn};

    #[test]
    fn refreshes_join_one_that_was_begun_in_any_way() {
        let flights: Flights<usize> = Flights::with_shards(1);
        let key = Key::from_text("p", "k");
        let is_joined = || match flights.join_refresh(&key, 0) {
            Join::Wait { outdated, .. } => !outdated,
            Join::Lead { .. } => false,
        };
        let lead = flights.try_lead(&key, 0, true);
        assert!(lead.is_some() && is_joined(), "after the failure of another one");
        drop(lead);
        let Join::Lead { lead: slow, .. } = flights.join_refresh(&key, 0) else {
            panic!("it leads")
        };
        let Join::Wait { ticket, .. } = flights.join_refresh(&key, 0) else { panic!("it waits") };
        let lead = flights.replace_overdue(&key, 0, ticket.flight());
        assert!(lead.is_some() && is_joined(), "in the place of a slow one");
        let slow = slow.computed(Outcome::NotShareable);
        assert_eq!(slow.begin_store(), StorePermission::UnlessNewer);
        assert!(is_joined(), "when the slow one ends first");
    }

    #[test]
    fn entry_that_is_refreshed_is_a_refresh_that_others_join() {
        let flights: Flights<usize> = Flights::with_shards(1);
        let key = Key::from_text("p", "k");
        let lead = flights.lead_refresh(&key, 0).expect("no value is being stored");
        let joined = flights.join_refresh(&key, 0);
        assert!(lead.is_refresh() && matches!(joined, Join::Wait { outdated: false, .. }));
    }

    #[test]
    fn miss_that_takes_the_lead_of_a_refresh_leads_a_refresh() {
        let flights: Flights<usize> = Flights::with_shards(1);
        let key = Key::from_text("p", "k");
        for is_refresh in [false, true] {
            let lead = flights.try_lead(&key, 0, is_refresh).expect("it leads");
            let Join::Wait { ticket, .. } = flights.join(&key, 0, None) else { panic!("it waits") };
            drop(lead);
            let Some(Turn::Lead(lead)) = ticket.try_turn() else { panic!("it takes the lead") };
            assert_eq!(lead.is_refresh(), is_refresh);
        }
    }

    #[test]
    fn computation_that_began_before_a_refresh_is_not_stored() {
        let flights: Flights<usize> = Flights::with_shards(1);
        let key = Key::from_text("p", "k");
        let Join::Lead { lead: slow, .. } = flights.join(&key, 0, None) else { panic!("it leads") };
        let Join::Wait { ticket, .. } = flights.join(&key, 0, None) else { panic!("it waits") };
        let second = flights.replace_overdue(&key, 0, ticket.flight()).expect("it is slow");
        drop(second.computed(Outcome::NotShareable));
        let refresh = flights.try_lead(&key, 0, true).expect("it leads");
        assert_eq!(slow.begin_store(), StorePermission::Refused);
        assert_eq!(refresh.begin_store(), StorePermission::Granted);
    }
}

//! Joining the flight of a key, and leading one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::flight::lead::Lead;
use crate::flight::map::FlightEntry;
use crate::flight::table::shard::ShardState;
use crate::flight::table::{Completions, Flights};
use crate::flight::unlocked::Started;
use crate::flight::{Flight, Phase, Ticket};
use crate::key::Key;

/// The next step of a caller that missed.
pub(crate) enum Join<'a, R> {
    /// Compute the value. If `recheck`, a flight was completed since the lookup.
    Lead { lead: Lead<'a, R>, recheck: bool },
    /// Wait for the flight. If it is `outdated`, its outcome is not for this caller, which joins
    /// again after the flight is completed.
    Wait { ticket: Ticket<'a, R>, outdated: bool },
}

impl<R> Flights<R> {
    /// Joins the flight of a key, or starts one. `before` are the completions before the lookup that
    /// missed, if they are known.
    ///
    /// A flight of callers with another stamp is detached and replaced.
    pub(crate) fn join<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        before: Option<Completions>,
    ) -> Join<'a, R> {
        match self.start(key, stamp, before) {
            Some((lead, recheck)) => Join::Lead { lead, recheck },
            None => self.join_locked(key, stamp, before),
        }
    }

    /// Starts a flight as [`join`](Self::join) does, if that takes no lock. Otherwise, the caller goes on with
    /// [`join_locked`](Self::join_locked).
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn start<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        before: Option<Completions>,
    ) -> Option<(Lead<'a, R>, bool)> {
        let shard = self.shard(key);
        let process = self.process.load(Ordering::Relaxed);
        let Started { id, invalidations } =
            shard.unlocked.start(key.inline_words()?, stamp, process)?;
        let lead = Lead::new(self, key, id, stamp, invalidations);
        Some((lead, shard.has_completed(before)))
    }

    /// [`join`](Self::join), if the shard has flights or the key is long.
    #[cold]
    #[inline(never)]
    pub(crate) fn join_locked<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        before: Option<Completions>,
    ) -> Join<'a, R> {
        let mut locked = self.locked(key);
        let state = &mut *locked;
        if let Some(entry) = self.find(state, key) {
            let is_other = entry.stamp != stamp;
            if !is_other || !entry.detach() {
                let flight = entry.share();
                let outdated = is_other || flight.phase.get() == Phase::Outdated;
                return Join::Wait { ticket: Ticket::enqueue(self, key, stamp, flight), outdated };
            }
            state.invalidations += 1;
        }
        let lead = self.start_flight(state, key, stamp, Phase::Computing);
        Join::Lead { lead, recheck: locked.shard.has_completed(before) }
    }

    /// Joins the flight of a key, if one with this stamp is running.
    pub(crate) fn join_running<'a>(&'a self, key: &'a Key, stamp: u64) -> Option<Join<'a, R>> {
        let mut state = self.locked(key);
        let entry = self.find(&mut state, key).filter(|entry| entry.stamp == stamp)?;
        let flight = entry.share();
        let outdated = flight.phase.get() == Phase::Outdated;
        Some(Join::Wait { ticket: Ticket::enqueue(self, key, stamp, flight), outdated })
    }

    /// Takes the lead of a flight whose leader is gone, unless another caller was faster. The flight stays a refresh if
    /// it is one.
    pub(in crate::flight) fn take_lead<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        flight: &Arc<Flight<R>>,
    ) -> Option<Lead<'a, R>> {
        let mut state = self.locked(key);
        let entry = state.vacant(key, flight)?;
        entry.set_phase(Phase::Computing);
        let is_refresh = entry.is_refresh;
        flight.hedges.change_leader();
        let mut lead = Lead::new(self, key, flight.id(), stamp, state.invalidations);
        lead.is_refresh = is_refresh;
        Some(lead)
    }

    /// Starts a flight in the place of one that takes too long, unless another caller was faster. In the place of a
    /// refresh, it is one.
    pub(crate) fn replace_overdue<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        overdue: &Arc<Flight<R>>,
    ) -> Option<Lead<'a, R>> {
        let mut state = self.locked(key);
        let entry = state.flights.get_mut(key).filter(|entry| entry.is(overdue))?;
        if !entry.detach() {
            return None;
        }
        let (is_shared, is_refresh) = (entry.stamp == stamp, entry.is_refresh);
        let mut lead = if is_refresh {
            self.start_refresh(&mut state, key, stamp)
        } else {
            self.start_flight(&mut state, key, stamp, Phase::Computing)
        };
        lead.replaces = is_shared.then(|| Arc::clone(overdue));
        Some(lead)
    }

    /// Inserts a flight for a key and returns its lead.
    #[inline]
    pub(super) fn start_flight<'a>(
        &'a self,
        state: &mut ShardState<R>,
        key: &'a Key,
        stamp: u64,
        phase: Phase,
    ) -> Lead<'a, R> {
        let (id, process) = (state.ids.assign(), self.process.load(Ordering::Relaxed));
        if let Some(mut before) =
            state.flights.insert(key, FlightEntry::new(id, stamp, process, phase))
        {
            // It is detached already, or it was taken, maybe mistakenly, for one of the parent process.
            before.detach();
            state.keep_detached(&before);
        }
        Lead::new(self, key, id, stamp, state.invalidations)
    }
}

#[cfg(all(test, not(vayu_loom)))]
mod tests {
    use super::*;
    use crate::flight::table::shard::shards_from;
    use crate::flight::{Outcome, StorePermission};
    use crate::per_process::PerProcess;
    use crate::platform::process_id;

    #[test]
    fn flight_that_was_taken_for_one_before_a_fork_does_not_store() {
        let flights: Flights<usize> = Flights::with_shards(1);
        // As in a child process: the table has the id of the parent.
        flights.process.store(process_id() ^ 1, Ordering::Relaxed);
        let key = Key::from_text("p", "k");
        let [first, second] = [(); 2].map(|()| match flights.join(&key, 0, None) {
            Join::Lead { lead, .. } => lead.computed(Outcome::NotShareable),
            Join::Wait { .. } => panic!("it is taken for one of the parent"),
        });
        assert!(flights.invalidate(&key).is_none());
        assert_eq!(second.begin_store(), StorePermission::Refused);
        assert_eq!(first.begin_store(), StorePermission::Refused);
    }

    #[test]
    fn invalidation_before_the_shards_of_a_parent_are_replaced_is_not_forgotten() {
        let mut flights: Flights<usize> = Flights::with_shards(1);
        flights.shards = PerProcess::of_parent(shards_from(0, 1));
        let key = Key::from_text("p", "k");
        let Join::Lead { lead, .. } = flights.join(&key, 0, None) else { panic!("it leads") };
        assert!(flights.invalidate(&key).is_none());
        flights.replace_shards_after_fork();
        let lead = lead.computed(Outcome::NotShareable);
        assert_eq!(lead.begin_store(), StorePermission::Refused);
    }

    #[test]
    fn refresh_replaces_a_flight_from_before_a_fork() {
        let flights: Flights<usize> = Flights::with_shards(1);
        flights.process.store(process_id() ^ 1, Ordering::Relaxed);
        let key = Key::from_text("p", "k");
        let Join::Lead { lead: before, .. } = flights.join(&key, 0, None) else {
            panic!("it leads")
        };
        assert!(flights.try_lead(&key, 0, false).is_some());
        drop(before);
        assert_eq!(flights.in_flight(), 0);
    }
}

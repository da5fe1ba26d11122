//! The flights of one cache, a sharded hash map from exact keys to running computations.
//!
//! The hash of a key selects one of 16 shards, each a mutex around a map, so callers of different
//! keys rarely contend for a lock. A shard also counts the completed flights and the invalidations
//! of its keys. The first count lets a caller that missed and now becomes the leader know whether a
//! value may have been stored since its lookup, in which case it reads the backend again (double-checked
//! lookup). The second tells a leader at the end of its computation whether its key may have been
//! invalidated since it started.

use std::collections::HashMap;
use std::sync::Arc;
#[cfg(not(any(vayu_loom, vayu_shuttle)))]
use std::sync::TryLockError;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::flight::lead::{Lead, StorePermission};
use crate::flight::{Flight, FlightIds, HedgeTimes, Outcome, Phase, Ticket};
use crate::key::{BuildKeyHasher, Key};
use crate::per_process::PerProcess;
use crate::sync::{AtomicU64, Mutex, MutexGuard, lock, notify_all};

/// The flights of one cache.
#[derive(Debug)]
pub(crate) struct Flights<R> {
    shards: PerProcess<Box<[Shard<R>]>>,
    /// The id of this process when it was last queried. Querying it for each new flight would cost
    /// more than the rest of a miss in memory, so it is queried when a caller finds a flight.
    process: AtomicU32,
    hedge_times: HedgeTimes,
}

/// Aligned so that no two shards share a cache line, nor the pair that is fetched with it.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<R> {
    /// The number of completed flights. If it has not changed since before a lookup that missed,
    /// nothing was stored in the meantime.
    completions: AtomicU64,
    state: Mutex<ShardState<R>>,
}

/// The part of a shard that its lock protects.
#[derive(Debug)]
struct ShardState<R> {
    flights: HashMap<Key, Slot<R>, BuildKeyHasher>,
    /// The number of invalidations of keys of this shard.
    invalidations: u64,
    ids: FlightIds,
}

#[derive(Debug)]
struct Slot<R> {
    flight: Arc<Flight<R>>,
    /// The stamp of the leader. Its value is not returned to callers with another stamp.
    stamp: u64,
    /// True for a refresh, which calls with `refresh_if` join.
    is_refresh: bool,
}

/// The number of completed flights of a shard before a lookup, passed to [`Flights::join`] after it.
#[derive(Debug, Clone, Copy)]
pub struct Completions(u64);

/// The next step of a caller that missed.
pub(crate) enum Join<'a, R> {
    /// Compute the value. If `recheck`, a flight was completed since the lookup.
    Lead { lead: Lead<'a, R>, recheck: bool },
    /// Wait for the flight. If it is `outdated`, its outcome is not for this caller, which joins
    /// again after the flight is completed.
    Wait { ticket: Ticket<'a, R>, outdated: bool },
}

impl<R> Flights<R> {
    /// Creates an empty table.
    pub(crate) fn new() -> Self {
        Self::with_shards(16)
    }

    /// Creates an empty table with a number of shards, which must be a power of two.
    pub(super) fn with_shards(shards: usize) -> Self {
        let process = AtomicU32::new(std::process::id());
        Self {
            shards: PerProcess::new(new_shards(shards)),
            process,
            hedge_times: HedgeTimes::default(),
        }
    }

    /// Returns the number of running flights that have a leader.
    pub(crate) fn in_flight(&self) -> usize {
        self.replace_shards_after_fork();
        let has_leader = |slot: &&Slot<R>| slot.flight.phase.get() != Phase::Vacant;
        let count = |state: &ShardState<R>| state.flights.values().filter(has_leader).count();
        self.shards.get().iter().map(|shard| count(&lock(&shard.state))).sum()
    }

    /// Returns the times of the hedges of this cache.
    pub(crate) fn hedge_times(&self) -> &HedgeTimes {
        &self.hedge_times
    }

    /// Returns the number of flights in the table.
    #[cfg(all(test, any(vayu_loom, vayu_shuttle)))]
    pub(crate) fn len(&self) -> usize {
        self.shards.get().iter().map(|shard| lock(&shard.state).flights.len()).sum()
    }

    /// Returns the number of completed flights of the shard of a key. Call it before a lookup.
    pub(crate) fn completions(&self, key: &Key) -> Completions {
        Completions(self.shard(key).completions.load(Ordering::Acquire))
    }

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
        let (shard, mut state) = self.locked(key);
        if let Some(slot) = state.flights.get(key)
            && self.is_of_this_process(&slot.flight)
        {
            let is_other = slot.stamp != stamp;
            if !is_other || !slot.flight.phase.detach() {
                let outdated = is_other || slot.flight.phase.get() == Phase::Outdated;
                let ticket = Ticket::enqueue(self, key, stamp, &slot.flight);
                return Join::Wait { ticket, outdated };
            }
            state.invalidations += 1;
        }
        let now = shard.completions.load(Ordering::Acquire);
        let recheck = before.is_none_or(|before| before.0 != now);
        Join::Lead { lead: self.start_flight(&mut state, key, stamp, Phase::Computing), recheck }
    }

    /// Starts a flight, unless one is running.
    pub(crate) fn try_lead<'a>(&'a self, key: &'a Key, stamp: u64) -> Option<Lead<'a, R>> {
        let mut state = self.state(key);
        if state.flights.contains_key(key) {
            return None;
        }
        Some(self.start_flight(&mut state, key, stamp, Phase::Computing))
    }

    /// Takes the lead of a flight whose leader is gone, unless another caller was faster.
    pub(super) fn take_lead<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        flight: &Arc<Flight<R>>,
    ) -> Option<Lead<'a, R>> {
        let state = self.state(key);
        let is_taken = state.flights.get(key).is_some_and(|slot| slot.holds(flight))
            && flight.phase.take_lead();
        if is_taken {
            flight.hedges.change_leader();
        }
        is_taken.then(|| Lead::new(self, key, Arc::clone(flight), stamp, state.invalidations))
    }

    /// Removes a flight whose leader and waiting callers are all gone.
    pub(super) fn clear_deserted(&self, key: &Key, flight: &Arc<Flight<R>>) {
        let mut state = self.state(key);
        let is_deserted = state.flights.get(key).is_some_and(|slot| slot.holds(flight))
            && lock(&flight.tickets).is_empty()
            && flight.phase.detach();
        if is_deserted {
            state.flights.remove(key);
        }
    }

    /// Starts a flight in the place of one that takes too long, unless another caller was faster.
    pub(crate) fn replace_overdue<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        overdue: &Arc<Flight<R>>,
    ) -> Option<Lead<'a, R>> {
        let mut state = self.state(key);
        match state.flights.get(key) {
            Some(slot) if slot.holds(overdue) && slot.flight.phase.detach() => {
                let is_shared = slot.stamp == stamp;
                let mut lead = self.start_flight(&mut state, key, stamp, Phase::Computing);
                lead.replaces = is_shared.then(|| Arc::clone(overdue));
                Some(lead)
            }
            _ => None,
        }
    }

    /// Prevents the value that is being computed for a key from being stored.
    ///
    /// Returns the flight if its value is being stored at this moment: the value is deleted by the
    /// time that the flight is completed.
    #[cfg(test)]
    pub(crate) fn invalidate(&self, key: &Key) -> Option<Arc<Flight<R>>> {
        let mut state = self.state(key);
        state.invalidations += 1;
        let slot = state.flights.get(key)?;
        if slot.flight.phase.detach() {
            state.flights.remove(key);
            return None;
        }
        slot.flight.phase.set(Phase::Outdated);
        Some(Arc::clone(&slot.flight))
    }

    /// Starts a flight that stores a given value, in the place of a running computation.
    ///
    /// # Errors
    ///
    /// Returns the running flight if its value is being stored at this moment. That value is
    /// deleted by the time that the flight is completed.
    pub(crate) fn lead_write<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Result<Lead<'a, R>, Arc<Flight<R>>> {
        let mut state = self.state(key);
        state.invalidations += 1;
        match state.flights.get(key) {
            Some(slot) if self.is_of_this_process(&slot.flight) && !slot.flight.phase.detach() => {
                slot.flight.phase.set(Phase::Outdated);
                Err(Arc::clone(&slot.flight))
            }
            _ => Ok(self.start_flight(&mut state, key, stamp, Phase::Storing)),
        }
    }

    /// Starts a flight that computes the value again, in the place of a running computation.
    ///
    /// # Errors
    ///
    /// Returns the running flight if its value is being stored at this moment.
    pub(crate) fn lead_refresh<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Result<Lead<'a, R>, Arc<Flight<R>>> {
        self.lead_in_place(key, stamp, Phase::Computing)
    }

    /// Starts a flight that updates the value, in the place of a running computation. It counts as storing
    /// from the start, so that no other caller replaces it.
    ///
    /// # Errors
    ///
    /// Returns the running flight if its value is being stored at this moment.
    pub(crate) fn lead_update<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Result<Lead<'a, R>, Arc<Flight<R>>> {
        self.lead_in_place(key, stamp, Phase::Storing)
    }

    /// Starts a flight in this phase, in the place of a running computation.
    ///
    /// # Errors
    ///
    /// Returns the running flight if its value is being stored at this moment.
    fn lead_in_place<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        phase: Phase,
    ) -> Result<Lead<'a, R>, Arc<Flight<R>>> {
        let mut state = self.state(key);
        match state.flights.get(key) {
            Some(slot) if self.is_of_this_process(&slot.flight) && !slot.flight.phase.detach() => {
                Err(Arc::clone(&slot.flight))
            }
            _ => {
                state.invalidations += 1;
                Ok(self.start_flight(&mut state, key, stamp, phase))
            }
        }
    }

    /// Joins a refresh of a key, or starts one in the place of a running computation.
    pub(crate) fn join_refresh<'a>(&'a self, key: &'a Key, stamp: u64) -> Join<'a, R> {
        let mut state = self.state(key);
        if let Some(slot) = state.flights.get(key)
            && self.is_of_this_process(&slot.flight)
        {
            let phase = &slot.flight.phase;
            let is_joined =
                slot.is_refresh && slot.stamp == stamp && phase.get() != Phase::Outdated;
            if is_joined || !phase.detach() {
                let ticket = Ticket::enqueue(self, key, stamp, &slot.flight);
                return Join::Wait { ticket, outdated: !is_joined };
            }
        }
        state.invalidations += 1;
        let lead = self.start_flight(&mut state, key, stamp, Phase::Computing);
        if let Some(slot) = state.flights.get_mut(key) {
            slot.is_refresh = true;
        }
        Join::Lead { lead, recheck: false }
    }

    /// Invalidates all keys, see [`invalidate`](Self::invalidate). Returns the flights whose values
    /// are being stored.
    pub(crate) fn invalidate_all(&self) -> Vec<Arc<Flight<R>>> {
        let mut storing = Vec::new();
        self.replace_shards_after_fork();
        for shard in self.shards.get() {
            let mut state = lock(&shard.state);
            state.invalidations += 1;
            state.flights.retain(|_, slot| !slot.flight.phase.detach());
            for slot in state.flights.values() {
                slot.flight.phase.set(Phase::Outdated);
                storing.push(Arc::clone(&slot.flight));
            }
        }
        storing
    }

    /// Returns the shard of a key.
    fn shard(&self, key: &Key) -> &Shard<R> {
        // The memory backend selects its shard by other bits.
        let shards = self.shards.get();
        let index = (key.hash_code() >> 48) as usize & (shards.len() - 1);
        &shards[index]
    }

    /// Locks the shard of a key and returns its state.
    fn state(&self, key: &Key) -> MutexGuard<'_, ShardState<R>> {
        self.locked(key).1
    }

    /// Locks the shard of a key, and returns both.
    fn locked(&self, key: &Key) -> (&Shard<R>, MutexGuard<'_, ShardState<R>>) {
        #[cfg_attr(any(vayu_loom, vayu_shuttle), expect(unused_mut))]
        let mut shard = self.shard(key);
        // Model checkers do not fork, and would explore a failed `try_lock` in each schedule.
        #[cfg(not(any(vayu_loom, vayu_shuttle)))]
        match shard.state.try_lock() {
            Ok(state) => return (shard, state),
            Err(TryLockError::Poisoned(poisoned)) => return (shard, poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                self.replace_shards_after_fork();
                shard = self.shard(key);
            }
        }
        (shard, lock(&shard.state))
    }

    /// Replaces the shards if they are those of a parent process. A thread that does not exist in
    /// this process may hold their locks forever.
    fn replace_shards_after_fork(&self) {
        self.shards.replace_after_fork(|| new_shards(self.shards.get().len()));
    }

    /// Returns whether a flight was started in this process: another one is never completed. Once
    /// after a fork, a flight of the child may be mistaken for one of the parent, and two callers
    /// compute.
    fn is_of_this_process(&self, flight: &Flight<R>) -> bool {
        let process = std::process::id();
        self.process.store(process, Ordering::Relaxed);
        flight.process == process
    }

    /// Inserts a flight for a key and returns its lead.
    fn start_flight<'a>(
        &'a self,
        state: &mut ShardState<R>,
        key: &'a Key,
        stamp: u64,
        phase: Phase,
    ) -> Lead<'a, R> {
        let flight = Flight::new(state.ids.assign(), self.process.load(Ordering::Relaxed), phase);
        let slot = Slot { flight: Arc::clone(&flight), stamp, is_refresh: false };
        if let Some(before) = state.flights.insert(key.clone(), slot) {
            // It is detached already, or it was taken, maybe mistakenly, for one of the parent process.
            before.flight.phase.detach();
        }
        Lead::new(self, key, flight, stamp, state.invalidations)
    }

    /// Requests the permission to store a value whose computation started when the shard had counted
    /// `invalidations`.
    pub(super) fn begin_store(
        &self,
        key: &Key,
        flight: &Arc<Flight<R>>,
        stamp: u64,
        invalidations: u64,
    ) -> StorePermission {
        if flight.phase.begin_store() {
            return StorePermission::Granted;
        }
        let mut state = self.state(key);
        // The flight is detached: it was invalidated, or it was slow and another caller has replaced
        // it. A slow one may still store. Otherwise a function that always takes longer than callers
        // wait would never be cached.
        if state.invalidations != invalidations {
            return StorePermission::Refused;
        }
        if state.flights.get(key).is_some_and(|slot| !slot.flight.phase.detach()) {
            return StorePermission::Refused;
        }
        flight.phase.set(Phase::Storing);
        let slot = Slot { flight: Arc::clone(flight), stamp, is_refresh: false };
        state.flights.insert(key.clone(), slot);
        StorePermission::UnlessNewer
    }

    /// Completes a flight, and with it the one that it `replaces`. An abandoned flight is not
    /// completed while callers wait for it: one of them takes the lead.
    ///
    /// # Errors
    ///
    /// Returns the outcome if the key was invalidated while the value was being stored. The caller
    /// deletes the value and completes the flight again.
    pub(super) fn complete(
        &self,
        key: &Key,
        flight: &Arc<Flight<R>>,
        replaces: Option<&Flight<R>>,
        outcome: Outcome<R>,
    ) -> Result<(), Outcome<R>> {
        {
            let (shard, mut state) = self.locked(key);
            let is_outdated = flight.phase.get() == Phase::Outdated;
            if is_outdated && !matches!(outcome, Outcome::Abandoned) {
                flight.phase.set(Phase::Storing);
                return Err(outcome);
            }
            if matches!(outcome, Outcome::Abandoned)
                && state.flights.get(key).is_some_and(|slot| slot.holds(flight))
                && flight.vacate()
            {
                drop(state);
                notify_all(&flight.completed);
                return Ok(());
            }
            match state.flights.remove_entry(key) {
                Some((_, slot)) if slot.holds(flight) => {
                    // It is only changed under the lock.
                    let completions = shard.completions.load(Ordering::Relaxed);
                    shard.completions.store(completions.wrapping_add(1), Ordering::Release);
                }
                // Another flight has replaced this one.
                Some((key, slot)) => drop(state.flights.insert(key, slot)),
                None => {}
            }
        }
        // Waiting callers have got the flight from the table, so no more can come.
        let replaces = replaces.filter(|_| matches!(outcome, Outcome::Computed(_)));
        if replaces.is_some() || Arc::strong_count(flight) > 1 {
            let outcome = Arc::new(outcome);
            if let Some(replaced) = replaces {
                replaced.complete(Arc::clone(&outcome));
            }
            flight.complete(outcome);
        }
        Ok(())
    }

    /// Locks all shards.
    #[cfg(test)]
    pub(crate) fn lock_all(&self) -> Vec<impl Sized + '_> {
        self.shards.get().iter().map(|shard| lock(&shard.state)).collect()
    }
}

/// Creates empty shards.
fn new_shards<R>(shards: usize) -> Box<[Shard<R>]> {
    let shard = |_| {
        let (flights, ids) = (HashMap::default(), FlightIds::default());
        let state = Mutex::new(ShardState { flights, invalidations: 0, ids });
        Shard { completions: AtomicU64::new(0), state }
    };
    (0..shards).map(shard).collect()
}

impl<R> Slot<R> {
    /// Returns whether the slot holds this flight.
    fn holds(&self, flight: &Arc<Flight<R>>) -> bool {
        Arc::ptr_eq(&self.flight, flight)
    }
}

#[cfg(all(test, not(vayu_loom)))]
mod tests {
    use super::*;

    #[test]
    fn flight_that_was_taken_for_one_before_a_fork_does_not_store() {
        let flights: Flights<usize> = Flights::with_shards(1);
        // As in a child process: the table has the id of the parent.
        flights.process.store(std::process::id() ^ 1, Ordering::Relaxed);
        let key = Key::from_text("p", "k");
        let [first, second] = [(); 2].map(|()| match flights.join(&key, 0, None) {
            Join::Lead { lead, .. } => lead.computed(Outcome::NotShareable),
            Join::Wait { .. } => panic!("it is taken for one of the parent"),
        });
        assert!(flights.invalidate(&key).is_none());
        assert_eq!(second.begin_store(), StorePermission::Refused);
        assert_eq!(first.begin_store(), StorePermission::Refused);
    }
}

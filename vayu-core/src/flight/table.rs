//! The flights of one cache, by exact key.

use std::collections::HashMap;
use std::sync::Arc;
#[cfg(not(any(vayu_loom, vayu_shuttle)))]
use std::sync::TryLockError;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::flight::lead::{Lead, Permission};
use crate::flight::{Flight, FlightIds, HedgeTimes, Outcome, Phase, Ticket};
use crate::key::{BuildKeyHasher, Key};
use crate::per_process::PerProcess;
use crate::sync::{AtomicU64, Mutex, MutexGuard, lock, notify_all};

/// The flights of one cache. Split by hash, so that callers of different keys seldom meet.
#[derive(Debug)]
pub(crate) struct Flights<R> {
    shards: PerProcess<Box<[Shard<R>]>>,
    /// This process, as it was last known. To ask the system whenever a flight sets out would take
    /// longer than most of what else there is to do, so it is asked when somebody finds a flight.
    process: AtomicU32,
    hedge_times: HedgeTimes,
}

/// Aligned so that no two shards share a cache line, nor the pair that is fetched with it.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<R> {
    /// How many flights have landed. Whoever finds nothing in the backend and sees this unchanged
    /// since before it looked, knows that nothing has been stored in between.
    landings: AtomicU64,
    sky: Mutex<Sky<R>>,
}

#[derive(Debug)]
struct Sky<R> {
    flights: HashMap<Key, Slot<R>, BuildKeyHasher>,
    /// How often a key of this shard has been invalidated.
    invalidations: u64,
    ids: FlightIds,
}

#[derive(Debug)]
struct Slot<R> {
    flight: Arc<Flight<R>>,
    /// Whose values are not for callers with another stamp.
    stamp: u64,
}

/// The state of a shard before a lookup, to be handed to [`Flights::join`] after it.
#[derive(Debug, Clone, Copy)]
pub struct Landings(u64);

/// What a caller that found nothing in the backend is to do.
pub(crate) enum Join<'a, R> {
    /// Compute. Where `look_again`, a flight has landed since the lookup.
    Lead { lead: Lead<'a, R>, look_again: bool },
    /// Wait for the flight. Where it is `outdated`, its outcome is not for this caller, who joins
    /// again once it has landed.
    Wait { ticket: Ticket<'a, R>, outdated: bool },
}

impl<R> Flights<R> {
    pub(crate) fn new() -> Self {
        Self::with_shards(16)
    }

    /// `shards` must be a power of two.
    pub(super) fn with_shards(shards: usize) -> Self {
        let process = AtomicU32::new(std::process::id());
        Self { shards: PerProcess::new(empty(shards)), process, hedge_times: HedgeTimes::default() }
    }

    /// How many flights have a leader and have not yet landed.
    pub(crate) fn in_flight(&self) -> usize {
        self.replace_shards_after_fork();
        let has_leader = |slot: &&Slot<R>| slot.flight.phase.get() != Phase::Vacant;
        let count = |sky: &Sky<R>| sky.flights.values().filter(has_leader).count();
        self.shards.get().iter().map(|shard| count(&lock(&shard.sky))).sum()
    }

    /// Returns the times of the hedges of this cache.
    pub(crate) fn hedge_times(&self) -> &HedgeTimes {
        &self.hedge_times
    }

    /// How many flights are in the table.
    #[cfg(all(test, any(vayu_loom, vayu_shuttle)))]
    pub(crate) fn len(&self) -> usize {
        self.shards.get().iter().map(|shard| lock(&shard.sky).flights.len()).sum()
    }

    /// Taken before a lookup.
    pub(crate) fn landings(&self, key: &Key) -> Landings {
        Landings(self.shard(key).landings.load(Ordering::Acquire))
    }

    /// Joins the flight of a key, or opens one. `before` are the landings before the lookup that
    /// found nothing, if they are known.
    ///
    /// What callers with another stamp compute is not for this one, who computes in their place.
    pub(crate) fn join<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        before: Option<Landings>,
    ) -> Join<'a, R> {
        let (shard, mut sky) = self.locked(key);
        if let Some(slot) = sky.flights.get(key)
            && self.is_of_this_process(&slot.flight)
        {
            let is_other = slot.stamp != stamp;
            if !is_other || !slot.flight.phase.dismiss() {
                let outdated = is_other || slot.flight.phase.get() == Phase::Outdated;
                let ticket = Ticket::draw(self, key, stamp, &slot.flight);
                return Join::Wait { ticket, outdated };
            }
            sky.invalidations += 1;
        }
        let now = shard.landings.load(Ordering::Acquire);
        let look_again = before.is_none_or(|before| before.0 != now);
        Join::Lead { lead: self.depart(&mut sky, key, stamp, Phase::Computing), look_again }
    }

    /// The lead for a key, if nobody has it.
    pub(crate) fn lead_if_vacant<'a>(&'a self, key: &'a Key, stamp: u64) -> Option<Lead<'a, R>> {
        let mut sky = self.sky(key);
        if sky.flights.contains_key(key) {
            return None;
        }
        Some(self.depart(&mut sky, key, stamp, Phase::Computing))
    }

    /// The lead of a flight whose leader is gone, if nobody was faster.
    pub(super) fn take_lead<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        flight: &Arc<Flight<R>>,
    ) -> Option<Lead<'a, R>> {
        let sky = self.sky(key);
        let is_taken =
            sky.flights.get(key).is_some_and(|slot| slot.is(flight)) && flight.phase.take_lead();
        if is_taken {
            flight.hedges.change_leader();
        }
        is_taken.then(|| Lead::new(self, key, Arc::clone(flight), stamp, sky.invalidations))
    }

    /// Takes a flight out of the table whose leader is gone, as are all who waited for it.
    pub(super) fn clear_deserted(&self, key: &Key, flight: &Arc<Flight<R>>) {
        let mut sky = self.sky(key);
        let is_deserted = sky.flights.get(key).is_some_and(|slot| slot.is(flight))
            && lock(&flight.tickets).is_empty()
            && flight.phase.dismiss();
        if is_deserted {
            sky.flights.remove(key);
        }
    }

    /// The lead for a key in the place of a flight that takes too long, if nobody was faster.
    pub(crate) fn overtake<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
        overdue: &Arc<Flight<R>>,
    ) -> Option<Lead<'a, R>> {
        let mut sky = self.sky(key);
        match sky.flights.get(key) {
            Some(slot) if slot.is(overdue) && slot.flight.phase.dismiss() => {
                let is_shared = slot.stamp == stamp;
                let mut lead = self.depart(&mut sky, key, stamp, Phase::Computing);
                lead.replaces = is_shared.then(|| Arc::clone(overdue));
                Some(lead)
            }
            _ => None,
        }
    }

    /// Makes sure that what is being computed for a key is not stored after this.
    ///
    /// Where it is being stored at this moment, the flight is the answer: what was stored is gone
    /// when that flight has landed.
    pub(crate) fn invalidate(&self, key: &Key) -> Option<Arc<Flight<R>>> {
        let mut sky = self.sky(key);
        sky.invalidations += 1;
        let slot = sky.flights.get(key)?;
        if slot.flight.phase.dismiss() {
            sky.flights.remove(key);
            return None;
        }
        slot.flight.phase.set(Phase::Outdated);
        Some(Arc::clone(&slot.flight))
    }

    /// The lead for a key in the place of what is being computed for it, to store a value that is
    /// known. Where another value is being stored at this moment, its flight is the answer, and
    /// that value will not stay.
    pub(crate) fn seize<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Result<Lead<'a, R>, Arc<Flight<R>>> {
        let mut sky = self.sky(key);
        sky.invalidations += 1;
        match sky.flights.get(key) {
            Some(slot) if self.is_of_this_process(&slot.flight) && !slot.flight.phase.dismiss() => {
                slot.flight.phase.set(Phase::Outdated);
                Err(Arc::clone(&slot.flight))
            }
            _ => Ok(self.depart(&mut sky, key, stamp, Phase::Storing)),
        }
    }

    /// The lead for a key in the place of what is being computed for it, to compute anew. Where a
    /// value is being stored at this moment, its flight is the answer.
    pub(crate) fn supersede<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Result<Lead<'a, R>, Arc<Flight<R>>> {
        let mut sky = self.sky(key);
        match sky.flights.get(key) {
            Some(slot) if self.is_of_this_process(&slot.flight) && !slot.flight.phase.dismiss() => {
                Err(Arc::clone(&slot.flight))
            }
            _ => {
                sky.invalidations += 1;
                Ok(self.depart(&mut sky, key, stamp, Phase::Computing))
            }
        }
    }

    /// [`invalidate`](Self::invalidate) for all keys.
    pub(crate) fn invalidate_all(&self) -> Vec<Arc<Flight<R>>> {
        let mut storing = Vec::new();
        self.replace_shards_after_fork();
        for shard in self.shards.get() {
            let mut sky = lock(&shard.sky);
            sky.invalidations += 1;
            sky.flights.retain(|_, slot| !slot.flight.phase.dismiss());
            for slot in sky.flights.values() {
                slot.flight.phase.set(Phase::Outdated);
                storing.push(Arc::clone(&slot.flight));
            }
        }
        storing
    }

    fn shard(&self, key: &Key) -> &Shard<R> {
        // The memory engine takes its shard from other bits.
        let shards = self.shards.get();
        let index = (key.hash_code() >> 48) as usize & (shards.len() - 1);
        &shards[index]
    }

    fn sky(&self, key: &Key) -> MutexGuard<'_, Sky<R>> {
        self.locked(key).1
    }

    /// Locks the shard of a key.
    fn locked(&self, key: &Key) -> (&Shard<R>, MutexGuard<'_, Sky<R>>) {
        let mut shard = self.shard(key);
        // Model checkers know no fork, and would try the lock in vain in each schedule.
        #[cfg(not(any(vayu_loom, vayu_shuttle)))]
        match shard.sky.try_lock() {
            Ok(sky) => return (shard, sky),
            Err(TryLockError::Poisoned(poisoned)) => return (shard, poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                self.replace_shards_after_fork();
                shard = self.shard(key);
            }
        }
        (shard, lock(&shard.sky))
    }

    /// Begins an empty table if this one is that of a parent process, in which a thread that does not
    /// exist here may hold a lock for good.
    fn replace_shards_after_fork(&self) {
        self.shards.replace_after_fork(|| empty(self.shards.get().len()));
    }

    /// Whether a flight can land. After a fork it may be taken for one of the parent although it is
    /// not, once: then two callers compute.
    fn is_of_this_process(&self, flight: &Flight<R>) -> bool {
        let process = std::process::id();
        self.process.store(process, Ordering::Relaxed);
        flight.process == process
    }

    fn depart<'a>(
        &'a self,
        sky: &mut Sky<R>,
        key: &'a Key,
        stamp: u64,
        phase: Phase,
    ) -> Lead<'a, R> {
        let flight = Flight::new(sky.ids.assign(), self.process.load(Ordering::Relaxed), phase);
        let slot = Slot { flight: Arc::clone(&flight), stamp };
        if let Some(before) = sky.flights.insert(key.clone(), slot) {
            // It was dismissed, or taken for one of the process before a fork, which it may not be.
            before.flight.phase.dismiss();
        }
        Lead::new(self, key, flight, stamp, sky.invalidations)
    }

    /// Asks for permission to store, at the end of the computation that set out when
    /// `invalidations` was the count.
    pub(super) fn begin_store(
        &self,
        key: &Key,
        flight: &Arc<Flight<R>>,
        stamp: u64,
        invalidations: u64,
    ) -> Permission {
        if flight.phase.begin_store() {
            return Permission::Granted;
        }
        let mut sky = self.sky(key);
        // The flight has left the table: it was invalidated, or it was slow and somebody else has
        // set out since. A slow one may still store, else a function that always takes longer than
        // callers wait would never be remembered.
        if sky.invalidations != invalidations {
            return Permission::Refused;
        }
        if sky.flights.get(key).is_some_and(|slot| !slot.flight.phase.dismiss()) {
            return Permission::Refused;
        }
        flight.phase.set(Phase::Storing);
        let slot = Slot { flight: Arc::clone(flight), stamp };
        sky.flights.insert(key.clone(), slot);
        Permission::UnlessNewer
    }

    /// Ends a flight. One that is abandoned goes on while others wait for it: one of them takes its
    /// lead. The outcome comes back, and the flight goes on, if it was invalidated while it
    /// was being stored: the caller deletes what it stored and tries again.
    pub(super) fn land(
        &self,
        key: &Key,
        flight: &Arc<Flight<R>>,
        replaces: Option<&Flight<R>>,
        outcome: Outcome<R>,
    ) -> Result<(), Outcome<R>> {
        {
            let (shard, mut sky) = self.locked(key);
            let is_outdated = flight.phase.get() == Phase::Outdated;
            if is_outdated && !matches!(outcome, Outcome::Abandoned) {
                flight.phase.set(Phase::Storing);
                return Err(outcome);
            }
            if matches!(outcome, Outcome::Abandoned)
                && sky.flights.get(key).is_some_and(|slot| slot.is(flight))
                && flight.vacate()
            {
                drop(sky);
                notify_all(&flight.landed);
                return Ok(());
            }
            match sky.flights.remove_entry(key) {
                Some((_, slot)) if slot.is(flight) => {
                    // Only whoever holds the lock changes it.
                    let landings = shard.landings.load(Ordering::Relaxed);
                    shard.landings.store(landings.wrapping_add(1), Ordering::Release);
                }
                // Another one has taken the place of this flight.
                Some((key, slot)) => drop(sky.flights.insert(key, slot)),
                None => {}
            }
        }
        // Who waits has got the flight from the table, where it is no more.
        let replaces = replaces.filter(|_| matches!(outcome, Outcome::Computed(_)));
        if replaces.is_some() || Arc::strong_count(flight) > 1 {
            let outcome = Arc::new(outcome);
            if let Some(replaced) = replaces {
                replaced.land(Arc::clone(&outcome));
            }
            flight.land(outcome);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn lock_all(&self) -> Vec<impl Sized + '_> {
        self.shards.get().iter().map(|shard| lock(&shard.sky)).collect()
    }
}

fn empty<R>(shards: usize) -> Box<[Shard<R>]> {
    let shard = |_| {
        let (flights, ids) = (HashMap::default(), FlightIds::default());
        let sky = Mutex::new(Sky { flights, invalidations: 0, ids });
        Shard { landings: AtomicU64::new(0), sky }
    };
    (0..shards).map(shard).collect()
}

impl<R> Slot<R> {
    fn is(&self, flight: &Arc<Flight<R>>) -> bool {
        Arc::ptr_eq(&self.flight, flight)
    }
}

#[cfg(all(test, not(vayu_loom)))]
mod tests {
    use super::*;

    #[test]
    fn flight_that_was_taken_for_one_before_a_fork_does_not_store() {
        let flights: Flights<usize> = Flights::with_shards(1);
        // As in a child: the table knows the parent.
        flights.process.store(std::process::id() ^ 1, Ordering::Relaxed);
        let key = Key::from_text("p", "k");
        let [first, second] = [(); 2].map(|()| match flights.join(&key, 0, None) {
            Join::Lead { lead, .. } => lead.computed(Outcome::Unshared),
            Join::Wait { .. } => panic!("it is taken for one of the parent"),
        });
        assert!(flights.invalidate(&key).is_none());
        assert_eq!(second.begin_store(), Permission::Refused);
        assert_eq!(first.begin_store(), Permission::Refused);
    }
}

//! The flights of one cache, in shards by the hashes of their keys.
//!
//! The hash of a key selects one of 16 shards, each a mutex around a map, so callers of different
//! keys rarely contend for a lock. All that changes a flight is done under it, except for a flight that is the only one
//! of its shard and has no second caller ([`unlocked`](super::unlocked)): a miss without contention takes no lock here.
//! A shard also counts the completed flights and the invalidations of its keys. The first count lets a caller that missed and
//! now becomes the leader know whether a value may have been stored since its lookup, in which case it
//! reads the backend again (double-checked lookup). The second tells a leader at the end of its
//! computation whether its key may have been invalidated since it started.
//!
//! A flight that no second caller has joined is a few words in either place, so a miss without contention allocates
//! nothing here. See [`map`](super::map).

mod hedge;
pub(super) mod join;
mod refresh;
mod shard;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) use self::hedge::HedgeEnd;
use self::shard::{Locked, Shard, ShardState, new_shards};
use crate::flight::map::FlightEntry;
use crate::flight::{Flight, FlightId, HedgeTimes, Phase};
use crate::key::Key;
use crate::per_process::PerProcess;
use crate::platform::process_id;
use crate::sync::lock;

/// The flights of one cache.
#[derive(Debug)]
pub(crate) struct Flights<R> {
    shards: PerProcess<Box<[Shard<R>]>>,
    /// The id of this process when it was last queried. Querying it for each new flight would cost
    /// more than the rest of a miss in memory, so it is queried when a caller finds a flight.
    process: AtomicU32,
    hedge_times: HedgeTimes,
}

/// The end of a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It has an outcome for the waiting callers.
    Completed,
    /// Its outcome is an error, which is for them if no hedge is running.
    Failed,
    /// It has no outcome.
    Abandoned,
}

/// The state of a flight whose leader has ended.
pub(super) enum Ended<R> {
    /// No other caller has a reference to it.
    Unshared,
    /// It has left the table. Callers may wait for its outcome.
    Shared(Arc<Flight<R>>),
    /// The leader had no value. One of the waiting callers takes the lead when they are notified.
    Vacated(Arc<Flight<R>>),
    /// The leader has failed, and a hedge is running, which ends the flight.
    Hedged,
    /// The key was invalidated while the value was being stored: the flight has not ended.
    MustDelete,
}

/// The number of completed flights of a shard before a lookup, passed to [`Flights::join`] after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Completions(u64);

impl<R> Flights<R> {
    /// Creates an empty table.
    pub(crate) fn new() -> Self {
        Self::with_shards(16)
    }

    /// Creates an empty table with a number of shards, which must be a power of two.
    pub(super) fn with_shards(shards: usize) -> Self {
        let process = AtomicU32::new(process_id());
        Self {
            shards: PerProcess::new(new_shards(shards)),
            process,
            hedge_times: HedgeTimes::default(),
        }
    }

    /// Returns the number of running flights that have a leader.
    pub(crate) fn in_flight(&self) -> usize {
        self.replace_shards_after_fork();
        let has_leader = |entry: &&FlightEntry<R>| entry.phase() != Phase::Vacant;
        let count = |state: &ShardState<R>| state.flights.iter().filter(has_leader).count();
        self.shards.get().iter().map(|shard| count(&shard.lock())).sum()
    }

    /// Returns the times of the hedges of this cache.
    pub(crate) fn hedge_times(&self) -> &HedgeTimes {
        &self.hedge_times
    }

    /// Returns the number of flights.
    #[cfg(all(test, any(vayu_loom, vayu_shuttle)))]
    pub(crate) fn len(&self) -> usize {
        let len = |state: &ShardState<R>| state.flights.len() + state.detached.len();
        self.shards.get().iter().map(|shard| len(&shard.lock())).sum()
    }

    /// Returns whether the shard of a key has no flight, so that the next one starts without the lock.
    #[cfg(all(test, vayu_loom))]
    pub(crate) fn is_open(&self, key: &Key) -> bool {
        self.shard(key).unlocked.is_free()
    }

    /// Returns the number of completed flights of the shard of a key. Call it before a lookup.
    pub(crate) fn completions(&self, key: &Key) -> Completions {
        Completions(self.shard(key).completions.load(Ordering::Acquire))
    }

    /// Returns the flight of a key, if one with this stamp is running whose outcome is for later callers.
    pub(crate) fn running(&self, key: &Key, stamp: u64) -> Option<Arc<Flight<R>>> {
        let mut state = self.locked(key);
        let entry = self.find(&mut state, key)?;
        let is_joined = entry.stamp == stamp && entry.phase() != Phase::Outdated;
        is_joined.then(|| Arc::clone(entry.share()))
    }

    /// Removes a flight whose leader and waiting callers are all gone.
    pub(super) fn clear_deserted(&self, key: &Key, flight: &Arc<Flight<R>>) {
        let mut state = self.locked(key);
        if let Some(entry) = state.vacant(key, flight)
            && lock(&flight.tickets).is_empty()
        {
            entry.set_phase(Phase::Deserted);
            state.flights.remove(key, flight.id());
        }
    }

    /// Returns the shard of a key.
    fn shard(&self, key: &Key) -> &Shard<R> {
        // The memory backend selects its shard by other bits.
        let shards = self.shards.get();
        let index = (key.hash_code() >> 48) as usize & (shards.len() - 1);
        &shards[index]
    }

    /// Locks the shard of a key.
    fn locked(&self, key: &Key) -> Locked<'_, R> {
        // Model checkers do not fork, and would explore a failed `try_lock` in each schedule.
        #[cfg(not(any(vayu_loom, vayu_shuttle)))]
        if let Some(locked) = self.shard(key).try_lock() {
            return locked;
        }
        self.replace_shards_after_fork();
        self.shard(key).lock()
    }

    /// Replaces the shards if they are those of a parent process. A thread that does not exist in
    /// this process may hold their locks, or be changing an unlocked flight, forever.
    fn replace_shards_after_fork(&self) {
        self.shards.replace_after_fork(|| new_shards(self.shards.get().len()));
    }

    /// Returns the flight of a key, if it was started in this process.
    fn find<'s>(&self, state: &'s mut ShardState<R>, key: &Key) -> Option<&'s mut FlightEntry<R>> {
        state.flights.get_mut(key).filter(|entry| self.is_of_this_process(entry))
    }

    /// Returns whether a flight was started in this process: another one is never completed. Once
    /// after a fork, a flight of the child may be mistaken for one of the parent, and two callers
    /// compute.
    fn is_of_this_process(&self, entry: &FlightEntry<R>) -> bool {
        let process = process_id();
        self.process.store(process, Ordering::Relaxed);
        entry.process == process
    }

    /// Ends a flight, which then leaves the table. An abandoned flight, one without a value, stays there
    /// while callers wait for it: one of them takes the lead. So does one whose leader has failed, while a
    /// hedge is running.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn end(&self, key: &Key, id: FlightId, end: End) -> Ended<R> {
        let shard = self.shard(key);
        if shard.unlocked.end(id, || shard.count_completion()) {
            return Ended::Unshared;
        }
        self.end_locked(key, id, end)
    }

    /// [`end`](Self::end), if the flight has been moved to the map.
    #[cold]
    #[inline(never)]
    fn end_locked(&self, key: &Key, id: FlightId, end: End) -> Ended<R> {
        let mut locked = self.locked(key);
        let state = &mut *locked;
        state.leased.remove(id);
        let Some(entry) = state.flights.get_by_id(key, id) else {
            return end_detached(state, id, end);
        };
        if let Some(flight) = entry.flight()
            && let Some(ended) = end_shared(flight, end)
        {
            return ended;
        }
        let entry = state.flights.remove(key, id);
        locked.shard.count_completion();
        entry.and_then(FlightEntry::into_flight).map_or(Ended::Unshared, Ended::Shared)
    }

    /// Locks all shards.
    #[cfg(test)]
    pub(crate) fn lock_all(&self) -> Vec<impl Sized + '_> {
        self.shards.get().iter().map(Shard::lock).collect()
    }
}

/// Returns the state of a flight that stays in the table, although its leader has ended.
#[cold]
fn end_shared<R>(flight: &Arc<Flight<R>>, end: End) -> Option<Ended<R>> {
    if end == End::Abandoned {
        return flight.vacate().then(|| Ended::Vacated(Arc::clone(flight)));
    }
    if flight.phase.get() == Phase::Outdated {
        flight.phase.set(Phase::Storing);
        return Some(Ended::MustDelete);
    }
    (end == End::Failed && flight.leave_to_hedges()).then_some(Ended::Hedged)
}

/// Ends a flight that has left the table already.
#[cold]
#[inline(never)]
fn end_detached<R>(state: &mut ShardState<R>, id: FlightId, end: End) -> Ended<R> {
    match state.take_detached(id) {
        Some(flight) => match end_shared(&flight, end) {
            Some(ended) => {
                state.detached.push(flight);
                ended
            }
            None => Ended::Shared(flight),
        },
        None => Ended::Unshared,
    }
}

//! A shard of the flights: a mutex round a map, and the flight that needs no lock.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
#[cfg(not(any(vayu_loom, vayu_shuttle)))]
use std::sync::TryLockError;
use std::sync::atomic::Ordering;

use crate::flight::leased::LeasedFlights;
use crate::flight::map::{FlightEntry, FlightMap};
use crate::flight::table::Completions;
use crate::flight::unlocked::{Busy, UnlockedFlight};
use crate::flight::{Flight, FlightId, FlightIds, Phase};
use crate::key::Key;
use crate::platform::process_id;
use crate::sync::{AtomicU64, Mutex, MutexGuard, back_off, lock};

/// A shard: the flights whose callers share a lock. It is aligned so that no two shards share a cache line, nor the pair that is
/// fetched with it.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Shard<R> {
    /// The number of completed flights. If it has not changed since before a lookup that missed,
    /// nothing was stored in the meantime.
    pub(super) completions: AtomicU64,
    pub(super) unlocked: UnlockedFlight,
    pub(super) state: Mutex<ShardState<R>>,
}

/// A locked shard, all of whose flights are in its state.
pub(super) struct Locked<'a, R> {
    pub(super) shard: &'a Shard<R>,
    state: MutexGuard<'a, ShardState<R>>,
}

/// The part of a shard that its lock protects.
#[derive(Debug)]
pub(super) struct ShardState<R> {
    pub(super) flights: FlightMap<R>,
    /// Flights that other callers have a reference to and that have left the map before their leader
    /// ended. It takes them from here.
    pub(super) detached: Vec<Arc<Flight<R>>>,
    pub(super) leased: LeasedFlights<R>,
    /// The number of invalidations of keys of this shard.
    pub(super) invalidations: u64,
    pub(super) ids: FlightIds,
}

/// Creates empty shards. In a child process their counts differ from those of the parent, which a leader may still compare with.
pub(super) fn new_shards<R>(shards: usize) -> Box<[Shard<R>]> {
    shards_from(u64::from(process_id()) << 32, shards)
}

/// Creates empty shards whose counts begin at `count`.
pub(super) fn shards_from<R>(count: u64, shards: usize) -> Box<[Shard<R>]> {
    let shard = |_| {
        let (flights, detached, leased, ids) = Default::default();
        let state = ShardState { flights, detached, leased, invalidations: count, ids };
        Shard {
            completions: AtomicU64::new(count),
            unlocked: UnlockedFlight::new(count),
            state: Mutex::new(state),
        }
    };
    (0..shards).map(shard).collect()
}

impl<R> Shard<R> {
    /// Locks the shard.
    pub(super) fn lock(&self) -> Locked<'_, R> {
        let mut state = lock(&self.state);
        // For the few instructions in which another thread changes the unlocked flight.
        let mut attempts = 0;
        while self.close(&mut state).is_err() {
            back_off(attempts);
            attempts += 1;
        }
        Locked { shard: self, state }
    }

    /// Locks the shard, unless another thread holds the lock or is changing the unlocked flight.
    #[cfg(not(any(vayu_loom, vayu_shuttle)))]
    pub(super) fn try_lock(&self) -> Option<Locked<'_, R>> {
        let mut state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        self.close(&mut state).ok()?;
        Some(Locked { shard: self, state })
    }

    /// Moves the unlocked flight to the map.
    fn close(&self, state: &mut ShardState<R>) -> Result<(), Busy> {
        if let Some(flight) = self.unlocked.close()? {
            state.flights.insert_first(flight);
        }
        Ok(())
    }

    /// Returns whether a flight was completed since a lookup, or may have been.
    #[inline]
    pub(super) fn has_completed(&self, before: Option<Completions>) -> bool {
        let now = self.completions.load(Ordering::Acquire);
        before.is_none_or(|before| before.0 != now)
    }

    /// Counts a flight that has left the table. Only under the lock, or while the unlocked flight is being ended.
    #[inline]
    pub(super) fn count_completion(&self) {
        let completions = self.completions.load(Ordering::Relaxed);
        self.completions.store(completions.wrapping_add(1), Ordering::Release);
    }
}

impl<R> Deref for Locked<'_, R> {
    type Target = ShardState<R>;

    fn deref(&self) -> &ShardState<R> {
        &self.state
    }
}

impl<R> DerefMut for Locked<'_, R> {
    fn deref_mut(&mut self) -> &mut ShardState<R> {
        &mut self.state
    }
}

impl<R> Drop for Locked<'_, R> {
    /// Lets the next flight start without the lock, if there is no other one.
    fn drop(&mut self) {
        if self.state.flights.is_empty() {
            self.shard.unlocked.open(self.state.invalidations);
        }
    }
}

impl<R> ShardState<R> {
    /// Returns the entry of a flight if its lead is vacant.
    pub(super) fn vacant(
        &mut self,
        key: &Key,
        flight: &Arc<Flight<R>>,
    ) -> Option<&mut FlightEntry<R>> {
        let entry = self.flights.get_mut(key).filter(|entry| entry.is(flight));
        entry.filter(|entry| entry.phase() == Phase::Vacant)
    }

    /// Keeps a flight that has left the map for its leader.
    pub(super) fn keep_detached(&mut self, entry: &FlightEntry<R>) {
        self.detached.extend(entry.detached_flight());
    }

    /// Returns a flight that has left the map, for another caller than its leader.
    pub(super) fn share_detached(&mut self, id: FlightId) -> Arc<Flight<R>> {
        if let Some(flight) = self.detached.iter().find(|flight| flight.id() == id) {
            return Arc::clone(flight);
        }
        let flight = Flight::new(id, Phase::Detached);
        self.detached.push(Arc::clone(&flight));
        flight
    }

    /// Takes a flight that has left the map.
    pub(super) fn take_detached(&mut self, id: FlightId) -> Option<Arc<Flight<R>>> {
        let index = self.detached.iter().position(|flight| flight.id() == id)?;
        Some(self.detached.swap_remove(index))
    }
}

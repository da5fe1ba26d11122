//! What is stored for a key: permissions of leaders, writes in the place of a computation, and invalidations.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::flight::lead::StorePermission;
use crate::flight::map::FlightEntry;
use crate::flight::table::{Flights, ShardState};
use crate::flight::{Flight, FlightId, Lead, Phase};
use crate::key::Key;

impl<R> Flights<R> {
    /// Prevents the value that is being computed for a key from being stored.
    ///
    /// Returns the flight if its value is being stored at this moment: the value is deleted by the
    /// time that the flight is completed.
    pub(crate) fn invalidate(&self, key: &Key) -> Option<Arc<Flight<R>>> {
        let mut guard = self.locked(key);
        let state = &mut *guard;
        state.invalidations += 1;
        let entry = state.flights.get_mut(key)?;
        if !entry.detach() {
            entry.set_phase(Phase::Outdated);
            return Some(Arc::clone(entry.share()));
        }
        let id = entry.id;
        if let Some(entry) = state.flights.remove(key, id) {
            state.keep_detached(&entry);
        }
        None
    }

    /// Starts a flight that stores or removes the value, in the place of a running computation. It
    /// counts as storing from the start, so that no other caller replaces it.
    ///
    /// # Errors
    ///
    /// Returns the running flight if its value is being stored at this moment.
    pub(crate) fn lead_write<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Result<Lead<'a, R>, Arc<Flight<R>>> {
        self.lead_in_place(&mut self.locked(key), key, stamp, Phase::Storing)
    }

    /// [`lead_write`](Self::lead_write) for a flight that acquires the lease of the key.
    ///
    /// # Errors
    ///
    /// Returns the running flight if its value is being stored at this moment, or if its leader holds the
    /// lease.
    pub(crate) fn lead_update<'a>(
        &'a self,
        key: &'a Key,
        stamp: u64,
    ) -> Result<Lead<'a, R>, Arc<Flight<R>>> {
        let mut state = self.locked(key);
        match state.leased.get(key) {
            Some(flight) => Err(flight),
            None => self.lead_in_place(&mut state, key, stamp, Phase::Storing),
        }
    }

    /// Starts a flight in this phase, in the place of a running computation.
    ///
    /// # Errors
    ///
    /// Returns the running flight if its value is being stored at this moment.
    pub(super) fn lead_in_place<'a>(
        &'a self,
        state: &mut ShardState<R>,
        key: &'a Key,
        stamp: u64,
        phase: Phase,
    ) -> Result<Lead<'a, R>, Arc<Flight<R>>> {
        if let Some(entry) = self.find(state, key)
            && !entry.detach()
        {
            return Err(Arc::clone(entry.share()));
        }
        state.invalidations += 1;
        Ok(self.start_flight(state, key, stamp, phase))
    }

    /// Invalidates all keys, see [`invalidate`](Self::invalidate). Returns the flights whose values
    /// are being stored.
    pub(crate) fn invalidate_all(&self) -> Vec<Arc<Flight<R>>> {
        let mut storing = Vec::new();
        self.replace_shards_after_fork();
        for shard in self.shards.get() {
            let mut guard = shard.lock();
            let state = &mut *guard;
            state.invalidations += 1;
            let mut detached = Vec::new();
            state.flights.retain(|entry| {
                if entry.detach() {
                    detached.extend(entry.detached_flight());
                    return false;
                }
                entry.set_phase(Phase::Outdated);
                storing.push(Arc::clone(entry.share()));
                true
            });
            state.detached.append(&mut detached);
        }
        storing
    }

    /// Returns whether the table has a flight that stores its value. That of a child process does not have those of its
    /// parent.
    pub(in crate::flight) fn is_known(&self, key: &Key, id: FlightId) -> bool {
        self.locked(key).flights.get_by_id(key, id).is_some()
    }

    /// Marks a flight whose leader is about to acquire the lease of its key, so that an update of the key
    /// waits for the flight. Returns `false` if the flight was replaced by an update or a write, which goes
    /// first.
    pub(in crate::flight) fn begin_lease(&self, key: &Key, id: FlightId) -> bool {
        let mut guard = self.locked(key);
        let state = &mut *guard;
        if state.leased.contains(id) {
            return true;
        }
        let flight = match state.flights.get_mut(key) {
            Some(entry) if entry.id == id => Arc::clone(entry.share()),
            Some(entry)
                if matches!(entry.phase(), Phase::Storing | Phase::Outdated)
                    && self.is_of_this_process(entry) =>
            {
                return false;
            }
            _ => state.share_detached(id),
        };
        state.leased.insert(key, flight);
        true
    }

    /// Ends [`begin_lease`](Self::begin_lease) for a leader that has no lease. The end of a flight ends it,
    /// too.
    pub(in crate::flight) fn end_lease(&self, key: &Key, id: FlightId) {
        self.locked(key).leased.remove(id);
    }

    /// Requests the permission to store the value of a flight.
    #[inline]
    pub(in crate::flight) fn begin_store(&self, lead: &Lead<'_, R>) -> StorePermission {
        if self.shard(lead.key).unlocked.begin_store(lead.id) {
            return StorePermission::Granted;
        }
        self.begin_store_locked(lead)
    }

    /// [`begin_store`](Self::begin_store) for a flight that has been moved to the map.
    #[cold]
    #[inline(never)]
    fn begin_store_locked(&self, lead: &Lead<'_, R>) -> StorePermission {
        let mut state = self.locked(lead.key);
        if let Some(entry) = state.flights.get_by_id(lead.key, lead.id) {
            entry.set_phase(Phase::Storing);
            return StorePermission::Granted;
        }
        self.begin_store_detached(&mut state, lead)
    }

    /// Requests the permission to store the error of a flight, see [`Lead::begin_error`].
    pub(in crate::flight) fn begin_error(&self, key: &Key, id: FlightId) -> bool {
        let mut state = self.locked(key);
        let entry = state.flights.get_by_id(key, id);
        let entry =
            entry.filter(|entry| entry.flight().is_none_or(|flight| flight.hedges.running() == 0));
        entry.map(|entry| entry.set_phase(Phase::Storing)).is_some()
    }

    /// Requests the permission for a flight that is detached: it was invalidated, or it was slow and
    /// another caller has replaced it. A slow one may still store. Otherwise a function that always takes
    /// longer than callers wait would never be cached.
    fn begin_store_detached(
        &self,
        state: &mut ShardState<R>,
        lead: &Lead<'_, R>,
    ) -> StorePermission {
        let &Lead { key, id, stamp, invalidations, is_refresh, .. } = lead;
        if state.invalidations != invalidations
            || state.flights.get_mut(key).is_some_and(|entry| !entry.detach())
        {
            return StorePermission::Refused;
        }
        let process = self.process.load(Ordering::Relaxed);
        let mut entry = match state.take_detached(id) {
            Some(flight) => FlightEntry::shared(flight, stamp, process),
            None => FlightEntry::new(id, stamp, process, Phase::Storing),
        };
        entry.is_refresh = is_refresh;
        entry.set_phase(Phase::Storing);
        if let Some(before) = state.flights.insert(key, entry) {
            state.keep_detached(&before);
        }
        StorePermission::UnlessNewer
    }
}

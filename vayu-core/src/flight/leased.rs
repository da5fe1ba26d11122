//! The flights of one shard whose leaders hold leases.

use std::sync::Arc;

use crate::flight::{Flight, FlightId};
use crate::key::Key;
use crate::platform::process_id;

/// The flights whose leaders hold the leases of their keys, or are about to acquire them. A flight stays here
/// when it is detached: its leader still holds the lease.
#[derive(Debug)]
pub(super) struct LeasedFlights<R>(Vec<Leased<R>>);

#[derive(Debug)]
struct Leased<R> {
    key: Key,
    flight: Arc<Flight<R>>,
    process: u32,
}

impl<R> Default for LeasedFlights<R> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<R> LeasedFlights<R> {
    /// Returns the flight whose leader holds the lease of a key. One that another flight has completed in
    /// its place is no longer to be waited for.
    pub(super) fn get(&self, key: &Key) -> Option<Arc<Flight<R>>> {
        let is_running = |leased: &&Leased<R>| {
            leased.process == process_id() && leased.flight.outcome().is_none()
        };
        let mut of_key = self.0.iter().filter(|leased| leased.key == *key);
        of_key.find(is_running).map(|leased| Arc::clone(&leased.flight))
    }

    pub(super) fn contains(&self, id: FlightId) -> bool {
        self.0.iter().any(|leased| leased.flight.id() == id)
    }

    pub(super) fn insert(&mut self, key: &Key, flight: Arc<Flight<R>>) {
        self.0.push(Leased { key: key.clone(), flight, process: process_id() });
    }

    #[inline]
    pub(super) fn remove(&mut self, id: FlightId) {
        if !self.0.is_empty() {
            self.remove_cold(id);
        }
    }

    #[cold]
    #[inline(never)]
    fn remove_cold(&mut self, id: FlightId) {
        self.0.retain(|leased| leased.flight.id() != id);
    }
}

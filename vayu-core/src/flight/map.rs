//! The flights of one shard, by key.
//!
//! These are all flights but one that has started without the lock of the shard ([`unlocked`](super::unlocked)). Such a
//! flight, once it is moved here, is stored in place, under the words of its key, and the others are in a hash map. A
//! flight is a few words ([`Progress::Unshared`]) until a second caller needs it: then it is moved to the heap, behind an
//! [`Arc`] that the caller keeps ([`FlightEntry::share`]). All of this happens under the lock of the shard.

use std::collections::HashMap;
use std::sync::Arc;

use crate::flight::{Flight, FlightId, Phase};
use crate::key::{BuildKeyHasher, Key};

/// The number of words of the keys that are stored in place.
pub(super) const WORDS: usize = 7;

/// The flights of one shard.
#[derive(Debug)]
pub(super) struct FlightMap<R> {
    /// A flight whose key is short. No other shard entry has its key.
    first: Option<First<R>>,
    others: HashMap<Key, FlightEntry<R>, BuildKeyHasher>,
}

/// The flight that is stored in place.
#[derive(Debug)]
pub(super) struct First<R> {
    /// The words of the key.
    pub(super) words: [u64; WORDS],
    pub(super) entry: FlightEntry<R>,
}

/// A flight in the table.
#[derive(Debug)]
pub(super) struct FlightEntry<R> {
    pub(super) id: FlightId,
    /// The stamp of the leader. Its value is not returned to callers with another stamp.
    pub(super) stamp: u64,
    /// `true` for a refresh, by `refresh_if` or of an entry. Calls with `refresh_if` join it.
    pub(super) is_refresh: bool,
    /// The process that started it, as its table knew. After a fork, the child has a copy that is
    /// never completed.
    pub(super) process: u32,
    progress: Progress<R>,
}

/// The state of a flight.
#[derive(Debug)]
enum Progress<R> {
    /// No other caller has a reference to the flight: there is only its phase.
    Unshared(Phase),
    Shared(Arc<Flight<R>>),
}

impl<R> Default for FlightMap<R> {
    fn default() -> Self {
        Self { first: None, others: HashMap::default() }
    }
}

impl<R> FlightMap<R> {
    /// Returns the number of flights.
    #[cfg(all(test, any(vayu_loom, vayu_shuttle)))]
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// Returns whether there are no flights.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.is_empty()
    }

    /// Returns all flights.
    pub(super) fn iter(&self) -> impl Iterator<Item = &FlightEntry<R>> {
        self.first.iter().map(|first| &first.entry).chain(self.others.values())
    }

    /// Returns the flight of a key.
    #[inline]
    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut FlightEntry<R>> {
        if self.is_empty() { None } else { self.get_mut_cold(key) }
    }

    #[cold]
    fn get_mut_cold(&mut self, key: &Key) -> Option<&mut FlightEntry<R>> {
        match &mut self.first {
            Some(first) if first.is_of(key) => Some(&mut first.entry),
            _ => self.others.get_mut(key),
        }
    }

    /// Returns the flight of a key if it has this id.
    #[inline]
    pub(super) fn get_by_id(&mut self, key: &Key, id: FlightId) -> Option<&mut FlightEntry<R>> {
        match &mut self.first {
            Some(first) if first.entry.id == id => Some(&mut first.entry),
            _ => self.others.get_mut(key).filter(|entry| entry.id == id),
        }
    }

    /// Inserts the first flight into an empty map.
    pub(super) fn insert_first(&mut self, first: First<R>) {
        self.first = Some(first);
    }

    /// Inserts the flight of a key, and returns the one that it replaces.
    pub(super) fn insert(&mut self, key: &Key, entry: FlightEntry<R>) -> Option<FlightEntry<R>> {
        if let Some(place) = self.get_mut(key) {
            return Some(std::mem::replace(place, entry));
        }
        match key.inline_words() {
            Some(words) if self.first.is_none() => self.insert_first(First { words, entry }),
            _ => drop(self.others.insert(key.clone(), entry)),
        }
        None
    }

    /// Removes the flight of a key if it has this id.
    #[inline]
    pub(super) fn remove(&mut self, key: &Key, id: FlightId) -> Option<FlightEntry<R>> {
        if self.first.as_ref().is_some_and(|first| first.entry.id == id) {
            return self.first.take().map(|first| first.entry);
        }
        self.remove_other(key, id)
    }

    #[cold]
    #[inline(never)]
    fn remove_other(&mut self, key: &Key, id: FlightId) -> Option<FlightEntry<R>> {
        let is_there = self.others.get(key).is_some_and(|entry| entry.id == id);
        if is_there { self.others.remove(key) } else { None }
    }

    /// Keeps the flights for which `keep` returns `true`.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut FlightEntry<R>) -> bool) {
        self.first.take_if(|first| !keep(&mut first.entry));
        self.others.retain(|_, entry| keep(entry));
    }
}

impl<R> First<R> {
    fn is_of(&self, key: &Key) -> bool {
        key.inline_words().is_some_and(|words| self.words == words)
    }
}

impl<R> FlightEntry<R> {
    /// Creates a flight that no other caller has a reference to.
    #[inline]
    pub(super) fn new(id: FlightId, stamp: u64, process: u32, phase: Phase) -> Self {
        Self { id, stamp, is_refresh: false, process, progress: Progress::Unshared(phase) }
    }

    /// Creates the entry of a flight that was in the table before.
    pub(super) fn shared(flight: Arc<Flight<R>>, stamp: u64, process: u32) -> Self {
        let (id, progress) = (flight.id(), Progress::Shared(flight));
        Self { id, stamp, is_refresh: false, process, progress }
    }

    /// Returns the phase.
    #[inline]
    pub(super) fn phase(&self) -> Phase {
        match &self.progress {
            Progress::Unshared(phase) => *phase,
            Progress::Shared(flight) => flight.phase.get(),
        }
    }

    /// Sets the phase.
    #[inline]
    pub(super) fn set_phase(&mut self, phase: Phase) {
        match &mut self.progress {
            Progress::Unshared(own) => *own = phase,
            Progress::Shared(flight) => flight.phase.set(phase),
        }
    }

    /// Prevents the leader from storing, and the flight from getting another leader. Returns `false` if
    /// the leader has begun to store. The flight is then removed from the table.
    pub(super) fn detach(&mut self) -> bool {
        match self.phase() {
            Phase::Computing => self.set_phase(Phase::Detached),
            Phase::Vacant | Phase::Hedged => self.set_phase(Phase::Deserted),
            _ => return false,
        }
        true
    }

    /// Returns the flight for another caller than the leader.
    #[cold]
    pub(super) fn share(&mut self) -> &Arc<Flight<R>> {
        if let Progress::Unshared(phase) = self.progress {
            self.progress = Progress::Shared(Flight::new(self.id, phase));
        }
        self.flight().expect("it is shared")
    }

    /// Returns the flight if another caller may have a reference to it.
    #[inline]
    pub(super) fn flight(&self) -> Option<&Arc<Flight<R>>> {
        match &self.progress {
            Progress::Unshared(_) => None,
            Progress::Shared(flight) => Some(flight),
        }
    }

    /// Returns the flight if another caller may have a reference to it.
    #[inline]
    pub(super) fn into_flight(self) -> Option<Arc<Flight<R>>> {
        match self.progress {
            Progress::Unshared(_) => None,
            Progress::Shared(flight) => Some(flight),
        }
    }

    /// Returns the flight, which leaves the table, if it has a leader that callers may wait for.
    pub(super) fn detached_flight(&self) -> Option<Arc<Flight<R>>> {
        self.flight().filter(|flight| flight.phase.get() != Phase::Deserted).cloned()
    }

    /// Returns whether this is the given flight.
    pub(super) fn is(&self, flight: &Arc<Flight<R>>) -> bool {
        self.flight().is_some_and(|own| Arc::ptr_eq(own, flight))
    }
}

//! The flight of a shard that starts and ends without the lock of the shard.
//!
//! Most shards have one flight at a time, of a short key, which no second caller joins. Such a flight is in
//! one place of the shard, whose state is one atomic word, and its whole life is three changes of that
//! word:
//!
//! ```text
//! FREE ──start──▶ computing ──begin_store──▶ storing ──end──▶ FREE
//! ```
//!
//! All else happens under the lock of the shard. A thread that has acquired it closes the place first
//! ([`close`](UnlockedFlight::close)): a flight that is there moves to the map of the shard, where its leader, whose
//! next change of the word fails, finds it under the lock. The place stays closed while the map has flights, so a
//! flight that starts here is the only one of the shard.
//!
//! Between two of its states the word is `BUSY` for the few instructions in which one thread alone
//! writes the rest of the place. A child process may find it so forever, since the thread does not exist
//! there.

use std::sync::atomic::Ordering;

use crate::flight::map::{First, FlightEntry, WORDS};
use crate::flight::{FlightId, FlightIds, Phase};
use crate::sync::AtomicU64;

/// The place of a shard for a flight that needs no lock.
#[derive(Debug)]
pub(super) struct UnlockedFlight {
    /// One of the constants below, or the id of a flight with its phase.
    state: AtomicU64,
    /// The words of the key.
    words: [AtomicU64; WORDS],
    stamp: AtomicU64,
    /// The process that started the flight.
    process: AtomicU64,
    /// The number of invalidations of keys of the shard.
    invalidations: AtomicU64,
    /// The ids of flights that start here.
    ids: AtomicU64,
}

/// There is no flight in the shard.
const FREE: u64 = 0;
/// The flights of the shard are in its map.
const CLOSED: u64 = 1;
/// A thread is changing the place.
const BUSY: u64 = 2;

/// Added to the id of a flight, which is in all bits of its state but the lowest: no flight has a state from above.
const OFFSET: u64 = 2;
/// The lowest bit of the state of a flight that stores its value.
const STORING: u64 = 1;

/// The error of closing a place that another thread is changing.
#[derive(Debug)]
pub(super) struct Busy;

/// A flight that has started, with the number of invalidations before it.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) id: FlightId,
    pub(super) invalidations: u64,
}

/// Returns the state of a flight that computes.
#[inline(always)]
fn computing(FlightId(id): FlightId) -> u64 {
    (id + OFFSET) << 1
}

/// Returns the flight of a state, with its phase.
fn flight_of(state: u64) -> Option<(FlightId, Phase)> {
    let id = (state >> 1).checked_sub(OFFSET)?;
    let phase = if state & STORING == 0 { Phase::Computing } else { Phase::Storing };
    Some((FlightId(id), phase))
}

impl UnlockedFlight {
    /// Creates the place of a shard that has this number of invalidations.
    pub(super) fn new(invalidations: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            state: AtomicU64::new(FREE),
            words: std::array::from_fn(|_| zero()),
            stamp: zero(),
            process: zero(),
            invalidations: AtomicU64::new(invalidations),
            ids: zero(),
        }
    }

    /// Starts a flight, if the shard has none.
    #[inline]
    pub(super) fn start(&self, words: [u64; WORDS], stamp: u64, process: u32) -> Option<Started> {
        if !self.change(FREE, BUSY) {
            return None;
        }
        let order = Ordering::Relaxed;
        let mut ids = FlightIds { next: self.ids.load(order) };
        let id = ids.assign();
        self.ids.store(ids.next, order);
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, order);
        }
        self.stamp.store(stamp, order);
        self.process.store(process.into(), order);
        let invalidations = self.invalidations.load(order);
        self.state.store(computing(id), Ordering::Release);
        Some(Started { id, invalidations })
    }

    /// Begins to store the value of a flight, if it is still here.
    #[inline]
    pub(super) fn begin_store(&self, id: FlightId) -> bool {
        self.change(computing(id), computing(id) | STORING)
    }

    /// Ends a flight, if it is still here. `completed` is called before another one can start.
    #[inline]
    pub(super) fn end(&self, id: FlightId, completed: impl FnOnce()) -> bool {
        let is_ended =
            self.change(computing(id) | STORING, BUSY) || self.change(computing(id), BUSY);
        if is_ended {
            completed();
            self.state.store(FREE, Ordering::Release);
        }
        is_ended
    }

    /// Closes the place, and returns the flight that was there. For the holder of the lock of the shard.
    ///
    /// # Errors
    ///
    /// When another thread is changing the place, which takes a few instructions.
    pub(super) fn close<R>(&self) -> Result<Option<First<R>>, Busy> {
        loop {
            let state = self.state.load(Ordering::Relaxed);
            match state {
                BUSY => return Err(Busy),
                CLOSED => return Ok(None),
                _ if !self.change(state, CLOSED) => {}
                _ => return Ok(flight_of(state).map(|(id, phase)| self.take(id, phase))),
            }
        }
    }

    /// Returns the flight that was here when the place was closed.
    #[cold]
    fn take<R>(&self, id: FlightId, phase: Phase) -> First<R> {
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let process = u32::try_from(load(&self.process)).expect("it is the id of a process");
        let words = std::array::from_fn(|at| load(&self.words[at]));
        First { words, entry: FlightEntry::new(id, load(&self.stamp), process, phase) }
    }

    /// Opens the closed place of a shard that has no flights. For the holder of the lock of the shard.
    pub(super) fn open(&self, invalidations: u64) {
        self.invalidations.store(invalidations, Ordering::Relaxed);
        self.state.store(FREE, Ordering::Release);
    }

    #[cfg(all(test, vayu_loom))]
    pub(super) fn is_free(&self) -> bool {
        self.state.load(Ordering::Acquire) == FREE
    }

    #[inline]
    fn change(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

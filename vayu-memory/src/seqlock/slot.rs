//! The place of one entry that is read without a lock.

use crate::sync::{AtomicU64, Ordering, fence};

/// What is kept of an entry.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Seat<const WORDS: usize> {
    /// From the lowest bit on: how it is with the seat, a few bits of the entry, and a count of those
    /// who were seated.
    state: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// An entry in words, and in a few bits more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<const WORDS: usize> {
    pub(super) words: [u64; WORDS],
    /// Less than 2 to the power of [`BITS`].
    pub(super) bits: u64,
}

pub(super) const BITS: u32 = 22;

/// The last two bits of the state.
const SITUATION: u64 = 0b11;
const EMPTY: u64 = 0;
/// The words may be read.
const TAKEN: u64 = 1;
/// The words are being written.
const BUSY: u64 = 2;
/// As busy, but what is being written is outdated.
const OUTDATED: u64 = 3;

/// The bits of the entry.
const ENTRY: u64 = ((1 << BITS) - 1) << 2;
/// One in the count. A read takes nanoseconds, and a count is the same again after a million million
/// seatings.
const ONE_MORE: u64 = SITUATION + ENTRY + 1;

impl<const WORDS: usize> Seat<WORDS> {
    pub(super) fn new() -> Self {
        Self { state: AtomicU64::new(EMPTY), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// The entry, if the words that it begins with are the ones that are wanted.
    #[inline(always)]
    pub(super) fn read<const WANTED: usize>(&self, wanted: [u64; WANTED]) -> Option<Entry<WORDS>> {
        let state = self.state.load(Ordering::Acquire);
        if state & SITUATION != TAKEN {
            return None;
        }
        for (word, wanted) in self.words.iter().zip(wanted) {
            if word.load(Ordering::Relaxed) != wanted {
                return None;
            }
        }
        let words = std::array::from_fn(|n| self.words[n].load(Ordering::Relaxed));
        // Whoever has read a word that was written later sees that the state has changed.
        fence(Ordering::Acquire);
        let is_same = self.state.load(Ordering::Relaxed) == state;
        is_same.then_some(Entry { words, bits: (state & ENTRY) >> 2 })
    }

    /// Seats what `find` finds, in the place of whoever sits here.
    ///
    /// `find` looks where the entries are kept. Whoever changes one there calls
    /// [`empty`](Self::empty) afterwards: either that comes after the seat is busy, and is noticed, or
    /// the change has come before `find`.
    pub(super) fn offer(&self, find: impl FnOnce() -> Option<Entry<WORDS>>) {
        let state = self.state.load(Ordering::Relaxed);
        let busy = (state & !(SITUATION | ENTRY)).wrapping_add(ONE_MORE) | BUSY;
        if matches!(state & SITUATION, BUSY | OUTDATED) || !self.exchange(state, busy) {
            return;
        }
        fence(Ordering::Release);
        let seating = Seating { seat: self, busy };
        let Some(Entry { words, bits }) = find() else { return };
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.exchange(busy, busy ^ BUSY ^ TAKEN | bits << 2 & ENTRY);
        drop(seating);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.load(Ordering::Relaxed) & SITUATION == EMPTY
    }

    /// Sees that whoever sits here or is about to does not.
    #[cold]
    pub(super) fn empty(&self) {
        loop {
            let state = self.state.load(Ordering::Acquire);
            let emptied = match state & SITUATION {
                TAKEN => state ^ TAKEN ^ EMPTY,
                BUSY => state ^ BUSY ^ OUTDATED,
                _ => return,
            };
            if self.exchange(state, emptied) {
                return;
            }
        }
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// The right to write the words of a seat. If they are not to be read at its end, the seat is empty.
struct Seating<'a, const WORDS: usize> {
    seat: &'a Seat<WORDS>,
    busy: u64,
}

impl<const WORDS: usize> Drop for Seating<'_, WORDS> {
    fn drop(&mut self) {
        let empty = self.busy ^ BUSY ^ EMPTY;
        if !self.seat.exchange(self.busy, empty) {
            self.seat.exchange(self.busy ^ BUSY ^ OUTDATED, empty);
        }
    }
}

//! A slot: one entry under a seqlock.

use crate::sync::{AtomicU64, Ordering, fence};

/// An entry that is read without a lock.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot<const WORDS: usize> {
    /// From the lowest bit on: the state, a few bits of the payload, and the version, which is
    /// incremented by each write.
    state: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The content of a slot: words, and a few bits more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Payload<const WORDS: usize> {
    pub(super) words: [u64; WORDS],
    /// Less than 2 to the power of [`PAYLOAD_WIDTH`].
    pub(super) bits: u64,
}

pub(super) const PAYLOAD_WIDTH: u32 = 22;

/// The bits of the state.
const STATE: u64 = 0b11;
const EMPTY: u64 = 0;
/// The words may be read.
const VALID: u64 = 1;
/// The words are being written.
const WRITING: u64 = 2;
/// The words are being written, and were invalidated in the meantime.
const INVALIDATED: u64 = 3;

/// The bits of the payload.
const PAYLOAD_BITS: u64 = ((1 << PAYLOAD_WIDTH) - 1) << 2;
/// The increment of the version. A read takes nanoseconds, and a version recurs after a million million
/// writes.
const ONE_VERSION: u64 = STATE + PAYLOAD_BITS + 1;

impl<const WORDS: usize> Slot<WORDS> {
    pub(super) fn new() -> Self {
        Self { state: AtomicU64::new(EMPTY), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Returns the payload, if it begins with the words of `key`.
    #[inline(always)]
    pub(super) fn read<const KEY_WORDS: usize>(
        &self,
        key: [u64; KEY_WORDS],
    ) -> Option<Payload<WORDS>> {
        let state = self.state.load(Ordering::Acquire);
        if state & STATE != VALID {
            return None;
        }
        for (word, expected) in self.words.iter().zip(key) {
            if word.load(Ordering::Relaxed) != expected {
                return None;
            }
        }
        let words = std::array::from_fn(|n| self.words[n].load(Ordering::Relaxed));
        // A reader that has loaded a word of a later write sees that the state has changed.
        fence(Ordering::Acquire);
        let is_same = self.state.load(Ordering::Relaxed) == state;
        is_same.then_some(Payload { words, bits: (state & PAYLOAD_BITS) >> 2 })
    }

    /// Writes what `find` returns, unless another thread is writing.
    ///
    /// `find` reads the entry in the map. A thread that changes it there calls
    /// [`invalidate`](Self::invalidate) afterwards: either that follows the start of this write and
    /// cancels it, or the change is visible to `find`.
    pub(super) fn try_fill(&self, find: impl FnOnce() -> Option<Payload<WORDS>>) {
        let state = self.state.load(Ordering::Relaxed);
        let writing = (state & !(STATE | PAYLOAD_BITS)).wrapping_add(ONE_VERSION) | WRITING;
        if matches!(state & STATE, WRITING | INVALIDATED) || !self.exchange(state, writing) {
            return;
        }
        fence(Ordering::Release);
        let writer = SlotWriter { slot: self, writing };
        let Some(Payload { words, bits }) = find() else { return };
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.exchange(writing, writing ^ WRITING ^ VALID | bits << 2 & PAYLOAD_BITS);
        drop(writer);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.load(Ordering::Relaxed) & STATE == EMPTY
    }

    /// Invalidates the payload, and the one that is being written.
    #[cold]
    pub(super) fn invalidate(&self) {
        loop {
            let state = self.state.load(Ordering::Acquire);
            let invalidated = match state & STATE {
                VALID => state ^ VALID ^ EMPTY,
                WRITING => state ^ WRITING ^ INVALIDATED,
                _ => return,
            };
            if self.exchange(state, invalidated) {
                return;
            }
        }
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

/// A write in progress. Unless it was completed, its drop leaves the slot empty.
struct SlotWriter<'a, const WORDS: usize> {
    slot: &'a Slot<WORDS>,
    writing: u64,
}

impl<const WORDS: usize> Drop for SlotWriter<'_, WORDS> {
    fn drop(&mut self) {
        let empty = self.writing ^ WRITING ^ EMPTY;
        if !self.slot.exchange(self.writing, empty) {
            self.slot.exchange(self.writing ^ WRITING ^ INVALIDATED, empty);
        }
    }
}

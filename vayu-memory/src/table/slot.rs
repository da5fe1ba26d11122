//! A slot: the key, the times and the value of one entry, under a seqlock.

use crate::sync::{AtomicU64, Ordering, fence, store};

/// The words of a key with up to 16 bytes of content, and of one with up to 48.
pub(super) const NARROW_KEY: usize = 3;
pub(super) const WIDE_KEY: usize = 7;

/// The words of an entry in its slot: three of the key, when it was created, when it expires, its
/// schema stamp, and its value.
const WORDS: usize = NARROW_KEY + 4;
/// The words of an entry in the extension of its slot: four more of the key, the end of its staleness,
/// the small parts of its record, and one more of its value.
const MORE_WORDS: usize = 8;
const MORE_KEY: usize = WIDE_KEY - NARROW_KEY;

/// One entry, in one cache line. Only the holder of the lock of its shard writes it.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Slot {
    state: AtomicU64,
    words: [AtomicU64; WORDS],
}

/// The part of an entry that does not fit into its slot. It is protected by the state of the slot.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Extension([AtomicU64; MORE_WORDS]);

/// The state of a slot. From the lowest bit on: the situation (2 bits), the references (4), whether the
/// value is held beside the slot (1), the kind of the value (4), the layout (1), the compute time (16),
/// and the version (36), which each write increments.
///
/// A read takes nanoseconds, and a version recurs after 2^36 writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u64);

const SITUATION: u64 = 0b11;
const EMPTY: u64 = 0;
const VALID: u64 = 1;
const WRITING: u64 = 2;

/// A bit for each of the first references.
const REFERENCED: u64 = 0b1111 << 2;

/// Set if the kind is [`HELD`]. The same fact is stored twice, so that a hit compares the situation, the layout and this in one
/// masked comparison.
const IS_HELD: u64 = 1 << 6;
const KIND_SHIFT: u32 = 7;
const KIND_MASK: u64 = 0xf;
/// The kind of a value that is not made of words.
pub(super) const HELD: u64 = 15;
const EXTENDED: u64 = 1 << 11;
const COMPUTE_TIME_SHIFT: u32 = 12;
const ONE_VERSION: u64 = 1 << 28;
const VERSION: u64 = !(ONE_VERSION - 1);

impl State {
    #[inline(always)]
    pub(super) fn is_valid(self) -> bool {
        self.0 & SITUATION == VALID
    }

    /// The kind of entries that are in their slot, except for their values, which are held beside it.
    pub(super) const BESIDE_SLOT: EntryKind =
        EntryKind { mask: SITUATION | EXTENDED | IS_HELD, state: VALID | IS_HELD };

    /// Returns the kind of entries that are in their slot alone, with words of this kind as the value.
    #[inline(always)]
    pub(super) fn in_slot(kind: Option<u64>) -> EntryKind {
        EntryKind::new(VALID, kind)
    }

    /// Returns the kind of entries that have an extension, with words of this kind as the value.
    #[inline(always)]
    pub(super) fn extended(kind: Option<u64>) -> EntryKind {
        EntryKind::new(VALID | EXTENDED, kind)
    }

    /// Returns whether this is the state of an entry of this kind.
    #[inline(always)]
    pub(super) fn is(self, EntryKind { mask, state }: EntryKind) -> bool {
        self.0 & mask == state
    }

    /// Returns whether this is the state of an entry of this kind that was referenced so often recently that further reads
    /// change nothing.
    #[inline(always)]
    pub(super) fn is_referenced(self, EntryKind { mask, state }: EntryKind) -> bool {
        self.0 & (mask | REFERENCED) == state | REFERENCED
    }

    #[inline(always)]
    pub(super) fn is_extended(self) -> bool {
        self.0 & EXTENDED != 0
    }

    /// Returns the kind of the value, [`HELD`] if it is not made of words.
    #[inline(always)]
    pub(super) fn kind(self) -> u64 {
        self.0 >> KIND_SHIFT & KIND_MASK
    }

    #[inline(always)]
    pub(super) fn compute_time(self) -> u16 {
        (self.0 >> COMPUTE_TIME_SHIFT & 0xffff) as u16
    }

    /// Returns whether the entry was referenced so often recently that further reads change nothing.
    #[inline(always)]
    pub(super) fn is_fully_referenced(self) -> bool {
        self.0 & REFERENCED == REFERENCED
    }

    /// Returns the references of an entry, none if there is no entry.
    pub(super) fn references(self) -> References {
        References(if self.is_valid() { self.0 & REFERENCED } else { 0 })
    }

    #[inline(always)]
    fn is_same_entry(self, other: Self) -> bool {
        (self.0 ^ other.0) & !REFERENCED == 0
    }
}

/// A kind of entries: a part of their state.
#[derive(Debug, Clone, Copy)]
pub(super) struct EntryKind {
    mask: u64,
    state: u64,
}

impl EntryKind {
    #[inline(always)]
    fn new(state: u64, kind: Option<u64>) -> Self {
        let mask = SITUATION | EXTENDED | IS_HELD;
        match kind {
            None => Self { mask, state },
            Some(kind) => {
                Self { mask: mask | KIND_MASK << KIND_SHIFT, state: state | kind << KIND_SHIFT }
            }
        }
    }
}

/// The reference bits of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct References(u64);

impl References {
    /// The references of a new entry.
    pub(super) const NONE: Self = Self(0);
}

/// The version of a slot that is being written.
#[derive(Debug)]
pub(super) struct Version(u64);

/// The words of an entry, all but its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) created: u64,
    pub(super) expires: u64,
    pub(super) schema: u64,
    /// The kind of the value, [`HELD`] if it is not made of words.
    pub(super) kind: u64,
    pub(super) value: u64,
    pub(super) compute_time: u16,
    /// Only of an entry that has them.
    pub(super) more: Option<MoreWords>,
}

/// The words of an entry that are in its extension, all but its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MoreWords {
    pub(super) stale_until: u64,
    pub(super) small: u64,
    pub(super) value: u64,
}

impl Slot {
    pub(super) fn new() -> Self {
        Self { state: AtomicU64::new(EMPTY), words: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Returns the state. What is read after it belongs to it if [`is_still`](Self::is_still) returns
    /// `true` at the end.
    #[inline(always)]
    pub(super) fn state(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    /// Returns whether the entry is the same as when its state was read, and was not written since.
    #[inline(always)]
    pub(super) fn is_still(&self, state: State) -> bool {
        // A reader that has loaded a word of a later write sees that the state has changed.
        fence(Ordering::Acquire);
        State(self.state.load(Ordering::Relaxed)).is_same_entry(state)
    }

    /// Returns whether nothing has changed since the state was read, not even the references: one comparison.
    #[inline(always)]
    pub(super) fn is_unchanged(&self, state: State) -> bool {
        // As in `is_still`.
        fence(Ordering::Acquire);
        self.state.load(Ordering::Relaxed) == state.0
    }

    /// Returns whether the key of the slot begins with these words.
    #[inline(always)]
    pub(super) fn has_key(&self, key: [u64; NARROW_KEY]) -> bool {
        // One after the other: comparing several at once would load more than a word.
        self.words[0].load(Ordering::Relaxed) == key[0]
            && self.words[1].load(Ordering::Relaxed) == key[1]
            && self.words[2].load(Ordering::Relaxed) == key[2]
    }

    /// Loads the words of an entry that has no extension.
    #[inline(always)]
    pub(super) fn load(&self, state: State) -> Words {
        let word = |at: usize| self.words[NARROW_KEY + at].load(Ordering::Relaxed);
        Words {
            created: word(0),
            expires: word(1),
            schema: word(2),
            kind: state.kind(),
            value: word(3),
            compute_time: state.compute_time(),
            more: None,
        }
    }

    /// Marks the entry as referenced, once more, and returns its state then. At worst the slot has another entry in the
    /// meantime, which is marked, and another state.
    #[cold]
    pub(super) fn mark_referenced(&self, state: State) -> State {
        let bit = lowest_bit(!state.0 & REFERENCED);
        self.state.fetch_or(bit, Ordering::Relaxed);
        State(state.0 | bit)
    }

    /// Clears the references of the entry, all or one, and returns whether there were any.
    #[inline(always)]
    pub(super) fn clear_references(&self, all: bool) -> bool {
        let referenced = self.state.load(Ordering::Relaxed) & REFERENCED;
        if referenced == 0 {
            return false;
        }
        let bits = if all { referenced } else { lowest_bit(referenced) };
        self.state.fetch_and(!bits, Ordering::Relaxed);
        true
    }

    /// Returns when the entry expires, as a word. For the holder of the lock of its shard.
    pub(super) fn expires(&self) -> u64 {
        self.words[NARROW_KEY + 1].load(Ordering::Relaxed)
    }

    /// Returns the words of the key. For the holder of the lock of its shard.
    pub(super) fn key(&self) -> [u64; NARROW_KEY] {
        std::array::from_fn(|at| self.words[at].load(Ordering::Relaxed))
    }

    /// Begins to write: readers do not accept what they read from here on.
    #[inline(always)]
    pub(super) fn begin_write(&self) -> Version {
        let version = (self.state.load(Ordering::Relaxed) & VERSION).wrapping_add(ONE_VERSION);
        store(&self.state, version | WRITING, Ordering::Relaxed);
        fence(Ordering::Release);
        Version(version)
    }

    /// Ends to write, with an entry. If it replaces one with the same key, it takes its references.
    #[inline(always)]
    pub(super) fn end_write(
        &self,
        Version(version): Version,
        key: [u64; NARROW_KEY],
        words: &Words,
        References(references): References,
    ) {
        let [first, second, third] = key;
        let all = [first, second, third, words.created, words.expires, words.schema, words.value];
        for (place, word) in self.words.iter().zip(all) {
            place.store(word, Ordering::Relaxed);
        }
        let state = version
            | VALID
            | words.kind << KIND_SHIFT
            | if words.kind == HELD { IS_HELD } else { 0 }
            | u64::from(words.compute_time) << COMPUTE_TIME_SHIFT
            | if words.more.is_some() { EXTENDED } else { 0 }
            | references;
        store(&self.state, state, Ordering::Release);
    }

    /// Ends to write, without an entry.
    pub(super) fn end_empty(&self, Version(version): Version) {
        // No key begins with zero.
        self.words[0].store(0, Ordering::Relaxed);
        store(&self.state, version | EMPTY, Ordering::Release);
    }
}

/// Returns the lowest bit that is set.
#[inline(always)]
fn lowest_bit(bits: u64) -> u64 {
    bits & bits.wrapping_neg()
}

impl Extension {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Returns whether the key of the slot goes on with these words.
    #[inline(always)]
    pub(super) fn has_key(&self, key: [u64; WIDE_KEY]) -> bool {
        let mut same = true;
        for at in 0..MORE_KEY {
            same = same && self.0[at].load(Ordering::Relaxed) == key[NARROW_KEY + at];
        }
        same
    }

    /// Returns the words of the key of the slot, which begins with `first`.
    pub(super) fn key_after(&self, first: [u64; NARROW_KEY]) -> [u64; WIDE_KEY] {
        std::array::from_fn(|at| match at.checked_sub(NARROW_KEY) {
            None => first[at],
            Some(rest) => self.0[rest].load(Ordering::Relaxed),
        })
    }

    #[inline(always)]
    pub(super) fn load(&self) -> MoreWords {
        // Not by `map` of an array, which is a function of its own.
        let word = |at: usize| self.0[MORE_KEY + at].load(Ordering::Relaxed);
        MoreWords { stale_until: word(0), small: word(1), value: word(2) }
    }

    /// Writes the rest of an entry, between [`Slot::begin_write`] and [`Slot::end_write`].
    pub(super) fn store(&self, key: Option<[u64; WIDE_KEY]>, words: MoreWords) {
        let key = key.unwrap_or_default();
        let rest = [words.stale_until, words.small, words.value];
        for (place, word) in self.0.iter().zip(key.into_iter().skip(NARROW_KEY).chain(rest)) {
            place.store(word, Ordering::Relaxed);
        }
    }
}

//! The index: the slots of keys by their hash, read without a lock.
//!
//! A line of the index is one cache line with twelve places: for each a tag, which is eight bits of the
//! hash, and the number of a slot. A key that finds its line full is in one of the next lines, and the
//! lines that it passed count it. Readers compare eight tags at once, and trust nothing of what they
//! find: the key in the slot decides.

use std::sync::OnceLock;

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// The part of a hash that the table uses. Its lowest bit is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HashPart(u32);

impl HashPart {
    #[inline(always)]
    pub(super) fn of(hash: u64) -> Self {
        Self((hash >> 32) as u32 & !1)
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        Self(bits & !1)
    }

    pub(super) fn to_bits(self) -> u32 {
        self.0
    }

    /// Returns the hash as a fraction, scaled to a number of places.
    #[inline(always)]
    pub(super) fn scaled(self, places: usize) -> usize {
        ((u64::from(self.0) * places as u64) >> 32) as usize
    }

    /// Returns the tag, which is not zero.
    #[inline(always)]
    fn tag(self) -> u64 {
        u64::from(self.0 >> 1 & 0xff).max(1)
    }
}

/// The places of a line.
const PLACES: usize = 12;

/// A line of the index.
#[derive(Debug)]
#[repr(align(64))]
struct Line {
    /// Twelve tags, zero for a place that is not used. The last four bytes are the number of keys that
    /// went on to the next line.
    tags: [AtomicU64; 2],
    slots: [AtomicU32; PLACES],
}

/// The lowest bit of each byte, and the highest.
const LOWEST: u64 = u64::MAX / 255;
const HIGHEST: u64 = LOWEST << 7;
const ONE_PASSED: u64 = 1 << 32;

impl Line {
    fn new() -> Self {
        Self {
            tags: std::array::from_fn(|_| AtomicU64::new(0)),
            slots: std::array::from_fn(|_| AtomicU32::new(0)),
        }
    }

    /// Returns the places among eight that may have this tag, as the highest bits of bytes. The lowest of
    /// them has it.
    #[inline(always)]
    fn candidates(&self, word: usize, tag: u64) -> u64 {
        let differ = self.tags[word].load(Ordering::Acquire) ^ (LOWEST * tag);
        differ.wrapping_sub(LOWEST) & !differ & HIGHEST
    }

    /// Returns whether a key went on to the next line.
    #[inline(always)]
    fn was_passed(&self) -> bool {
        self.tags[1].load(Ordering::Relaxed) >> 32 != 0
    }

    fn tag_at(&self, place: usize) -> u64 {
        self.tags[place / 8].load(Ordering::Relaxed) >> (place % 8 * 8) & 0xff
    }

    /// Sets a place. Readers that see the tag see the slot.
    fn set(&self, place: usize, tag: u64, slot: u32) {
        self.slots[place].store(slot, Ordering::Relaxed);
        let (word, shift) = (&self.tags[place / 8], place % 8 * 8);
        let others = word.load(Ordering::Relaxed) & !(0xff << shift);
        word.store(others | tag << shift, Ordering::Release);
    }

    fn change_passed(&self, change: impl FnOnce(u64, u64) -> u64) {
        let tags = self.tags[1].load(Ordering::Relaxed);
        self.tags[1].store(change(tags, ONE_PASSED), Ordering::Relaxed);
    }
}

/// The lines of all shards, at one size. A shard has as many lines as any other.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Box<[Line]>,
    of_shard: usize,
}

impl Lines {
    /// Creates lines for `entries` entries in each of `shards` shards. Seven of the twelve places of a line
    /// are used on average when they are full, and one key in eleven is beyond the first eight places.
    fn new(shards: usize, entries: usize) -> Self {
        let of_shard = entries / 7 + 1;
        Self { lines: (0..shards * of_shard).map(|_| Line::new()).collect(), of_shard }
    }

    /// Returns the slot of the first candidate: of most keys that are present.
    #[inline(always)]
    pub(super) fn first(&self, hash: HashPart) -> Option<u32> {
        let line = self.lines.get(hash.scaled(self.lines.len()))?;
        let candidates = line.candidates(0, hash.tag());
        let place = candidates.trailing_zeros() as usize / 8;
        // Eight if there is none, and that place is another one.
        (candidates != 0).then(|| line.slots[place % 8].load(Ordering::Relaxed))
    }

    /// Returns what `probe` returns for one of the slots that the key may be in.
    pub(super) fn find<T>(
        &self,
        hash: HashPart,
        mut probe: impl FnMut(u32) -> Option<T>,
    ) -> Option<T> {
        let mut at = hash.scaled(self.lines.len());
        for _ in 0..self.of_shard {
            let line = self.lines.get(at)?;
            for word in 0..2 {
                let mut left = line.candidates(word, hash.tag());
                while left != 0 {
                    let place = word * 8 + left.trailing_zeros() as usize / 8;
                    // The last four bytes are not tags.
                    let Some(slot) = line.slots.get(place) else { break };
                    if let Some(found) = probe(slot.load(Ordering::Relaxed)) {
                        return Some(found);
                    }
                    left &= left - 1;
                }
            }
            if !line.was_passed() {
                return None;
            }
            at = self.next(at);
        }
        None
    }

    /// Adds a slot. For the holder of the lock of its shard.
    pub(super) fn insert(&self, hash: HashPart, slot: u32) {
        let mut at = hash.scaled(self.lines.len());
        for _ in 0..self.of_shard {
            let line = &self.lines[at];
            if let Some(place) = (0..PLACES).find(|&place| line.tag_at(place) == 0) {
                return line.set(place, hash.tag(), slot);
            }
            line.change_passed(u64::wrapping_add);
            at = self.next(at);
        }
        unreachable!("a shard has more places than entries");
    }

    /// Removes a slot that was inserted. For the holder of the lock of its shard.
    pub(super) fn remove(&self, hash: HashPart, slot: u32) {
        let mut at = hash.scaled(self.lines.len());
        for _ in 0..self.of_shard {
            let line = &self.lines[at];
            let is_it = |&place: &usize| {
                line.tag_at(place) == hash.tag()
                    && line.slots[place].load(Ordering::Relaxed) == slot
            };
            if let Some(place) = (0..PLACES).find(is_it) {
                return line.set(place, 0, 0);
            }
            line.change_passed(u64::wrapping_sub);
            at = self.next(at);
        }
        unreachable!("the slot was inserted");
    }

    /// Returns the line after another one of the same shard.
    fn next(&self, at: usize) -> usize {
        if (at + 1).is_multiple_of(self.of_shard) { at + 1 - self.of_shard } else { at + 1 }
    }
}

/// The index, in sizes that follow each other: a table that outgrows one is indexed in the next. Readers
/// may still read the last one, so it stays until the table is dropped; it is an eighth as large.
#[derive(Debug)]
pub(super) struct Index {
    sizes: [OnceLock<Lines>; SIZES],
    /// The number of the size in use.
    current: AtomicU32,
    shards: usize,
    /// The most entries of a shard.
    capacity: usize,
}

const SIZES: usize = 8;
/// The entries of a table in the first size, unless its limit is lower.
const FIRST: usize = 16 << 10;
/// The factor between two sizes.
const GROWTH: usize = 8;

impl Index {
    pub(super) fn new(shards: usize, capacity: usize) -> Self {
        let sizes = std::array::from_fn(|_| OnceLock::new());
        Self { sizes, current: AtomicU32::new(0), shards, capacity }
    }

    /// Returns the lines in use. `None` if nothing was inserted yet.
    #[inline(always)]
    pub(super) fn current(&self) -> Option<&Lines> {
        self.sizes.get(self.current.load(Ordering::Acquire) as usize)?.get()
    }

    /// Returns the entries of a shard for which a size is made.
    fn entries(&self, size: usize) -> usize {
        let all =
            FIRST.saturating_mul(GROWTH.saturating_pow(u32::try_from(size).unwrap_or(u32::MAX)));
        // The keys of a shard are a random part of all keys.
        let part = all.div_ceil(self.shards);
        if size + 1 == SIZES { self.capacity } else { part.min(self.capacity) }
    }

    /// Returns whether the size in use is full for a shard that has this number of entries.
    pub(super) fn is_full(&self, entries: usize) -> bool {
        let current = self.current.load(Ordering::Relaxed) as usize;
        let room = self.entries(current);
        self.sizes[current].get().is_none() || (entries >= room && room < self.capacity)
    }

    /// Creates the first size, or the next one, filled by `fill`, and uses it. For the holder of the locks
    /// of all shards.
    pub(super) fn grow(&self, fill: impl FnOnce(&Lines)) {
        let current = self.current.load(Ordering::Relaxed) as usize;
        let next = if self.sizes[current].get().is_none() { current } else { current + 1 };
        let lines = Lines::new(self.shards, self.entries(next));
        fill(&lines);
        let is_set = self.sizes[next].set(lines).is_ok();
        debug_assert!(is_set, "all locks are held");
        self.current.store(u32::try_from(next).expect("a small number"), Ordering::Release);
    }
}

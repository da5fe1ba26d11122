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

/// A place of a line.
#[derive(Debug, Clone, Copy)]
struct PlaceInLine {
    word: usize,
    byte: usize,
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

    /// Returns the lowest place that has this tag, among those whose tags are in one word.
    #[inline(always)]
    fn lowest(&self, word: usize, tag: u64) -> Option<PlaceInLine> {
        // The last four bytes are not tags.
        let tags = if word == 0 { u64::MAX } else { ONE_PASSED - 1 };
        let candidates = self.candidates(word, tag) & tags;
        let places = if word == 0 { 8 } else { PLACES - 8 };
        let byte = candidates.trailing_zeros() as usize / 8 % places;
        (candidates != 0).then_some(PlaceInLine { word, byte })
    }

    /// Returns a place that is not used.
    #[inline(always)]
    fn free(&self) -> Option<PlaceInLine> {
        self.lowest(0, 0).or_else(|| self.lowest(1, 0))
    }

    /// Returns the place of a slot.
    #[inline(always)]
    fn place_of(&self, tag: u64, slot: u32) -> Option<PlaceInLine> {
        for word in 0..2 {
            let mut places = self.places_with(word, tag);
            while places != 0 {
                let byte = places.trailing_zeros() as usize / 8;
                let place = PlaceInLine { word, byte };
                if self.slots.get(word * 8 + byte)?.load(Ordering::Relaxed) == slot {
                    return Some(place);
                }
                places &= places - 1;
            }
        }
        None
    }

    /// Returns the places whose tags are in one word and that have this tag, as the highest bits of bytes.
    #[inline(always)]
    fn places_with(&self, word: usize, tag: u64) -> u64 {
        let differ = self.tags[word].load(Ordering::Relaxed) ^ (LOWEST * tag);
        // Without a carry from one byte to the next.
        !((differ & !HIGHEST).wrapping_add(!HIGHEST) | differ) & HIGHEST
    }

    fn places() -> impl Iterator<Item = PlaceInLine> {
        (0..PLACES).map(|place| PlaceInLine { word: place / 8, byte: place % 8 })
    }

    #[inline(always)]
    fn slot(&self, place: PlaceInLine) -> &AtomicU32 {
        &self.slots[place.word * 8 + place.byte]
    }

    fn tag_at(&self, place: PlaceInLine) -> u64 {
        self.tags[place.word].load(Ordering::Relaxed) >> (place.byte * 8) & 0xff
    }

    /// Returns whether a key went on to the next line.
    #[inline(always)]
    fn was_passed(&self) -> bool {
        self.tags[1].load(Ordering::Relaxed) >> 32 != 0
    }

    /// Sets a place. Readers that see the tag see the slot.
    #[inline(always)]
    fn set(&self, place: PlaceInLine, tag: u64, slot: u32) {
        self.slot(place).store(slot, Ordering::Relaxed);
        let (word, shift) = (&self.tags[place.word], place.byte * 8);
        let others = word.load(Ordering::Relaxed) & !(0xff << shift);
        word.store(others | tag << shift, Ordering::Release);
    }

    fn change_passed(&self, change: impl FnOnce(u64, u64) -> u64) {
        let tags = self.tags[1].load(Ordering::Relaxed);
        // Readers of this store see the slots of the tags that it repeats.
        self.tags[1].store(change(tags, ONE_PASSED), Ordering::Release);
    }
}

/// The lines of all shards, at one size. A shard has as many lines as any other.
#[derive(Debug)]
pub(super) struct Lines {
    all: Box<[Line]>,
    of_shard: usize,
    /// The number of entries of a shard from which on the next size is to be used.
    full_at: usize,
}

impl Lines {
    /// Creates lines for `entries` entries in each of `shards` shards. Seven of the twelve places of a line
    /// are used on average when they are full, and one key in eleven is beyond the first eight places.
    fn new(shards: usize, entries: usize, full_at: usize) -> Self {
        let of_shard = entries / 7 + 1;
        let all = (0..shards * of_shard).map(|_| Line::new()).collect();
        Self { all, of_shard, full_at }
    }

    /// Returns whether these lines are full for a shard that has this number of entries.
    #[inline(always)]
    pub(super) fn are_full(&self, entries: usize) -> bool {
        entries >= self.full_at
    }

    /// Returns the first line in which a key with this hash may be.
    #[inline(always)]
    pub(super) fn home(&self, hash: HashPart) -> Home {
        Home(hash.scaled(self.all.len()))
    }

    /// Returns whether one line is enough to know that no slot has a key with this hash.
    #[inline(always)]
    pub(super) fn have_no_candidate(&self, Home(at): Home, hash: HashPart) -> bool {
        self.all.get(at).is_none_or(|line| {
            let others = line.candidates(1, hash.tag());
            // The last four bytes are the number of keys that went on.
            (line.candidates(0, hash.tag()) | others & (ONE_PASSED - 1)) == 0 && !line.was_passed()
        })
    }

    /// Returns the slots in some lines of a shard, from the line `first` on. Empty after its last line.
    pub(super) fn slots(
        &self,
        shard: usize,
        first: usize,
        lines: usize,
    ) -> impl Iterator<Item = u32> {
        let range = first.min(self.of_shard)..(first + lines).min(self.of_shard);
        let start = shard * self.of_shard;
        let lines = self.all.get(start + range.start..start + range.end).unwrap_or_default();
        lines.iter().flat_map(|line| {
            let used = Line::places().filter(|place| line.tag_at(*place) != 0);
            used.map(|place| line.slot(place).load(Ordering::Relaxed))
        })
    }

    /// Returns the number of lines of a shard.
    pub(super) fn of_shard(&self) -> usize {
        self.of_shard
    }

    /// Returns the slot of the first candidate: of most keys that are present.
    #[inline(always)]
    pub(super) fn first(&self, hash: HashPart) -> Option<u32> {
        let line = self.all.get(hash.scaled(self.all.len()))?;
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
        let mut at = hash.scaled(self.all.len());
        for _ in 0..self.of_shard {
            let line = self.all.get(at)?;
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
    #[inline(always)]
    pub(super) fn insert(&self, Home(at): Home, hash: HashPart, slot: u32) {
        let line = &self.all[at];
        match line.free() {
            Some(place) => line.set(place, hash.tag(), slot),
            None => self.insert_after(at, hash, slot),
        }
    }

    /// Adds a slot to a line after a full one.
    #[cold]
    fn insert_after(&self, mut at: usize, hash: HashPart, slot: u32) {
        for _ in 1..self.of_shard {
            self.all[at].change_passed(u64::wrapping_add);
            at = self.next(at);
            let line = &self.all[at];
            if let Some(place) = line.free() {
                return line.set(place, hash.tag(), slot);
            }
        }
        unreachable!("a shard has more places than entries");
    }

    /// Removes a slot that was inserted. For the holder of the lock of its shard.
    #[inline(always)]
    pub(super) fn remove(&self, hash: HashPart, slot: u32) {
        let Home(at) = self.home(hash);
        let line = &self.all[at];
        match line.place_of(hash.tag(), slot) {
            Some(place) => line.set(place, 0, 0),
            None => self.remove_after(at, hash, slot),
        }
    }

    /// Removes a slot from a line after the one in which it is not.
    #[cold]
    fn remove_after(&self, mut at: usize, hash: HashPart, slot: u32) {
        for _ in 1..self.of_shard {
            self.all[at].change_passed(u64::wrapping_sub);
            at = self.next(at);
            let line = &self.all[at];
            if let Some(place) = line.place_of(hash.tag(), slot) {
                return line.set(place, 0, 0);
            }
        }
        unreachable!("the slot was inserted");
    }

    /// Returns the line after another one of the same shard.
    fn next(&self, at: usize) -> usize {
        if (at + 1).is_multiple_of(self.of_shard) { at + 1 - self.of_shard } else { at + 1 }
    }
}

/// The number of a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home(usize);

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
        self.sizes[self.current.load(Ordering::Acquire) as usize % SIZES].get()
    }

    /// Returns the entries of a shard for which a size is made.
    fn entries(&self, size: usize) -> usize {
        let all =
            FIRST.saturating_mul(GROWTH.saturating_pow(u32::try_from(size).unwrap_or(u32::MAX)));
        // The keys of a shard are a random part of all keys.
        let part = all.div_ceil(self.shards);
        if size + 1 == SIZES { self.capacity } else { part.min(self.capacity) }
    }

    /// Returns the lines of the next size, not filled. `None` if the size in use has enough for a shard
    /// with this number of entries.
    pub(super) fn next_size(&self, entries: usize) -> Option<Lines> {
        if self.current().is_some_and(|lines| !lines.are_full(entries)) {
            return None;
        }
        let room = self.entries(self.next());
        let full_at = if room < self.capacity { room } else { usize::MAX };
        Some(Lines::new(self.shards, room, full_at))
    }

    /// Uses the lines of the next size. For the holder of the locks of all shards.
    pub(super) fn grow(&self, lines: Lines) {
        let next = self.next();
        let is_set = self.sizes[next].set(lines).is_ok();
        debug_assert!(is_set, "all locks are held");
        self.current.store(u32::try_from(next).expect("a small number"), Ordering::Release);
    }

    /// Returns the number of the next size.
    fn next(&self) -> usize {
        let current = self.current.load(Ordering::Relaxed) as usize;
        if self.sizes[current].get().is_none() { current } else { current + 1 }
    }
}

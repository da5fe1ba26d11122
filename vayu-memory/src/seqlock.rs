//! A lock-free table of frequently read small entries, in front of the map.
//!
//! The table is a set-associative cache of copies. The hash of a key selects a set; a set has four
//! slots (ways) and one word with the tags of all four, parts of the hashes of their keys, so that most
//! absent keys are rejected without reading a slot. A slot is a seqlock: its state word has a version
//! that each writer increments, and a reader accepts the words that it has loaded if the state was the
//! same before and after (an optimistic read). Readers write to no shared memory, unless the entry was
//! not referenced recently.
//!
//! The map decides what is stored. A write, a removal or an eviction in the map invalidates the slots
//! with the tag of the key before it returns. A slot is filled from the map, with an entry that was
//! read there: an unused way at once, otherwise one read in [`PROMOTE_ONE_IN`], if the victim was not
//! referenced recently (clock replacement). The writer first marks the slot as being written, and then
//! reads the map: an invalidation after that finds the mark and cancels the copy, and one before it is
//! visible to the read.

#[cfg(all(test, vayu_loom))]
mod loom_tests;
mod slot;
mod table;
mod tags;
#[cfg(all(test, not(vayu_loom)))]
mod tests;

use std::cell::Cell;
use std::hash::BuildHasher;

use vayu_core::__internal::{
    CompactKey, key_words, record_from_small_words, record_from_words, record_words,
    small_record_words,
};
use vayu_core::{BuildKeyHasher, Key, Record};

use self::slot::Payload;
use self::table::Table;
use crate::value::{MemoryValue, VALUE_WORDS};

/// Copies of entries of the map with short keys and inline values.
#[derive(Debug)]
pub(crate) struct SeqlockCache(Option<Tables>);

#[derive(Debug)]
struct Tables {
    /// Numbers with short keys: one cache line each.
    narrow: Table<NARROW>,
    /// Numbers with longer keys, and longer records: two cache lines each.
    wide: Table<WIDE>,
}

const SHORT_KEY: usize = 3;
const LONG_KEY: usize = 7;

const NARROW: usize = SHORT_KEY + 4;
const WIDE: usize = LONG_KEY + 5 + VALUE_WORDS;

/// The maximum number of narrow slots. They are all allocated at once, and should take little memory
/// compared with the map.
const MAX_NARROW: usize = 112 << 10;
/// The maximum number of wide slots.
const MAX_WIDE: usize = 4 << 10;
/// Smaller tables are not worth it.
const MIN_SLOTS: usize = 16;

/// A read in the map replaces another entry in the table only once in this many times.
const PROMOTE_ONE_IN: u32 = 64;

impl SeqlockCache {
    /// Creates the table of a map for up to `entries` entries. Up to three quarters of them have a slot,
    /// so that the map finds others to evict.
    pub(crate) fn with_capacity(entries: usize) -> Self {
        let (narrow, wide) = ((entries / 2).min(MAX_NARROW), (entries / 4).min(MAX_WIDE));
        Self(
            (narrow >= MIN_SLOTS)
                .then(|| Tables { narrow: Table::new(narrow), wide: Table::new(wide) }),
        )
    }

    /// Creates a table without slots.
    pub(crate) fn disabled() -> Self {
        Self(None)
    }

    /// Returns the record of a key that has a slot, with the words of its value. Calls `on_referenced` for the first reads after a
    /// while.
    #[inline(always)]
    pub(crate) fn get(
        &self,
        key: &Key,
        on_referenced: impl Fn(),
    ) -> Option<Record<[u64; VALUE_WORDS]>> {
        let tables = self.0.as_ref()?;
        let hash = key.hash_code();
        if let Some(words) = key_words::<SHORT_KEY>(key)
            && let Some(entry) = tables.narrow.get(hash, words, &on_referenced)
        {
            return from_narrow(entry);
        }
        Some(from_wide(tables.wide.get(hash, key_words::<LONG_KEY>(key)?, &on_referenced)?))
    }

    /// Allocates slots, if the entry that is about to be written may get one. A hit then allocates
    /// nothing, unless its value is the first that has become inline since it was written.
    #[inline]
    pub(crate) fn ensure_allocated<V: MemoryValue>(&self, key: &Key, record: &Record<V>) {
        if let Some(tables) = &self.0 {
            tables.ensure_allocated(key, record);
        }
    }

    /// Copies an entry that was `found` in the map to a slot: to an unused one, or now and then to one
    /// whose entry was not referenced recently. `find` reads the entry in the map again.
    #[inline]
    pub(crate) fn promote<V: MemoryValue>(
        &self,
        key: &Key,
        found: &Record<V>,
        find: impl Fn() -> Option<Record<V>>,
    ) {
        let Some(tables) = &self.0 else { return };
        let hash = key.hash_code();
        match Layout::of(key, found) {
            Some(Layout::Narrow(words)) => {
                promote(&tables.narrow, hash, || to_narrow(words, &find()?));
            }
            Some(Layout::Wide(words)) => promote(&tables.wide, hash, || to_wide(words, &find()?)),
            None => {}
        }
    }

    /// Invalidates the slots of keys with this hash, whose record was replaced or removed in the map.
    #[inline]
    pub(crate) fn invalidate(&self, hash: u64) {
        if let Some(tables) = &self.0 {
            tables.narrow.invalidate(hash);
            tables.wide.invalidate(hash);
        }
    }

    /// Invalidates all slots.
    pub(crate) fn clear(&self) {
        if let Some(tables) = &self.0 {
            tables.narrow.clear();
            tables.wide.clear();
        }
    }

    /// Invalidates the slots of a key of the map.
    pub(crate) fn invalidate_key(&self, key: &CompactKey) {
        if self.is_allocated() {
            self.invalidate(BuildKeyHasher.hash_one(key));
        }
    }

    /// Returns whether a key of the map was referenced here since the last call, and clears that.
    pub(crate) fn take_referenced(&self, key: &CompactKey) -> bool {
        let Some(tables) = self.0.as_ref().filter(|_| self.is_allocated()) else { return false };
        let hash = BuildKeyHasher.hash_one(key);
        tables.narrow.take_referenced(hash) || tables.wide.take_referenced(hash)
    }

    fn is_allocated(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|tables| !tables.narrow.is_unallocated() || !tables.wide.is_unallocated())
    }
}

impl Tables {
    #[inline]
    fn ensure_allocated<V: MemoryValue>(&self, key: &Key, record: &Record<V>) {
        match Layout::of(key, record) {
            Some(Layout::Narrow(_)) => self.narrow.ensure_allocated(),
            Some(Layout::Wide(_)) => self.wide.ensure_allocated(),
            None => {}
        }
    }
}

#[inline]
fn promote<const WORDS: usize>(
    table: &Table<WORDS>,
    hash: u64,
    find: impl Fn() -> Option<Payload<WORDS>>,
) {
    table.ensure_allocated();
    if table.has_unused_way(hash) || is_promotion_due() {
        table.try_fill(hash, find);
    }
}

/// The table that an entry fits into, and its key as words.
enum Layout {
    Narrow([u64; SHORT_KEY]),
    Wide([u64; LONG_KEY]),
}

impl Layout {
    #[inline]
    fn of<V: MemoryValue>(key: &Key, record: &Record<V>) -> Option<Self> {
        record.value().to_words()?;
        match key_words(key) {
            Some(words) if to_narrow(words, record).is_some() => Some(Self::Narrow(words)),
            _ => key_words(key).map(Self::Wide),
        }
    }
}

#[inline]
fn to_narrow<V: MemoryValue>(key: [u64; SHORT_KEY], record: &Record<V>) -> Option<Payload<NARROW>> {
    let [kind @ 0..16, value, 0] = record.value().to_words()? else { return None };
    let ([created, expires, schema], compute_time) = small_record_words(record)?;
    let [first, second, third] = key;
    let words = [first, second, third, created, expires, schema, value];
    Some(Payload { words, bits: u64::from(compute_time) << 4 | kind })
}

#[inline(always)]
fn from_narrow(Payload { words, bits }: Payload<NARROW>) -> Option<Record<[u64; VALUE_WORDS]>> {
    let [.., created, expires, schema, value] = words;
    let compute_time = u16::try_from(bits >> 4).ok()?;
    let value = [bits & 0xf, value, 0];
    Some(record_from_small_words(([created, expires, schema], compute_time), value))
}

fn to_wide<V: MemoryValue>(key: [u64; LONG_KEY], record: &Record<V>) -> Option<Payload<WIDE>> {
    let value = record.value().to_words()?;
    let all = key.into_iter().chain(record_words(record)).chain(value);
    let mut words = [0; WIDE];
    words.iter_mut().zip(all).for_each(|(place, word)| *place = word);
    Some(Payload { words, bits: 0 })
}

#[inline(always)]
fn from_wide(Payload { words, .. }: Payload<WIDE>) -> Record<[u64; VALUE_WORDS]> {
    let [_, _, _, _, _, _, _, created, expires, stale_until, schema, small, kind, value, more] =
        words;
    record_from_words([created, expires, stale_until, schema, small], [kind, value, more])
}

thread_local! {
    /// The reads of this thread in the map.
    static MAP_HITS: Cell<u32> = const { Cell::new(0) };
}

fn is_promotion_due() -> bool {
    let found = MAP_HITS.get().wrapping_add(1);
    MAP_HITS.set(found);
    found.is_multiple_of(PROMOTE_ONE_IN)
}

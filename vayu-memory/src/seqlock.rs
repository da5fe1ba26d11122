//! What is asked for again and again, where it is read without a lock.

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

/// Copies of entries of the map whose keys and values are few words. To read one takes no lock and
/// writes to no memory that threads share.
///
/// The map remains in charge of what is kept: what leaves it, or is replaced there, loses its seat
/// here, and when it looks for what to evict it is told what was asked for here.
#[derive(Debug)]
pub(crate) struct SeqlockCache(Option<Tables>);

#[derive(Debug)]
struct Tables {
    /// Numbers by short keys: an entry takes one cache line.
    narrow: Table<NARROW>,
    /// What else is few words: two cache lines.
    wide: Table<WIDE>,
}

const SHORT_KEY: usize = 3;
const LONG_KEY: usize = 5;

const NARROW: usize = SHORT_KEY + 4;
const WIDE: usize = LONG_KEY + 5 + VALUE_WORDS;

/// Not more narrow seats than this: they are all made at once, and many entries should take little
/// more memory than the map.
const MAX_NARROW: usize = 112 << 10;
/// Not more wide ones.
const MAX_WIDE: usize = 4 << 10;
/// Fewer are not worth it.
const MIN_SLOTS: usize = 16;

/// One of so many keys that are found in the map is offered a seat that was taken before.
const PROMOTE_ONE_IN: u32 = 64;

impl SeqlockCache {
    /// A front of a map with room for so many entries. At most three quarters of them have a seat, so
    /// that the map finds others to evict.
    pub(crate) fn with_capacity(entries: usize) -> Self {
        let (narrow, wide) = ((entries / 2).min(MAX_NARROW), (entries / 4).min(MAX_WIDE));
        Self(
            (narrow >= MIN_SLOTS)
                .then(|| Tables { narrow: Table::new(narrow), wide: Table::new(wide) }),
        )
    }

    /// No front.
    pub(crate) fn disabled() -> Self {
        Self(None)
    }

    /// The record of a key that has a seat. Of the first reads after a while, `on_referenced` is told.
    #[inline(always)]
    pub(crate) fn get<V: MemoryValue>(
        &self,
        key: &Key,
        on_referenced: impl Fn(),
    ) -> Option<Record<V>> {
        let tables = self.0.as_ref()?;
        let hash = key.hash_code();
        if let Some(words) = key_words::<SHORT_KEY>(key)
            && let Some(entry) = tables.narrow.get(hash, words, &on_referenced)
        {
            return from_narrow(entry);
        }
        from_wide(tables.wide.get(hash, key_words::<LONG_KEY>(key)?, &on_referenced)?)
    }

    /// An entry is about to be written: if it is one that may get a seat, there will be seats. A hit
    /// allocates nothing for them, unless what it finds has become few words since, and is the first
    /// that has.
    #[inline]
    pub(crate) fn ensure_allocated<V: MemoryValue>(&self, key: &Key, record: &Record<V>) {
        if let Some(tables) = &self.0 {
            tables.ensure_allocated(key, record);
        }
    }

    /// A key that is `found` in the map was not found here, and would be in the map again by `find`. It
    /// is offered a seat: if one was never taken, and otherwise now and then.
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

    /// The map has a new record for a key with this hash, or none any more.
    #[inline]
    pub(crate) fn invalidate(&self, hash: u64) {
        if let Some(tables) = &self.0 {
            tables.narrow.invalidate(hash);
            tables.wide.invalidate(hash);
        }
    }

    /// Withdraws all that has a seat.
    pub(crate) fn clear(&self) {
        if let Some(tables) = &self.0 {
            tables.narrow.clear();
            tables.wide.clear();
        }
    }

    /// [`invalidate`](Self::invalidate) for a key of the map.
    pub(crate) fn invalidate_key(&self, key: &CompactKey) {
        if self.is_allocated() {
            self.invalidate(BuildKeyHasher.hash_one(key));
        }
    }

    /// Whether a key of the map was asked for here since this was last asked.
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

/// What an entry fits into, and its key in that form.
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
fn from_narrow<V: MemoryValue>(Payload { words, bits }: Payload<NARROW>) -> Option<Record<V>> {
    let [.., created, expires, schema, value] = words;
    let compute_time = u16::try_from(bits >> 4).ok()?;
    let value = V::from_words([bits & 0xf, value, 0])?;
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
fn from_wide<V: MemoryValue>(Payload { words, .. }: Payload<WIDE>) -> Option<Record<V>> {
    let [_, _, _, _, _, created, expires, stale_until, schema, small, kind, value, more] = words;
    let value = V::from_words([kind, value, more])?;
    Some(record_from_words([created, expires, stale_until, schema, small], value))
}

thread_local! {
    /// Keys that were found in the map.
    static MAP_HITS: Cell<u32> = const { Cell::new(0) };
}

fn is_promotion_due() -> bool {
    let found = MAP_HITS.get().wrapping_add(1);
    MAP_HITS.set(found);
    found.is_multiple_of(PROMOTE_ONE_IN)
}

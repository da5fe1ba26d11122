//! The table of the memory backend: entries in slots, read without a lock.
//!
//! # Parts
//!
//! Every entry is in a [slot] of one cache line: its key, its times and its value as words. A
//! longer key and the rarer parts of a record are in an extension of the slot, a second line. What is
//! not made of words, such as a string or a key of more than 48 bytes, is held beside the slot, under
//! a lock of its own. Slots have numbers, and their memory is allocated in [chunks] as the table fills.
//! The [index] leads from the hash of a key to the numbers of a few slots. The [queues] decide which
//! entry is evicted. Lookups are in [read], and stores, removals and evictions in [write].
//!
//! # Locks
//!
//! The hash of a key selects a shard. Writers lock their shard, so each slot, line of the index and queue
//! has one writer at a time. Readers lock nothing: a slot is a seqlock, whose state has a version that
//! each write increments, and a reader accepts the words that it has loaded if the state is the same
//! afterwards. What is held beside the slot is read under a lock of its own, which readers share. It
//! belongs to the state that was read if that is still the same under the lock: a writer changes both
//! under it. Readers trust nothing of the index, so its lines need no versions. A read writes to no
//! shared memory but that lock, unless the entry has a reference bit left to set, and it takes two cache
//! lines for a number: one of the index, one of a slot.
//!
//! A full shard evicts an entry for each new one, which is written to the same slot in one step. The writer
//! that makes the index larger locks all shards, after a lock that makes others wait for it.
//!
//! A reader may find that an entry is being written. It then locks the shard, under which no write is
//! in progress. No key that is present is taken for absent: an entry is replaced in its slot, and when
//! the index grows, the new lines are complete before they are used.
//!
//! No code of users runs under a lock: values that leave the table are returned, to be dropped later.
//!
//! # Forks
//!
//! In a child process a lock may be held by a thread that does not exist there. An operation that finds
//! a lock held, or is about to allocate, asks the operating system for the id of the process, and
//! returns [`Forked`] if the table is that of a parent: the backend then replaces it.

mod chunks;
mod index;
#[cfg(all(test, vayu_loom))]
mod loom_tests;
mod queues;
mod read;
mod slot;
#[cfg(all(test, not(vayu_loom)))]
mod tests;
mod write;

use vayu_core::__internal::{ProcessId, drop_quietly, key_words};
use vayu_core::{EndCause, Key, Prefix, Timestamp};

pub(crate) use self::chunks::Forked;
use self::chunks::{Chunks, MAX_SLOTS, Number, Place, lock_here, read_here};
use self::index::{HashPart, Index, Lines};
use self::queues::{Queues, hash_of};
use self::slot::{NARROW_KEY, WIDE_KEY};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::value::MemoryValue;

/// A table of entries.
#[derive(Debug)]
pub(crate) struct Table<V> {
    index: Index,
    /// Held by the thread that makes the index larger.
    growth: Mutex<()>,
    chunks: Chunks<V>,
    shards: Box<[Shard]>,
    limits: Limits,
    process: ProcessId,
}

/// The limits of a shard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// The most entries of a shard.
    pub(crate) entries: usize,
    /// The most that the entries of a shard weigh together.
    pub(crate) weight: u64,
}

/// A shard: the part of the entries whose writers share a lock, with limits of its own. It is aligned so that no two shards share a
/// cache line, nor the pair that is fetched with it.
#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    state: Mutex<ShardState>,
    /// The number of entries that were evicted. Written by the holder of the lock, or before the table is shared.
    evictions: AtomicU64,
}

impl Shard {
    fn new() -> Self {
        let state = ShardState { queues: Queues::new(), weight: 0 };
        Self { state: Mutex::new(state), evictions: AtomicU64::new(0) }
    }

    /// Counts evictions. For the holder of the lock, or in a table that no other thread uses yet: two at a time would lose a count.
    #[inline(always)]
    fn count_evictions(&self, count: u64) {
        let evictions = self.evictions.load(Ordering::Relaxed) + count;
        self.evictions.store(evictions, Ordering::Relaxed);
    }
}

/// The part of a shard that its lock protects.
#[derive(Debug)]
struct ShardState {
    queues: Queues,
    /// The sum of the weights of the entries. It is not counted, and zero, in a table without a limit by weight.
    weight: u64,
}

/// Values that have left a table, to be dropped when no lock is held.
#[derive(Debug)]
pub(crate) struct Removed<V> {
    /// Most writes remove one value at most.
    one: Option<V>,
    more: Option<Vec<V>>,
}

impl<V> Removed<V> {
    pub(crate) fn new() -> Self {
        Self { one: None, more: None }
    }

    fn push(&mut self, value: Option<V>) {
        match value {
            Some(value) if self.one.is_some() => self.more.get_or_insert_default().push(value),
            Some(value) => self.one = Some(value),
            None => {}
        }
    }

    /// Drops the values, and ignores panics of their destructors.
    #[inline(always)]
    pub(crate) fn drop_quietly(self) {
        if let Some(value) = self.one {
            drop_quietly(value);
        }
        if let Some(more) = self.more {
            more.into_iter().for_each(drop_quietly);
        }
    }
}

/// The effects of a write on other entries.
#[derive(Debug)]
pub(crate) struct Written<V> {
    pub(crate) removed: Removed<V>,
    pub(crate) evictions: u64,
    /// The entries that have left the table, if they are to be reported.
    pub(crate) ended: Option<Box<Ended>>,
}

impl<V> Written<V> {
    /// Creates the effects of a write that has not begun: it has changed no other entry yet. `ended` is the list for the entries
    /// that leave the table, `None` if they are not to be reported.
    #[inline(always)]
    pub(crate) fn new(ended: Option<Box<Ended>>) -> Self {
        Self { removed: Removed::new(), evictions: 0, ended }
    }
}

/// Entries that have left a table, with the causes.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) entries: Vec<(Prefix, EndCause)>,
    /// The entries that end at or before this time have expired.
    now: Timestamp,
}

impl Ended {
    /// Creates an empty list.
    #[cold]
    pub(crate) fn new(now: Timestamp) -> Self {
        Self { entries: Vec::new(), now }
    }
}

/// A key as the table compares it.
#[derive(Clone, Copy)]
struct TableKey<'a> {
    key: &'a Key,
    hash: HashPart,
    /// The words that are in the slot.
    words: [u64; NARROW_KEY],
    layout: KeyLayout,
}

/// The layout of a key, by the length of its content. A key that is not narrow is called *large*.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyLayout {
    /// The key is in the slot: up to 16 bytes.
    Narrow,
    /// The key is in the slot and its extension: up to 48 bytes.
    Wide,
    /// The key is held beside the slot: it does not fit into words.
    Long,
}

/// The first word of a key that does not fit into words: no other key begins with it.
const LONG_KEY: u64 = u64::MAX;

impl<'a> TableKey<'a> {
    #[inline(always)]
    fn new(key: &'a Key) -> Self {
        match key_words(key) {
            Some(words) => Self::narrow(key, words),
            None => Self::large(key),
        }
    }

    /// Returns a narrow key, which consists of these words.
    #[inline(always)]
    fn narrow(key: &'a Key, words: [u64; NARROW_KEY]) -> Self {
        let hash = HashPart::of(key.hash_code());
        Self { key, hash, words, layout: KeyLayout::Narrow }
    }

    /// Returns a large key, which does not fit into a slot.
    #[cold]
    fn large(key: &'a Key) -> Self {
        let (words, layout) = match key_words::<WIDE_KEY>(key) {
            Some([first, second, third, ..]) => ([first, second, third], KeyLayout::Wide),
            None => ([LONG_KEY, key.hash_code(), 0], KeyLayout::Long),
        };
        Self { key, hash: HashPart::of(key.hash_code()), words, layout }
    }

    /// Returns all words, if they are in a slot and its extension.
    fn wide_words(&self) -> Option<[u64; WIDE_KEY]> {
        (self.layout == KeyLayout::Wide).then(|| key_words(self.key)).flatten()
    }
}

/// A table without slots, which owns nothing.
impl<V> Default for Table<V> {
    fn default() -> Self {
        let process = ProcessId::current();
        Self {
            index: Index::new(1, 0),
            growth: Mutex::new(()),
            chunks: Chunks::new(0, process),
            shards: Box::default(),
            limits: Limits { entries: 0, weight: 0 },
            process,
        }
    }
}

impl<V> Table<V> {
    /// Returns the number of entries that were evicted, also by the tables that this one has replaced.
    pub(crate) fn evictions(&self) -> u64 {
        self.shards.iter().map(|shard| shard.evictions.load(Ordering::Relaxed)).sum()
    }

    /// Adds the evictions of the table that this new one replaces. No other thread uses this one yet.
    pub(crate) fn continue_evictions(&self, replaced: &Self) {
        if let Some(shard) = self.shards.first() {
            shard.count_evictions(replaced.evictions());
        }
    }
}

impl<V: MemoryValue> Table<V> {
    /// Creates an empty table. The number of shards must be a power of two.
    pub(crate) fn new(shards: usize, limits: Limits) -> Self {
        let process = ProcessId::current();
        let entries = limits.entries.min(MAX_SLOTS as usize / shards);
        let capacity = u32::try_from(entries * shards).unwrap_or(MAX_SLOTS);
        Self {
            index: Index::new(shards, entries),
            growth: Mutex::new(()),
            chunks: Chunks::new(capacity, process),
            shards: (0..shards).map(|_| Shard::new()).collect(),
            limits: Limits { entries, ..limits },
            process,
        }
    }

    /// Returns the most entries of the table.
    pub(crate) fn max_entries(&self) -> u64 {
        (self.limits.entries * self.shards.len()) as u64
    }

    /// Returns the number of entries, and their weight.
    pub(crate) fn usage(&self) -> Result<(u64, u64), Forked> {
        let mut usage = (0, 0);
        for shard in &self.shards {
            let state = lock_here(&shard.state, self.process)?;
            usage.0 += state.queues.length() as u64;
            usage.1 += state.weight;
        }
        Ok(usage)
    }

    /// Locks the shard of a hash.
    #[inline(always)]
    fn lock(&self, hash: HashPart) -> Result<MutexGuard<'_, ShardState>, Forked> {
        lock_here(&self.shard(hash).state, self.process)
    }

    #[inline(always)]
    fn shard(&self, hash: HashPart) -> &Shard {
        &self.shards[hash.scaled(self.shards.len())]
    }

    /// Locks the shard of a hash, and makes the index larger if it is full.
    #[inline(always)]
    fn lock_with_room(
        &self,
        hash: HashPart,
    ) -> Result<(MutexGuard<'_, ShardState>, &Lines), Forked> {
        loop {
            let state = self.lock(hash)?;
            let length = state.queues.length();
            match self.index.current() {
                Some(lines) if !lines.are_full(length) => return Ok((state, lines)),
                _ => drop(state),
            }
            self.grow_index(length)?;
        }
    }

    /// Makes the index larger, if it is full for a shard that has this number of entries.
    #[cold]
    fn grow_index(&self, entries: usize) -> Result<(), Forked> {
        if !self.process.is_current() {
            return Err(Forked);
        }
        let _growth = lock_here(&self.growth, self.process)?;
        // Allocated before the shards are locked.
        let Some(lines) = self.index.next_size(entries) else { return Ok(()) };
        let shards = self.shards.iter().map(|shard| lock_here(&shard.state, self.process));
        let shards = shards.collect::<Result<Vec<_>, _>>()?;
        for state in &shards {
            state.queues.visit(&self.chunks, |number, links| {
                let hash = hash_of(links);
                lines.insert(lines.home(hash), hash, number);
            });
        }
        self.index.grow(lines);
        Ok(())
    }

    /// Returns the slot of a key. For the holder of the lock of its shard.
    #[inline(never)]
    fn find_locked(
        &self,
        lines: &Lines,
        key: &TableKey<'_>,
    ) -> Result<Option<(Number, Place<'_, V>)>, Forked> {
        let found = lines.find(key.hash, |number| {
            let place = self.chunks.place(number)?;
            if !place.slot().has_key(key.words) {
                return None;
            }
            let is_it = match key.layout {
                KeyLayout::Narrow => Ok(true),
                KeyLayout::Wide => Ok(place.extension()?.has_key(key.wide_words()?)),
                KeyLayout::Long => read_here(place.held()?, self.process)
                    .map(|held| held.key.as_ref().is_some_and(|held| held.matches(key.key))),
            };
            match is_it {
                Ok(true) => Some(Ok((number, place))),
                Ok(false) => None,
                Err(forked) => Some(Err(forked)),
            }
        });
        found.transpose()
    }
}

//! The memory of a table, allocated in chunks as it fills.

use std::sync::{OnceLock, PoisonError, TryLockError};

use vayu_core::__internal::{LongKey, ProcessId};

use crate::sync::{
    AtomicU32, Mutex, MutexGuard, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard, unless_held,
};
use crate::table::slot::{Extension, Slot};

/// The error of an operation on a table that a parent process has created. One of its locks may be held by a thread that does not
/// exist in this process.
#[derive(Debug)]
pub(crate) struct Forked;

/// Locks a mutex of a table that this process created.
#[inline]
pub(super) fn lock_here<T>(
    mutex: &Mutex<T>,
    process: ProcessId,
) -> Result<MutexGuard<'_, T>, Forked> {
    guard_here(mutex.try_lock(), process, || mutex.lock())
}

/// Locks what is held beside a slot, for readers.
#[inline]
pub(super) fn read_here<T>(
    lock: &RwLock<T>,
    process: ProcessId,
) -> Result<RwLockReadGuard<'_, T>, Forked> {
    guard_here(lock.try_read(), process, || lock.read())
}

/// Locks what is held beside a slot, for a writer.
#[inline]
pub(super) fn write_here<T>(
    lock: &RwLock<T>,
    process: ProcessId,
) -> Result<RwLockWriteGuard<'_, T>, Forked> {
    guard_here(lock.try_write(), process, || lock.write())
}

/// Returns the guard of a lock that was tried. If it is held, waits for it in the process that created it.
#[inline]
fn guard_here<G>(
    tried: Result<G, TryLockError<G>>,
    process: ProcessId,
    wait: impl FnOnce() -> Result<G, PoisonError<G>>,
) -> Result<G, Forked> {
    match unless_held(tried) {
        Some(guard) => Ok(guard),
        None if process.is_current() => Ok(wait().unwrap_or_else(PoisonError::into_inner)),
        None => Err(Forked),
    }
}

/// Returns the value of a cell, which is initialized by `make` if it is empty. Another thread may be
/// initializing it: in a child process, forever.
#[inline]
pub(super) fn allocate<T>(
    cell: &OnceLock<T>,
    process: ProcessId,
    make: impl FnOnce() -> T,
) -> Result<&T, Forked> {
    match cell.get() {
        Some(value) => Ok(value),
        None if process.is_current() => Ok(cell.get_or_init(make)),
        None => Err(Forked),
    }
}

/// All slots of a table, by number. Each chunk is twice as large as the one before.
#[derive(Debug)]
pub(super) struct Chunks<V> {
    /// As many as a number can name, so that a reader of one needs no check; the last ones are never used.
    all: [OnceLock<Chunk<V>>; 1 << (Number::BITS - PLACE_BITS)],
    /// The slots that were given out, in their order.
    used: AtomicU32,
    capacity: u32,
    process: ProcessId,
}

/// The number of a slot: its chunk in the upper bits, its place there in the lower.
pub(super) type Number = u32;

/// A number that is not one of a slot.
pub(super) const NONE: Number = u32::MAX;

const FIRST: u32 = 1024;
const CHUNKS: u32 = 18;
const PLACE_BITS: u32 = 27;

/// The most slots of a table.
pub(super) const MAX_SLOTS: u32 = (FIRST << CHUNKS) - FIRST;

/// Slots, and what belongs to each of them.
#[derive(Debug)]
pub(super) struct Chunk<V> {
    slots: Box<[Slot]>,
    links: Box<[Links]>,
    /// Allocated for the first entry that needs one.
    extensions: OnceLock<Box<[Extension]>>,
    /// Allocated for the first entry that needs one.
    held: OnceLock<Box<[RwLock<Held<V>>]>>,
}

/// The part of an entry that is not made of words.
#[derive(Debug)]
pub(super) struct Held<V> {
    pub(super) value: Option<V>,
    /// The key, if it does not fit into words.
    pub(super) key: Option<Box<LongKey>>,
}

/// The data of an entry that only the holder of the lock of its shard uses.
#[derive(Debug)]
pub(super) struct Links {
    /// A part of the hash of the key, and in the lowest bit the queue.
    pub(super) hash: AtomicU32,
    /// The neighbours in the queue, except at its ends.
    pub(super) before: AtomicU32,
    pub(super) after: AtomicU32,
}

/// A slot and all that belongs to it.
#[derive(Debug)]
pub(super) struct Place<'a, V> {
    slot: &'a Slot,
    chunk: &'a Chunk<V>,
    at: usize,
}

impl<V> Clone for Place<'_, V> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Place<'_, V> {}

impl<V> Chunks<V> {
    pub(super) fn new(capacity: u32, process: ProcessId) -> Self {
        let all = std::array::from_fn(|_| OnceLock::new());
        Self { all, used: AtomicU32::new(0), capacity: capacity.min(MAX_SLOTS), process }
    }

    /// Returns the place of a number, which may be a wrong one that a reader has found.
    #[inline(always)]
    pub(super) fn place(&self, number: Number) -> Option<Place<'_, V>> {
        let (chunk, at) = split(number);
        let chunk = self.all.get(chunk)?.get()?;
        Some(Place { slot: chunk.slots.get(at)?, chunk, at })
    }

    /// Returns the links of a slot that was given out.
    #[inline(always)]
    pub(super) fn links(&self, number: Number) -> &Links {
        let (chunk, at) = split(number);
        let chunk = self.all[chunk].get().expect("it was allocated");
        &chunk.links[at]
    }

    /// Returns the number of slots that are allocated.
    #[cfg(all(test, not(vayu_loom)))]
    pub(super) fn allocated(&self) -> usize {
        self.all.iter().filter_map(OnceLock::get).map(|chunk| chunk.slots.len()).sum()
    }

    /// Returns the number of a slot that was never used. The callers together take no more than the
    /// capacity.
    pub(super) fn take(&self) -> Result<Number, Forked> {
        let count = self.used.fetch_add(1, Ordering::Relaxed);
        let chunk = (count + FIRST).ilog2() - FIRST.ilog2();
        let start = (FIRST << chunk) - FIRST;
        let length = (FIRST << chunk).min(self.capacity - start);
        let make = || Chunk::new(length as usize);
        allocate(&self.all[chunk as usize], self.process, make)?;
        Ok(chunk << PLACE_BITS | (count - start))
    }
}

#[inline(always)]
fn split(number: Number) -> (usize, usize) {
    ((number >> PLACE_BITS) as usize, (number & ((1 << PLACE_BITS) - 1)) as usize)
}

impl<V> Chunk<V> {
    fn new(length: usize) -> Self {
        Self {
            slots: (0..length).map(|_| Slot::new()).collect(),
            links: (0..length).map(|_| Links::new()).collect(),
            extensions: OnceLock::new(),
            held: OnceLock::new(),
        }
    }
}

impl<'a, V> Place<'a, V> {
    #[inline(always)]
    pub(super) fn slot(self) -> &'a Slot {
        self.slot
    }

    /// Returns the links. For the holder of the lock of its shard.
    #[inline(always)]
    pub(super) fn links(self) -> &'a Links {
        &self.chunk.links[self.at]
    }

    /// Returns the extension, if extensions are allocated.
    #[inline(always)]
    pub(super) fn extension(self) -> Option<&'a Extension> {
        self.chunk.extensions.get()?.get(self.at)
    }

    /// Returns what is held beside the slot, if that is allocated.
    #[inline(always)]
    pub(super) fn held(self) -> Option<&'a RwLock<Held<V>>> {
        self.chunk.held.get()?.get(self.at)
    }

    /// Returns the extension. For a writer.
    pub(super) fn make_extension(self, process: ProcessId) -> Result<&'a Extension, Forked> {
        let length = self.chunk.slots.len();
        let make = || (0..length).map(|_| Extension::new()).collect();
        Ok(&allocate(&self.chunk.extensions, process, make)?[self.at])
    }

    /// Returns the place for what is held beside the slot. For a writer.
    pub(super) fn make_held(self, process: ProcessId) -> Result<&'a RwLock<Held<V>>, Forked> {
        let length = self.chunk.slots.len();
        let make = || (0..length).map(|_| RwLock::new(Held { value: None, key: None })).collect();
        Ok(&allocate(&self.chunk.held, process, make)?[self.at])
    }
}

impl Links {
    fn new() -> Self {
        let [hash, before, after] = [0, NONE, NONE].map(AtomicU32::new);
        Self { hash, before, after }
    }
}

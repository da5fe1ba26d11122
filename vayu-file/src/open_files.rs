//! The files of frequently read entries, kept open.
//!
//! A bounded map from the digest of a key to an open file. Replacement is the clock algorithm (second
//! chance): a hit sets the reference bit of a slot; when all slots are used, every fourth rejected file
//! advances the clock hand by one slot, which is replaced if its reference bit is clear. A cyclic
//! working set that is larger than the map therefore keeps a part of it, instead of replacing each file
//! before its next use.
//!
//! A hit compares the [`Status`] of the name with that of the open file, so changes by other processes
//! are seen. All locks are tried, never waited for: a file that could not be removed from the map is
//! found to be outdated by the next read. No lock is held while a file is closed.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockWriteGuard, TryLockError};
use std::thread;

use vayu_core::BuildKeyHasher;
use vayu_core::wire::WireKey;

use crate::errno::is_out_of_descriptors;
use crate::fs::{Directory, File, FileSystem, FileType, Status};
use crate::layout::MARKER;

/// The length in bytes of the longest entry that is kept open. For a longer one, opening is a small
/// part of reading; and an open file keeps its disk space after another process has deleted it.
pub(crate) const MAX_OPEN_LENGTH: u64 = 16 * 1024;

/// The clock hand advances once for this many files that were not inserted. A thread reads at most 256
/// different keys before it reads one a second time ([`LocatedKey`](crate::located_key::LocatedKey)).
const SKIPS_PER_STEP: usize = 4;

/// The number of attempts to lock for a removal. Other threads hold the lock for moments only, but after
/// a fork it may belong to a thread that the child does not have.
const ATTEMPTS: usize = 64;

/// The files that a cache keeps open.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    capacity: usize,
    /// The device of the directory.
    device: u64,
    table: RwLock<SlotTable>,
    skipped: AtomicUsize,
}

/// An open file, and its status when it was opened. A name with an equal status refers to this file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: Box<dyn File>,
    pub(crate) status: Status,
}

impl OpenFiles {
    /// Creates an empty map. Its capacity is 0 for a directory that is not on a local file system.
    pub(crate) fn new(root: &dyn Directory, capacity: usize) -> Self {
        let marker = match capacity {
            0 => None,
            _ if !matches!(root.file_system(), Ok(FileSystem::Local)) => None,
            _ => root.status(MARKER).ok(),
        };
        Self {
            capacity: if marker.is_some() { capacity } else { 0 },
            device: marker.map_or(0, |marker| marker.id.0),
            table: RwLock::default(),
            skipped: AtomicUsize::new(0),
        }
    }

    /// Returns the file of the entry of this key, if it is open.
    pub(crate) fn get(&self, key: &WireKey) -> Option<Arc<OpenFile>> {
        if self.capacity == 0 {
            return None;
        }
        self.table.try_read().ok()?.get(&EntryDigest::of(key))
    }

    /// Inserts the file of the entry of this key, if a slot is free or can be replaced.
    pub(crate) fn insert(&self, key: &WireKey, file: Box<dyn File>) {
        if !self.try_reserve() {
            return;
        }
        let Ok(status) = file.status() else { return };
        if status.file_type != FileType::File || status.id.0 != self.device {
            return;
        }
        let new = Slot {
            digest: EntryDigest::of(key),
            file: Arc::new(OpenFile { file, status }),
            is_referenced: AtomicBool::new(false),
        };
        let replaced = match self.table.try_write() {
            Ok(mut table) => table.insert(new, self.capacity),
            Err(_) => Some(new),
        };
        drop(replaced);
    }

    /// Returns whether a slot is free, or the clock hand is at one that can be replaced.
    fn try_reserve(&self) -> bool {
        let Ok(table) = self.table.try_read() else { return false };
        if table.slots.len() < self.capacity {
            return true;
        }
        drop(table);
        self.capacity > 0
            && self.skipped.fetch_add(1, Ordering::Relaxed) % SKIPS_PER_STEP == SKIPS_PER_STEP - 1
            && self.table.try_write().is_ok_and(|mut table| table.advance_clock_hand())
    }

    /// Removes the file of the entry of this key. It is closed when no thread reads it any more.
    pub(crate) fn close(&self, key: &WireKey) {
        if self.capacity > 0 {
            let removed = self.lock().map(|mut table| table.remove(&EntryDigest::of(key)));
            drop(removed);
        }
    }

    /// Removes the files of a shard.
    pub(crate) fn close_shard(&self, shard: usize) {
        let removed = self.lock().map(|mut table| table.remove_shard(shard));
        drop(removed);
    }

    /// Runs an operation. If it fails because there is no file descriptor left, closes all files and
    /// runs it again.
    pub(crate) fn with_fd_retry<T>(&self, operation: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match operation() {
            Err(error) if is_out_of_descriptors(&error) && self.close_all() => operation(),
            result => result,
        }
    }

    /// Removes all files. Returns whether there were any.
    fn close_all(&self) -> bool {
        let removed = self.lock().map(|mut table| mem::take(&mut *table));
        removed.is_some_and(|removed| !removed.slots.is_empty())
    }

    fn lock(&self) -> Option<RwLockWriteGuard<'_, SlotTable>> {
        for _ in 0..ATTEMPTS {
            match self.table.try_write() {
                Ok(table) => return Some(table),
                Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        None
    }

    /// Takes the lock and never releases it, like a thread that does not exist after a fork.
    #[cfg(test)]
    pub(crate) fn leak_lock(&self) {
        mem::forget(self.lock());
    }
}

/// The slots of the clock, and the index of them.
#[derive(Debug, Default)]
struct SlotTable {
    index: HashMap<EntryDigest, usize, BuildKeyHasher>,
    slots: Vec<Slot>,
    /// The slot at which the hand is.
    clock_hand: usize,
}

#[derive(Debug)]
struct Slot {
    digest: EntryDigest,
    file: Arc<OpenFile>,
    /// Set by a hit, cleared by the clock hand.
    is_referenced: AtomicBool,
}

impl SlotTable {
    fn get(&self, digest: &EntryDigest) -> Option<Arc<OpenFile>> {
        let slot = &self.slots[*self.index.get(digest)?];
        // Stored only if it changes, so that the cache line stays shared between processors.
        if !slot.is_referenced.load(Ordering::Relaxed) {
            slot.is_referenced.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&slot.file))
    }

    /// Inserts a slot. Returns the one that it replaces.
    fn insert(&mut self, slot: Slot, capacity: usize) -> Option<Slot> {
        let at = match self.index.get(&slot.digest) {
            Some(&at) => at,
            None if self.slots.len() < capacity => {
                self.index.insert(slot.digest, self.slots.len());
                self.slots.push(slot);
                return None;
            }
            None => self.clock_hand % self.slots.len(),
        };
        let replaced = mem::replace(&mut self.slots[at], slot);
        self.index.remove(&replaced.digest);
        self.index.insert(self.slots[at].digest, at);
        Some(replaced)
    }

    /// Advances the hand and clears the reference bit there. Returns whether the bit was clear.
    fn advance_clock_hand(&mut self) -> bool {
        self.clock_hand = (self.clock_hand + 1) % self.slots.len().max(1);
        let slot = self.slots.get_mut(self.clock_hand);
        slot.is_none_or(|slot| !mem::take(slot.is_referenced.get_mut()))
    }

    fn remove(&mut self, digest: &EntryDigest) -> Option<Slot> {
        let at = self.index.remove(digest)?;
        let removed = self.slots.swap_remove(at);
        if let Some(moved) = self.slots.get(at) {
            self.index.insert(moved.digest, at);
        }
        Some(removed)
    }

    fn remove_shard(&mut self, shard: usize) -> Vec<Slot> {
        let digests = self.slots.iter().map(|slot| slot.digest);
        let digests: Vec<_> = digests.filter(|digest| digest.shard() == shard).collect();
        digests.iter().filter_map(|digest| self.remove(digest)).collect()
    }
}

/// The digest of a key, from which the name of its entry is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EntryDigest([u8; 32]);

impl EntryDigest {
    fn of(key: &WireKey) -> Self {
        Self(*key.digest())
    }

    fn shard(&self) -> usize {
        usize::from(self.0[0])
    }
}

impl Hash for EntryDigest {
    /// Uses the first bytes: a digest is a hash already.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let first = self.0.first_chunk().copied().unwrap_or_default();
        state.write_u64(u64::from_ne_bytes(first));
    }
}

//! The files of entries that are read again and again, held open.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock, RwLockWriteGuard, TryLockError};
use std::thread;

use rustix::fs::Dev;
use rustix::io::Errno;
use vayu_core::BuildKeyHasher;
use vayu_core::wire::WireKey;

use crate::fs::{File, Folder, Kind, Status};
use crate::layout::MARKER;

/// A longer entry is not held, in bytes: the time of an open is little beside that of reading it,
/// and what another process deletes keeps its room on the disk while it is held.
pub(crate) const LONGEST_HELD: u64 = 16 * 1024;

/// When all places are taken, the hand looks at one of them each time that so many files were read
/// for which there was none. A file that was not read since it looked last gives its place away.
/// Where more are read in turn than can be held, those that are stay, instead of each going before
/// it is read again: a thread reads no more than 256 in turn that it remembers.
const TURN: usize = 4;

/// How often it is tried to let go of a file. Nobody takes long here, but after a fork the lock may
/// be that of a thread which the child does not have.
const ATTEMPTS: usize = 64;

/// The files that a cache holds open.
///
/// Nobody waits for another here: while somebody else changes what is held, nothing is. What could
/// not be let go is found to be another file by the next read. And no lock is held while a file is
/// closed.
#[derive(Debug)]
pub(crate) struct HeldFiles {
    most: usize,
    /// That of the directory.
    device: Dev,
    shelf: RwLock<Shelf>,
    turned_away: AtomicUsize,
}

/// A file that is held, and what it was when it was opened. A name that stands for the same stands
/// for this file.
#[derive(Debug)]
pub(crate) struct HeldFile {
    pub(crate) file: Box<dyn File>,
    pub(crate) status: Status,
}

impl HeldFiles {
    /// Nothing is held in a directory that others may change behind the back of this system.
    pub(crate) fn new(root: &dyn Folder, most: usize) -> Self {
        let marker = match most {
            0 => None,
            _ if !root.is_local().is_ok_and(|is_local| is_local) => None,
            _ => root.status(MARKER).ok(),
        };
        Self {
            most: if marker.is_some() { most } else { 0 },
            device: marker.map_or(0, |marker| marker.id.0),
            shelf: RwLock::default(),
            turned_away: AtomicUsize::new(0),
        }
    }

    /// The file of the entry of this key, if it is held.
    pub(crate) fn get(&self, key: &WireKey) -> Option<Arc<HeldFile>> {
        if self.most == 0 {
            return None;
        }
        self.shelf.try_read().ok()?.get(&Name::of(key))
    }

    /// Holds the file of the entry of this key, if there is room or it is its turn.
    pub(crate) fn hold(&self, key: &WireKey, file: Box<dyn File>) {
        if !self.has_turn() {
            return;
        }
        let Ok(status) = file.status() else { return };
        if status.kind != Kind::File || status.id.0 != self.device {
            return;
        }
        let new = Slot {
            name: Name::of(key),
            file: Arc::new(HeldFile { file, status }),
            was_read: AtomicBool::new(false),
        };
        let replaced = match self.shelf.try_write() {
            Ok(mut held) => held.put(new, self.most),
            Err(_) => Some(new),
        };
        drop(replaced);
    }

    fn has_turn(&self) -> bool {
        let Ok(held) = self.shelf.try_read() else { return false };
        if held.slots.len() < self.most {
            return true;
        }
        drop(held);
        self.most > 0
            && self.turned_away.fetch_add(1, Ordering::Relaxed) % TURN == TURN - 1
            && self.shelf.try_write().is_ok_and(|mut held| held.turn_the_hand())
    }

    /// Closes the file of the entry of this key once nobody reads it.
    pub(crate) fn let_go(&self, key: &WireKey) {
        if self.most > 0 {
            let removed = self.shelf().map(|mut held| held.remove(&Name::of(key)));
            drop(removed);
        }
    }

    /// Closes the files of a folder once nobody reads them.
    pub(crate) fn let_go_of_shard(&self, shard: usize) {
        let removed = self.shelf().map(|mut held| held.remove_shard(shard));
        drop(removed);
    }

    /// Runs an operation, and once more if it lacked a file descriptor and there are some to give.
    pub(crate) fn making_room<T>(&self, operation: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match operation() {
            Err(error) if is_shortage(&error) && self.let_go_of_all() => operation(),
            result => result,
        }
    }

    /// Whether there were any.
    fn let_go_of_all(&self) -> bool {
        let removed = self.shelf().map(|mut held| mem::take(&mut *held));
        removed.is_some_and(|removed| !removed.slots.is_empty())
    }

    fn shelf(&self) -> Option<RwLockWriteGuard<'_, Shelf>> {
        for _ in 0..ATTEMPTS {
            match self.shelf.try_write() {
                Ok(held) => return Some(held),
                Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
                Err(TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        None
    }

    /// Takes the lock for ever, as a thread does that is not there after a fork.
    #[cfg(test)]
    pub(crate) fn lose_the_lock(&self) {
        mem::forget(self.shelf());
    }
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// What is held, each in a slot.
#[derive(Debug, Default)]
struct Shelf {
    places: HashMap<Name, usize, BuildKeyHasher>,
    slots: Vec<Slot>,
    /// The slot that was looked at last.
    hand: usize,
}

#[derive(Debug)]
struct Slot {
    name: Name,
    file: Arc<HeldFile>,
    /// Since the hand looked at it.
    was_read: AtomicBool,
}

impl Shelf {
    fn get(&self, name: &Name) -> Option<Arc<HeldFile>> {
        let slot = &self.slots[*self.places.get(name)?];
        // Others need not be told again.
        if !slot.was_read.load(Ordering::Relaxed) {
            slot.was_read.store(true, Ordering::Relaxed);
        }
        Some(Arc::clone(&slot.file))
    }

    /// Puts a file in a slot; what was there.
    fn put(&mut self, slot: Slot, most: usize) -> Option<Slot> {
        let at = match self.places.get(&slot.name) {
            Some(&at) => at,
            None if self.slots.len() < most => {
                self.places.insert(slot.name, self.slots.len());
                self.slots.push(slot);
                return None;
            }
            None => self.hand % self.slots.len(),
        };
        let replaced = mem::replace(&mut self.slots[at], slot);
        self.places.remove(&replaced.name);
        self.places.insert(self.slots[at].name, at);
        Some(replaced)
    }

    /// Looks at the next slot; whether it may be given away.
    fn turn_the_hand(&mut self) -> bool {
        self.hand = (self.hand + 1) % self.slots.len().max(1);
        self.slots.get_mut(self.hand).is_none_or(|slot| !mem::take(slot.was_read.get_mut()))
    }

    fn remove(&mut self, name: &Name) -> Option<Slot> {
        let at = self.places.remove(name)?;
        let removed = self.slots.swap_remove(at);
        if let Some(moved) = self.slots.get(at) {
            self.places.insert(moved.name, at);
        }
        Some(removed)
    }

    fn remove_shard(&mut self, shard: usize) -> Vec<Slot> {
        let names = self.slots.iter().map(|slot| slot.name);
        let names: Vec<_> = names.filter(|name| name.shard() == shard).collect();
        names.iter().filter_map(|name| self.remove(name)).collect()
    }
}

/// What the name of a file is made of: the digest of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name([u8; 32]);

impl Name {
    fn of(key: &WireKey) -> Self {
        Self(*key.digest())
    }

    fn shard(&self) -> usize {
        usize::from(self.0[0])
    }
}

impl Hash for Name {
    /// A digest is a hash.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let first = self.0.first_chunk().copied().unwrap_or_default();
        state.write_u64(u64::from_ne_bytes(first));
    }
}

//! Generational invalidation: any number of entries is invalidated in constant time.
//!
//! Each group of entries (those with a tag, those of a function, all) has a number, its generation: zero
//! at first, and another one after each invalidation. The stamp of a call is a hash of the generations
//! that its groups had when the call began, before its computation, or zero if no group was ever
//! invalidated. An entry carries the stamp of the call that stored it, as part of its schema stamp, and
//! is served only to calls with the same one. So an invalidation touches no entry, and a value whose
//! computation began before it is outdated when it is stored.
//!
//! Two groups of a call are *coarse*, those of all entries and of its function: they are rarely invalidated, and common to all
//! calls of the function. The others are those of its tags.
//!
//! Unknown is not zero. Zero means that nothing was invalidated, so with it a call would be served
//! entries from before an invalidation. A call whose generations cannot be read has no stamp: it finds
//! nothing, runs its function, and stores nothing.
//!
//! # Caching
//!
//! Generations are cached here, and nowhere else:
//!
//! - If the backend has none, those of this process are in a table, and always current.
//! - If the backend notices changes by other processes, fetched generations are valid while its change
//!   count ([`Generations::change_count`](crate::Generations::change_count)) is the same.
//! - If it does not, or not at present, those of coarse groups are valid for 75 ms, and those of tags are fetched for each
//!   call.
//!
//! The stamps of functions without tags are cached, too: until the next change, or for up to 25 ms if
//! changes are not noticed.

mod call_stamp;
mod fetch;
mod stamp;
mod stamp_cache;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, RwLock, RwLockWriteGuard};

pub(crate) use self::call_stamp::CallStamp;
pub(crate) use self::stamp::InvalidatedGroup;
use self::stamp_cache::StampCache;
use crate::bounded_map::BoundedMap;
use crate::clock::Timestamp;
use crate::generation::Group;
use crate::key::Prefix;
use crate::sync::IgnorePoison;

/// The number of generations of this process. Groups with the same number modulo this share one.
const LOCAL_GENERATIONS: u64 = 1 << 16;

/// The maximum number of fetched generations. One that was removed past that is fetched again.
const MAX_FETCHED: usize = 65_536;

/// The maximum number of previous generations.
const MAX_PREVIOUS: usize = 4096;

/// The generations of groups, and the stamps made of them, as far as one cache knows them.
#[derive(Debug)]
pub(crate) struct GenerationCache {
    /// The generations of this process, for backends without any. Allocated by the first invalidation.
    local: OnceLock<Box<[AtomicU64]>>,
    /// The number of invalidations of generations of this process.
    local_bumps: AtomicU64,
    /// The generations that were fetched from the backend.
    fetched: RwLock<BoundedMap<Group, Fetched>>,
    /// The number of calls of [`remove_fetched`](Self::remove_fetched).
    removals: AtomicU64,
    /// The last generations of groups before the present ones, to name the group by which an entry was
    /// invalidated.
    previous: Mutex<BoundedMap<Group, u64>>,
    stamps: StampCache,
}

/// A fetched generation, with the time and the change count from before it was fetched.
#[derive(Debug, Clone, Copy)]
struct Fetched {
    generation: u64,
    at: Timestamp,
    count: Option<u64>,
}

impl Default for GenerationCache {
    fn default() -> Self {
        Self {
            local: OnceLock::new(),
            local_bumps: AtomicU64::new(0),
            fetched: RwLock::new(BoundedMap::new(MAX_FETCHED)),
            removals: AtomicU64::new(0),
            previous: Mutex::new(BoundedMap::new(MAX_PREVIOUS)),
            stamps: StampCache::default(),
        }
    }
}

impl GenerationCache {
    /// Returns the generation of this process for a group.
    fn local(&self, group: Group) -> u64 {
        let local = self.local.get();
        local.map_or(0, |local| local[local_index(group)].load(Ordering::Acquire))
    }

    /// Bumps the generation of this process for a group.
    pub(super) fn bump(&self, group: Group) {
        let zeros = || (0..LOCAL_GENERATIONS).map(|_| AtomicU64::new(0)).collect();
        // A random number, so that no generation recurs; odd, so that it is never zero.
        let generation = RandomState::new().hash_one(group) | 1;
        let local = self.local.get_or_init(zeros);
        let before = local[local_index(group)].swap(generation, Ordering::AcqRel);
        self.record_previous(group, before);
        self.local_bumps.fetch_add(1, Ordering::Release);
    }

    /// Returns the generation that was last fetched for a group.
    fn fetched(&self, group: Group) -> Option<Fetched> {
        self.fetched.read().ignore_poison().get(&group).copied()
    }

    /// Caches a fetched generation, unless the number of `removals` has changed since before it was
    /// fetched: it may be older than the last one.
    fn insert(&self, group: Group, fetched: Fetched, removals: u64) {
        let mut cached = self.fetched_mut();
        if self.removals() != removals {
            return;
        }
        let before = cached.get(&group).map(|before| before.generation);
        cached.insert(group, fetched);
        drop(cached);
        if let Some(before) = before.filter(|&before| before != fetched.generation) {
            self.record_previous(group, before);
        }
    }

    /// Removes the fetched generation of a group that is being invalidated in the backend. A fetch that has begun before does not
    /// insert it again.
    pub(super) fn remove_fetched(&self, group: Group) {
        let mut cached = self.fetched_mut();
        let before = cached.get(&group).map(|before| before.generation);
        cached.remove(&group);
        self.removals.fetch_add(1, Ordering::Release);
        drop(cached);
        if let Some(before) = before {
            self.record_previous(group, before);
        }
    }

    /// Records the generation that a group had before its present one. If a thread of a parent process
    /// holds the lock, or any other, it is not recorded.
    fn record_previous(&self, group: Group, generation: u64) {
        if let Ok(mut previous) = self.previous.try_lock() {
            previous.insert(group, generation);
        }
    }

    /// Returns the generation that a group had before its present one, if it is known.
    fn previous(&self, group: Group) -> Option<u64> {
        self.previous.try_lock().ok()?.get(&group).copied()
    }

    fn removals(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }

    fn fetched_mut(&self) -> RwLockWriteGuard<'_, BoundedMap<Group, Fetched>> {
        self.fetched.write().ignore_poison()
    }
}

/// Returns the index of the generation of this process for a group.
fn local_index(group: Group) -> usize {
    usize::try_from(group.number() % LOCAL_GENERATIONS)
        .expect("it is less than the number of generations")
}

/// Returns the groups of a call, each with whether it is coarse. These come first.
fn groups<'a>(prefix: &Prefix, tags: &'a [Group]) -> impl Iterator<Item = (Group, bool)> + use<'a> {
    let coarse = [Group::ALL, Group::of_prefix(prefix.as_str())].map(|group| (group, true));
    coarse.into_iter().chain(tags.iter().map(|&tag| (tag, false)))
}

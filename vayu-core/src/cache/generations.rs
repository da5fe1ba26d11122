//! Generational invalidation: any number of entries is invalidated in constant time.
//!
//! Each group of entries (those with a tag, those of a function, all) has a number, its generation: zero
//! at first, and another one after each invalidation. The stamp of a call is a hash of the generations
//! that its groups had when the call began, before its computation, or zero if no group was ever
//! invalidated. An entry carries the stamp of the call that stored it, as part of its schema stamp, and
//! is served only to calls with the same one. So an invalidation touches no entry, and a value whose
//! computation began before it is outdated when it is stored.
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
//! - If it does not, or not at present, those of a function and of everything are valid for 75 ms, and
//!   those of tags are fetched for each call.
//!
//! The stamps of functions without tags are cached, too: until the next change, or for up to 25 ms if
//! changes are not noticed.

mod stamp;
mod stamp_cache;

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, RwLock, RwLockWriteGuard};
use std::time::Duration;

pub(crate) use self::stamp::InvalidatedGroup;
use self::stamp::{StampBuilder, find_changed};
use self::stamp_cache::StampCache;
use crate::backend::Backend;
use crate::bounded_map::BoundedMap;
use crate::cache::{Engine, Flags};
use crate::clock::{Clock, MonotonicClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{ChangeCount, Generations, Group};
use crate::invalidation::InvalidationFeed;
use crate::io::{Io, Operation};
use crate::key::{Prefix, PrefixSeed, hasher};
use crate::panic::catch_panic;
use crate::sync::IgnorePoison;
use crate::validity;

/// The generations of groups, and the stamps made of them, as far as one cache knows them.
#[derive(Debug)]
pub(crate) struct GenerationCache {
    /// The generations of this process, for backends without any. Allocated by the first invalidation.
    local: OnceLock<Box<[AtomicU64]>>,
    /// The number of invalidations of generations of this process.
    local_bumps: AtomicU64,
    /// The generations that were fetched from the backend.
    fetched: RwLock<BoundedMap<Group, Fetched>>,
    /// The number of times that this cache has removed a fetched generation.
    invalidations: AtomicU64,
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

/// The number of generations of this process. Groups with the same number modulo this share one.
const SLOTS: u64 = 1 << 16;

/// The time for which the fetched generation of a coarse group is valid if changes are not noticed.
const VALID_FOR: Duration = Duration::from_millis(75);
/// The maximum time for which a stamp of such generations is cached, in microseconds. An invalidation by
/// another process is thus noticed after 100 ms at most.
const STAMP_WINDOW_US: i64 = 25_000;

/// The maximum number of fetched generations. One that was removed past that is fetched again.
const MAX_FETCHED: usize = 65_536;

/// The maximum number of previous generations.
const MAX_PREVIOUS: usize = 4096;

impl Default for GenerationCache {
    fn default() -> Self {
        Self {
            local: OnceLock::new(),
            local_bumps: AtomicU64::new(0),
            fetched: RwLock::new(BoundedMap::new(MAX_FETCHED)),
            invalidations: AtomicU64::new(0),
            previous: Mutex::new(BoundedMap::new(MAX_PREVIOUS)),
            stamps: StampCache::default(),
        }
    }
}

impl GenerationCache {
    fn local(&self, group: Group) -> u64 {
        self.local.get().map_or(0, |slots| slots[slot(group)].load(Ordering::Acquire))
    }

    pub(super) fn bump(&self, group: Group) {
        let slots = self.local.get_or_init(|| (0..SLOTS).map(|_| AtomicU64::new(0)).collect());
        let generation = RandomState::new().hash_one(group) | 1;
        let before = slots[slot(group)].swap(generation, Ordering::AcqRel);
        self.record_previous(group, before);
        self.local_bumps.fetch_add(1, Ordering::Release);
    }

    fn fetched(&self, group: Group) -> Option<Fetched> {
        self.fetched.read().ignore_poison().get(&group).copied()
    }

    /// Caches a fetched generation, unless the number of `invalidations` has changed since before it was
    /// fetched: it may be older than the last one.
    fn insert(&self, group: Group, fetched: Fetched, invalidations: u64) {
        let mut cached = self.fetched_mut();
        if self.invalidations() != invalidations {
            return;
        }
        let before = cached.get(&group).map(|before| before.generation);
        cached.insert(group, fetched);
        drop(cached);
        if let Some(before) = before.filter(|&before| before != fetched.generation) {
            self.record_previous(group, before);
        }
    }

    pub(super) fn invalidate(&self, group: Group) {
        let mut cached = self.fetched_mut();
        let before = cached.get(&group).map(|before| before.generation);
        cached.remove(&group);
        self.invalidations.fetch_add(1, Ordering::Release);
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

    fn invalidations(&self) -> u64 {
        self.invalidations.load(Ordering::Acquire)
    }

    fn fetched_mut(&self) -> RwLockWriteGuard<'_, BoundedMap<Group, Fetched>> {
        self.fetched.write().ignore_poison()
    }
}

fn slot(group: Group) -> usize {
    usize::try_from(group.number() % SLOTS).expect("it is less than the slots")
}

/// A generation that was read, or the number that is used in its place.
#[derive(Debug, Clone, Copy)]
struct Read {
    generation: u64,
    is_offline: bool,
    has_timed_out: bool,
}

/// The state from before generations were read.
#[derive(Clone, Copy)]
struct Before {
    at: Timestamp,
    count: Option<ChangeCount>,
    invalidations: u64,
}

/// The key of a stamp in the [`StampCache`]: a hash of the function and of the period in which its stamp
/// is the same.
#[derive(Debug, Clone, Copy)]
struct StampKey {
    number: u64,
    /// `true` if the period ends after some time even if no change is noticed.
    expires: bool,
}

impl<B: Backend> Engine<B> {
    /// Returns whether a group may have been invalidated.
    #[inline]
    pub(crate) fn has_generations(&self) -> bool {
        self.flags().has_generations() || self.backend().capabilities().generations.is_some()
    }

    /// Returns the stamp of a call that begins now and whose generations cannot be read. A call that begins after a later
    /// invalidation has another one, so it does not share a computation with this one.
    #[cold]
    pub(crate) fn unknown_stamp(&self) -> u64 {
        validity::unknown_stamp(self.shared.pending.begun())
    }

    /// Returns whether these tags of a call are placeholders, since no group was ever invalidated when it began, and one
    /// was in the meantime. The groups of the call are then unknown.
    pub(crate) fn are_unknown(&self, tags: &[Group]) -> bool {
        tags.contains(&Group::ALL) && self.has_generations()
    }

    /// Returns whether an invalidation of this process that concerns the entry of a call with these tags is pending.
    #[cold]
    pub(crate) fn has_pending_invalidation(&self, prefix: &Prefix, tags: &[Group]) -> bool {
        groups(prefix, tags).any(|(group, _)| self.shared.pending.contains(group))
    }

    /// Returns the stamp of a call with these tags if it is known without reading generations.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn known_stamp(&self, flags: Flags, prefix: &Prefix, tags: &[Group]) -> Option<u64> {
        if flags.may_have_changed() {
            self.stamp_of_changed(flags, prefix.seed(), tags)
        } else {
            Some(0)
        }
    }

    /// A function for each type of backend: the compiler then knows which generations and which feed that has.
    #[inline(never)]
    fn stamp_of_changed(&self, flags: Flags, seed: PrefixSeed, tags: &[Group]) -> Option<u64> {
        self.stamp_of_changed_inline(flags, seed, tags)
    }

    /// [`known_stamp`](Self::known_stamp) if a generation may have changed, compiled into hits.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn stamp_of_changed_inline(
        &self,
        flags: Flags,
        seed: PrefixSeed,
        tags: &[Group],
    ) -> Option<u64> {
        // Once: a hit calls it through a pointer if the backend is a `dyn Backend`.
        let capabilities = self.backend().capabilities();
        // If the poll fails, the stamp is unknown. `make_stamp` returns the error.
        poll(capabilities.invalidation_feed).ok()?;
        match capabilities.generations {
            None if !flags.has_generations() => Some(0),
            Some(_) if self.shared.pending.exist() => None,
            generations => self.cached_stamp(generations, seed, tags),
        }
    }

    #[inline(always)]
    fn cached_stamp(
        &self,
        generations: Option<&dyn Generations>,
        seed: PrefixSeed,
        tags: &[Group],
    ) -> Option<u64> {
        let key = self.stamp_key(generations, seed, tags)?;
        self.shared.generations.stamps.get(key.number)
    }

    /// Returns the stamp of a call with these tags.
    pub(crate) async fn stamp<M: Io>(&self, prefix: &Prefix, tags: &[Group]) -> Result<u64> {
        match self.known_stamp(self.flags(), prefix, tags) {
            Some(stamp) => Ok(stamp),
            None => self.make_stamp::<M>(prefix, tags).await.map(|stamp| stamp.stamp),
        }
    }

    /// Makes the stamp of a call with these tags.
    pub(crate) async fn make_stamp<M: Io>(
        &self,
        prefix: &Prefix,
        tags: &[Group],
    ) -> Result<CallStamp> {
        let (key, before) = {
            let capabilities = self.backend().capabilities();
            poll(capabilities.invalidation_feed)?;
            (
                self.stamp_key(capabilities.generations, prefix.seed(), tags),
                self.before(capabilities.generations),
            )
        };
        let mut stamp = StampBuilder::default();
        for (group, is_coarse) in groups(prefix, tags) {
            match self.cached(group, is_coarse, before) {
                Some(generation) => stamp.add(generation),
                None => stamp.add_read(self.fetch::<M>(group, stamp.has_timed_out).await?),
            }
        }
        Ok(self.cache_stamp(key, &stamp))
    }

    /// Returns the group whose invalidation has changed the stamp of a call from `stamp`, or `None` if that
    /// is not known: it was made of generations before the last two.
    ///
    /// The stamp is compared with those of all combinations of the present generations, the previous ones
    /// and zero.
    pub(crate) async fn invalidated_group<M: Io>(
        &self,
        prefix: &Prefix,
        tags: &[Group],
        stamp: u64,
    ) -> Result<Option<InvalidatedGroup>> {
        let before = self.before(self.backend().capabilities().generations);
        let mut known: Vec<[u64; 3]> = Vec::new();
        for (group, is_coarse) in groups(prefix, tags) {
            let current = match self.cached(group, is_coarse, before) {
                Some(generation) => generation,
                None => self.fetch::<M>(group, false).await?.generation,
            };
            let previous = self.shared.generations.previous(group).unwrap_or(current);
            known.push([current, previous, 0]);
        }
        Ok(find_changed(&known, stamp))
    }

    /// Returns the key of the current stamp of a function, or `None` if the call has tags.
    #[inline(always)]
    fn stamp_key(
        &self,
        generations: Option<&dyn Generations>,
        seed: PrefixSeed,
        tags: &[Group],
    ) -> Option<StampKey> {
        let cache = &self.shared.generations;
        let count = match generations {
            _ if !tags.is_empty() => return None,
            Some(generations) => {
                generations.change_count().filter(|count| count.is_connected).map(|it| it.count)
            }
            None => Some(cache.local_bumps.load(Ordering::Acquire)),
        };
        Some(match count {
            Some(count) => StampKey { number: seed.hash_of(count), expires: false },
            None => self.expiring_stamp_key(seed),
        })
    }

    /// Returns the key of the stamp of a function while changes are not noticed.
    #[cold]
    #[inline(never)]
    fn expiring_stamp_key(&self, seed: PrefixSeed) -> StampKey {
        // Two clocks, as that of the backend may be set back to an earlier period.
        let times = [self.now(), MonotonicClock.now()];
        let [now, tick] = times.map(|time| time.as_micros() / STAMP_WINDOW_US);
        let invalidations = self.shared.generations.invalidations();
        let period = hasher::seeded().hash_one((invalidations, now, tick));
        StampKey { number: seed.hash_of(period), expires: true }
    }

    /// Caches a stamp for its period, but for one without an end only if all generations could be read.
    #[cold]
    fn cache_stamp(&self, key: Option<StampKey>, stamp: &StampBuilder) -> CallStamp {
        let (number, has_timed_out) = (stamp.get(), stamp.has_timed_out);
        if let Some(key) = key
            && (key.expires || !stamp.is_offline)
            && !has_timed_out
        {
            self.shared.generations.stamps.insert(key.number, number);
        }
        CallStamp { stamp: number, has_timed_out }
    }

    fn before(&self, generations: Option<&dyn Generations>) -> Before {
        // In this order, so that an invalidation after the count was loaded is noticed.
        let invalidations = self.shared.generations.invalidations();
        let count = generations.and_then(Generations::change_count);
        Before { at: self.now(), count, invalidations }
    }

    /// Returns a generation if it is one of this process, or was fetched and nothing has changed since. If
    /// changes are not noticed, that of a coarse group is valid for [`VALID_FOR`].
    fn cached(&self, group: Group, is_coarse: bool, before: Before) -> Option<u64> {
        let cache = &self.shared.generations;
        if self.backend().capabilities().generations.is_none() {
            return Some(cache.local(group));
        }
        if self.shared.pending.contains(group) {
            return None;
        }
        let fetched = cache.fetched(group)?;
        let is_valid = match before.count {
            Some(ChangeCount { count, is_connected: true }) => fetched.count == Some(count),
            _ => {
                let age = before.at.saturating_since(fetched.at);
                is_coarse && before.at >= fetched.at && age < VALID_FOR
            }
        };
        is_valid.then_some(fetched.generation)
    }

    async fn fetch<M: Io>(&self, group: Group, has_timed_out: bool) -> Result<Read> {
        let Some(generations) = self.backend().capabilities().generations else {
            return Ok(NEVER_BUMPED);
        };
        let delivered = if has_timed_out {
            Err(timed_out())
        } else {
            self.deliver::<M>(generations, group).await
        };
        let before = self.before(Some(generations));
        let fetched = match delivered {
            Ok(()) => {
                Operation::perform::<M>(
                    "read generation",
                    || generations.generation(group),
                    || generations.generation_async(group),
                )
                .await
            }
            Err(error) => Err(error),
        };
        self.fetched(group, before, fetched)
    }

    /// Caches a generation that was fetched. If that failed, the offline part of the backend goes on with
    /// the last generation that is not known to have changed, or with one of its own. While an invalidation of the group is
    /// pending, it goes on with another one for each invalidation.
    fn fetched(&self, group: Group, before: Before, result: Result<u64>) -> Result<Read> {
        let cache = &self.shared.generations;
        let count = before.count.map(|it| it.count);
        match result {
            Ok(generation) => {
                let fetched = Fetched { generation, at: before.at, count };
                cache.insert(group, fetched, before.invalidations);
                Ok(Read { generation, ..NEVER_BUMPED })
            }
            // A backend that has panicked may not know that its generations cannot be read.
            Err(error) if error.kind() == ErrorKind::Panic => Err(error),
            Err(error) => {
                let has_timed_out = error.kind() == ErrorKind::Timeout;
                let Some(offline) = self.backend().capabilities().offline else {
                    return Err(error);
                };
                let offline = catch_panic("read generation", || offline.generation(group))?;
                let last = cache.fetched(group).filter(|it| count.is_some() && it.count == count);
                let generation = match self.shared.pending.number_of(group) {
                    // Odd, so that no two numbers make one generation.
                    Some(number) => {
                        offline.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
                    }
                    None => last.map_or(offline, |last| last.generation),
                };
                Ok(Read { generation, is_offline: true, has_timed_out })
            }
        }
    }
}

/// Polls the backend for changes by others. Every call begins with this, before it takes a generation
/// and reads a copy, which would otherwise be validated against the state from before the poll.
#[cfg_attr(not(debug_assertions), inline(always))]
fn poll(feed: Option<&dyn InvalidationFeed>) -> Result<()> {
    match feed {
        None => Ok(()),
        Some(feed) => catch_panic("poll invalidation feed", || {
            feed.poll();
            Ok(())
        }),
    }
}

/// The generation of a group that was never invalidated.
const NEVER_BUMPED: Read = Read { generation: 0, is_offline: false, has_timed_out: false };

/// Returns the error of an operation that is skipped after a timeout.
#[cold]
fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "an earlier operation of the call has timed out")
}

/// The stamp that was made for a call, with whether the backend has timed out in the meantime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallStamp {
    pub(crate) stamp: u64,
    pub(crate) has_timed_out: bool,
}

/// Returns the groups of a call, each with whether it is coarse: rarely invalidated, and common to all
/// calls of the function.
fn groups<'a>(prefix: &Prefix, tags: &'a [Group]) -> impl Iterator<Item = (Group, bool)> + use<'a> {
    let coarse = [Group::ALL, Group::of_prefix(prefix.as_str())].map(|group| (group, true));
    coarse.into_iter().chain(tags.iter().map(|&tag| (tag, false)))
}

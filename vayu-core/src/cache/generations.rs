//! The generations of groups, as one cache knows them.
//!
//! The stamp of a call is one number made of the generations of all its groups. It is part of the
//! schema stamp of what the call stores.
//!
//! Where the backend keeps the generations, the ones that were fetched are cached here, and nowhere
//! else. They are valid while the change count of the backend
//! ([`Generations::change_count`](crate::Generations::change_count)) stands still and changes of other
//! processes are noticed. Where they are not, the generations of a function and of everything are valid
//! for 75 ms, and those of tags are fetched for each call.

mod stamp_cache;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockWriteGuard};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use self::stamp_cache::Memo;
use crate::backend::Backend;
use crate::cache::Engine;
use crate::clock::{Clock, MonotonicClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{ChangeCount, Generations, Group};
use crate::io::{Io, Operation};
use crate::key::{Prefix, hasher};
use crate::panic::catch_panic;
use crate::validity;

/// What a cache knows of generations.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Those of this process, where the backend keeps none. There are none before the first is
    /// renewed.
    here: OnceLock<Box<[AtomicU64]>>,
    /// How many of this process were renewed.
    renewals: AtomicU64,
    /// Those that were fetched from the backend.
    fetched: RwLock<HashMap<Group, Fetched>>,
    /// How often this cache has invalidated a part of that.
    invalidations: AtomicU64,
    memo: Memo,
}

/// A generation that was fetched, with the time and the change count from before.
#[derive(Debug, Clone, Copy)]
struct Fetched {
    generation: u64,
    at: Timestamp,
    count: Option<u64>,
}

/// Groups whose numbers are equal modulo this are invalidated together.
const SLOTS: u64 = 1 << 16;

/// How long the generation of a function is valid where changes of others are not noticed, and how
/// long a stamp that was made of it. Together that is 100 ms.
const VALID_FOR: Duration = Duration::from_millis(75);
/// In microseconds.
const MOMENT: i64 = 25_000;

/// Groups whose generation is cached. Past that all are fetched again.
const MAX_FETCHED: usize = 65_536;

impl Groups {
    fn generation(&self, group: Group) -> u64 {
        self.here.get().map_or(0, |slots| slots[slot(group)].load(Ordering::Acquire))
    }

    pub(super) fn bump(&self, group: Group) {
        let slots = self.here.get_or_init(|| (0..SLOTS).map(|_| AtomicU64::new(0)).collect());
        let generation = RandomState::new().hash_one(group) | 1;
        slots[slot(group)].store(generation, Ordering::Release);
        self.renewals.fetch_add(1, Ordering::Release);
    }

    fn fetched(&self, group: Group) -> Option<Fetched> {
        self.fetched.read().unwrap_or_else(PoisonError::into_inner).get(&group).copied()
    }

    /// Caches a generation, unless something was invalidated since there were so many
    /// `invalidations`, before it was fetched: it may be older than that.
    fn insert(&self, group: Group, fetched: Fetched, invalidations: u64) {
        let mut cached = self.fetched_mut();
        if self.invalidations() != invalidations {
            return;
        }
        if cached.len() >= MAX_FETCHED {
            cached.clear();
        }
        cached.insert(group, fetched);
    }

    pub(super) fn invalidate(&self, group: Group) {
        let mut cached = self.fetched_mut();
        cached.remove(&group);
        self.invalidations.fetch_add(1, Ordering::Release);
    }

    fn invalidations(&self) -> u64 {
        self.invalidations.load(Ordering::Acquire)
    }

    fn fetched_mut(&self) -> RwLockWriteGuard<'_, HashMap<Group, Fetched>> {
        self.fetched.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slot(group: Group) -> usize {
    usize::try_from(group.number() % SLOTS).expect("it is less than the slots")
}

/// The stamp of a call, made of the generations of its groups one by one. It is zero where all of
/// them are.
#[derive(Default)]
struct Stamp {
    bytes: smallvec::SmallVec<[u8; 64]>,
    /// Whether a generation could not be read, and another number stands for it.
    is_offline: bool,
    /// Whether the backend did not respond in time. It is not asked again for this stamp.
    has_timed_out: bool,
}

/// How many bytes of a stamp the groups take that are [`seldom`] invalidated. They come first.
const SELDOM: usize = 2 * size_of::<u64>();

impl Stamp {
    fn add(&mut self, generation: u64) {
        self.bytes.extend_from_slice(&generation.to_le_bytes());
    }

    /// Adds the result of reading a generation.
    fn add_read(&mut self, read: Read) {
        self.is_offline |= read.is_offline;
        self.has_timed_out |= read.has_timed_out;
        self.add(read.generation);
    }

    /// The lowest bits are left for a [mark](crate::validity). Tags of which none was ever invalidated count
    /// for nothing.
    fn get(&self) -> u64 {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let (seldom, tags) = self.bytes.split_at_checked(SELDOM).unwrap_or((&self.bytes, &[]));
        let made_of = if is_zero(tags) { seldom } else { &self.bytes[..] };
        if is_zero(made_of) { 0 } else { xxh3_64(made_of) >> validity::BITS << validity::BITS }
    }
}

/// A generation that was read, or the number that stands for it.
#[derive(Debug, Clone, Copy)]
struct Read {
    generation: u64,
    is_offline: bool,
    has_timed_out: bool,
}

/// What was known before generations were read.
#[derive(Clone, Copy)]
struct Before {
    at: Timestamp,
    count: Option<ChangeCount>,
    invalidations: u64,
}

/// When a stamp was made, with all that it was made of.
#[derive(Debug, Clone, Copy)]
struct Moment {
    number: u64,
    /// Whether it is over after a while although nothing has changed here.
    ends: bool,
}

impl<B: Backend> Engine<B> {
    /// Lets the backend look for changes that others have made. Every call begins with this, before a
    /// generation is taken and a copy is read: the copy would be checked against what was true before
    /// the look.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn poll_feed(&self) -> Result<()> {
        match self.backend().sharing().invalidation_feed {
            None => Ok(()),
            Some(news) => catch_panic("look for changes", || {
                news.poll();
                Ok(())
            }),
        }
    }

    /// Whether a group may have been invalidated.
    #[inline]
    pub(crate) fn has_generations(&self) -> bool {
        self.shared.groups.here.get().is_some() || self.backend().sharing().generations.is_some()
    }

    /// The stamp of a call with these tags, if it is known.
    #[inline]
    pub(crate) fn known_stamp(&self, prefix: &Prefix, tags: &[Group]) -> Option<u64> {
        // Without a look nothing is known. Whoever makes the stamp reports why.
        self.poll_feed().ok()?;
        if self.has_generations() { self.recall_stamp(prefix, tags) } else { Some(0) }
    }

    #[inline(never)]
    fn recall_stamp(&self, prefix: &Prefix, tags: &[Group]) -> Option<u64> {
        let moment = self.moment(prefix, tags)?;
        self.shared.groups.memo.recall(moment.number)
    }

    /// Returns the stamp of a call with these tags.
    pub(crate) async fn stamp<M: Io>(&self, prefix: &Prefix, tags: &[Group]) -> Result<u64> {
        match self.known_stamp(prefix, tags) {
            Some(stamp) => Ok(stamp),
            None => self.make_stamp::<M>(prefix, tags).await.map(|made| made.stamp),
        }
    }

    /// Makes the stamp of a call with these tags.
    pub(crate) async fn make_stamp<M: Io>(&self, prefix: &Prefix, tags: &[Group]) -> Result<Made> {
        self.poll_feed()?;
        let (moment, before) = (self.moment(prefix, tags), self.before());
        let mut stamp = Stamp::default();
        for (group, is_coarse) in groups(prefix, tags) {
            match self.cached(group, is_coarse, before) {
                Some(generation) => stamp.add(generation),
                None => stamp.add_read(self.fetch::<M>(group, stamp.has_timed_out).await?),
            }
        }
        Ok(self.keep(moment, &stamp))
    }

    /// A number for a function without tags and all that is known of generations now.
    #[inline]
    fn moment(&self, prefix: &Prefix, tags: &[Group]) -> Option<Moment> {
        let groups = &self.shared.groups;
        let number = |moment| hasher::seeded().hash_one((prefix, moment));
        let count = match self.backend().sharing().generations {
            _ if !tags.is_empty() => return None,
            Some(generations) => {
                generations.change_count().filter(|count| count.is_connected).map(|it| it.count)
            }
            None => Some(groups.renewals.load(Ordering::Acquire)),
        };
        Some(match count {
            Some(count) => Moment { number: number((count, 0, 0)), ends: false },
            // The clock of the backend may be set back to a moment that was before.
            None => {
                let times = [self.now(), MonotonicClock.now()];
                let [now, tick] = times.map(|time| time.as_micros() / MOMENT);
                Moment { number: number((groups.invalidations(), now, tick)), ends: true }
            }
        })
    }

    /// Keeps a stamp for its moment. One that never ends is not for generations that could not be
    /// read.
    #[cold]
    fn keep(&self, moment: Option<Moment>, stamp: &Stamp) -> Made {
        let made = Made { stamp: stamp.get(), has_timed_out: stamp.has_timed_out };
        if let Some(moment) = moment
            && (moment.ends || !stamp.is_offline)
            && !made.has_timed_out
        {
            self.shared.groups.memo.keep(moment.number, made.stamp);
        }
        made
    }

    fn before(&self) -> Before {
        // In this order: what is invalidated after it was counted is noticed.
        let invalidations = self.shared.groups.invalidations();
        let count = self.backend().sharing().generations.and_then(Generations::change_count);
        Before { at: self.now(), count, invalidations }
    }

    /// The generation where the cache keeps it, or has fetched it and nothing has changed since. That of
    /// a group that is seldom invalidated is taken as it was a moment ago where changes are not
    /// noticed.
    fn cached(&self, group: Group, is_coarse: bool, before: Before) -> Option<u64> {
        let groups = &self.shared.groups;
        if self.backend().sharing().generations.is_none() {
            return Some(groups.generation(group));
        }
        let fetched = groups.fetched(group)?;
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
        let Some(generations) = self.backend().sharing().generations else {
            return Ok(NEVER_RENEWED);
        };
        let before = self.before();
        let fetched = if has_timed_out {
            Err(timed_out())
        } else {
            Operation::perform::<M>(
                "read generation",
                || generations.generation(group),
                || generations.generation_async(group),
            )
            .await
        };
        self.fetched(group, before, fetched)
    }

    /// Caches what was fetched. Where that failed, the part of the backend that responds goes on with the
    /// last generation that is not known to have changed, or with one of its own.
    fn fetched(&self, group: Group, before: Before, result: Result<u64>) -> Result<Read> {
        let groups = &self.shared.groups;
        let count = before.count.map(|it| it.count);
        match result {
            Ok(generation) => {
                let fetched = Fetched { generation, at: before.at, count };
                groups.insert(group, fetched, before.invalidations);
                Ok(Read { generation, ..NEVER_RENEWED })
            }
            // A backend that has panicked may not know that its generations cannot be read.
            Err(error) if error.kind() == ErrorKind::Panic => Err(error),
            Err(error) => {
                let has_timed_out = error.kind() == ErrorKind::Timeout;
                let Some(offline) = self.backend().sharing().offline else { return Err(error) };
                let offline = catch_panic("read generation", || offline.generation(group))?;
                let last = groups.fetched(group).filter(|it| count.is_some() && it.count == count);
                let generation = last.map_or(offline, |last| last.generation);
                Ok(Read { generation, is_offline: true, has_timed_out })
            }
        }
    }
}

/// The generation of a group that was never renewed.
const NEVER_RENEWED: Read = Read { generation: 0, is_offline: false, has_timed_out: false };

/// The error of an operation that a call leaves out.
#[cold]
fn timed_out() -> Error {
    Error::new(ErrorKind::Timeout, "an earlier operation of the call has timed out")
}

/// A stamp that was made for a call, and whether the backend did not respond in time meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    pub(crate) stamp: u64,
    pub(crate) has_timed_out: bool,
}

/// The groups of a call, and whether each is coarse: seldom invalidated, and one that each call of the
/// function has.
fn groups<'a>(prefix: &Prefix, tags: &'a [Group]) -> impl Iterator<Item = (Group, bool)> + use<'a> {
    let coarse = [Group::ALL, Group::of_prefix(prefix.as_str())].map(|group| (group, true));
    coarse.into_iter().chain(tags.iter().map(|&tag| (tag, false)))
}

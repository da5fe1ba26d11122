//! The generations of groups, as one cache knows them.
//!
//! The stamp of a call is one number made of the generations of all its groups. It is part of the
//! schema stamp of what the call stores.

mod memo;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use self::memo::Memo;
use crate::backend::Backend;
use crate::cache::Cache;
use crate::clock::{Clock, MonotonicClock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::group::Group;
use crate::guard::{guarded, guarded_async};
use crate::key::{Prefix, hasher};
use crate::mark;

/// What a cache knows of generations.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Those of this process, where the backend keeps none. There are none before the first is
    /// renewed.
    here: OnceLock<Box<[AtomicU64]>>,
    /// How many of this process were renewed.
    renewals: AtomicU64,
    /// Those that the backend was asked for, and when.
    asked: Mutex<HashMap<Group, (u64, Timestamp)>>,
    /// How often something of that was forgotten.
    changes: AtomicU64,
    memo: Memo,
}

/// Groups whose numbers are equal modulo this are invalidated together.
const SLOTS: u64 = 1 << 16;

/// How long the generation of a function is taken for known where the backend keeps it, and how long
/// a stamp that was made of it. Together that is 100 ms. The generation of a tag is never known.
const KNOWN_FOR: Duration = Duration::from_millis(75);
/// In microseconds.
const MOMENT: i64 = 25_000;

/// Functions whose generation is remembered. Past that all are asked for again.
const REMEMBERED: usize = 4096;

impl Groups {
    fn generation(&self, group: Group) -> u64 {
        self.here.get().map_or(0, |slots| slots[slot(group)].load(Ordering::Acquire))
    }

    pub(super) fn renew(&self, group: Group) {
        let slots = self.here.get_or_init(|| (0..SLOTS).map(|_| AtomicU64::new(0)).collect());
        let generation = RandomState::new().hash_one(group) | 1;
        slots[slot(group)].store(generation, Ordering::Release);
        self.renewals.fetch_add(1, Ordering::Release);
    }

    fn known(&self, group: Group, now: Timestamp) -> Option<u64> {
        let &(generation, asked) = self.asked().get(&group)?;
        let is_recent = now >= asked && now.saturating_since(asked) < KNOWN_FOR;
        is_recent.then_some(generation)
    }

    /// Notes what the backend answered, unless something was forgotten since there were so many
    /// `changes`, before it was asked: the answer may be older than that.
    fn learn(&self, group: Group, generation: u64, now: Timestamp, changes: u64) {
        let mut asked = self.asked();
        if self.changes() != changes {
            return;
        }
        if asked.len() >= REMEMBERED {
            asked.clear();
        }
        asked.insert(group, (generation, now));
    }

    pub(super) fn forget(&self, group: Group) {
        let mut asked = self.asked();
        asked.remove(&group);
        self.changes.fetch_add(1, Ordering::Release);
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Group, (u64, Timestamp)>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slot(group: Group) -> usize {
    usize::try_from(group.number() % SLOTS).expect("it is less than the slots")
}

/// The stamp of a call, made of the generations of its groups one by one. It is zero where all of
/// them are.
#[derive(Default)]
struct Stamp(smallvec::SmallVec<[u8; 64]>);

/// How many bytes of a stamp the groups take that are [`seldom`] invalidated. They come first.
const SELDOM: usize = 2 * size_of::<u64>();

impl Stamp {
    fn add(&mut self, generation: u64) {
        self.0.extend_from_slice(&generation.to_le_bytes());
    }

    /// The lowest bits are left for a [mark](crate::mark). Tags of which none was ever invalidated count
    /// for nothing.
    fn get(&self) -> u64 {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let (seldom, tags) = self.0.split_at_checked(SELDOM).unwrap_or((&self.0, &[]));
        let made_of = if is_zero(tags) { seldom } else { &self.0[..] };
        if is_zero(made_of) { 0 } else { xxh3_64(made_of) >> mark::BITS << mark::BITS }
    }
}

/// When a stamp was made, with all that it was made of.
#[derive(Debug, Clone, Copy)]
struct Moment {
    number: u64,
    /// Whether it is over after a while although nothing has changed here.
    ends: bool,
}

impl<B: Backend, S> Cache<B, S> {
    /// Whether a group may have been invalidated.
    #[inline]
    pub(crate) fn has_generations(&self) -> bool {
        self.shared.groups.here.get().is_some() || self.backend().generations().is_some()
    }

    /// The stamp of a call with these tags, if it is known.
    #[inline]
    pub(crate) fn known_stamp(&self, prefix: &Prefix, tags: &[Group]) -> Option<u64> {
        if self.has_generations() { self.recall_stamp(prefix, tags) } else { Some(0) }
    }

    #[inline(never)]
    fn recall_stamp(&self, prefix: &Prefix, tags: &[Group]) -> Option<u64> {
        let moment = self.moment(prefix, tags)?;
        self.shared.groups.memo.recall(moment.number)
    }

    /// The stamp of a call with these tags.
    pub(crate) fn stamp(&self, prefix: &Prefix, tags: &[Group]) -> Result<u64> {
        match self.known_stamp(prefix, tags) {
            Some(stamp) => Ok(stamp),
            None => self.make_stamp(prefix, tags).map(|made| made.stamp),
        }
    }

    /// [`stamp`](Self::stamp) for async callers.
    pub(crate) async fn stamp_async(&self, prefix: &Prefix, tags: &[Group]) -> Result<u64> {
        match self.known_stamp(prefix, tags) {
            Some(stamp) => Ok(stamp),
            None => self.make_stamp_async(prefix, tags).await.map(|made| made.stamp),
        }
    }

    /// Makes the stamp of a call with these tags.
    pub(crate) fn make_stamp(&self, prefix: &Prefix, tags: &[Group]) -> Result<Made> {
        let moment = self.moment(prefix, tags);
        let mut stamp = Stamp::default();
        let mut has_timed_out = false;
        for group in seldom(prefix) {
            stamp.add(match self.known(group) {
                Some(generation) => generation,
                None => self.ask(group, &mut has_timed_out)?,
            });
        }
        for &tag in tags {
            stamp.add(match self.known_for_certain(tag) {
                Some(generation) => generation,
                None => self.ask(tag, &mut has_timed_out)?,
            });
        }
        if has_timed_out {
            return Ok(Made { stamp: stamp.get(), has_timed_out });
        }
        Ok(Made { stamp: self.keep(moment, prefix, &stamp), has_timed_out })
    }

    /// [`make_stamp`](Self::make_stamp) for async callers.
    pub(crate) async fn make_stamp_async(&self, prefix: &Prefix, tags: &[Group]) -> Result<Made> {
        let moment = self.moment(prefix, tags);
        let mut stamp = Stamp::default();
        let mut has_timed_out = false;
        for group in seldom(prefix) {
            stamp.add(match self.known(group) {
                Some(generation) => generation,
                None => self.ask_async(group, &mut has_timed_out).await?,
            });
        }
        for &tag in tags {
            stamp.add(match self.known_for_certain(tag) {
                Some(generation) => generation,
                None => self.ask_async(tag, &mut has_timed_out).await?,
            });
        }
        if has_timed_out {
            return Ok(Made { stamp: stamp.get(), has_timed_out });
        }
        Ok(Made { stamp: self.keep(moment, prefix, &stamp), has_timed_out })
    }

    /// A number for a function without tags and all that is known of generations now.
    #[inline]
    fn moment(&self, prefix: &Prefix, tags: &[Group]) -> Option<Moment> {
        let groups = &self.shared.groups;
        let number = |moment| hasher::seeded().hash_one((prefix, moment));
        let revision = match self.backend().generations() {
            _ if !tags.is_empty() => return None,
            Some(generations) => generations.revision(),
            None => Some(groups.renewals.load(Ordering::Acquire)),
        };
        Some(match revision {
            Some(revision) => Moment { number: number((revision, 0, 0)), ends: false },
            // The clock of the backend may be set back to a moment that was before.
            None => {
                let times = [self.now(), MonotonicClock.now()];
                let [now, tick] = times.map(|time| time.as_micros() / MOMENT);
                Moment { number: number((groups.changes(), now, tick)), ends: true }
            }
        })
    }

    /// Remembers a stamp for its moment. One that never ends is for what is known for certain.
    #[cold]
    fn keep(&self, moment: Option<Moment>, prefix: &Prefix, stamp: &Stamp) -> u64 {
        let is_certain =
            || seldom(prefix).iter().all(|&group| self.known_for_certain(group).is_some());
        if let Some(moment) = moment
            && (moment.ends || is_certain())
        {
            self.shared.groups.memo.keep(moment.number, stamp.get());
        }
        stamp.get()
    }

    /// The generation where the cache keeps it, or the backend knows it.
    fn known_for_certain(&self, group: Group) -> Option<u64> {
        match self.backend().generations() {
            Some(generations) => generations.known(group),
            None => Some(self.shared.groups.generation(group)),
        }
    }

    /// The generation of a group that is seldom invalidated, if it is known at once.
    fn known(&self, group: Group) -> Option<u64> {
        let of_late = || self.shared.groups.known(group, self.now());
        self.known_for_certain(group).or_else(of_late)
    }

    /// Asks the backend for a generation. After a timeout the part of the backend that responds stands
    /// in for it.
    fn ask(&self, group: Group, has_timed_out: &mut bool) -> Result<u64> {
        let Some(generations) = self.backend().generations() else { return Ok(0) };
        if *has_timed_out {
            return self.offline_generation(group, timed_out());
        }
        let (now, changes) = (self.now(), self.shared.groups.changes());
        let generation = match guarded("read generation", || generations.generation(group)) {
            Err(error) if error.kind() == ErrorKind::Timeout => {
                *has_timed_out = true;
                return self.offline_generation(group, error);
            }
            result => result?,
        };
        self.shared.groups.learn(group, generation, now, changes);
        Ok(generation)
    }

    async fn ask_async(&self, group: Group, has_timed_out: &mut bool) -> Result<u64> {
        let Some(generations) = self.backend().generations() else { return Ok(0) };
        if *has_timed_out {
            return self.offline_generation(group, timed_out());
        }
        let (now, changes) = (self.now(), self.shared.groups.changes());
        let ask = || generations.generation_async(group);
        let generation = match guarded_async("read generation", ask).await {
            Err(error) if error.kind() == ErrorKind::Timeout => {
                *has_timed_out = true;
                return self.offline_generation(group, error);
            }
            result => result?,
        };
        self.shared.groups.learn(group, generation, now, changes);
        Ok(generation)
    }
}

impl<B: Backend, S> Cache<B, S> {
    /// Returns what stands in for a generation that the backend did not return in time.
    fn offline_generation(&self, group: Group, error: Error) -> Result<u64> {
        let Some(offline) = self.backend().offline() else { return Err(error) };
        guarded("read generation", || offline.generation(group))
    }
}

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

/// The groups that are seldom invalidated, of which a call is with everything of its function.
fn seldom(prefix: &Prefix) -> [Group; 2] {
    [Group::ALL, Group::of_prefix(prefix)]
}

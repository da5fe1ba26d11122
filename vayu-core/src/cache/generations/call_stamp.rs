//! The stamps of calls: from the cache of stamps, or made of generations that are cached or read.

use std::hash::BuildHasher;
use std::sync::atomic::Ordering;

use super::groups;
use super::stamp::{InvalidatedGroup, StampBuilder, find_changed};
use crate::backend::Backend;
use crate::cache::{Engine, Flags};
use crate::clock::{Clock, MonotonicClock};
use crate::error::Result;
use crate::generation::{Generations, Group};
use crate::invalidation::InvalidationFeed;
use crate::io::Io;
use crate::key::{Prefix, PrefixSeed, hasher};
use crate::panic::catch_panic;
use crate::validity;

/// The stamp that was made for a call, with whether the backend has timed out in the meantime.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallStamp {
    pub(crate) stamp: u64,
    pub(crate) has_timed_out: bool,
}

/// The key of a stamp in the [`StampCache`](super::stamp_cache::StampCache): a hash of the function and of the period in which its stamp
/// is the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct StampKey {
    number: u64,
    /// `true` if the period ends after some time even if no change is noticed.
    expires: bool,
}

/// The maximum time for which a stamp is cached if changes are not noticed, in microseconds. Generations are valid for 75 ms
/// then, so an invalidation by another process is noticed after 100 ms at most.
const STAMP_WINDOW_US: i64 = 25_000;

impl<B: Backend> Engine<B> {
    /// Returns whether a group may have been invalidated.
    #[inline]
    pub(crate) fn has_generations(&self) -> bool {
        self.flags().has_local_bumps() || self.backend().capabilities().generations.is_some()
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

    /// Returns the stamp of a call if a generation may have changed and the stamp is known. It is one function for each type of
    /// backend: the compiler then knows which generations and which feed that has.
    #[inline(never)]
    fn stamp_of_changed(&self, flags: Flags, seed: PrefixSeed, tags: &[Group]) -> Option<u64> {
        self.stamp_of_changed_inline(flags, seed, tags)
    }

    /// Returns what [`known_stamp`](Self::known_stamp) does if a generation may have changed. Compiled into hits.
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
            None if !flags.has_local_bumps() => Some(0),
            Some(_) if self.shared.pending.exist() => None,
            generations => self.cached_stamp(generations, seed, tags),
        }
    }

    /// Returns the cached stamp of a function, or `None` if there is none or if the call has tags.
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
            match self.current_generation(group, is_coarse, before) {
                Some(generation) => stamp.add(generation),
                None => stamp.add_read(self.fetch::<M>(group, stamp.has_timed_out).await?),
            }
        }
        Ok(self.store_stamp(key, &stamp))
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
            let current = match self.current_generation(group, is_coarse, before) {
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
        let removals = self.shared.generations.removals();
        let period = hasher::seeded().hash_one((removals, now, tick));
        StampKey { number: seed.hash_of(period), expires: true }
    }

    /// Caches a stamp for its period, but for one without an end only if all generations could be read.
    #[cold]
    fn store_stamp(&self, key: Option<StampKey>, stamp: &StampBuilder) -> CallStamp {
        let (number, has_timed_out) = (stamp.get(), stamp.has_timed_out);
        if let Some(key) = key
            && (key.expires || !stamp.is_offline)
            && !has_timed_out
        {
            self.shared.generations.stamps.insert(key.number, number);
        }
        CallStamp { stamp: number, has_timed_out }
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

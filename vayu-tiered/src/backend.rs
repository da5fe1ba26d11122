//! The backend: two tiers.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use vayu_core::__internal::value_from_words;
use vayu_core::{
    AnyValue, Backend, Clock, ErrorKind, Group, Invalidation, InvalidationFeed,
    InvalidationListener, Key, OffBackend, Offline, OpenBackend, Record, Result, Sharing,
    Timestamp, Usage, ValueClass,
};
use vayu_memory::{MemoryBackend, MemoryOptions, MemoryValue};

use crate::generations::Changes;
use crate::key_versions::{KeyChange, Revision, Revisions};
use crate::value::{TieredValue, words};

/// Keeps records in memory, and below.
///
/// A clone is the same backend.
///
/// # Behavior
///
/// Memory is asked first. What it has not, or no longer, is read below and kept in memory too, for the
/// rest of its time by the clock of this process: no longer than its ttl from then on, whatever the clock
/// of the machine shows that has written it. What is written goes below first, and then to memory, even
/// if it was not taken below; what is deleted goes from both. When the tier below fails, memory answers
/// alone.
///
/// Each change outdates the copies in this process before anything is waited for, and again when it has
/// ended. So a change whose future is dropped leaves no outdated copy here.
///
/// What other processes delete, replace or invalidate below is given up in memory as soon as the
/// tier below has [`InvalidationFeed`] of it; see there for each.
pub struct TieredBackend<F> {
    shared: Arc<Inner<F>>,
    // Asked on every hit.
    clock: Arc<dyn Clock>,
}

pub(crate) struct Inner<F> {
    near: MemoryBackend<Copy>,
    backing: F,
    pub(crate) revisions: Revisions,
    pub(crate) changes: Changes,
    /// The longest time for which a copy is served.
    near_ttl: Option<Duration>,
    counts: Counts,
}

/// What memory keeps.
#[derive(Clone)]
struct Copy {
    value: AnyValue,
    revision: Revision,
    /// Until when the record is fresh, and may be served stale. That of the copy may end before.
    ends: [Timestamp; 2],
}

impl MemoryValue for Copy {
    fn value(&self) -> &AnyValue {
        &self.value
    }

    #[inline]
    fn to_words(&self) -> Option<[u64; 3]> {
        let [kind, word] = words(&self.value)?;
        Some([kind, word, self.revision.to_word()])
    }

    #[inline(always)]
    fn from_words([kind, word, revision]: [u64; 3]) -> Option<Self> {
        let value = value_from_words([kind, word])?;
        // Whoever reads it as words needs no more of its times than those of the copy.
        Some(Self { value, revision: Revision::from_word(revision), ends: [Timestamp::NEVER; 2] })
    }
}

/// What the tier below was asked for.
#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
    invalidations: AtomicU64,
}

/// What the tier below was asked for since the cache was made. What memory had was not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierStats {
    /// Reads that found a record.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Reads that failed.
    pub errors: u64,
    /// How often something was heard of that others have changed.
    pub invalidations: u64,
}

impl<F: Backend<Stored = Bytes>> TieredBackend<F> {
    /// Memory in front of `backing`. The clock of `backing` rules both, whatever the options say.
    pub fn new(memory: MemoryOptions, backing: F) -> Self {
        Self::with_near_ttl(memory, backing, None)
    }

    /// Memory whose copies are served for this time at most.
    pub(crate) fn with_near_ttl(
        memory: MemoryOptions,
        backing: F,
        near_ttl: Option<Duration>,
    ) -> Self {
        let clock = backing.clock();
        let near = MemoryBackend::with_options(memory.clock(Arc::clone(&clock)));
        let shared = Arc::new(Inner {
            near,
            backing,
            revisions: Revisions::new(),
            changes: Changes::new(),
            near_ttl,
            counts: Counts::default(),
        });
        if let Some(news) = shared.backing.sharing().invalidation_feed {
            let watcher: Weak<dyn InvalidationListener> =
                Arc::downgrade(&shared) as Weak<dyn InvalidationListener>;
            news.subscribe(watcher);
        }
        Self { shared, clock }
    }

    /// What the tier below was asked for.
    pub fn tier_stats(&self) -> TierStats {
        let counts = &self.shared.counts;
        TierStats {
            hits: counts.hits.load(Ordering::Relaxed),
            misses: counts.misses.load(Ordering::Relaxed),
            errors: counts.errors.load(Ordering::Relaxed),
            invalidations: counts.invalidations.load(Ordering::Relaxed),
        }
    }

    /// What memory has, if it is fresh and nothing is known against it.
    #[inline]
    fn near(&self, key: &Key, class: ValueClass) -> Option<Record<TieredValue>> {
        let now = self.clock.now();
        self.copy(key, class).filter(|copy| now < copy.expires()).map(whole)
    }

    /// What memory has to serve alone, fresh or not.
    fn near_alone(&self, key: &Key) -> Option<Record<TieredValue>> {
        let copy = self.copy(key, ValueClass::Opaque)?;
        let [_, stale_until] = copy.value().ends;
        let is_bounded = copy.stale_until() < stale_until;
        (!is_bounded || self.clock.now() < copy.stale_until()).then(|| whole(copy))
    }

    /// The copy, unless something has changed since it was made.
    #[inline]
    fn copy(&self, key: &Key, class: ValueClass) -> Option<Record<Copy>> {
        let record = self.shared.near.read_now(key, class)?.ok()??;
        self.is_current(&record).then_some(record)
    }

    #[inline(always)]
    fn is_current(&self, record: &Record<Copy>) -> bool {
        self.shared.revisions.is_current(record.value().revision)
    }

    fn keep(&self, key: &Key, record: &Record<TieredValue>, revision: Revision) -> Result<()> {
        let ends = [record.expires(), record.stale_until()];
        let copy = Copy { value: record.value().value().clone(), revision, ends };
        let mut record = record.clone().map(|_| copy);
        if let Some(near_ttl) = self.shared.near_ttl {
            let last = self.clock.now().saturating_add(near_ttl);
            let [expires, stale_until] = ends.map(|end| end.min(last));
            let created = record.created();
            record = record.with_times(created, expires, stale_until);
        }
        self.shared.near.write(key, record)
    }

    /// What came of reading below: what was found there is kept in memory, and memory answers where
    /// nobody can be asked.
    fn read_below(
        &self,
        key: &Key,
        before: Revision,
        found: Result<Option<Record<Bytes>>>,
    ) -> Result<Option<Record<TieredValue>>> {
        let counts = &self.shared.counts;
        match found {
            Ok(Some(record)) => {
                counts.hits.fetch_add(1, Ordering::Relaxed);
                let record = record.map(TieredValue::from_bytes).as_read_at(self.clock.now());
                self.keep(key, &record, before)?;
                Ok(Some(record))
            }
            Ok(None) => {
                counts.misses.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => {
                counts.errors.fetch_add(1, Ordering::Relaxed);
                if error.kind() == ErrorKind::Timeout {
                    // The call is to know, so that it does not wait again. It asks memory then.
                    return Err(error);
                }
                self.near_alone(key).map(Some).ok_or(error)
            }
        }
    }

    /// What came of writing below. Memory keeps the value whether it was taken below or not, unless
    /// something was changed in the meantime, by whomever.
    fn written(
        &self,
        key: &Key,
        record: &Record<TieredValue>,
        change: KeyChange<'_>,
        result: Result<()>,
    ) -> Result<()> {
        if let Some(revision) = change.end() {
            self.keep(key, record, revision)?;
        }
        result
    }

    /// Begins to delete a key: memory forgets it first. Also returns whether it had a value.
    fn begin_delete(&self, key: &Key) -> Result<(bool, KeyChange<'_>)> {
        let was_here = self.near(key, ValueClass::Opaque).is_some();
        let change = self.shared.revisions.begin(start(key));
        self.shared.near.delete(key)?;
        Ok((was_here, change))
    }

    /// What came of deleting below. What was read below in the meantime is forgotten, too.
    fn deleted(&self, key: &Key, change: KeyChange<'_>, result: Result<bool>) -> Result<bool> {
        change.end();
        self.shared.near.delete(key)?;
        result
    }

    /// Begins to clear: memory forgets everything first, and again when the clearing has ended.
    fn begin_clear(&self) -> Result<Clearing<'_, F>> {
        let clearing = Clearing(&self.shared);
        clearing.outdate();
        self.shared.near.clear()?;
        Ok(clearing)
    }

    fn cleared(&self, clearing: Clearing<'_, F>, result: Result<()>) -> Result<()> {
        drop(clearing);
        self.shared.near.clear()?;
        result
    }
}

/// The record of a copy, with the times that it has below.
#[inline]
fn whole(copy: Record<Copy>) -> Record<TieredValue> {
    let (created, [expires, stale_until]) = (copy.created(), copy.value().ends);
    let record = copy.with_times(created, expires, stale_until);
    record.map(|copy| TieredValue::from_shared(copy.value))
}

/// A clearing that is under way. All copies are outdated when it ends, if only by its caller going
/// away.
struct Clearing<'a, F>(&'a Inner<F>);

impl<F> Clearing<'_, F> {
    fn outdate(&self) {
        self.0.changes.advance();
        self.0.revisions.advance_all();
    }
}

impl<F> Drop for Clearing<'_, F> {
    fn drop(&mut self) {
        self.outdate();
    }
}

impl<F> TieredBackend<F> {
    pub(crate) fn shared(&self) -> &Inner<F> {
        &self.shared
    }

    /// The tier below.
    pub fn backing(&self) -> &F {
        &self.shared.backing
    }
}

impl<F: Backend> TieredBackend<F> {
    /// Whether it is heard of what others change.
    #[inline]
    pub(crate) fn hears(&self) -> bool {
        self.shared.backing.sharing().invalidation_feed.is_some_and(InvalidationFeed::is_connected)
    }
}

/// The record for the tier below, if there are bytes for it.
pub(crate) fn encoded(record: &Record<TieredValue>) -> Result<Option<Record<Bytes>>> {
    let bytes = record.value().to_bytes()?;
    Ok(bytes.map(|bytes| record.clone().map(|_| bytes)))
}

fn start(key: &Key) -> [u8; 2] {
    let digest = key.digest();
    [digest[0], digest[1]]
}

impl<F: Backend> InvalidationListener for Inner<F> {
    fn on_invalidation(&self, change: Invalidation) {
        self.counts.invalidations.fetch_add(1, Ordering::Relaxed);
        match change {
            Invalidation::KeySlot(start) => {
                self.revisions.advance(start);
            }
            Invalidation::Generations => self.changes.advance(),
            _ => {
                self.changes.advance();
                self.revisions.advance_all();
            }
        }
    }
}

#[async_trait]
impl<F: Backend<Stored = Bytes>> Backend for TieredBackend<F> {
    type Stored = TieredValue;

    fn read(&self, key: &Key) -> Result<Option<Record<TieredValue>>> {
        let before = self.shared.revisions.current(start(key));
        let found = self.shared.backing.read(key);
        self.read_below(key, before, found)
    }

    fn write(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        let change = self.shared.revisions.begin(start(key));
        let result = match encoded(&record) {
            Ok(Some(below)) => self.shared.backing.write(key, below),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.written(key, &record, change, result)
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        let (was_here, change) = self.begin_delete(key)?;
        let result = self.shared.backing.delete(key);
        Ok(self.deleted(key, change, result)? || was_here)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<TieredValue>>> {
        let before = self.shared.revisions.current(start(key));
        let found = self.shared.backing.read_async(key).await;
        self.read_below(key, before, found)
    }

    async fn write_async(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        let change = self.shared.revisions.begin(start(key));
        let result = match encoded(&record) {
            Ok(Some(below)) => self.shared.backing.write_async(key, below).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.written(key, &record, change, result)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        let (was_here, change) = self.begin_delete(key)?;
        let result = self.shared.backing.delete_async(key).await;
        Ok(self.deleted(key, change, result)? || was_here)
    }

    /// What memory has and is fresh; what it has not may be below.
    #[inline]
    fn read_now(
        &self,
        key: &Key,
        class: ValueClass,
    ) -> Option<Result<Option<Record<TieredValue>>>> {
        self.near(key, class).map(|record| Ok(Some(record)))
    }

    /// Whether the copy is fresh is left to the engine, which reads the same clock.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn read_optimistic(&self, key: &Key) -> Option<Record<TieredValue>> {
        let copy = self.shared.near.read_optimistic(key)?;
        if !self.is_current(&copy) {
            return None;
        }
        Some(copy.map(|copy| TieredValue::from_shared(copy.value)))
    }

    fn clear(&self) -> Result<()> {
        let clearing = self.begin_clear()?;
        let result = self.shared.backing.clear();
        self.cleared(clearing, result)
    }

    async fn clear_async(&self) -> Result<()> {
        let clearing = self.begin_clear()?;
        let result = self.shared.backing.clear_async().await;
        self.cleared(clearing, result)
    }

    #[inline]
    fn sharing(&self) -> Sharing<'_, TieredValue> {
        let backing = self.shared.backing.sharing();
        let mut sharing = Sharing::none().with_offline(self);
        sharing.invalidation_feed = backing.invalidation_feed;
        sharing.leases = backing.leases;
        // Without those of the backing tier the cache keeps its own.
        if backing.generations.is_some() { sharing.with_generations(self) } else { sharing }
    }

    /// That of memory.
    fn usage(&self) -> Usage {
        self.shared.near.usage()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

/// Memory alone.
impl<F: Backend<Stored = Bytes>> Offline for TieredBackend<F> {
    type Stored = TieredValue;

    fn read(&self, key: &Key) -> Result<Option<Record<TieredValue>>> {
        Ok(self.near_alone(key))
    }

    fn write(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        let change = self.shared.revisions.begin(start(key));
        self.written(key, &record, change, Ok(()))
    }

    fn generation(&self, group: Group) -> Result<u64> {
        Ok(self.shared.changes.offline_generation(group))
    }
}

impl<F: OpenBackend + Backend<Stored = Bytes>> OpenBackend for TieredBackend<F> {
    type Location = F::Location;

    fn open(place: F::Location) -> Result<Self> {
        Ok(Self::new(MemoryOptions::new(), F::open(place)?))
    }
}

impl<F: OffBackend + Backend<Stored = Bytes>> OffBackend for TieredBackend<F> {
    fn off() -> Self {
        Self::new(MemoryOptions::new(), F::off())
    }
}

impl<F> Clone for TieredBackend<F> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), clock: Arc::clone(&self.clock) }
    }
}

impl<F: fmt::Debug> fmt::Debug for TieredBackend<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredBackend")
            .field("near", &self.shared.near)
            .field("backing", &self.shared.backing)
            .finish_non_exhaustive()
    }
}

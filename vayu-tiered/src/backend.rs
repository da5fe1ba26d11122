//! The backend: two tiers.

#[cfg(test)]
mod tests;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use vayu_core::{
    Backend, Change, Claim, Clock, ErrorKind, Generations, Group, Key, News, OffBackend, Offline,
    Open, Record, Result, Shared, Usage, Watcher,
};
use vayu_memory::{Held, MemoryBackend, MemoryOptions};

use crate::generations::Known;
use crate::revisions::{Revision, Revisions};
use crate::value::{TierValue, words};

/// Keeps records in memory, and below.
///
/// A clone is the same backend.
///
/// # Behavior
///
/// Memory is asked first. What it has not, or no longer, is read below and kept in memory too. What
/// is written goes below first, and then to memory, even if it was not taken below; what is deleted
/// goes from both. When the tier below fails, memory answers alone.
///
/// What other processes delete, replace or invalidate below is given up in memory as soon as the
/// tier below has [`News`] of it; see there for each.
pub struct TieredBackend<F> {
    shared: Arc<Inner<F>>,
    // Asked on every hit.
    clock: Arc<dyn Clock>,
}

pub(crate) struct Inner<F> {
    near: MemoryBackend<Copy>,
    far: F,
    pub(crate) revisions: Revisions,
    pub(crate) known: Known,
    /// The tier below could not be asked the last time.
    pub(crate) was_cut_off: AtomicBool,
    counts: Counts,
}

/// What memory keeps.
#[derive(Clone)]
struct Copy {
    value: Shared,
    revision: Revision,
}

impl Held for Copy {
    fn shared(&self) -> &Shared {
        &self.value
    }

    #[inline]
    fn to_words(&self) -> Option<[u64; 3]> {
        let [kind, word] = words(&self.value)?;
        Some([kind, word, self.revision.to_word()])
    }

    #[inline(always)]
    fn from_words([kind, word, revision]: [u64; 3]) -> Option<Self> {
        let value = Shared::from_words([kind, word])?;
        Some(Self { value, revision: Revision::from_word(revision) })
    }
}

/// What the tier below was asked for.
#[derive(Debug, Default)]
struct Counts {
    found: AtomicU64,
    missing: AtomicU64,
    failed: AtomicU64,
    changes: AtomicU64,
}

/// What the tier below was asked for since the cache was made. What memory had was not asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierStats {
    /// Reads that found a record.
    pub found: u64,
    /// Reads that found none.
    pub missing: u64,
    /// Reads that failed.
    pub failed: u64,
    /// How often something was heard of that others have changed.
    pub changes: u64,
}

impl<F: Backend<Stored = Bytes>> TieredBackend<F> {
    /// Memory in front of `far`. The clock of `far` rules both, whatever the options say.
    pub fn new(memory: MemoryOptions, far: F) -> Self {
        let clock = far.clock();
        let near = MemoryBackend::with_options(memory.clock(Arc::clone(&clock)));
        let shared = Arc::new(Inner {
            near,
            far,
            revisions: Revisions::new(),
            known: Known::new(),
            was_cut_off: AtomicBool::new(false),
            counts: Counts::default(),
        });
        if let Some(news) = shared.far.news() {
            let watcher: Weak<dyn Watcher> = Arc::downgrade(&shared) as Weak<dyn Watcher>;
            news.watch(watcher);
        }
        Self { shared, clock }
    }

    /// What the tier below was asked for.
    pub fn tier_stats(&self) -> TierStats {
        let counts = &self.shared.counts;
        TierStats {
            found: counts.found.load(Ordering::Relaxed),
            missing: counts.missing.load(Ordering::Relaxed),
            failed: counts.failed.load(Ordering::Relaxed),
            changes: counts.changes.load(Ordering::Relaxed),
        }
    }

    /// What memory has, if it is fresh and nothing is known against it.
    #[inline]
    fn near(&self, key: &Key) -> Option<Record<TierValue>> {
        if let Some(news) = self.shared.far.news() {
            news.look();
        }
        let now = self.clock.now();
        self.copy(key).filter(|record| now < record.expires())
    }

    #[inline]
    fn copy(&self, key: &Key) -> Option<Record<TierValue>> {
        let record = self.shared.near.read(key).ok()??;
        self.shared.near.prepare_glance(key, &record);
        self.believe(record)
    }

    /// The copy, unless something has changed since it was made.
    #[inline(always)]
    fn believe(&self, record: Record<Copy>) -> Option<Record<TierValue>> {
        if !self.shared.revisions.is_current(record.value().revision) {
            return None;
        }
        Some(record.map(|copy| TierValue::from_shared(copy.value)))
    }

    fn keep(&self, key: &Key, record: &Record<TierValue>, revision: Revision) -> Result<()> {
        let copy = Copy { value: record.value().shared().clone(), revision };
        self.shared.near.write(key, record.clone().map(|_| copy))
    }

    /// What came of reading below: what was found there is kept in memory, and memory answers where
    /// nobody can be asked.
    fn read_below(
        &self,
        key: &Key,
        before: Revision,
        found: Result<Option<Record<Bytes>>>,
    ) -> Result<Option<Record<TierValue>>> {
        let counts = &self.shared.counts;
        match found {
            Ok(Some(record)) => {
                counts.found.fetch_add(1, Ordering::Relaxed);
                let record = record.map(TierValue::from_bytes);
                self.keep(key, &record, before)?;
                Ok(Some(record))
            }
            Ok(None) => {
                counts.missing.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                if error.kind() == ErrorKind::Timeout {
                    // The call is to know, so that it does not wait again. It asks memory then.
                    return Err(error);
                }
                self.copy(key).map(Some).ok_or(error)
            }
        }
    }

    /// What came of writing below. Memory keeps the value in any case.
    fn written(&self, key: &Key, record: &Record<TierValue>, result: Result<()>) -> Result<()> {
        let revision = self.shared.revisions.advance(start(key));
        self.keep(key, record, revision)?;
        result
    }

    /// What came of deleting below. Memory forgets the value in any case.
    fn deleted(&self, key: &Key, result: Result<bool>) -> Result<bool> {
        let was_here = self.near(key).is_some();
        self.shared.revisions.advance(start(key));
        self.shared.near.delete(key)?;
        Ok(result? || was_here)
    }

    fn cleared(&self, result: Result<()>) -> Result<()> {
        self.shared.revisions.advance_all();
        self.shared.near.clear()?;
        result
    }
}

impl<F> TieredBackend<F> {
    pub(crate) fn shared(&self) -> &Inner<F> {
        &self.shared
    }

    /// The tier below.
    pub fn far(&self) -> &F {
        &self.shared.far
    }
}

impl<F: Backend> TieredBackend<F> {
    /// Whether it is heard of what others change.
    #[inline]
    pub(crate) fn hears(&self) -> bool {
        self.shared.far.news().is_some_and(News::is_current)
    }
}

/// The record for the tier below, if there are bytes for it.
pub(crate) fn encoded(record: &Record<TierValue>) -> Result<Option<Record<Bytes>>> {
    let bytes = record.value().to_bytes()?;
    Ok(bytes.map(|bytes| record.clone().map(|_| bytes)))
}

/// Lets the tier below look for changes, where a panic of it would reach the caller. There is nothing
/// to see at a glance then; who looks closer tells of it.
#[inline]
fn look(news: &dyn News) -> Option<()> {
    catch_unwind(AssertUnwindSafe(|| news.look())).ok()
}

fn start(key: &Key) -> [u8; 2] {
    let digest = key.digest();
    [digest[0], digest[1]]
}

impl<F: Backend> Watcher for Inner<F> {
    fn changed(&self, change: Change) {
        self.counts.changes.fetch_add(1, Ordering::Relaxed);
        match change {
            Change::Keys(start) => {
                self.revisions.advance(start);
            }
            Change::Groups => self.known.forget(),
            _ => {
                self.known.forget();
                self.revisions.advance_all();
            }
        }
    }
}

#[async_trait]
impl<F: Backend<Stored = Bytes>> Backend for TieredBackend<F> {
    type Stored = TierValue;

    fn read(&self, key: &Key) -> Result<Option<Record<TierValue>>> {
        let before = self.shared.revisions.current(start(key));
        let found = self.shared.far.read(key);
        self.read_below(key, before, found)
    }

    fn write(&self, key: &Key, record: Record<TierValue>) -> Result<()> {
        let result = match encoded(&record) {
            Ok(Some(below)) => self.shared.far.write(key, below),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.written(key, &record, result)
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        let result = self.shared.far.delete(key);
        self.deleted(key, result)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<TierValue>>> {
        let before = self.shared.revisions.current(start(key));
        let found = self.shared.far.read_async(key).await;
        self.read_below(key, before, found)
    }

    async fn write_async(&self, key: &Key, record: Record<TierValue>) -> Result<()> {
        let result = match encoded(&record) {
            Ok(Some(below)) => self.shared.far.write_async(key, below).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        self.written(key, &record, result)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        let result = self.shared.far.delete_async(key).await;
        self.deleted(key, result)
    }

    /// What memory has and is fresh; what it has not may be below.
    #[inline]
    fn read_now(&self, key: &Key) -> Option<Result<Option<Record<TierValue>>>> {
        self.near(key).map(|record| Ok(Some(record)))
    }

    /// What memory can say at a glance. Whether it is fresh is left to the engine, which asks the same
    /// clock.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn glance(&self, key: &Key) -> Option<Record<TierValue>> {
        if let Some(news) = self.shared.far.news() {
            look(news)?;
        }
        self.believe(self.shared.near.glance(key)?)
    }

    fn try_claim(&self, key: &Key) -> Result<Claim> {
        self.shared.far.try_claim(key)
    }

    async fn try_claim_async(&self, key: &Key) -> Result<Claim> {
        self.shared.far.try_claim_async(key).await
    }

    fn clear(&self) -> Result<()> {
        let result = self.shared.far.clear();
        self.cleared(result)
    }

    async fn clear_async(&self) -> Result<()> {
        let result = self.shared.far.clear_async().await;
        self.cleared(result)
    }

    #[inline]
    fn generations(&self) -> Option<&dyn Generations> {
        // Without those below the cache keeps its own.
        self.shared.far.generations().is_some().then_some(self)
    }

    fn offline(&self) -> Option<&dyn Offline<Stored = TierValue>> {
        Some(self)
    }

    fn news(&self) -> Option<&dyn News> {
        self.shared.far.news()
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
    type Stored = TierValue;

    fn read(&self, key: &Key) -> Result<Option<Record<TierValue>>> {
        Ok(self.copy(key))
    }

    fn write(&self, key: &Key, record: Record<TierValue>) -> Result<()> {
        self.written(key, &record, Ok(()))
    }

    fn generation(&self, group: Group) -> Result<u64> {
        Ok(self.offline_generation(group))
    }
}

impl<F: Open + Backend<Stored = Bytes>> Open for TieredBackend<F> {
    type Place = F::Place;

    fn open(place: F::Place) -> Result<Self> {
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
            .field("far", &self.shared.far)
            .finish_non_exhaustive()
    }
}

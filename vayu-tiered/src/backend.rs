//! The backend of two tiers: the implementations of the traits of core.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use vayu_core::{
    Backend, BackendExt, Batches, Capabilities, ChangeCount, Clear, Clock, Generations, Group,
    InlineValue, Invalidation, InvalidationFeed, InvalidationListener, Key, OffBackend, Offline,
    OpenBackend, Record, ReportUsage, Result, Usage, ValueClass,
};
use vayu_memory::MemoryOptions;

use crate::tiers::{TierStats, Tiers, key_slot};
use crate::value::TieredValue;

/// Stores records in memory and in a backing tier.
///
/// A clone is the same backend.
///
/// # Behavior
///
/// A read uses memory first, that of a batch for each of its keys. On a miss it reads the backing tier, and memory keeps a copy until the
/// record expires by the clock of this process: for the ttl of the record at most, whatever the clock of
/// the machine shows that has written it. A write goes to the backing tier and then to memory, even if
/// the backing tier refused it; a deletion goes to both. When the backing tier fails, memory is used
/// alone.
///
/// A change invalidates copies in this process before it accesses the backing tier, and again when it
/// has ended. So a change whose future is dropped leaves no outdated copy here.
///
/// Copies that other processes delete, replace or invalidate are invalidated by the
/// [`InvalidationFeed`] of the backing tier, with the delay of that feed.
///
/// The [`Usage`] is that of memory, except for the limit of the size of one entry, the corrupt entries and the values that
/// were opened with an old key: those are of the backing tier.
pub struct TieredBackend<F> {
    tiers: Arc<Tiers<F>>,
    // Not only in `tiers`: every hit reads the clock.
    clock: Arc<dyn Clock>,
}

impl<F: Backend<Stored = Bytes>> TieredBackend<F> {
    /// Creates memory in front of `backing`, with the clock of `backing`, whatever the options are.
    pub fn new(memory: MemoryOptions, backing: F) -> Self {
        Self::with_near_ttl(memory, backing, None)
    }

    /// Creates a backend whose memory serves a copy for this time at most.
    pub(crate) fn with_near_ttl(
        memory: MemoryOptions,
        backing: F,
        near_ttl: Option<Duration>,
    ) -> Self {
        let clock = backing.clock();
        let tiers = Arc::new(Tiers::new(memory, backing, near_ttl));
        if let Some(feed) = tiers.backing.capabilities().invalidation_feed {
            let listener: Weak<dyn InvalidationListener> =
                Arc::downgrade(&tiers) as Weak<dyn InvalidationListener>;
            feed.subscribe(listener);
        }
        Self { tiers, clock }
    }

    /// Returns the statistics of the backing tier.
    pub fn tier_stats(&self) -> TierStats {
        self.tiers.counters.stats()
    }
}

impl<F> TieredBackend<F> {
    /// Returns the backing tier.
    pub fn backing(&self) -> &F {
        &self.tiers.backing
    }
}

impl<F: Backend> InvalidationListener for Tiers<F> {
    fn on_invalidation(&self, invalidation: Invalidation) {
        self.counters.invalidations.fetch_add(1, Ordering::Relaxed);
        match invalidation {
            Invalidation::KeySlot(slot) => {
                self.versions.bump(slot);
            }
            Invalidation::Generations => self.offline.record_change(),
            _ => self.invalidate_all(),
        }
    }
}

#[async_trait]
impl<F: Backend<Stored = Bytes>> Backend for TieredBackend<F> {
    type Stored = TieredValue;

    fn read(&self, key: &Key) -> Result<Option<Record<TieredValue>>> {
        let version = self.tiers.versions.current(key_slot(key));
        let found = self.tiers.backing.read(key);
        self.tiers.finish_read(key, version, found)
    }

    fn write(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        let (write, bytes) = self.tiers.begin_write(key, record);
        let result = bytes.map(|bytes| self.tiers.backing.write(key, bytes));
        self.tiers.finish_write(key, write, result)
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        let delete = self.tiers.begin_delete(key)?;
        let result = self.tiers.backing.delete(key);
        self.tiers.finish_delete(key, delete, result)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<TieredValue>>> {
        let version = self.tiers.versions.current(key_slot(key));
        let found = self.tiers.backing.read_async(key).await;
        self.tiers.finish_read(key, version, found)
    }

    async fn write_async(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        let (write, bytes) = self.tiers.begin_write(key, record);
        let result = match bytes {
            Some(bytes) => Some(self.tiers.backing.write_async(key, bytes).await),
            None => None,
        };
        self.tiers.finish_write(key, write, result)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        let delete = self.tiers.begin_delete(key)?;
        let result = self.tiers.backing.delete_async(key).await;
        self.tiers.finish_delete(key, delete, result)
    }

    /// Reads memory. `None` if it has no fresh copy: the backing tier may have a record.
    #[inline]
    fn read_now(
        &self,
        key: &Key,
        class: ValueClass,
        visit: &mut dyn FnMut(Record<&TieredValue>),
    ) -> Option<Result<()>> {
        let now = self.clock.now();
        self.tiers.read_memory(key, class, now, visit).then_some(Ok(()))
    }

    /// Reads memory without a lock. The engine checks whether the record is fresh, by the same clock.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn read_optimistic(&self, key: &Key) -> Option<Record<InlineValue>> {
        self.read_optimistic_with(key, None, |record| record)
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn read_optimistic_with<R>(
        &self,
        key: &Key,
        kind: Option<u64>,
        read: impl FnOnce(Record<InlineValue>) -> R,
    ) -> Option<R> {
        self.tiers.read_optimistic_with(key, kind, read)
    }

    #[inline]
    fn capabilities(&self) -> Capabilities<'_, TieredValue> {
        let backing = self.tiers.backing.capabilities();
        Capabilities {
            // Without generations in the backing tier, the cache keeps its own.
            generations: backing.generations.map(|_| self as _),
            invalidation_feed: backing.invalidation_feed,
            leases: backing.leases,
            offline: Some(self),
            batches: Some(self),
            // The whole record is written, to both tiers.
            times: None,
            // Memory is cleared even if the backing tier cannot be.
            clear: Some(self),
            usage: Some(self),
            // The entries in memory are copies.
            ends: backing.ends,
        }
    }

    fn description(&self) -> String {
        format!("{} over {}", self.tiers.memory.description(), self.tiers.backing.description())
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

#[async_trait]
impl<F: Backend<Stored = Bytes>> Batches for TieredBackend<F> {
    type Stored = TieredValue;

    /// Reads memory, and the backing tier for the keys without a fresh copy.
    fn read_many(&self, keys: &[&Key]) -> Vec<Result<Option<Record<TieredValue>>>> {
        let (batch, missing) = self.tiers.begin_read_many(keys);
        let found =
            if missing.is_empty() { Vec::new() } else { self.tiers.backing.read_many(&missing) };
        self.tiers.finish_read_many(batch, found)
    }

    fn write_many(&self, entries: Vec<(&Key, Record<TieredValue>)>) -> Vec<Result<()>> {
        let (batch, records) = self.tiers.begin_write_many(entries);
        let written =
            if records.is_empty() { Vec::new() } else { self.tiers.backing.write_many(records) };
        self.tiers.finish_write_many(batch, written)
    }

    async fn read_many_async(&self, keys: &[&Key]) -> Vec<Result<Option<Record<TieredValue>>>> {
        let (batch, missing) = self.tiers.begin_read_many(keys);
        let found = if missing.is_empty() {
            Vec::new()
        } else {
            self.tiers.backing.read_many_async(&missing).await
        };
        self.tiers.finish_read_many(batch, found)
    }

    async fn write_many_async(&self, entries: Vec<(&Key, Record<TieredValue>)>) -> Vec<Result<()>> {
        let (batch, records) = self.tiers.begin_write_many(entries);
        let written = if records.is_empty() {
            Vec::new()
        } else {
            self.tiers.backing.write_many_async(records).await
        };
        self.tiers.finish_write_many(batch, written)
    }
}

#[async_trait]
impl<F: Backend<Stored = Bytes>> Clear for TieredBackend<F> {
    fn clear(&self) -> Result<()> {
        let guard = self.tiers.begin_clear()?;
        let result = self.tiers.backing.clear();
        self.tiers.finish_clear(guard, result)
    }

    async fn clear_async(&self) -> Result<()> {
        let guard = self.tiers.begin_clear()?;
        let result = self.tiers.backing.clear_async().await;
        self.tiers.finish_clear(guard, result)
    }
}

impl<F: Backend<Stored = Bytes>> ReportUsage for TieredBackend<F> {
    /// Returns the usage of memory, with what memory does not have from the backing tier: the limit of the size of one entry,
    /// and the numbers of corrupt entries and of values that were opened with an old key.
    ///
    /// The numbers of entries, their weights, limits, evictions, rejections, expirations and sweeps are those of memory alone.
    /// Those of the backing tier may have another unit and count the same values again: [`backing`](TieredBackend::backing)
    /// returns the backend that reports them.
    fn usage(&self) -> Usage {
        let backing = self.tiers.backing.usage();
        let mut usage = BackendExt::usage(&self.tiers.memory);
        usage.max_entry_bytes = self.tiers.max_entry_bytes;
        usage.corrupt_entries = backing.corrupt_entries;
        usage.opened_with_old_keys = backing.opened_with_old_keys;
        usage
    }
}

/// Used only if the backing tier has generations.
#[async_trait]
impl<F: Backend<Stored = Bytes>> Generations for TieredBackend<F> {
    fn generation(&self, group: Group) -> Result<u64> {
        let Some(backing) = self.tiers.backing.capabilities().generations else { return Ok(0) };
        self.tiers.offline.record_fetch(backing.generation(group))
    }

    fn bump(&self, group: Group) -> Result<()> {
        let Some(backing) = self.tiers.backing.capabilities().generations else { return Ok(()) };
        let guard = self.tiers.begin_bump();
        guard.finish(backing.bump(group))
    }

    #[inline]
    fn change_count(&self) -> Option<ChangeCount> {
        // In this order: `is_connected` may notice that invalidations were missed, and count that.
        let feed = self.tiers.backing.capabilities().invalidation_feed;
        let is_connected = feed.is_some_and(InvalidationFeed::is_connected);
        Some(ChangeCount { count: self.tiers.offline.change_count(), is_connected })
    }

    async fn generation_async(&self, group: Group) -> Result<u64> {
        let Some(backing) = self.tiers.backing.capabilities().generations else { return Ok(0) };
        self.tiers.offline.record_fetch(backing.generation_async(group).await)
    }

    async fn bump_async(&self, group: Group) -> Result<()> {
        let Some(backing) = self.tiers.backing.capabilities().generations else { return Ok(()) };
        let guard = self.tiers.begin_bump();
        guard.finish(backing.bump_async(group).await)
    }
}

/// Uses memory alone.
impl<F: Backend<Stored = Bytes>> Offline for TieredBackend<F> {
    type Stored = TieredValue;

    fn read(&self, key: &Key) -> Result<Option<Record<TieredValue>>> {
        Ok(self.tiers.read_offline(key))
    }

    fn write(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        self.tiers.write_offline(key, record)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.tiers.memory.delete(key).map(drop)
    }

    fn generation(&self, group: Group) -> Result<u64> {
        Ok(self.tiers.offline.offline_generation(group))
    }
}

impl<F: OpenBackend + Backend<Stored = Bytes>> OpenBackend for TieredBackend<F> {
    type Location = F::Location;

    fn open(location: F::Location) -> Result<Self> {
        Ok(Self::new(MemoryOptions::new(), F::open(location)?))
    }
}

impl<F: OffBackend + Backend<Stored = Bytes>> OffBackend for TieredBackend<F> {
    fn off() -> Self {
        Self::new(MemoryOptions::new(), F::off())
    }
}

impl<F> Clone for TieredBackend<F> {
    fn clone(&self) -> Self {
        Self { tiers: Arc::clone(&self.tiers), clock: Arc::clone(&self.clock) }
    }
}

impl<F: fmt::Debug> fmt::Debug for TieredBackend<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tiers.fmt(f)
    }
}

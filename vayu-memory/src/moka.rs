//! The same backend on the map of moka.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use moka::Entry;
use moka::notification::RemovalCause;
use moka::ops::compute::{CompResult, Op};
use moka::sync::Cache as Map;
use vayu_core::__internal::IgnorePoison;
use vayu_core::__internal::drop_quietly;
use vayu_core::{
    AnyValue, Backend, BuildKeyHasher, ByReference, Cache, Capabilities, Clear, Clock, EndCause,
    EndListener, EndListeners, Key, Prefix, Record, ReportEnds, ReportUsage, Result, Timestamp,
    Usage, ValueClass,
};

use crate::options::{MemoryOptions, WeightLimit};
use crate::pacer::SweepPacer;

/// A [`MemoryCache`](crate::MemoryCache) on moka's map.
pub type MokaCache = Cache<MokaBackend, ByReference>;

impl MemoryOptions {
    /// Creates a cache on the map of moka with these options.
    pub fn build_moka(self) -> MokaCache {
        Cache::with_backend(MokaBackend::with_options(self))
    }
}

/// A backend that stores values in the map of moka, by reference, with its admission and eviction
/// policies.
///
/// The expiry of an entry is stored with its value, not in the timers of moka, whose maintenance
/// would run on readers.
pub struct MokaBackend {
    map: Map<Key, MapEntry, BuildKeyHasher>,
    drop_queue: Arc<DropQueue>,
    evicted: Arc<EvictedQueue>,
    ends: Arc<EndListeners>,
    evictions: Arc<AtomicU64>,
    weights: Option<WeightLimit>,
    capacity: u64,
    clock: Arc<dyn Clock>,
    pacer: SweepPacer,
}

/// An entry of the map. The map drops entries under its own locks, where no code of users may run:
/// the record then only moves to the drop queue.
struct MapEntry {
    record: Option<Record<AnyValue>>,
    weight: u32,
    drop_queue: Arc<DropQueue>,
}

/// Records that were removed from the map, to be dropped when no lock is held.
type DropQueue = Mutex<Vec<Record<AnyValue>>>;

/// Entries that the map has evicted, to be reported when no lock is held.
type EvictedQueue = Mutex<Vec<(Prefix, EndCause)>>;

impl Clone for MapEntry {
    fn clone(&self) -> Self {
        Self {
            record: self.record.clone(),
            weight: self.weight,
            drop_queue: Arc::clone(&self.drop_queue),
        }
    }
}

impl Drop for MapEntry {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.drop_queue.lock().ignore_poison().push(record);
        }
    }
}

impl MapEntry {
    /// Returns when the entry expires. A clone of an entry has its record until it is taken.
    fn end(&self) -> Timestamp {
        self.record.as_ref().map_or(Timestamp::NEVER, Record::stale_until)
    }
}

impl MokaBackend {
    /// Creates an empty backend with these options.
    pub fn with_options(options: MemoryOptions) -> Self {
        let capacity = options.weights.as_ref().map_or(options.max_entries, |weights| weights.max);
        let evictions = Arc::new(AtomicU64::new(0));
        let (evicted, ends) = (Arc::<EvictedQueue>::default(), Arc::<EndListeners>::default());
        let listener = {
            let (count, clock) = (Arc::clone(&evictions), Arc::clone(&options.clock));
            let (evicted, ends) = (Arc::clone(&evicted), Arc::clone(&ends));
            move |key: Arc<Key>, entry: MapEntry, cause| {
                if cause != RemovalCause::Size {
                    return;
                }
                if count.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::info!(target: "vayu", "memory cache is full, evicting entries");
                }
                if !ends.is_empty() {
                    let has_expired = entry.end() <= clock.now();
                    let cause = if has_expired { EndCause::Expired } else { EndCause::Evicted };
                    evicted.lock().ignore_poison().push((key.prefix().clone(), cause));
                }
            }
        };
        let map = Map::builder()
            .max_capacity(capacity)
            .weigher(|_, entry: &MapEntry| entry.weight)
            .eviction_listener(listener)
            .build_with_hasher(BuildKeyHasher);
        Self {
            map,
            drop_queue: Arc::default(),
            evicted,
            ends,
            evictions,
            weights: options.weights,
            capacity,
            clock: options.clock,
            pacer: SweepPacer::new(),
        }
    }

    /// Removes expired entries, if a sweep is due.
    fn sweep_if_due(&self, now: Timestamp) {
        if self.pacer.is_due(now) {
            self.pacer.run(now, || self.remove_expired(now));
        }
    }

    /// Removes the entries that have expired at `now`. Returns their number, and when the first of the
    /// others expires.
    fn remove_expired(&self, now: Timestamp) -> (u64, Timestamp) {
        let mut dropped = 0;
        let mut next = Timestamp::NEVER;
        for (key, entry) in &self.map {
            let end = entry.end();
            if end > now {
                next = next.min(end);
                continue;
            }
            // It may have been replaced since.
            let result = self.map.entry_by_ref(&*key).and_compute_with(|entry| match entry {
                Some(entry) if entry.value().end() <= now => Op::Remove,
                _ => Op::Nop,
            });
            if let CompResult::Removed(_) = result {
                dropped += 1;
                self.ends.report(key.prefix().as_str(), EndCause::Expired);
            }
        }
        self.map.run_pending_tasks();
        (dropped, next)
    }

    /// Drops the records of the drop queue, and reports the evicted entries. No lock is held.
    fn drain(&self) {
        let removed = std::mem::take(&mut *self.drop_queue.lock().ignore_poison());
        removed.into_iter().for_each(drop_quietly);
        if !self.ends.is_empty() {
            let evicted = std::mem::take(&mut *self.evicted.lock().ignore_poison());
            self.ends.report_all(evicted);
        }
    }

    /// Removes the entry of a key, and reports it with this cause. Returns whether there was one.
    fn remove(&self, key: &Key, cause: EndCause) -> bool {
        let existed = self.map.remove(key).is_some();
        if existed {
            self.ends.report(key.prefix().as_str(), cause);
        }
        self.drain();
        existed
    }

    /// Inserts an entry, and reports the one that it replaces.
    #[cold]
    fn insert_reported(&self, key: &Key, entry: &MapEntry) {
        let mut cause = None;
        self.map.entry_by_ref(key).and_compute_with(|old| {
            let old = old.map(Entry::into_value).and_then(|mut old| old.record.take());
            if let (Some(old), Some(new)) = (old, &entry.record) {
                cause = Some(EndCause::of_replaced(&old, new));
                self.drop_queue.lock().ignore_poison().push(old);
            }
            Op::Put(entry.clone())
        });
        if let Some(cause) = cause {
            self.ends.report(key.prefix().as_str(), cause);
        }
    }
}

impl Default for MokaBackend {
    fn default() -> Self {
        Self::with_options(MemoryOptions::new())
    }
}

impl fmt::Debug for MokaBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MokaBackend")
            .field("entries", &self.map.entry_count())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for MokaBackend {
    type Stored = AnyValue;

    fn read(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        let found = self.map.get(key).and_then(|mut entry| entry.record.take());
        if found.is_none() {
            self.sweep_if_due(self.clock.now());
            self.drain();
        }
        Ok(found)
    }

    fn write(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        let weight = match &self.weights {
            None => 1,
            Some(weights) => match weights.weigh(key, record.value())? {
                Some(weight) => weight,
                // The previous value is outdated all the same.
                None => {
                    self.remove(key, EndCause::Replaced);
                    self.ends.report(key.prefix().as_str(), EndCause::Evicted);
                    return Ok(());
                }
            },
        };
        self.pacer.record_expiry(record.stale_until());
        let drop_queue = Arc::clone(&self.drop_queue);
        let entry = MapEntry { record: Some(record), weight, drop_queue };
        if self.ends.is_empty() {
            self.map.insert(key.clone(), entry);
        } else if self.capacity == 0 {
            // The map drops it without calling its listener.
            self.ends.report(key.prefix().as_str(), EndCause::Evicted);
        } else {
            self.insert_reported(key, &entry);
        }
        self.sweep_if_due(self.clock.now());
        self.drain();
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        Ok(self.remove(key, EndCause::Invalidated))
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        self.read(key)
    }

    async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }

    fn read_now(
        &self,
        key: &Key,
        _class: ValueClass,
        visit: &mut dyn FnMut(Record<&AnyValue>),
    ) -> Option<Result<()>> {
        let found = match self.read(key) {
            Ok(found) => found,
            Err(error) => return Some(Err(error)),
        };
        if let Some(record) = found {
            visit(record.as_ref());
            drop_quietly(record);
        }
        Some(Ok(()))
    }

    #[inline]
    fn is_in_process(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities<'_, AnyValue> {
        Capabilities::none().with_clear(self).with_usage(self).with_ends(self)
    }

    fn description(&self) -> String {
        "moka".to_owned()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

impl Clear for MokaBackend {
    fn clear(&self) -> Result<()> {
        if !self.ends.is_empty() {
            for (key, _) in &self.map {
                self.remove(&key, EndCause::Invalidated);
            }
        }
        self.map.invalidate_all();
        self.map.run_pending_tasks();
        self.drain();
        Ok(())
    }
}

impl ReportUsage for MokaBackend {
    fn usage(&self) -> Usage {
        self.sweep_if_due(self.clock.now());
        self.map.run_pending_tasks();
        self.drain();
        let mut usage = Usage::default();
        usage.entries = Some(self.map.entry_count());
        if let Some(weights) = &self.weights {
            usage.weight = Some(self.map.weighted_size());
            usage.max_weight = Some(self.capacity);
            usage.rejections = Some(weights.rejections.load(Ordering::Relaxed));
        } else {
            usage.max_entries = Some(self.capacity);
        }
        usage.evictions = Some(self.evictions.load(Ordering::Relaxed));
        usage.expirations = Some(self.pacer.expirations());
        usage
    }
}

impl ReportEnds for MokaBackend {
    fn report_ends(&self, listener: EndListener) {
        self.ends.add(listener);
    }
}

//! The default backend, on the map of quick_cache.
//!
//! Two levels: a table of seqlock slots with copies of small entries, which is read without a lock
//! ([`crate::seqlock`]), and a sharded concurrent map, which holds all entries and decides what is
//! evicted. Expired entries are removed by sweeps that writers and misses start ([`crate::pacer`]).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use quick_cache::sync::Cache as Map;
use quick_cache::{Equivalent, Lifecycle, Options, OptionsBuilder, Weighter};
use smallvec::SmallVec;
use vayu_core::__internal::{CompactKey, PerProcess, drop_quietly};
use vayu_core::{
    AnyValue, Backend, BuildKeyHasher, Clock, InlineValue, Key, OffBackend, Record, Result,
    Timestamp, Usage, ValueClass,
};

use crate::options::{HOT, MemoryOptions, WeightLimit};
use crate::pacer::SweepPacer;
use crate::seqlock::SeqlockCache;
use crate::value::{MemoryValue, VALUE_WORDS};

/// A backend that stores values in a concurrent map, by reference.
///
/// No destructor of a value runs while a lock of the map is held: replaced, evicted and swept entries
/// are dropped afterwards.
///
/// `V` is the stored form: [`AnyValue`], or more than that where it is a part of another backend.
pub struct MemoryBackend<V = AnyValue> {
    maps: PerProcess<RecordMap<V>>,
    /// The limits of each map.
    limits: Options,
    seqlock: Arc<SeqlockCache>,
    evictions: EvictionListener,
    weights: Option<WeightLimit>,
    clock: Arc<dyn Clock>,
    pacer: SweepPacer,
}

type RecordMap<V> = Map<CompactKey, Record<V>, ByWeight, BuildKeyHasher, EvictionListener>;

impl<V: MemoryValue> MemoryBackend<V> {
    /// Creates an empty backend with these options.
    ///
    /// # Panics
    ///
    /// Never: the options that the map checks are all set here.
    pub fn with_options(options: MemoryOptions) -> Self {
        let entries = usize::try_from(options.max_entries).unwrap_or(usize::MAX);
        let capacity = options.weights.as_ref().map_or(options.max_entries, |weights| weights.max);
        // A map divides its limit by the shards, and one value may be most of a limit by weight.
        let shards = if options.weights.is_some() { 1 } else { shards(entries) };
        let limits = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(entries)
            // The map rounds the part of a shard up.
            .weight_capacity(capacity - capacity % shards as u64)
            .hot_allocation(HOT)
            .ghost_allocation(GHOSTS)
            .build()
            .expect("both capacities are set");
        // A lock-free read would keep a heavy entry from being evicted, whatever its weight.
        let is_counted = options.weights.is_none();
        let seqlock = Arc::new(if is_counted {
            SeqlockCache::with_capacity(entries)
        } else {
            SeqlockCache::disabled()
        });
        let evictions = EvictionListener { count: Arc::default(), seqlock: Arc::clone(&seqlock) };
        Self {
            maps: PerProcess::new(map(&limits, &evictions)),
            limits,
            seqlock,
            evictions,
            weights: options.weights,
            clock: options.clock,
            pacer: SweepPacer::new(),
        }
    }

    #[inline]
    fn map(&self) -> &RecordMap<V> {
        self.maps.get()
    }

    /// Starts an empty map if the present one is that of a parent process, in which a thread that does
    /// not exist here may hold a lock forever. Returns whether it was.
    #[cold]
    fn replace_map_after_fork(&self) -> bool {
        self.maps.replace_after_fork(|| {
            self.seqlock.clear();
            map(&self.limits, &self.evictions)
        })
    }

    /// Returns the record of a key with the words of its value, from a copy that is read without a lock.
    #[doc(hidden)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn read_words(&self, key: &Key) -> Option<Record<[u64; VALUE_WORDS]>> {
        self.seqlock.get(key, || self.record_access(key))
    }

    /// Returns a clone of a record.
    #[inline]
    fn get(&self, key: &Key) -> Option<Record<V>> {
        let found = match self.map().try_get(&KeyRef(key)) {
            Ok(found) => found,
            Err(_) => self.get_contended(key),
        };
        if found.is_none() {
            self.sweep_if_due_cold();
        }
        found
    }

    /// Reads a record whose shard of the map another thread has locked.
    #[cold]
    fn get_contended(&self, key: &Key) -> Option<Record<V>> {
        self.replace_map_after_fork();
        self.map().get(&KeyRef(key))
    }

    /// Calls [`sweep_if_due`](Self::sweep_if_due), out of line for hits.
    #[cold]
    fn sweep_if_due_cold(&self) {
        self.sweep_if_due(self.clock.now());
    }

    /// Marks a key as used in the map.
    #[cold]
    fn record_access(&self, key: &Key) {
        drop_quietly(self.map().try_get(&KeyRef(key)).ok());
    }

    /// Removes expired entries, if a sweep is due.
    #[inline]
    fn sweep_if_due(&self, now: Timestamp) {
        if self.pacer.is_due(now) {
            self.pacer.run(now, || self.remove_where_due(Some(now)));
        }
    }

    /// Removes the entries that have expired at `now`, or all entries. Returns their number, and when
    /// the first of the others expires.
    fn remove_where_due(&self, now: Option<Timestamp>) -> (u64, Timestamp) {
        let dropped = RefCell::new(Vec::new());
        let next = Cell::new(Timestamp::NEVER);
        self.replace_map_after_fork();
        self.map().retain(|key, record| {
            let end = record.stale_until();
            let stays = now.is_some_and(|now| end > now);
            if stays {
                next.set(next.get().min(end));
            } else {
                self.seqlock.invalidate_key(key);
                // The map drops the record under its lock: the clone keeps the value alive until later.
                dropped.borrow_mut().push(record.clone());
            }
            stays
        });
        let dropped = dropped.into_inner();
        let count = dropped.len() as u64;
        dropped.into_iter().for_each(drop_quietly);
        (count, next.get())
    }
}

fn map<V: Clone>(limits: &Options, evictions: &EvictionListener) -> RecordMap<V> {
    Map::with_options(limits.clone(), ByWeight, BuildKeyHasher, evictions.clone())
}

/// The fraction of the capacity for keys of evicted entries (ghosts) that are tracked.
const GHOSTS: f64 = 0.3;

/// Returns the number of shards: four for each processor, as long as each has room for 32 entries,
/// and a power of two.
fn shards(entries: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = (4 * processors).min(entries / 32).max(1);
    if shards.is_power_of_two() { shards } else { shards.next_power_of_two() / 2 }
}

impl<V: MemoryValue> Default for MemoryBackend<V> {
    fn default() -> Self {
        Self::with_options(MemoryOptions::new())
    }
}

impl<V: MemoryValue> OffBackend for MemoryBackend<V> {
    fn off() -> Self {
        Self::with_options(MemoryOptions::new().max_entries(0))
    }
}

impl<V> fmt::Debug for MemoryBackend<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("evictions", &self.evictions.count)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<V: MemoryValue> Backend for MemoryBackend<V> {
    type Stored = V;

    #[inline]
    fn read(&self, key: &Key) -> Result<Option<Record<V>>> {
        Ok(self.get(key))
    }

    fn write(&self, key: &Key, record: Record<V>) -> Result<()> {
        let record = match &self.weights {
            None => record,
            Some(weights) => match weights.weigh(key, record.value().value()) {
                Some(weight) => record.with_weight(weight),
                // The previous value is outdated all the same.
                None => return self.delete(key).map(drop),
            },
        };
        self.seqlock.ensure_allocated(key, &record);
        let end = record.stale_until();
        let mut evicted = Evicted::default();
        if let Err((key, record)) =
            self.map().try_insert_with_lifecycle(key.into(), record, &mut evicted)
        {
            self.replace_map_after_fork();
            self.map().insert_with_lifecycle(key, record, &mut evicted);
        }
        evicted.entries.drain(..).for_each(drop_quietly);
        drop(evicted);
        self.pacer.record_expiry(end);
        self.sweep_if_due(self.clock.now());
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        self.replace_map_after_fork();
        // Under the lock of the map: the next writer of the key finds nothing to invalidate.
        let removed = self.map().remove_if(&KeyRef(key), |_| {
            self.seqlock.invalidate(key.hash_code());
            true
        });
        let existed = removed.is_some();
        drop_quietly(removed);
        Ok(existed)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<V>>> {
        self.read(key)
    }

    async fn write_async(&self, key: &Key, record: Record<V>) -> Result<()> {
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn read_optimistic(&self, key: &Key) -> Option<Record<InlineValue>> {
        let record = self.read_words(key)?;
        Some(record.map(|[kind, bits, _]| InlineValue::from_words([kind, bits])))
    }

    #[inline]
    fn read_now(
        &self,
        key: &Key,
        class: ValueClass,
        visit: &mut dyn FnMut(Record<&V>),
    ) -> Option<Result<()>> {
        if let Some(record) = self.get(key) {
            if class == ValueClass::Inline {
                let find = || self.map().try_peek(&KeyRef(key)).ok().flatten();
                self.seqlock.promote(key, &record, find);
            }
            visit(record.as_ref());
            if class == ValueClass::Opaque {
                drop_quietly(record);
            }
        }
        Some(Ok(()))
    }

    #[inline]
    fn is_in_process(&self) -> bool {
        true
    }

    fn clear(&self) -> Result<()> {
        self.remove_where_due(None);
        Ok(())
    }

    fn usage(&self) -> Usage {
        self.replace_map_after_fork();
        self.sweep_if_due(self.clock.now());
        let mut usage = Usage::default();
        usage.entries = Some(self.map().len() as u64);
        if let Some(weights) = &self.weights {
            usage.weight = Some(self.map().weight());
            usage.max_weight = Some(self.map().capacity());
            usage.rejections = Some(weights.rejections.load(Ordering::Relaxed));
        } else {
            usage.max_entries = Some(self.map().capacity());
        }
        usage.evictions = Some(self.evictions.count.load(Ordering::Relaxed));
        usage.expirations = Some(self.pacer.expirations());
        usage
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

/// A key to look up.
#[derive(Hash)]
struct KeyRef<'a>(&'a Key);

impl Equivalent<CompactKey> for KeyRef<'_> {
    #[inline(always)]
    fn equivalent(&self, key: &CompactKey) -> bool {
        key.matches(self.0)
    }
}

/// A weigher that returns the weight of a record, which is known before it is inserted. It is at
/// least one.
#[derive(Debug, Clone)]
struct ByWeight;

impl<V> Weighter<CompactKey, Record<V>> for ByWeight {
    fn weight(&self, _: &CompactKey, record: &Record<V>) -> u64 {
        u64::from(record.weight().max(1))
    }
}

/// A lifecycle of the map that counts evictions, logs the first, and keeps the seqlock table in step.
#[derive(Debug, Clone)]
struct EvictionListener {
    count: Arc<AtomicU64>,
    seqlock: Arc<SeqlockCache>,
}

/// Entries that one operation has removed from the map, to be dropped after it.
struct Evicted<V> {
    entries: SmallVec<[(CompactKey, Record<V>); 1]>,
    is_first: bool,
}

impl<V> Default for Evicted<V> {
    fn default() -> Self {
        Self { entries: SmallVec::new(), is_first: false }
    }
}

impl<V: Clone> Lifecycle<CompactKey, Record<V>> for EvictionListener {
    type RequestState = Evicted<V>;

    /// An entry that was read without a lock recently counts as referenced in the map.
    fn is_pinned(&self, key: &CompactKey, _: &Record<V>) -> bool {
        self.seqlock.take_referenced(key)
    }

    /// Called for entries that are evicted or too heavy, not for replaced ones.
    fn before_evict(&self, evicted: &mut Evicted<V>, _: &CompactKey, _: &mut Record<V>) {
        evicted.is_first |= self.count.fetch_add(1, Ordering::Relaxed) == 0;
    }

    fn on_evict(&self, evicted: &mut Evicted<V>, key: CompactKey, record: Record<V>) {
        // Also called for replaced entries.
        self.seqlock.invalidate_key(&key);
        evicted.entries.push((key, record));
    }
}

impl<V> Drop for Evicted<V> {
    fn drop(&mut self) {
        if self.is_first {
            tracing::info!(
                target: "vayu",
                "memory cache is full, evicting entries"
            );
        }
    }
}

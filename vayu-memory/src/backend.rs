//! The default backend, on a table that is read without a lock ([`crate::table`]).
//!
//! Expired entries are removed by sweeps that writers start, and misses ([`crate::pacer`]). A miss of a number or a string that
//! is absent leaves that to the write that follows, or to a second read if none does.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use vayu_core::__internal::{Outlined, PerProcess, drop_quietly};
use vayu_core::attribute::TracksUses;
use vayu_core::{
    AnyValue, Backend, Capabilities, Clear, Clock, EndCause, EndListener, EndListeners, EntryTimes,
    InlineValue, Key, OffBackend, Prefix, Record, ReportEnds, ReportUsage, Result, Timestamp,
    Usage, ValueClass,
};

use crate::options::{MemoryOptions, WeightLimit};
use crate::pacer::SweepPacer;
use crate::table::{Ended, Forked, Limits, Table, Written};
use crate::value::{MemoryValue, VALUE_WORDS};

/// A backend that stores values in a concurrent table, by reference.
///
/// No destructor of a value runs while a lock of the table is held: replaced, evicted and swept entries
/// are dropped afterwards.
///
/// `V` is the stored form: [`AnyValue`], or more than that where it is a part of another backend.
pub struct MemoryBackend<V = AnyValue> {
    tables: Outlined<PerProcess<Table<V>>>,
    /// The size of a table that replaces one after a fork.
    size: TableSize,
    /// Whether an entry was evicted.
    has_evicted: AtomicBool,
    weights: Option<WeightLimit>,
    clock: Arc<dyn Clock>,
    pacer: SweepPacer,
    ends: Outlined<EndListeners>,
}

/// The size of each table.
#[derive(Debug, Clone, Copy)]
struct TableSize {
    shards: usize,
    limits: Limits,
}

impl TableSize {
    fn of(options: &MemoryOptions) -> Self {
        match &options.weights {
            // A limit by weight is not divided: one value may be most of it.
            Some(weights) => {
                let limits = Limits { entries: usize::MAX, weight: weights.max };
                Self { shards: 1, limits }
            }
            None => {
                let entries = usize::try_from(options.max_entries).unwrap_or(usize::MAX);
                let shards = shards(entries);
                let entries = entries / shards;
                Self { shards, limits: Limits { entries, weight: u64::MAX } }
            }
        }
    }

    fn table<V: MemoryValue>(self) -> Table<V> {
        Table::new(self.shards, self.limits)
    }
}

impl<V: MemoryValue> MemoryBackend<V> {
    /// Creates an empty backend with these options.
    pub fn with_options(options: MemoryOptions) -> Self {
        let size = TableSize::of(&options);
        Self {
            tables: Outlined::new(PerProcess::new(size.table())),
            size,
            has_evicted: AtomicBool::new(false),
            weights: options.weights,
            clock: options.clock,
            pacer: SweepPacer::new(),
            ends: Outlined::new(EndListeners::new()),
        }
    }

    /// Performs an operation on the table. That of a parent process, in which a thread that does not exist
    /// here may hold a lock forever, is replaced by an empty one.
    #[inline(always)]
    fn with_table<'a, R>(
        &'a self,
        mut operation: impl FnMut(&'a Table<V>) -> Result<R, Forked>,
    ) -> R {
        loop {
            match operation(self.tables.get()) {
                Ok(result) => return result,
                Err(Forked) => self.replace_table(),
            }
        }
    }

    #[cold]
    fn replace_table(&self) {
        self.tables.replace_after_fork(|| {
            let table = self.size.table();
            table.continue_evictions(self.tables.get());
            table
        });
    }

    /// Returns what `read` returns for the record of a key with the words of its value, without a lock, if the value is of this
    /// kind, or of any kind if that is `None`.
    #[doc(hidden)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub fn read_words<R>(
        &self,
        key: &Key,
        kind: Option<u64>,
        read: impl FnOnce(Record<[u64; VALUE_WORDS]>) -> R,
    ) -> Option<R> {
        self.tables.get().read_words(key, kind, read)
    }

    /// Returns a clone of a record.
    fn get(&self, key: &Key) -> Option<Record<V>> {
        if let Some((record, held)) = self.tables.get().hold(key)
            && let Some(value) = held.get()
        {
            return Some(record.map(|()| value.clone()));
        }
        let found = self.with_table(|table| table.read(key, &mut |record, _| record.map(V::clone)));
        if found.is_none() {
            self.sweep_if_due_cold();
        }
        found
    }

    /// Visits the record of a key, if there is one.
    #[inline(never)]
    fn visit(&self, key: &Key, class: ValueClass, visit: &mut dyn FnMut(Record<&V>)) {
        if class == ValueClass::Opaque {
            if let Some(record) = self.get(key) {
                visit(record.as_ref());
                drop_quietly(record);
            }
            return;
        }
        // An inline value is held if it has become one since it was stored.
        if class != ValueClass::Inline
            && let Some((record, held)) = self.tables.get().hold(key)
            && let Some(value) = held.get()
        {
            return visit(record.map(|()| value));
        }
        let mut are_words_missing = false;
        let found = self.with_table(|table| {
            table.read(key, &mut |record, has_words| {
                are_words_missing = !has_words && has_become_inline(*record.value(), class);
                visit(record);
            })
        });
        if are_words_missing {
            self.store_words(key);
        }
        if found.is_none() {
            self.sweep_if_due_cold();
        }
    }

    /// Stores the words of a value that has become inline since it was stored.
    #[cold]
    fn store_words(&self, key: &Key) {
        self.with_table(|table| table.store_words(key));
    }

    /// Stores a record, and removes others that have expired.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn store(&self, key: &Key, record: Record<V>) {
        let (created, end, mut record) = (record.created(), record.stale_until(), Some(record));
        let ended = if self.ends.is_empty() { None } else { Some(Box::new(Ended::new(created))) };
        let mut written = Written::new(ended);
        self.with_table(|table| table.write(key, &mut record, &mut written));
        written.removed.drop_quietly();
        if let Some(ended) = written.ended {
            self.report(*ended);
        }
        if written.evictions > 0 && !self.has_evicted.load(Ordering::Relaxed) {
            self.log_first_eviction();
        }
        self.pacer.record_expiry(end);
        // Most records were created now. The clock is read for others by the read that precedes a write.
        if self.pacer.is_due(created) {
            self.sweep_if_due_cold();
        }
    }

    /// Stores a record in a table with a limit by weight, if it is not too heavy.
    #[inline(never)]
    fn write_weighed(&self, key: &Key, record: Record<V>) -> Result<()> {
        let weights = self.weights.as_ref();
        let weigh = |weights: &WeightLimit| weights.weigh(key, record.value().value());
        match weights.map(weigh).transpose()?.flatten() {
            Some(weight) => {
                self.store(key, record.with_weight(weight));
            }
            // The previous value is outdated all the same.
            None => {
                if self.remove(key) {
                    self.ends.report(key.prefix().as_str(), EndCause::Replaced);
                }
                self.ends.report(key.prefix().as_str(), EndCause::Evicted);
            }
        }
        Ok(())
    }

    /// Removes the entry of a key, and returns whether there was one.
    fn remove(&self, key: &Key) -> bool {
        let (existed, removed) = self.with_table(|table| table.remove(key));
        removed.drop_quietly();
        existed
    }

    /// Reports entries that have left the table.
    #[cold]
    fn report(&self, ended: Ended) {
        self.ends.report_all(ended.entries);
    }

    /// Calls [`sweep_if_due`](Self::sweep_if_due), out of line for hits.
    #[cold]
    fn sweep_if_due_cold(&self) {
        self.sweep_if_due(self.clock.now());
    }

    /// Removes expired entries, if a sweep is due.
    #[inline]
    fn sweep_if_due(&self, now: Timestamp) {
        if self.pacer.is_due(now) {
            self.pacer.run(now, || self.remove_expired(Some(now)));
        }
    }

    /// Removes the entries that have expired at `now`, or all entries. Returns their number, and when
    /// the first of the others expires.
    fn remove_expired(&self, now: Option<Timestamp>) -> (u64, Timestamp) {
        let is_reported = !self.ends.is_empty();
        let cause = if now.is_some() { EndCause::Expired } else { EndCause::Invalidated };
        let after = |values: Vec<V>, prefixes: Vec<Prefix>| {
            values.into_iter().for_each(drop_quietly);
            self.ends.report_all(prefixes.into_iter().map(|prefix| (prefix, cause)));
        };
        self.with_table(|table| table.remove_expired(now, is_reported, after))
    }

    #[cold]
    fn log_first_eviction(&self) {
        if !self.has_evicted.swap(true, Ordering::Relaxed) {
            tracing::info!(target: "vayu", "memory cache is full, evicting entries");
        }
    }
}

/// Returns whether a value that is held beside its slot has words, which a lock-free read could use.
#[inline(always)]
fn has_become_inline<V: MemoryValue>(value: &V, class: ValueClass) -> bool {
    !V::IS_WORDS && class == ValueClass::Inline && value.to_words().is_some()
}

/// Returns the number of shards: four for each processor, as long as each has room for 256 entries, and a
/// power of two. A small cache has one shard, so that it has as many entries as its limit says: keys are
/// spread over shards unevenly.
fn shards(entries: usize) -> usize {
    const SMALL: usize = 1024;
    const OF_SHARD: usize = 256;
    if entries <= SMALL {
        return 1;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = (4 * processors).min(entries / OF_SHARD).max(1);
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
        let evictions = self.tables.get().evictions();
        f.debug_struct("MemoryBackend").field("evictions", &evictions).finish_non_exhaustive()
    }
}

impl<V: MemoryValue> TracksUses for MemoryBackend<V> {}

#[async_trait]
impl<V: MemoryValue> Backend for MemoryBackend<V> {
    type Stored = V;

    #[inline]
    fn read(&self, key: &Key) -> Result<Option<Record<V>>> {
        Ok(self.get(key))
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn write(&self, key: &Key, record: Record<V>) -> Result<()> {
        if self.weights.is_some() {
            return self.write_weighed(key, record);
        }
        self.store(key, record);
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        let existed = self.remove(key);
        if existed {
            self.ends.report(key.prefix().as_str(), EndCause::Invalidated);
        }
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
        self.read_optimistic_with(key, None, |record| record)
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn read_optimistic_with<R>(
        &self,
        key: &Key,
        kind: Option<u64>,
        read: impl FnOnce(Record<InlineValue>) -> R,
    ) -> Option<R> {
        self.read_words(
            key,
            kind,
            #[inline(always)]
            |record| read(record.map(|[kind, bits, _]| InlineValue::from_words([kind, bits]))),
        )
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn read_with<R>(&self, key: &Key, read: impl FnOnce(Record<&V>) -> R) -> Option<R> {
        let (record, held) = self.tables.get().hold(key)?;
        let value = held.get()?;
        Some(read(record.map(|()| value)))
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn read_now(
        &self,
        key: &Key,
        class: ValueClass,
        visit: &mut dyn FnMut(Record<&V>),
    ) -> Option<Result<()>> {
        if !self.tables.get().is_absent(key) {
            self.visit(key, class, visit);
        } else if class == ValueClass::Opaque {
            // After a miss of the other classes, [`store`](Self::store) sweeps, or a read of this class if nothing is stored.
            self.sweep_if_due_cold();
        }
        Some(Ok(()))
    }

    #[inline]
    fn is_in_process(&self) -> bool {
        true
    }

    // Without batches: a read takes no lock of a shard, and to sort a batch by shards would cost as much as to lock one that
    // no thread waits for.
    #[inline]
    fn capabilities(&self) -> Capabilities<'_, V> {
        Capabilities::none().with_times(self).with_clear(self).with_usage(self).with_ends(self)
    }

    fn description(&self) -> String {
        "memory".to_owned()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

#[async_trait]
impl<V: MemoryValue> EntryTimes for MemoryBackend<V> {
    type Stored = V;

    fn write_times(&self, key: &Key, _: &Record<()>, record: Record<V>) -> Result<()> {
        self.write(key, record)
    }

    async fn write_times_async(&self, key: &Key, _: &Record<()>, record: Record<V>) -> Result<()> {
        self.write(key, record)
    }

    fn renew(&self, key: &Key, record: &Record<()>, end: Timestamp) {
        self.with_table(|table| table.renew(key, record, end));
        self.pacer.record_expiry(end);
    }
}

impl<V: MemoryValue> Clear for MemoryBackend<V> {
    fn clear(&self) -> Result<()> {
        self.remove_expired(None);
        Ok(())
    }
}

impl<V: MemoryValue> ReportUsage for MemoryBackend<V> {
    fn usage(&self) -> Usage {
        self.sweep_if_due(self.clock.now());
        let (entries, weight) = self.with_table(Table::usage);
        let mut usage = Usage::default();
        usage.entries = Some(entries);
        if let Some(weights) = &self.weights {
            usage.weight = Some(weight);
            usage.max_weight = Some(weights.max);
            usage.rejections = Some(weights.rejections.load(Ordering::Relaxed));
        } else {
            usage.max_entries = Some(self.tables.get().max_entries());
        }
        usage.evictions = Some(self.tables.get().evictions());
        usage.expirations = Some(self.pacer.expirations());
        usage
    }
}

impl<V: MemoryValue> ReportEnds for MemoryBackend<V> {
    fn report_ends(&self, listener: EndListener) {
        self.ends.add(listener);
    }
}

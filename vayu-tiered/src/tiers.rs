//! The two tiers: records in memory, validated by slot versions, in front of the backing tier.
//!
//! Each operation on the backing tier has a beginning and an end here, which sync and async callers
//! share. A change invalidates the copies of its key before it starts and again when it has ended, so a
//! change whose future is dropped leaves no outdated copy in memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use vayu_core::__internal::{catch_panic, drop_quietly};
use vayu_core::{
    AnyValue, Backend, BackendExt, Clock, EntryContext, Error, ErrorKind, InlineValue, Key, Record,
    Result, Timestamp, ValueClass,
};
use vayu_memory::{MemoryBackend, MemoryOptions, MemoryValue};

use crate::offline::OfflineState;
use crate::slot_versions::{Copies, KeyChange, SlotVersion, SlotVersions};
use crate::value::TieredValue;

pub(crate) struct Tiers<F> {
    pub(crate) memory: MemoryBackend<CachedCopy>,
    pub(crate) backing: F,
    pub(crate) versions: SlotVersions,
    pub(crate) offline: OfflineState,
    /// The longest time for which memory serves a copy.
    near_ttl: Option<Duration>,
    /// The limit of the size of an entry in the backing tier.
    pub(crate) max_entry_bytes: Option<u64>,
    clock: Arc<dyn Clock>,
    pub(crate) counters: Counters,
}

/// The value of an entry in memory.
#[derive(Clone)]
pub(crate) struct CachedCopy {
    /// Without an encoder.
    value: TieredValue,
    version: SlotVersion,
    /// `expires` and `stale_until` of the record in the backing tier. Those of the copy may be earlier.
    backing_times: [Timestamp; 2],
}

impl MemoryValue for CachedCopy {
    /// The words do not have the times of the record in the backing tier.
    const IS_WORDS: bool = false;

    fn value(&self) -> &AnyValue {
        self.value.value()
    }

    /// Returns the words without the backing times: a lock-free read uses the times of the copy only.
    #[inline]
    fn to_words(&self) -> Option<[u64; 3]> {
        let [kind, bits] = self.value.to_inline()?.to_words();
        Some([kind, bits, self.version.to_word()])
    }
}

/// Counters of the reads of the backing tier.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    errors: AtomicU64,
    pub(crate) invalidations: AtomicU64,
}

/// Statistics of the backing tier since the cache was created. Memory hits are not included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TierStats {
    /// Reads that found a record.
    pub hits: u64,
    /// Reads that found no record.
    pub misses: u64,
    /// Reads that failed.
    pub errors: u64,
    /// Invalidations that were received from the backing tier.
    pub invalidations: u64,
}

impl Counters {
    pub(crate) fn stats(&self) -> TierStats {
        TierStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            invalidations: self.invalidations.load(Ordering::Relaxed),
        }
    }
}

/// A write that is in progress.
pub(crate) struct Write<'a> {
    change: KeyChange<'a>,
    record: Record<TieredValue>,
    /// The error of encoding the record, if there was one.
    encoded: Result<()>,
}

/// A deletion that is in progress.
pub(crate) struct Delete<'a> {
    change: KeyChange<'a>,
    was_in_memory: bool,
}

impl<F: Backend<Stored = Bytes>> Tiers<F> {
    pub(crate) fn new(memory: MemoryOptions, backing: F, near_ttl: Option<Duration>) -> Self {
        let clock = backing.clock();
        Self {
            memory: MemoryBackend::with_options(memory.clock(Arc::clone(&clock))),
            versions: SlotVersions::new(),
            offline: OfflineState::new(),
            near_ttl,
            max_entry_bytes: max_entry_bytes(&backing),
            backing,
            clock,
            counters: Counters::default(),
        }
    }

    /// Visits a copy that is fresh and current. Returns whether there is one.
    #[inline]
    pub(crate) fn read_memory(
        &self,
        key: &Key,
        class: ValueClass,
        now: Timestamp,
        visit: &mut dyn FnMut(Record<&TieredValue>),
    ) -> bool {
        let (mut is_found, mut encoded) = (false, None);
        let read = self.memory.read_now(key, class, &mut |copy| {
            if !self.is_current(copy.value().version) || now >= copy.expires() {
                return;
            }
            is_found = true;
            if class != ValueClass::Opaque && copy.value().value.is_encoded() {
                encoded = Some(copy.map(Clone::clone));
            } else {
                visit(with_backing_times(copy));
            }
        });
        if let Some(copy) = encoded {
            // Memory may hold a lock while it is read, and decoding runs code of users.
            visit(with_backing_times(copy.as_ref()));
            drop_quietly(copy);
        }
        is_found && read.is_some()
    }

    /// Reads a current copy for a cache that is offline, whether it is fresh or not.
    pub(crate) fn read_offline(&self, key: &Key) -> Option<Record<TieredValue>> {
        let mut found = None;
        let read = self.memory.read_now(key, ValueClass::Opaque, &mut |copy| {
            let [_, stale_until] = copy.value().backing_times;
            let is_limited = copy.stale_until() < stale_until;
            if self.is_current(copy.value().version)
                && (!is_limited || self.clock.now() < copy.stale_until())
            {
                found = Some(with_backing_times(copy).map(Clone::clone));
            }
        });
        read?.ok()?;
        found
    }

    /// Returns what `read` returns for a copy that is read without a lock, if it is current and its value is of this kind, or of
    /// any kind if that is `None`.
    #[inline(always)]
    pub(crate) fn read_optimistic_with<R>(
        &self,
        key: &Key,
        kind: Option<u64>,
        read: impl FnOnce(Record<InlineValue>) -> R,
    ) -> Option<R> {
        self.memory.read_words(
            key,
            kind,
            #[inline(always)]
            |copy| {
                let [kind, bits, version] = *copy.value();
                let is_current = self.is_current(SlotVersion::from_word(version));
                is_current.then(|| read(copy.map(|_| InlineValue::from_words([kind, bits]))))
            },
        )?
    }

    #[inline(always)]
    fn is_current(&self, version: SlotVersion) -> bool {
        self.versions.is_current(version)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Stores a copy of a record that was read or written at this version.
    pub(crate) fn store_copy(
        &self,
        key: &Key,
        record: &Record<TieredValue>,
        version: SlotVersion,
    ) -> Result<()> {
        let backing_times = [record.expires(), record.stale_until()];
        let value = TieredValue::from_value(record.value().value().clone());
        let copy = CachedCopy { value, version, backing_times };
        let mut record = record.clone().map(|_| copy);
        if let Some(near_ttl) = self.near_ttl {
            let last = self.clock.now().saturating_add(near_ttl);
            let [expires, stale_until] = backing_times.map(|time| time.min(last));
            let created = record.created();
            record = record.with_times(created, expires, stale_until);
        }
        self.memory.write(key, record)
    }

    /// Ends a read of the backing tier that began at this version: stores a copy of the record, or reads
    /// memory if the backing tier has failed.
    pub(crate) fn finish_read(
        &self,
        key: &Key,
        version: SlotVersion,
        found: Result<Option<Record<Bytes>>>,
    ) -> Result<Option<Record<TieredValue>>> {
        match found {
            Ok(Some(record)) => {
                self.counters.hits.fetch_add(1, Ordering::Relaxed);
                let copies = Copies::new(self.versions.clone(), version);
                let record = TieredValue::of_copied(record, copies).as_read_at(self.clock.now());
                self.store_copy(key, &record, version)?;
                Ok(Some(record))
            }
            Ok(None) => {
                self.counters.misses.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            Err(error) => {
                self.counters.errors.fetch_add(1, Ordering::Relaxed);
                if let ErrorKind::Timeout | ErrorKind::Decode = error.kind() {
                    // The engine needs the timeout, so that it does not wait again. It then reads memory. An entry that
                    // cannot be decoded is not a failure of the backing tier.
                    return Err(error);
                }
                self.read_offline(key).map(Some).ok_or(error)
            }
        }
    }

    /// Begins a write. Also returns the record for the backing tier, unless the value cannot be encoded.
    pub(crate) fn begin_write(
        &self,
        key: &Key,
        record: Record<TieredValue>,
    ) -> (Write<'_>, Option<Record<Bytes>>) {
        let change = self.versions.begin_change(key_slot(key));
        let (bytes, encoded) = match encode(key, &record, self.max_entry_bytes) {
            Ok(bytes) => (Some(bytes), Ok(())),
            Err(error) => (None, Err(error)),
        };
        (Write { change, record, encoded }, bytes)
    }

    /// Ends a write with the result of the backing tier. Memory stores the value even if the backing tier
    /// did not, unless another change of the key slot has begun in the meantime. If both fail, the error is that of the
    /// backing tier.
    pub(crate) fn finish_write(
        &self,
        key: &Key,
        write: Write<'_>,
        result: Option<Result<()>>,
    ) -> Result<()> {
        let version = write.change.finish();
        let copied = version.map_or(Ok(()), |version| self.store_copy(key, &write.record, version));
        result.unwrap_or(write.encoded).and(copied)
    }

    /// Begins a deletion: removes the key from memory.
    pub(crate) fn begin_delete(&self, key: &Key) -> Result<Delete<'_>> {
        let now = self.clock.now();
        let was_in_memory = self.read_memory(key, ValueClass::Opaque, now, &mut |_| ());
        let change = self.versions.begin_change(key_slot(key));
        self.memory.delete(key)?;
        Ok(Delete { change, was_in_memory })
    }

    /// Ends a deletion: removes what was read in the meantime. Returns whether the key had a value in one
    /// of the tiers.
    pub(crate) fn finish_delete(
        &self,
        key: &Key,
        delete: Delete<'_>,
        result: Result<bool>,
    ) -> Result<bool> {
        delete.change.finish();
        self.memory.delete(key)?;
        Ok(result? || delete.was_in_memory)
    }

    /// Begins to clear: clears memory.
    pub(crate) fn begin_clear(&self) -> Result<ClearGuard<'_, F>> {
        let guard = ClearGuard(self);
        self.invalidate_all();
        self.memory.clear()?;
        Ok(guard)
    }

    /// Ends clearing: clears memory again.
    pub(crate) fn finish_clear(&self, guard: ClearGuard<'_, F>, result: Result<()>) -> Result<()> {
        drop(guard);
        self.memory.clear()?;
        result
    }

    /// Stores a value in memory only.
    pub(crate) fn write_offline(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        let change = self.versions.begin_change(key_slot(key));
        self.finish_write(key, Write { change, record, encoded: Ok(()) }, None)
    }
}

impl<F> Tiers<F> {
    /// Invalidates all copies and all generations that the cache has fetched.
    pub(crate) fn invalidate_all(&self) {
        self.offline.record_change();
        self.versions.bump_all();
    }

    /// Begins to bump a generation.
    pub(crate) fn begin_bump(&self) -> BumpGuard<'_, F> {
        self.offline.record_change();
        BumpGuard(self)
    }
}

/// Invalidates all copies when it is dropped, at the end of clearing or with the future of the caller.
pub(crate) struct ClearGuard<'a, F>(&'a Tiers<F>);

impl<F> Drop for ClearGuard<'_, F> {
    fn drop(&mut self) {
        self.0.invalidate_all();
    }
}

/// A bump of a generation that is in progress. Generations that were fetched before its end are
/// invalid, even if the future of its caller is dropped.
pub(crate) struct BumpGuard<'a, F>(&'a Tiers<F>);

impl<F> BumpGuard<'_, F> {
    /// Ends the bump with the result of the backing tier. If the cache will not try it again, invalidates everything in
    /// memory: it is unknown whether the generation was bumped. Otherwise the cache makes other stamps for the entries of
    /// the group until it has succeeded.
    pub(crate) fn finish(self, result: Result<()>) -> Result<()> {
        let result = self.0.offline.record_fetch(result);
        if let Err(error) = &result
            && !matches!(error.kind(), ErrorKind::Backend | ErrorKind::Timeout | ErrorKind::Panic)
        {
            self.0.offline.rotate_offline_generation();
            self.0.versions.bump_all();
        }
        result
    }
}

impl<F> Drop for BumpGuard<'_, F> {
    fn drop(&mut self) {
        self.0.offline.record_change();
    }
}

impl<F: fmt::Debug> fmt::Debug for Tiers<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredBackend")
            .field("memory", &self.memory)
            .field("backing", &self.backing)
            .finish_non_exhaustive()
    }
}

/// Converts a copy into a record with the times of the backing tier.
#[inline]
fn with_backing_times(copy: Record<&CachedCopy>) -> Record<&TieredValue> {
    let (created, [expires, stale_until]) = (copy.created(), copy.value().backing_times);
    copy.with_times(created, expires, stale_until).map(|copy| &copy.value)
}

/// Returns the limit of the size of an entry of a backend.
pub(crate) fn max_entry_bytes(backend: &impl Backend) -> Option<u64> {
    let usage = catch_panic("read usage", || Ok(backend.usage()));
    usage.ok().and_then(|usage| usage.max_entry_bytes)
}

/// Encodes a record for the backing tier, which has this limit on entries. An error if its value has no bytes: it would
/// count as stored without a write.
pub(crate) fn encode(
    key: &Key,
    record: &Record<TieredValue>,
    max_entry_bytes: Option<u64>,
) -> Result<Record<Bytes>> {
    let entry = EntryContext::new(key, record).with_max_entry_bytes(max_entry_bytes);
    let bytes = record.value().to_bytes(&entry)?;
    let bytes = bytes.ok_or_else(|| Error::new(ErrorKind::Encode, "the value has no bytes"))?;
    Ok(record.clone().map(|_| bytes))
}

/// Returns the key slot of a key: the first two bytes of its digest.
pub(crate) fn key_slot(key: &Key) -> [u8; 2] {
    let digest = key.digest();
    [digest[0], digest[1]]
}

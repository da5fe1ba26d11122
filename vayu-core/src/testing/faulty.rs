//! A backend with faults on request.

use std::collections::HashSet;
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::{
    Backend, BackendExt, Batches, Capabilities, Clear, EntryTimes, Lease, LeaseGuard, Leases,
    ReleaseLease, read_of_kind,
};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::forward_backend;
use crate::key::Key;
use crate::record::Record;
use crate::serializer::{InlineValue, ValueClass};
use crate::sync::IgnorePoison;

/// A fault of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Reads return an error.
    FailsReads,
    /// Reads panic.
    PanicsInReads,
    /// Writes return an error.
    FailsWrites,
    /// Writes panic.
    PanicsInWrites,
    /// Deletes return an error.
    FailsDeletes,
    /// Writes are acknowledged and not stored.
    DropsWrites,
    /// Writes of a key that has a record are acknowledged and not stored.
    KeepsFirstWrite,
    /// Deletes are acknowledged and remove nothing.
    DropsDeletes,
    /// Deletes always report that there was a record.
    ReportsEveryDelete,
    /// Keys are truncated after 200 characters, as a file name might be.
    TruncatesKeys,
    /// Keys end at the first NUL, as a C string would.
    EndsKeysAtNul,
    /// Keys of different case are one, as on some file systems.
    FoldsKeyCase,
    /// The prefix and the rest of a key are joined with a colon.
    JoinsKeyParts,
    /// The times of a record are lost.
    DropsTimes,
    /// The schema and the serializer of a record are lost.
    DropsStamps,
    /// Records are gone as soon as they have expired, even if they may be served stale.
    DropsStale,
    /// Async reads find nothing.
    AsyncReadsNone,
    /// The results of a batch are in the reverse order of its keys.
    ReversesBatches,
    /// A batch of reads has one result for a key that occurs several times.
    MergesKeysOfBatches,
    /// Of several records of a key in a batch, the first one is stored.
    KeepsFirstOfBatch,
    /// Batches end after the first 100 keys. Further ones are absent, and not stored.
    TruncatesBatches,
    /// Clearing does nothing.
    DropsClear,
    /// Leases cannot be released: releasing one returns an error.
    KeepsLeases,
}

/// The number of keys after which [`Fault::TruncatesBatches`] ends a batch.
const MAX_BATCH: usize = if cfg!(miri) { 10 } else { 100 };

/// A backend with a [`Fault`] that can be switched on and off.
#[derive(Debug, Clone)]
pub struct FaultyBackend<B> {
    inner: B,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl<B: Backend> FaultyBackend<B> {
    /// Wraps a backend, without a fault at first.
    pub fn new(inner: B) -> Self {
        Self { inner, fault: Arc::default() }
    }

    /// Sets the fault from now on, or none.
    pub fn set_fault(&self, fault: impl Into<Option<Fault>>) {
        *self.fault.lock().ignore_poison() = fault.into();
    }

    fn fault(&self) -> Option<Fault> {
        *self.fault.lock().ignore_poison()
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault() == Some(fault)
    }

    fn key(&self, key: &Key) -> Key {
        let (prefix, encoded_arguments) = (key.prefix().to_string(), key.encoded_arguments());
        let mut text = String::from_utf8_lossy(encoded_arguments).into_owned();
        if self.has(Fault::TruncatesKeys) {
            text = text.chars().take(200).collect();
        } else if self.has(Fault::EndsKeysAtNul) {
            text.truncate(text.find('\0').unwrap_or(text.len()));
        } else if self.has(Fault::FoldsKeyCase) {
            text = text.to_lowercase();
        } else if self.has(Fault::JoinsKeyParts) {
            // The first byte is the kind of the key, and the string follows.
            return Key::from_text("", format!("{prefix}:{}", text.get(1..).unwrap_or_default()));
        } else {
            return key.clone();
        }
        Key::from_text(prefix, text)
    }

    fn after_read(&self, found: Option<Record<B::Stored>>) -> Option<Record<B::Stored>> {
        let record = found?;
        if self.has(Fault::DropsStale) && self.clock().now() >= record.expires() {
            return None;
        }
        Some(record)
    }

    fn after_read_many(
        &self,
        keys: &[&Key],
        mut results: Vec<Result<Option<Record<B::Stored>>>>,
    ) -> Vec<Result<Option<Record<B::Stored>>>> {
        match self.fault() {
            Some(Fault::ReversesBatches) => results.reverse(),
            Some(Fault::TruncatesBatches) => {
                results.iter_mut().skip(MAX_BATCH).for_each(|result| *result = Ok(None));
            }
            Some(Fault::MergesKeysOfBatches) => {
                let mut known = HashSet::new();
                let mut is_new = keys.iter().map(|key| known.insert(*key));
                results.retain(|_| is_new.next().unwrap_or(true));
            }
            _ => {}
        }
        results
    }

    fn before_write(&self, record: Record<B::Stored>) -> Record<B::Stored> {
        if self.has(Fault::DropsTimes) {
            let (schema, serializer) = (record.schema(), record.serializer());
            return Record::new(record.into_value(), self.clock().now(), crate::Timestamp::NEVER)
                .with_schema(schema)
                .with_serializer(serializer);
        }
        if self.has(Fault::DropsStamps) {
            return record.with_schema(0).with_serializer(crate::SerializerId::default());
        }
        record
    }

    fn after_acquire(&self, lease: Lease) -> Lease {
        match lease {
            Lease::Acquired(lease) if self.has(Fault::KeepsLeases) => {
                Lease::Acquired(LeaseGuard::with_release(KeptLease {
                    _lease: ManuallyDrop::new(lease),
                }))
            }
            lease => lease,
        }
    }

    fn fails(operation: &'static str) -> Error {
        Error::new(ErrorKind::Backend, operation)
    }
}

/// A lease that cannot be released.
struct KeptLease {
    _lease: ManuallyDrop<LeaseGuard>,
}

impl ReleaseLease for KeptLease {
    fn release(self: Box<Self>) -> Result<()> {
        Err(Error::new(ErrorKind::Backend, "planned failure of a release"))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Backend for FaultyBackend<B> {
    type Stored = B::Stored;

    fn read(&self, key: &Key) -> Result<Option<Record<B::Stored>>> {
        assert!(!self.has(Fault::PanicsInReads), "planned panic of a read");
        if self.has(Fault::FailsReads) {
            return Err(Self::fails("planned failure of a read"));
        }
        Ok(self.after_read(self.inner.read(&self.key(key))?))
    }

    fn write(&self, key: &Key, record: Record<B::Stored>) -> Result<()> {
        assert!(!self.has(Fault::PanicsInWrites), "planned panic of a write");
        if self.has(Fault::FailsWrites) {
            return Err(Self::fails("planned failure of a write"));
        }
        let key = self.key(key);
        let is_lost = self.has(Fault::DropsWrites)
            || (self.has(Fault::KeepsFirstWrite) && self.inner.read(&key)?.is_some());
        if is_lost { Ok(()) } else { self.inner.write(&key, self.before_write(record)) }
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        if self.has(Fault::FailsDeletes) {
            return Err(Self::fails("planned failure of a delete"));
        }
        if self.has(Fault::DropsDeletes) {
            return Ok(self.inner.read(&self.key(key))?.is_some());
        }
        Ok(self.inner.delete(&self.key(key))? || self.has(Fault::ReportsEveryDelete))
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<B::Stored>>> {
        if self.has(Fault::AsyncReadsNone) { Ok(None) } else { self.read(key) }
    }

    async fn write_async(&self, key: &Key, record: Record<B::Stored>) -> Result<()> {
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }

    /// Forwards only while there is no fault: with one the engine calls [`read`](Self::read).
    fn read_now(
        &self,
        key: &Key,
        class: ValueClass,
        visit: &mut dyn FnMut(Record<&Self::Stored>),
    ) -> Option<Result<()>> {
        if self.fault().is_some() { None } else { self.inner.read_now(key, class, visit) }
    }

    fn read_with<R>(&self, key: &Key, read: impl FnOnce(Record<&B::Stored>) -> R) -> Option<R> {
        if self.fault().is_some() { None } else { self.inner.read_with(key, read) }
    }

    fn read_optimistic(&self, key: &Key) -> Option<Record<InlineValue>> {
        if self.fault().is_some() { None } else { self.inner.read_optimistic(key) }
    }

    fn read_optimistic_with<R>(
        &self,
        key: &Key,
        kind: Option<u64>,
        read: impl FnOnce(Record<InlineValue>) -> R,
    ) -> Option<R> {
        read_of_kind(self.read_optimistic(key), kind, read)
    }

    /// Returns the parts of the backend, those that faults concern with the faults.
    fn capabilities(&self) -> Capabilities<'_, B::Stored> {
        let inner = self.inner.capabilities();
        Capabilities {
            generations: inner.generations,
            invalidation_feed: inner.invalidation_feed,
            leases: inner.leases.map(|_| self as _),
            offline: inner.offline,
            batches: Some(self),
            times: Some(self),
            clear: inner.clear.map(|_| self as _),
            usage: inner.usage,
            ends: inner.ends,
        }
    }

    /// Returns `false` while there is a fault: operations of a backend in the process do not panic.
    fn is_in_process(&self) -> bool {
        self.fault().is_none() && self.inner.is_in_process()
    }

    forward_backend! { |this| this.inner => description clock }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Batches for FaultyBackend<B> {
    type Stored = B::Stored;

    /// Forwards only while there is no fault: with one, [`read`](Backend::read) is called for each key.
    fn read_many(&self, keys: &[&Key]) -> Vec<Result<Option<Record<B::Stored>>>> {
        match self.fault() {
            None => self.inner.read_many(keys),
            Some(_) => self.after_read_many(keys, keys.iter().map(|key| self.read(key)).collect()),
        }
    }

    fn write_many(&self, mut entries: Vec<(&Key, Record<B::Stored>)>) -> Vec<Result<()>> {
        let keys = entries.len();
        match self.fault() {
            None => return self.inner.write_many(entries),
            Some(Fault::KeepsFirstOfBatch) => entries.reverse(),
            Some(Fault::TruncatesBatches) => entries.truncate(MAX_BATCH),
            Some(_) => {}
        }
        let written = entries.into_iter().map(|(key, record)| self.write(key, record));
        let mut results: Vec<_> = written.collect();
        results.resize_with(keys, || Ok(()));
        results
    }

    async fn read_many_async(&self, keys: &[&Key]) -> Vec<Result<Option<Record<B::Stored>>>> {
        if self.fault().is_none() {
            return self.inner.read_many_async(keys).await;
        }
        let mut results = Vec::new();
        for key in keys {
            results.push(self.read_async(key).await);
        }
        self.after_read_many(keys, results)
    }

    async fn write_many_async(&self, entries: Vec<(&Key, Record<B::Stored>)>) -> Vec<Result<()>> {
        if self.fault().is_none() {
            return self.inner.write_many_async(entries).await;
        }
        Batches::write_many(self, entries)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> EntryTimes for FaultyBackend<B> {
    type Stored = B::Stored;

    /// Forwards only while there is no fault: with one, [`write`](Backend::write) is called.
    fn write_times(&self, key: &Key, old: &Record<()>, record: Record<B::Stored>) -> Result<()> {
        if self.fault().is_some() {
            self.write(key, record)
        } else {
            self.inner.write_times(key, old, record)
        }
    }

    async fn write_times_async(
        &self,
        key: &Key,
        old: &Record<()>,
        record: Record<B::Stored>,
    ) -> Result<()> {
        if self.fault().is_some() {
            self.write(key, record)
        } else {
            self.inner.write_times_async(key, old, record).await
        }
    }

    fn renew(&self, key: &Key, record: &Record<()>, end: Timestamp) {
        self.inner.renew(key, record, end);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Clear for FaultyBackend<B> {
    fn clear(&self) -> Result<()> {
        if self.has(Fault::DropsClear) { Ok(()) } else { self.inner.clear() }
    }

    async fn clear_async(&self) -> Result<()> {
        if self.has(Fault::DropsClear) { Ok(()) } else { self.inner.clear_async().await }
    }
}

#[async_trait]
impl<B: Backend> Leases for FaultyBackend<B> {
    fn try_acquire(&self, key: &Key) -> Result<Lease> {
        match self.inner.capabilities().leases {
            Some(leases) => Ok(self.after_acquire(leases.try_acquire(&self.key(key))?)),
            None => Ok(Lease::NotRequired),
        }
    }

    async fn try_acquire_async(&self, key: &Key) -> Result<Lease> {
        match self.inner.capabilities().leases {
            Some(leases) => Ok(self.after_acquire(leases.try_acquire_async(&self.key(key)).await?)),
            None => Ok(Lease::NotRequired),
        }
    }

    fn try_acquire_or_watch(&self, key: &Key) -> Result<Lease> {
        match self.inner.capabilities().leases {
            Some(leases) => Ok(self.after_acquire(leases.try_acquire_or_watch(&self.key(key))?)),
            None => Ok(Lease::NotRequired),
        }
    }

    async fn try_acquire_or_watch_async(&self, key: &Key) -> Result<Lease> {
        let Some(leases) = self.inner.capabilities().leases else { return Ok(Lease::NotRequired) };
        Ok(self.after_acquire(leases.try_acquire_or_watch_async(&self.key(key)).await?))
    }

    fn longest_pause(&self) -> Duration {
        let leases = self.inner.capabilities().leases;
        leases.map_or(Duration::ZERO, Leases::longest_pause)
    }
}

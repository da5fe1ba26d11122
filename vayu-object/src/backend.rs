//! The backend: entries in an object store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::ObjectStore;
use vayu_core::__internal::remote::EntryCodec;
use vayu_core::__internal::{BatchResults, block_on};
use vayu_core::wire::WireKey;
use vayu_core::{
    Backend, Batches, Capabilities, Clear, Clock, Key, Lease, Record, ReportUsage, Result, Usage,
};

use crate::client::{Client, Operation};
use crate::error::Failure;
use crate::lease::Leases;
use crate::object_names::ObjectNames;
use crate::objects::{Found, Objects, next_names};
use crate::options::ObjectOptions;
use crate::write_order::WriteOrder;

/// A backend that stores each entry in an object of a store.
///
/// A clone is the same backend.
///
/// # Behavior
///
/// An operation takes up to [`ObjectOptions::timeout`], whatever the store does in that time. After a few failures in a
/// row a circuit breaker opens, and no operation is started for a while. A hit is one request for the entry, and one for
/// each generation that is not cached: those of a function and of everything for 75 ms, those of tags for one call.
/// [`delete`](Backend::delete) is two requests. A batch is one request for each key, up to 16 at the same time.
///
/// Every entry is verified when it is read: one that is corrupt, truncated or belongs to another key counts as
/// missing and is overwritten. The first one is logged, and [`Usage::corrupt_entries`] counts them. An object that
/// expires stays in the store until it is overwritten, or until a lifecycle rule of the store removes it.
///
/// Async callers need no particular executor and no timers: a background thread performs all operations and limits their
/// time. One that was started runs to its end even if its caller is cancelled, and a later write or deletion of the same
/// key by this cache waits for it. Sync callers block their thread, also in a runtime.
///
/// A cache that was opened before a fork does not use the store in the child process: its operations fail at once.
#[derive(Debug, Clone)]
pub struct ObjectBackend {
    client: Client,
    names: Arc<ObjectNames>,
    codec: Arc<EntryCodec>,
    writes: Arc<WriteOrder>,
    has_logged_corruption: Arc<AtomicBool>,
    leases: Option<Arc<Leases>>,
    clock: Arc<dyn Clock>,
}

/// Longest pause between two attempts to acquire a lease: stores charge for requests.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The number of operations of a batch that are performed at the same time.
const CONCURRENT: usize = 16;

impl ObjectBackend {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, options: ObjectOptions) -> Result<Self> {
        options.check()?;
        let leases = options.remote.has_leases().then(|| {
            Arc::new(Leases::new(options.remote.lease_ttl, Arc::clone(&options.remote.clock)))
        });
        Ok(Self {
            client: Client::new(store, &options),
            names: Arc::new(ObjectNames::new(&options.prefix)?),
            codec: Arc::new(options.remote.codec()),
            writes: Arc::default(),
            has_logged_corruption: Arc::default(),
            leases,
            clock: options.remote.clock,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn names(&self) -> &ObjectNames {
        &self.names
    }

    fn start_read(&self, key: &WireKey) -> Result<Operation<Found>, Failure> {
        let (name, max_bytes) = (self.names.entry(key), self.codec.max_entry_bytes());
        self.client.start(|objects| async move { objects.get(&name, max_bytes).await })
    }

    /// Returns the record in what was found under the name of a key.
    fn decode(
        &self,
        key: &WireKey,
        found: Result<Found, Failure>,
    ) -> Result<Option<Record<Bytes>>> {
        let record = match found.map_err(|failure| self.client.error(failure, "read entry"))? {
            Found::Nothing => return Ok(None),
            Found::Object { bytes, .. } => self.codec.decode(key, bytes),
            Found::TooLong => {
                self.codec.count_corrupt();
                None
            }
        };
        if record.is_none() && !self.has_logged_corruption.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "vayu",
                "{}: an object is not an entry of its name, or is damaged; it is a miss and will be overwritten. \
                 Further ones are counted, and not logged",
                self.client.name()
            );
        }
        Ok(record)
    }

    async fn read_entry(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let key = WireKey::new(key);
        let found = finish(self.start_read(&key)).await;
        self.decode(&key, found)
    }

    fn start_write(&self, key: &WireKey, bytes: Vec<u8>) -> Result<Operation<()>, Failure> {
        let name = self.names.entry(key);
        self.client.start(|objects| {
            let mut turn = self.writes.enter(&name);
            async move {
                turn.wait().await;
                objects.put(&name, bytes.into()).await
            }
        })
    }

    fn written(&self, written: Result<(), Failure>) -> Result<()> {
        written.map_err(|failure| self.client.error(failure, "write entry"))
    }

    async fn write_entry(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        let (key, bytes) = self.codec.encode(key, &record)?;
        drop(record);
        self.written(finish(self.start_write(&key, bytes)).await)
    }

    async fn delete_entry(&self, key: &Key) -> Result<bool> {
        let name = self.names.entry(&WireKey::new(key));
        let deleted = self.client.run(|objects| {
            let mut turn = self.writes.enter(&name);
            async move {
                turn.wait().await;
                let exists = objects.exists(&name).await?;
                if exists {
                    objects.delete_found(vec![name]).await?;
                }
                Ok(exists)
            }
        });
        deleted.await.map_err(|failure| self.client.error(failure, "delete entry"))
    }

    async fn read_entries(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Bytes>>>> {
        let mut results = Vec::with_capacity(keys.len());
        // A failure of the store ends the batch.
        let mut failed: Option<Failure> = None;
        for keys in keys.chunks(CONCURRENT) {
            let keys: Vec<WireKey> = keys.iter().map(|key| WireKey::new(key)).collect();
            let reads: Vec<_> = keys
                .iter()
                .map(|key| failed.clone().map_or_else(|| self.start_read(key), Err))
                .collect();
            for (key, read) in keys.iter().zip(reads) {
                let found = finish(read).await;
                failed = failed.or_else(|| failure_of_store(&found));
                results.push(self.decode(key, found));
            }
        }
        results
    }

    async fn write_entries(&self, entries: Vec<(&Key, Record<Bytes>)>) -> Vec<Result<()>> {
        let mut results = BatchResults::new(entries.len());
        let mut failed: Option<Failure> = None;
        let mut entries = last_of_each_key(entries, &mut results).into_iter().peekable();
        while entries.peek().is_some() {
            let mut writes = Vec::new();
            for (index, (key, record)) in entries.by_ref().take(CONCURRENT) {
                match self.codec.encode(key, &record) {
                    Ok((key, bytes)) => {
                        let write =
                            failed.clone().map_or_else(|| self.start_write(&key, bytes), Err);
                        writes.push((index, write));
                    }
                    Err(error) => results.set(index, Err(error)),
                }
            }
            for (index, write) in writes {
                let written = finish(write).await;
                failed = failed.or_else(|| failure_of_store(&written));
                results.set(index, self.written(written));
            }
        }
        results.into_results()
    }

    async fn remove_entries(&self) -> Result<()> {
        self.remove_listed().await.map_err(|failure| self.client.error(failure, "clear"))
    }

    /// Lists and removes all entries. Each step is an operation of its own, so the first one closes the circuit breaker, and
    /// none follows when the caller is gone.
    async fn remove_listed(&self) -> Result<(), Failure> {
        let mut listed = None;
        loop {
            let (names, writes) = (Arc::clone(&self.names), Arc::clone(&self.writes));
            let page = self.client.run(|objects| async move {
                let listed = match listed {
                    Some(listed) => listed,
                    None => {
                        writes.wait_for_all().await;
                        objects.list(names.entries())
                    }
                };
                next_names(listed, |name| names.is_entry(name)).await
            });
            let page = page.await?;
            if !page.names.is_empty() {
                let delete =
                    |objects: Objects| async move { objects.delete_found(page.names).await };
                self.client.run(delete).await?;
            }
            listed = page.rest;
            if listed.is_none() {
                return Ok(());
            }
        }
    }

    async fn acquire_lease(&self, key: &Key) -> Result<Lease> {
        let Some(leases) = &self.leases else { return Ok(Lease::NotRequired) };
        leases.acquire(&self.client, self.names.lease(&WireKey::new(key))).await
    }
}

/// Returns the result of an operation, if it could be started.
async fn finish<T>(operation: Result<Operation<T>, Failure>) -> Result<T, Failure> {
    operation?.finish().await
}

fn failure_of_store<T>(result: &Result<T, Failure>) -> Option<Failure> {
    result.as_ref().err().filter(|failure| failure.is_of_store()).cloned()
}

/// An entry of a batch, with its index.
type Indexed<'k> = (usize, (&'k Key, Record<Bytes>));

/// Returns the entries that are stored: writes of one key at the same time would end in any order. The others count as
/// stored and then replaced.
fn last_of_each_key<'k>(
    entries: Vec<(&'k Key, Record<Bytes>)>,
    results: &mut BatchResults<()>,
) -> Vec<Indexed<'k>> {
    let mut seen = std::collections::HashSet::new();
    let mut last = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate().rev() {
        if seen.insert(entry.0) {
            last.push((index, entry));
        } else {
            results.set(index, Ok(()));
        }
    }
    last.reverse();
    last
}

#[async_trait]
impl Backend for ObjectBackend {
    type Stored = Bytes;

    fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        block_on(self.read_entry(key))
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        block_on(self.write_entry(key, record))
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        block_on(self.delete_entry(key))
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        self.read_entry(key).await
    }

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        self.write_entry(key, record).await
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete_entry(key).await
    }

    #[inline]
    fn capabilities(&self) -> Capabilities<'_, Bytes> {
        Capabilities {
            generations: Some(self),
            leases: self.leases.is_some().then_some(self as _),
            batches: Some(self),
            clear: Some(self),
            usage: Some(self),
            ..Capabilities::none()
        }
    }

    fn description(&self) -> String {
        self.client.name().to_owned()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

#[async_trait]
impl Batches for ObjectBackend {
    type Stored = Bytes;

    fn read_many(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Bytes>>>> {
        block_on(self.read_entries(keys))
    }

    fn write_many(&self, entries: Vec<(&Key, Record<Bytes>)>) -> Vec<Result<()>> {
        block_on(self.write_entries(entries))
    }

    async fn read_many_async(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Bytes>>>> {
        self.read_entries(keys).await
    }

    async fn write_many_async(&self, entries: Vec<(&Key, Record<Bytes>)>) -> Vec<Result<()>> {
        self.write_entries(entries).await
    }
}

#[async_trait]
impl Clear for ObjectBackend {
    /// Lists the entries of the prefix and removes up to 250 in a request, as far as the store can. Each step has the
    /// time limit of an operation, the whole has none. Objects with other names stay. If the future of the caller is
    /// dropped, the step that was started runs to its end, and no further one.
    fn clear(&self) -> Result<()> {
        block_on(self.remove_entries())
    }

    async fn clear_async(&self) -> Result<()> {
        self.remove_entries().await
    }
}

impl ReportUsage for ObjectBackend {
    fn usage(&self) -> Usage {
        self.codec.usage()
    }
}

#[async_trait]
impl vayu_core::Leases for ObjectBackend {
    fn try_acquire(&self, key: &Key) -> Result<Lease> {
        block_on(self.acquire_lease(key))
    }

    async fn try_acquire_async(&self, key: &Key) -> Result<Lease> {
        self.acquire_lease(key).await
    }

    fn longest_pause(&self) -> Duration {
        LONGEST_PAUSE
    }
}

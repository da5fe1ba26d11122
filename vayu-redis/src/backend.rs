//! The backend: entries on a server.

use std::fmt;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use vayu_core::__internal::BatchResults;
use vayu_core::__internal::remote::EntryCodec;
use vayu_core::wire::WireKey;
use vayu_core::{
    Backend, Batches, Capabilities, Clear, Clock, InvalidationFeed, InvalidationListener, Key,
    Lease, Record, ReportUsage, Result, Usage,
};

use crate::client::{Client, Executor, run_blocking};
use crate::commands::server_failure;
use crate::error::Failure;
use crate::key_names::KeyNames;
use crate::lease::{KeyLease, Leases};
use crate::mutation::Mutation;
use crate::options::RedisOptions;
use crate::pubsub::{Channel, Message, Subscribers};
use crate::request::{self, Expiry, Request};
use crate::runtime;
use crate::scan;
use crate::server::Server;
use crate::sync_connection::SyncConnection;
use crate::watches::LeaseId;

/// A backend that stores each entry in a key of a Redis server.
///
/// A clone is the same backend.
///
/// # Behavior
///
/// An operation takes up to [`RedisOptions::timeout`]. After a few failures in a row a circuit
/// breaker opens, and no operation is sent for a while. A connection that the server or the network
/// has closed since its last use is not a failure: it is replaced, and the command is sent once
/// more. Every command may be sent twice; [`delete`](Backend::delete) may then return `false` for
/// an entry that existed.
///
/// A batch is one round trip for each 256 keys, and for each MiB that is written. Each round trip has the
/// time limit of an operation, and when the server fails, no further one is made. The keys of a batch are read
/// by one `MGET`; with TLS and on a cluster by one command each, which async callers send together and sync callers one
/// after the other.
///
/// Every entry is verified when it is read: one that is corrupt or belongs to another key counts as
/// missing and is overwritten. The server expires an entry when it may no longer be served.
///
/// Async callers need no particular executor and no timers: a background thread drives their
/// connection and enforces their timeouts. A cancelled call does not affect the connection. Sync
/// callers block their thread until the reply is received.
#[derive(Clone)]
pub struct RedisBackend {
    client: Client,
    names: Arc<KeyNames>,
    leases: Option<Arc<Leases>>,
    clock: Arc<dyn Clock>,
    subscribers: Arc<Subscribers>,
    codec: Arc<EntryCodec>,
}

impl RedisBackend {
    pub(crate) fn new(server: Server, options: RedisOptions) -> Self {
        let names = KeyNames::new(options.namespace.clone());
        let leases = options.remote.has_leases().then(|| {
            let (clock, address) = (&options.remote.breaker_clock, server.diagnostics().address());
            let channels = names.release_channels();
            Leases::new(options.remote.lease_ttl, Arc::clone(clock), Arc::clone(address), channels)
        });
        Self {
            client: Client::new(server, &options),
            names: Arc::new(names),
            subscribers: Arc::new(Subscribers::new(
                leases.as_ref().map_or_else(Weak::new, |leases| Arc::downgrade(leases.watches())),
            )),
            leases,
            codec: Arc::new(options.remote.codec()),
            clock: options.remote.clock,
        }
    }

    /// Checks that the server responds.
    pub(crate) fn ping(&self) -> Result<()> {
        let reply = self.client.execute(&request::ping());
        reply.map_err(|failure| self.client.error(failure, "connect to the Redis server"))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn max_entry_bytes(&self) -> u64 {
        self.codec.max_entry_bytes()
    }

    pub(crate) fn names(&self) -> &KeyNames {
        &self.names
    }

    fn read_request(&self, key: &WireKey) -> Request<Option<Bytes>> {
        request::read(&self.names.entry(key), self.max_entry_bytes())
    }

    /// Returns the record in the bytes of an entry.
    fn decode(
        &self,
        key: &WireKey,
        bytes: Result<Option<Bytes>, Failure>,
    ) -> Result<Option<Record<Bytes>>> {
        let bytes = bytes.map_err(|failure| self.client.error(failure, "read entry"))?;
        Ok(bytes.and_then(|bytes| self.codec.decode(key, bytes)))
    }

    /// Encodes the entry of a key and its record.
    fn encode(&self, key: &Key, record: &Record<Bytes>) -> Result<EntryWrite> {
        let (key, bytes) = self.codec.encode(key, record)?;
        let (name, message) = (self.names.entry(&key), Message::key(&key));
        Ok(EntryWrite { name, bytes, message, expiry: Expiry::of(record, self.clock.now()) })
    }

    async fn write_with<E: Executor>(
        &self,
        executor: E,
        key: &Key,
        record: Record<Bytes>,
    ) -> Result<()> {
        let entry = self.encode(key, &record)?;
        let written = entry.mutation(&self.names).execute(executor).await;
        self.written(written)
    }

    /// Returns the result of a write.
    fn written(&self, written: Result<bool, Failure>) -> Result<()> {
        written.map(drop).map_err(|failure| self.client.error(failure, "write entry"))
    }

    async fn read_many_with<E: Executor>(
        &self,
        executor: E,
        keys: &[&Key],
    ) -> Vec<Result<Option<Record<Bytes>>>> {
        let mut results = Vec::with_capacity(keys.len());
        // A failure of the server ends the batch.
        let mut failed: Option<Failure> = None;
        for keys in keys.chunks(MAX_BATCH_KEYS) {
            let keys = WireKey::of_all(keys);
            let values = match &failed {
                Some(failure) => vec![Err(failure.clone()); keys.len()],
                None => self.read_values(&executor, &keys).await,
            };
            failed = failed.or_else(|| server_failure(&values).cloned());
            let values = keys.iter().zip(values);
            results.extend(values.map(|(key, value)| self.decode(key, value)));
        }
        results
    }

    /// Reads the values of several keys in one round trip.
    async fn read_values<E: Executor>(
        &self,
        executor: &E,
        keys: &[WireKey],
    ) -> Vec<Result<Option<Bytes>, Failure>> {
        if self.client.limits_replies() && keys.len() > 1 {
            match executor.execute(&request::read_many(&self.names, keys)).await {
                Ok(values) if values.len() == keys.len() => {
                    return values.into_iter().map(Ok).collect();
                }
                Ok(_) => return vec![Err(Failure::UnexpectedReply); keys.len()],
                // The command may be refused, and a value may be too long: each key is read by itself.
                Err(failure) if failure.is_command_error() || failure.is_reply_too_long() => {}
                Err(failure) => return vec![Err(failure); keys.len()],
            }
        }
        executor.execute_all(keys.iter().map(|key| self.read_request(key)).collect()).await
    }

    async fn write_many_with<E: Executor>(
        &self,
        executor: E,
        entries: Vec<(&Key, Record<Bytes>)>,
    ) -> Vec<Result<()>> {
        let mut results = BatchResults::new(entries.len());
        let mut failed: Option<Failure> = None;
        let mut entries = entries.into_iter().enumerate().peekable();
        while entries.peek().is_some() {
            // The entries of one round trip.
            let (mut batch, mut bytes) = (Vec::new(), 0);
            while batch.len() < MAX_BATCH_KEYS && bytes < MAX_BATCH_BYTES {
                let Some((index, (key, record))) = entries.next() else { break };
                match self.encode(key, &record) {
                    Ok(entry) => {
                        bytes += entry.bytes.len();
                        batch.push((index, entry));
                    }
                    Err(error) => results.set(index, Err(error)),
                }
            }
            let mutations: Vec<_> =
                batch.iter().map(|(_, entry)| entry.mutation(&self.names)).collect();
            let written = match &failed {
                Some(failure) => vec![Err(failure.clone()); mutations.len()],
                None => {
                    executor.execute_all(mutations.iter().map(Mutation::script).collect()).await
                }
            };
            failed = failed.or_else(|| server_failure(&written).cloned());
            for ((mutation, (index, _)), written) in mutations.iter().zip(&batch).zip(written) {
                let written = mutation.finish(executor.clone(), written).await;
                results.set(*index, self.written(written));
            }
        }
        results.into_results()
    }

    async fn delete_with<E: Executor>(&self, executor: E, key: &Key) -> Result<bool> {
        let key = WireKey::new(key);
        let (name, message) = (self.names.entry(&key), Message::key(&key));
        let mutation = Mutation::delete(&name, self.names.invalidation_channel(), &message);
        let existed = mutation.execute(executor).await;
        existed.map_err(|failure| self.client.error(failure, "delete entry"))
    }

    /// Acquires the lease of a key unless it is held. A caller that `waits` for it is notified of its release.
    async fn acquire_lease_with<E: Executor>(
        &self,
        executor: E,
        key: &Key,
        waits: bool,
    ) -> Result<Lease> {
        let Some(leases) = &self.leases else { return Ok(Lease::NotRequired) };
        let key = WireKey::new(key);
        let key = KeyLease {
            name: self.names.lease(&key),
            id: LeaseId::new(&key),
            waits,
            subscribers: &self.subscribers,
            channel: &|| self.channel(),
        };
        leases.acquire(&self.client, executor, key).await
    }

    /// Returns the channels on which this process receives messages.
    fn channel(&self) -> Channel {
        Channel {
            server: Arc::clone(self.client.server()),
            name: self.names.invalidation_channel(),
            released: self.names.release_channels().one,
            timeout: self.client.timeout(),
        }
    }
}

/// The largest number of keys in one round trip. The server executes no other commands in the meantime.
const MAX_BATCH_KEYS: usize = 256;

/// The number of bytes after which no further entry is written in the same round trip.
const MAX_BATCH_BYTES: usize = 1 << 20;

/// An entry that is to be written.
struct EntryWrite {
    name: String,
    bytes: Vec<u8>,
    message: [u8; 4],
    expiry: Expiry,
}

impl EntryWrite {
    fn mutation(&self, names: &KeyNames) -> Mutation<'_> {
        let channel = names.invalidation_channel();
        Mutation::write(&self.name, &self.bytes, self.expiry, channel, &self.message)
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend").field("names", &self.names).finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for RedisBackend {
    type Stored = Bytes;

    fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let key = WireKey::new(key);
        self.decode(&key, self.client.execute(&self.read_request(&key)))
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        run_blocking(self.write_with(self.client.blocking(), key, record))
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        run_blocking(self.delete_with(self.client.blocking(), key))
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let key = WireKey::new(key);
        self.decode(&key, self.client.execute_async(&self.read_request(&key)).await)
    }

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        self.write_with(self.client.non_blocking(), key, record).await
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete_with(self.client.non_blocking(), key).await
    }

    #[inline]
    fn capabilities(&self) -> Capabilities<'_, Bytes> {
        Capabilities {
            generations: Some(self),
            invalidation_feed: Some(self),
            leases: self.leases.is_some().then_some(self as _),
            batches: Some(self),
            clear: Some(self),
            usage: Some(self),
            ..Capabilities::none()
        }
    }

    fn description(&self) -> String {
        format!("redis {}", self.client.address())
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

#[async_trait]
impl Batches for RedisBackend {
    type Stored = Bytes;

    fn read_many(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Bytes>>>> {
        run_blocking(self.read_many_with(self.client.blocking(), keys))
    }

    fn write_many(&self, entries: Vec<(&Key, Record<Bytes>)>) -> Vec<Result<()>> {
        run_blocking(self.write_many_with(self.client.blocking(), entries))
    }

    async fn read_many_async(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Bytes>>>> {
        self.read_many_with(self.client.non_blocking(), keys).await
    }

    async fn write_many_async(&self, entries: Vec<(&Key, Record<Bytes>)>) -> Vec<Result<()>> {
        self.write_many_with(self.client.non_blocking(), entries).await
    }
}

#[async_trait]
impl Clear for RedisBackend {
    /// Scans all keys of the server. Each step has the time limit of an operation, the whole has
    /// none. An invalidation is published with each page of keys, so that an interrupted clear
    /// leaves no in-memory copies of entries that it has removed.
    fn clear(&self) -> Result<()> {
        let pattern = self.names.entry_pattern();
        let publish = request::publish(&self.names.invalidation_channel(), &Message::ALL);
        let deadline = || self.client.deadline();
        let remove = |connection: &mut dyn SyncConnection| {
            scan::remove_all(connection, &pattern, &publish, deadline)
        };
        let cleared = self.client.for_each_master(&redis::cmd("SCAN"), remove);
        cleared.map_err(|failure| self.client.error(failure, "clear"))
    }

    async fn clear_async(&self) -> Result<()> {
        let this = self.clone();
        let runtime = runtime::handle().map_err(|failure| self.client.error(failure, "clear"))?;
        let client = this.client.clone();
        let task = runtime.spawn_blocking(move || this.clear());
        task.await.unwrap_or_else(|_| Err(client.error(Failure::RuntimeStopped, "clear")))
    }
}

impl ReportUsage for RedisBackend {
    fn usage(&self) -> Usage {
        self.codec.usage()
    }
}

#[async_trait]
impl vayu_core::Leases for RedisBackend {
    fn try_acquire(&self, key: &Key) -> Result<Lease> {
        run_blocking(self.acquire_lease_with(self.client.blocking(), key, false))
    }

    async fn try_acquire_async(&self, key: &Key) -> Result<Lease> {
        self.acquire_lease_with(self.client.non_blocking(), key, false).await
    }

    fn try_acquire_or_watch(&self, key: &Key) -> Result<Lease> {
        run_blocking(self.acquire_lease_with(self.client.blocking(), key, true))
    }

    async fn try_acquire_or_watch_async(&self, key: &Key) -> Result<Lease> {
        self.acquire_lease_with(self.client.non_blocking(), key, true).await
    }
}

impl InvalidationFeed for RedisBackend {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        self.subscribers.subscribe(listener, self.channel());
    }

    #[inline]
    fn is_connected(&self) -> bool {
        self.subscribers.is_connected()
    }
}

//! The backend: entries on a server.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use redis::{Cmd, Value};
use vayu_core::wire::{self, EncodedEntry, WireKey};
use vayu_core::{
    Backend, Clock, Error, ErrorKind, Generations, InvalidationFeed, InvalidationListener, Key,
    Lease, OffBackend, OpenBackend, Record, Result, SingleFlight, Usage,
};

use crate::async_connection::AsyncConnection;
use crate::breaker::{Breaker, Permit};
use crate::diagnostics::Operation;
use crate::error::Failure;
use crate::error_reply::Scope;
use crate::lease::Leases;
use crate::mutation::Mutation;
use crate::options::RedisOptions;
use crate::pool::{Pool, is_retryable};
use crate::pubsub::{self, Message, Source, Subscribers};
use crate::request::{self, Expiry, KeyNames};
use crate::runtime;
use crate::scan;
use crate::server::Server;
use crate::shared_connection::{PendingConnection, SharedConnection};
use crate::sync_connection::SyncConnection;

/// Keeps each entry in a key of a Redis server.
///
/// A clone is the same backend.
///
/// # Behavior
///
/// An operation takes no longer than [`RedisOptions::timeout`] says. After a few failures in a row the
/// server is left alone for a while. A connection that the server or the network has closed since it
/// was last used is not a failure: it is replaced, and the command is sent once more. All commands may
/// be sent twice; after that [`delete`](Backend::delete) may return `false` for an entry that existed.
///
/// Whatever is read is checked first: what is damaged, of another key or no entry at all is taken
/// for missing and overwritten. The server drops an entry when it may not be served any more.
///
/// Async callers need no particular executor and no timers: a thread of vayu's own carries their
/// connection and measures its time limits. A caller that is cancelled does not harm the connection.
/// Sync callers block their thread while the server answers.
#[derive(Clone)]
pub struct RedisBackend {
    client: Client,
    names: Arc<KeyNames>,
    leases: Option<Arc<Leases>>,
    clock: Arc<dyn Clock>,
    subscribers: Arc<Subscribers>,
    corrupt_entries: Arc<AtomicU64>,
    max_entry_bytes: u64,
}

/// The way to the server.
#[derive(Clone)]
pub(crate) struct Client(Arc<ClientInner>);

struct ClientInner {
    server: Arc<Server>,
    pool: Pool,
    shared: SharedConnection,
    breaker: Breaker,
    timeout: Duration,
}

impl Client {
    /// Returns the reply to a command.
    pub(crate) fn execute(&self, command: &Cmd) -> Result<Value, Failure> {
        let deadline = self.deadline();
        self.with_permit(command, |permit| {
            let connect = || {
                // Of many who were let in at once, those who come here late need not try, too.
                if permit.is_revoked() {
                    return Err(Failure::CircuitOpen);
                }
                self.0.server.connect(deadline)
            };
            self.0.pool.with_connection(deadline, connect, |connection| {
                connection.execute(command, deadline)
            })
        })
    }

    /// Runs what asks the server, unless that is left alone, and notes what comes of it.
    fn with_permit<T>(
        &self,
        command: &Cmd,
        ask: impl FnOnce(&Permit<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let permit = self.0.breaker.permit().ok_or(Failure::CircuitOpen)?;
        let reply = ask(&permit);
        self.record_outcome(permit, command, reply.as_ref().err());
        reply
    }

    /// Tells the breaker, and the log if it must know, what came of an attempt.
    fn record_outcome(&self, permit: Permit<'_>, command: &Cmd, failure: Option<&Failure>) {
        self.0.server.diagnostics().record(&Operation::Command(command), failure);
        match failure {
            // It was not asked.
            Some(Failure::CircuitOpen) => drop(permit),
            Some(failure) if failure.scope() == Scope::Server => {
                permit.failed();
                // The others are likely as bad.
                self.0.pool.close_idle();
            }
            _ => permit.succeeded(),
        }
    }

    /// [`ask`](Self::ask) for async callers, on any executor.
    pub(crate) async fn execute_async(&self, command: &Cmd) -> Result<Value, Failure> {
        let deadline = self.deadline();
        let permit = self.0.breaker.permit().ok_or(Failure::CircuitOpen)?;
        if permit.is_probe() {
            // What comes of a probe decides for all, so it does not end with its caller.
            let (client, command, permit) = (self.clone(), command.clone(), permit.detach());
            let probe = async move {
                let permit = permit.attach(&client.0.breaker);
                client.execute_permitted(permit, &command, deadline).await
            };
            return runtime::handle()?.spawn(probe).await.unwrap_or(Err(Failure::RuntimeStopped));
        }
        self.execute_permitted(permit, command, deadline).await
    }

    async fn execute_permitted(
        &self,
        permit: Permit<'_>,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let reply = self.execute_with_retry(&permit, command, deadline).await;
        self.record_outcome(permit, command, reply.as_ref().err());
        reply
    }

    /// Asks over the connection there is, and once more over a new one if that turns out to be of no
    /// use.
    async fn execute_with_retry(
        &self,
        permit: &Permit<'_>,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let shared = &self.0.shared;
        let (pending, is_reused) = shared.get_or_open(permit)?;
        let reply = execute_on(&pending, command, deadline).await;
        let Err(failure) = &reply else { return reply };
        if is_reused && is_retryable(failure, pending.began()) {
            shared.discard(&pending);
            let (pending, _) = shared.get_or_open(permit)?;
            let reply = execute_on(&pending, command, deadline).await;
            if reply.as_ref().is_err_and(Failure::ends_connection) {
                shared.discard(&pending);
            }
            return reply;
        }
        if failure.ends_connection() {
            shared.discard(&pending);
        }
        reply
    }

    /// How long an operation may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.0.timeout
    }
}

/// Returns the reply to a command over a connection, which may still have to be opened.
async fn execute_on(
    pending: &Arc<PendingConnection>,
    command: &Cmd,
    deadline: Instant,
) -> Result<Value, Failure> {
    if let Some(AsyncConnection::Plaintext(pipeline)) = pending.connection() {
        // It keeps the deadline itself.
        return pipeline.execute(command, deadline).await;
    }
    let (pending, command) = (Arc::clone(pending), command.clone());
    let ask = async move { pending.execute(&command, deadline).await };
    runtime::handle()?.spawn(ask).await.unwrap_or(Err(Failure::RuntimeStopped))
}

impl RedisBackend {
    pub(crate) fn new(server: Server, options: RedisOptions) -> Self {
        let leases = (options.single_flight == SingleFlight::Everywhere)
            .then(|| Leases::new(options.lease_ttl, Arc::clone(&options.breaker_clock)));
        let server = Arc::new(server);
        let inner = ClientInner {
            pool: Pool::new(options.max_connections, options.max_idle),
            shared: SharedConnection::new(Arc::clone(&server), options.max_idle),
            breaker: Breaker::new(
                options.breaker_threshold,
                options.breaker_cooldown,
                options.breaker_clock,
            ),
            timeout: server.timeout(),
            server,
        };
        Self {
            client: Client(Arc::new(inner)),
            names: Arc::new(KeyNames::new(options.namespace)),
            leases,
            clock: options.clock,
            subscribers: Arc::default(),
            corrupt_entries: Arc::default(),
            max_entry_bytes: options.max_entry_bytes,
        }
    }

    /// Asks the server whether it is there.
    pub(crate) fn ping(&self) -> Result<()> {
        match self.client.execute(&request::ping()) {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.into_error("connect to the Redis server")),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn names(&self) -> &KeyNames {
        &self.names
    }

    /// The record in an answer.
    fn decode(&self, key: &WireKey, reply: Value) -> Result<Option<Record<Bytes>>, Failure> {
        let Some(mut bytes) = request::bytes(reply)? else { return Ok(None) };
        match EncodedEntry::parse(&bytes) {
            Ok(entry) if entry.is_of(key) => {
                let (record, start) = (entry.record(()), entry.value_range().start);
                // It ends with the value. To cut off what is before allocates nothing, as a slice does.
                bytes.advance(start);
                Ok(Some(record.map(|()| bytes)))
            }
            _ => {
                self.corrupt_entries.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
        }
    }

    /// The bytes of an entry, and how long the server keeps them.
    fn encode(&self, key: &WireKey, record: &Record<Bytes>) -> Result<(Vec<u8>, Expiry)> {
        let bytes = wire::encode(key, record);
        if bytes.len() as u64 > self.max_entry_bytes {
            return Err(Error::new(
                ErrorKind::Backend,
                format!("the entry is longer than {} bytes", self.max_entry_bytes),
            ));
        }
        Ok((bytes, Expiry::of(record, self.clock.now())))
    }
}

impl OpenBackend for RedisBackend {
    type Location = String;

    fn open(url: String) -> Result<Self> {
        Ok(RedisOptions::new().connect(url)?.backend().clone())
    }
}

impl OffBackend for RedisBackend {
    /// # Panics
    ///
    /// Never: the address is one, and nothing is connected before the first operation.
    fn off() -> Self {
        let cache = RedisOptions::new().connect("redis://127.0.0.1:0").expect("an address");
        cache.backend().clone()
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
        let read = request::read(&self.names.entry(&key), self.max_entry_bytes);
        let reply = self.client.execute(&read).and_then(|reply| self.decode(&key, reply));
        reply.map_err(|failure| failure.into_error("read entry"))
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        let key = WireKey::new(key);
        let name = self.names.entry(&key);
        let ((bytes, expiry), message) = (self.encode(&key, &record)?, Message::key(&key));
        let mutation =
            Mutation::write(&name, &bytes, expiry, self.names().invalidation_channel(), &message);
        let reply = mutation.execute(&self.client);
        check_stored(reply).map_err(|failure| failure.into_error("write entry"))
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        let key = WireKey::new(key);
        let (name, message) = (self.names.entry(&key), Message::key(&key));
        let mutation = Mutation::delete(&name, self.names().invalidation_channel(), &message);
        let existed = mutation.execute(&self.client).and_then(|reply| request::done(&reply));
        existed.map_err(|failure| failure.into_error("delete entry"))
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let key = WireKey::new(key);
        let read = request::read(&self.names.entry(&key), self.max_entry_bytes);
        let reply = self.client.execute_async(&read).await;
        let record = reply.and_then(|reply| self.decode(&key, reply));
        record.map_err(|failure| failure.into_error("read entry"))
    }

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        let key = WireKey::new(key);
        let name = self.names.entry(&key);
        let ((bytes, expiry), message) = (self.encode(&key, &record)?, Message::key(&key));
        let mutation =
            Mutation::write(&name, &bytes, expiry, self.names().invalidation_channel(), &message);
        let reply = mutation.execute_async(&self.client).await;
        check_stored(reply).map_err(|failure| failure.into_error("write entry"))
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        let key = WireKey::new(key);
        let (name, message) = (self.names.entry(&key), Message::key(&key));
        let mutation = Mutation::delete(&name, self.names().invalidation_channel(), &message);
        let reply = mutation.execute_async(&self.client).await;
        let existed = reply.and_then(|reply| request::done(&reply));
        existed.map_err(|failure| failure.into_error("delete entry"))
    }

    fn try_acquire_lease(&self, key: &Key) -> Result<Lease> {
        let Some(leases) = &self.leases else { return Ok(Lease::NotRequired) };
        leases.acquire(&self.client, self.names.lease(&WireKey::new(key)))
    }

    async fn try_acquire_lease_async(&self, key: &Key) -> Result<Lease> {
        let Some(leases) = &self.leases else { return Ok(Lease::NotRequired) };
        leases.acquire_async(&self.client, self.names.lease(&WireKey::new(key))).await
    }

    /// Looks through all keys of the server. Each step has the time limit of an operation, the whole
    /// has none. Others give up their copies after each page of keys, so that what a clearing that is
    /// not completed has removed is not in their memory.
    fn clear(&self) -> Result<()> {
        let (inner, pattern) = (&self.client.0, self.names.entry_pattern());
        let deadline = || self.client.deadline();
        let publish = request::publish(&self.names().invalidation_channel(), &Message::ALL);
        let remove = |connection: &mut dyn SyncConnection| {
            scan::remove_all(connection, &pattern, &publish, deadline)
        };
        let clear = || inner.server.for_each_master(deadline, remove);
        let cleared = self.client.with_permit(&redis::cmd("SCAN"), |_| clear());
        cleared.map_err(|failure| failure.into_error("clear"))
    }

    async fn clear_async(&self) -> Result<()> {
        let this = self.clone();
        let runtime = runtime::handle().map_err(|failure| failure.into_error("clear"))?;
        let task = runtime.spawn_blocking(move || this.clear());
        task.await.unwrap_or_else(|_| Err(Failure::RuntimeStopped.into_error("clear")))
    }

    fn generations(&self) -> Option<&dyn Generations> {
        Some(self)
    }

    #[inline]
    fn invalidation_feed(&self) -> Option<&dyn InvalidationFeed> {
        Some(self)
    }

    fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        usage.corrupt_entries = Some(self.corrupt_entries.load(Ordering::Relaxed));
        usage
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

/// Whether an entry was stored.
fn check_stored(reply: Result<Value, Failure>) -> Result<(), Failure> {
    if request::done(&reply?)? { Ok(()) } else { Err(Failure::UnexpectedReply) }
}

impl InvalidationFeed for RedisBackend {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        let inner = &self.client.0;
        let server = Arc::clone(&inner.server);
        let source =
            Source { server, channel: self.names().invalidation_channel(), timeout: inner.timeout };
        pubsub::subscribe(&self.subscribers, listener, source);
    }

    fn is_connected(&self) -> bool {
        self.subscribers.is_connected()
    }
}

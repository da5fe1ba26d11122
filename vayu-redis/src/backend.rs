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

use crate::async_connection::Line;
use crate::breaker::{Breaker, Permit};
use crate::change::Change;
use crate::command::{self, Keep, Names};
use crate::error::Failure;
use crate::lease::Leases;
use crate::options::RedisOptions;
use crate::per_runtime::{Cell, Opening};
use crate::pool::{Pool, is_worth_another};
use crate::pubsub::{self, Audience, Message, Source};
use crate::reply::Scope;
use crate::runtime;
use crate::scan;
use crate::server::Server;
use crate::setup::Step;
use crate::sync_connection::Link;

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
    asking: Asking,
    names: Arc<Names>,
    leases: Option<Arc<Leases>>,
    clock: Arc<dyn Clock>,
    audience: Arc<Audience>,
    corrupt_entries: Arc<AtomicU64>,
    max_entry_bytes: u64,
}

/// The way to the server.
#[derive(Clone)]
pub(crate) struct Asking(Arc<Ways>);

struct Ways {
    server: Arc<Server>,
    pool: Pool,
    cell: Cell,
    breaker: Breaker,
    timeout: Duration,
}

impl Asking {
    /// Returns the reply to a command.
    pub(crate) fn ask(&self, command: &Cmd) -> Result<Value, Failure> {
        let deadline = self.deadline();
        self.guard(command, |permit| {
            let connect = || {
                // Of many who were let in at once, those who come here late need not try, too.
                if permit.is_outdated() {
                    return Err(Failure::Resting);
                }
                self.0.server.link(deadline)
            };
            self.0.pool.with(deadline, connect, |link| link.ask(command, deadline))
        })
    }

    /// Runs what asks the server, unless that is left alone, and notes what comes of it.
    fn guard<T>(
        &self,
        command: &Cmd,
        ask: impl FnOnce(&Permit<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let permit = self.0.breaker.permit().ok_or(Failure::Resting)?;
        let answer = ask(&permit);
        self.settle(permit, command, answer.as_ref().err());
        answer
    }

    /// Tells the breaker, and the log if it must know, what came of an attempt.
    fn settle(&self, permit: Permit<'_>, command: &Cmd, failure: Option<&Failure>) {
        self.0.server.setup().note(&Step::Command(command), failure);
        match failure {
            // It was not asked.
            Some(Failure::Resting) => drop(permit),
            Some(failure) if failure.scope() == Scope::Server => {
                permit.failed();
                // The others are likely as bad.
                self.0.pool.close_idle();
            }
            _ => permit.succeeded(),
        }
    }

    /// [`ask`](Self::ask) for async callers, on any executor.
    pub(crate) async fn ask_async(&self, command: &Cmd) -> Result<Value, Failure> {
        let deadline = self.deadline();
        let permit = self.0.breaker.permit().ok_or(Failure::Resting)?;
        if permit.is_probe() {
            // What comes of a probe decides for all, so it does not end with its caller.
            let (asking, command, permit) = (self.clone(), command.clone(), permit.detach());
            let probe = async move {
                let permit = permit.attach(&asking.0.breaker);
                asking.ask_permitted(permit, &command, deadline).await
            };
            return runtime::helper()?.spawn(probe).await.unwrap_or(Err(Failure::Helper));
        }
        self.ask_permitted(permit, command, deadline).await
    }

    async fn ask_permitted(
        &self,
        permit: Permit<'_>,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let answer = self.exchange(&permit, command, deadline).await;
        self.settle(permit, command, answer.as_ref().err());
        answer
    }

    /// Asks over the connection there is, and once more over a new one if that turns out to be of no
    /// use.
    async fn exchange(
        &self,
        permit: &Permit<'_>,
        command: &Cmd,
        deadline: Instant,
    ) -> Result<Value, Failure> {
        let cell = &self.0.cell;
        let (opening, is_reused) = cell.of_callers(permit)?;
        let answer = ask_over(&opening, command, deadline).await;
        let Err(failure) = &answer else { return answer };
        if is_reused && is_worth_another(failure, opening.began()) {
            cell.give_up(&opening);
            let (opening, _) = cell.of_callers(permit)?;
            let answer = ask_over(&opening, command, deadline).await;
            if answer.as_ref().is_err_and(Failure::ends_connection) {
                cell.give_up(&opening);
            }
            return answer;
        }
        if failure.ends_connection() {
            cell.give_up(&opening);
        }
        answer
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
async fn ask_over(
    opening: &Arc<Opening>,
    command: &Cmd,
    deadline: Instant,
) -> Result<Value, Failure> {
    if let Some(Line::Plain(talk)) = opening.line() {
        // It keeps the deadline itself.
        return talk.ask(command, deadline).await;
    }
    let (opening, command) = (Arc::clone(opening), command.clone());
    let ask = async move { opening.ask(&command, deadline).await };
    runtime::helper()?.spawn(ask).await.unwrap_or(Err(Failure::Helper))
}

impl RedisBackend {
    pub(crate) fn new(server: Server, options: RedisOptions) -> Self {
        let leases = (options.single_flight == SingleFlight::Everywhere)
            .then(|| Leases::new(options.lease_ttl, Arc::clone(&options.breaker_clock)));
        let server = Arc::new(server);
        let ways = Ways {
            pool: Pool::new(options.max_connections, options.max_idle),
            cell: Cell::new(Arc::clone(&server), options.max_idle),
            breaker: Breaker::new(options.failures, options.rest, options.breaker_clock),
            timeout: server.timeout(),
            server,
        };
        Self {
            asking: Asking(Arc::new(ways)),
            names: Arc::new(Names::new(options.namespace)),
            leases,
            clock: options.clock,
            audience: Arc::default(),
            corrupt_entries: Arc::default(),
            max_entry_bytes: options.max_entry_bytes,
        }
    }

    /// Asks the server whether it is there.
    pub(crate) fn greet(&self) -> Result<()> {
        match self.asking.ask(&command::ping()) {
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.during("connect to the Redis server")),
        }
    }

    pub(crate) fn asking(&self) -> &Asking {
        &self.asking
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// The record in an answer.
    fn unpack(&self, key: &WireKey, answer: Value) -> Result<Option<Record<Bytes>>, Failure> {
        let Some(mut bytes) = command::bytes(answer)? else { return Ok(None) };
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
    fn pack(&self, key: &WireKey, record: &Record<Bytes>) -> Result<(Vec<u8>, Keep)> {
        let bytes = wire::encode(key, record);
        if bytes.len() as u64 > self.max_entry_bytes {
            return Err(Error::new(
                ErrorKind::Backend,
                format!("the entry is longer than {} bytes", self.max_entry_bytes),
            ));
        }
        Ok((bytes, Keep::of(record, self.clock.now())))
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
        let read = command::read(&self.names.entry(&key), self.max_entry_bytes);
        let answer = self.asking.ask(&read).and_then(|answer| self.unpack(&key, answer));
        answer.map_err(|failure| failure.during("read entry"))
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        let key = WireKey::new(key);
        let name = self.names.entry(&key);
        let ((bytes, keep), message) = (self.pack(&key, &record)?, Message::key(&key));
        let change =
            Change::write(&name, &bytes, keep, self.names().invalidation_channel(), &message);
        let answer = change.make(&self.asking);
        stored(answer).map_err(|failure| failure.during("write entry"))
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        let key = WireKey::new(key);
        let (name, message) = (self.names.entry(&key), Message::key(&key));
        let change = Change::delete(&name, self.names().invalidation_channel(), &message);
        let existed = change.make(&self.asking).and_then(|answer| command::done(&answer));
        existed.map_err(|failure| failure.during("delete entry"))
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let key = WireKey::new(key);
        let read = command::read(&self.names.entry(&key), self.max_entry_bytes);
        let answer = self.asking.ask_async(&read).await;
        let record = answer.and_then(|answer| self.unpack(&key, answer));
        record.map_err(|failure| failure.during("read entry"))
    }

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        let key = WireKey::new(key);
        let name = self.names.entry(&key);
        let ((bytes, keep), message) = (self.pack(&key, &record)?, Message::key(&key));
        let change =
            Change::write(&name, &bytes, keep, self.names().invalidation_channel(), &message);
        let answer = change.make_async(&self.asking).await;
        stored(answer).map_err(|failure| failure.during("write entry"))
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        let key = WireKey::new(key);
        let (name, message) = (self.names.entry(&key), Message::key(&key));
        let change = Change::delete(&name, self.names().invalidation_channel(), &message);
        let answer = change.make_async(&self.asking).await;
        let existed = answer.and_then(|answer| command::done(&answer));
        existed.map_err(|failure| failure.during("delete entry"))
    }

    fn try_acquire_lease(&self, key: &Key) -> Result<Lease> {
        let Some(leases) = &self.leases else { return Ok(Lease::NotRequired) };
        leases.take(&self.asking, self.names.claim(&WireKey::new(key)))
    }

    async fn try_acquire_lease_async(&self, key: &Key) -> Result<Lease> {
        let Some(leases) = &self.leases else { return Ok(Lease::NotRequired) };
        leases.take_async(&self.asking, self.names.claim(&WireKey::new(key))).await
    }

    /// Looks through all keys of the server. Each step has the time limit of an operation, the whole
    /// has none. Others give up their copies after each page of keys, so that what a clearing that is
    /// not completed has removed is not in their memory.
    fn clear(&self) -> Result<()> {
        let (ways, pattern) = (&self.asking.0, self.names.entries());
        let deadline = || self.asking.deadline();
        let publish = command::publish(&self.names().invalidation_channel(), &Message::EVERYTHING);
        let remove = |link: &mut dyn Link| scan::remove_all(link, &pattern, &publish, deadline);
        let clear = || ways.server.on_each(deadline, remove);
        let cleared = self.asking.guard(&redis::cmd("SCAN"), |_| clear());
        cleared.map_err(|failure| failure.during("clear"))
    }

    async fn clear_async(&self) -> Result<()> {
        let this = self.clone();
        let runtime = runtime::helper().map_err(|failure| failure.during("clear"))?;
        let task = runtime.spawn_blocking(move || this.clear());
        task.await.unwrap_or_else(|_| Err(Failure::Helper.during("clear")))
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
fn stored(answer: Result<Value, Failure>) -> Result<(), Failure> {
    if command::done(&answer?)? { Ok(()) } else { Err(Failure::Answer) }
}

impl InvalidationFeed for RedisBackend {
    fn subscribe(&self, watcher: Weak<dyn InvalidationListener>) {
        let ways = &self.asking.0;
        let server = Arc::clone(&ways.server);
        let source =
            Source { server, channel: self.names().invalidation_channel(), patience: ways.timeout };
        pubsub::join(&self.audience, watcher, source);
    }

    fn is_connected(&self) -> bool {
        self.audience.hears()
    }
}

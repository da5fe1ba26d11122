//! Invalidation messages over publish/subscribe.
//!
//! A process publishes an invalidation with every change. A task in the background runtime
//! subscribes to the channel and notifies the in-memory tiers of this process. Messages that were
//! published while it was not connected are lost, so everything is invalidated when a connection is
//! established. A connection that receives nothing is pinged, so that a dead one is detected within
//! a bounded time.
//!
//! The same connection receives the messages for callers that wait for leases ([`crate::watches`]), on a channel of
//! this process.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};
use vayu_core::__internal::with_causes;
use vayu_core::wire::WireKey;
use vayu_core::{Invalidation, InvalidationListener};

use crate::diagnostics::Operation;
use crate::error::Failure;
use crate::request;
use crate::runtime;
use crate::server::Server;
use crate::subscription::Subscription;
use crate::sync::lock;
use crate::watches::{LeaseId, WaiterId, Watches};
use vayu_core::__internal::remote::{Process, jittered};

/// Encoded invalidations.
pub(crate) struct Message;

impl Message {
    pub(crate) const GENERATIONS: [u8; 2] = [VERSION, b'g'];
    pub(crate) const ALL: [u8; 2] = [VERSION, b'a'];

    /// Encodes the invalidation of a key.
    pub(crate) fn key(key: &WireKey) -> [u8; 4] {
        let digest = key.digest();
        [VERSION, b'k', digest[0], digest[1]]
    }

    /// Encodes the invalidation of the key whose entry has this name, which ends in the digest.
    pub(crate) fn of_name(name: &str) -> [u8; 4] {
        let start = name.len().checked_sub(64).and_then(|at| name.get(at..at + 4));
        let slot = start.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let [first, second] = slot.unwrap_or_default().to_be_bytes();
        [VERSION, b'k', first, second]
    }

    /// Encodes that a lease was released.
    pub(crate) fn released(lease: LeaseId) -> Vec<u8> {
        [&[VERSION, b'r'][..], lease.as_bytes()].concat()
    }
}

const VERSION: u8 = 1;

/// The meaning of a message.
#[derive(Debug, PartialEq)]
enum Notice {
    Changed(Invalidation),
    Released(LeaseId),
}

/// Parses a message. An unknown one may mean anything, so it invalidates everything.
fn parse(message: &[u8]) -> Notice {
    let released = message.strip_prefix(&[VERSION, b'r']);
    if let Some(lease) = released.and_then(|lease| lease.try_into().ok()) {
        return Notice::Released(LeaseId::from_bytes(lease));
    }
    Notice::Changed(match *message {
        [VERSION, b'k', first, second] => Invalidation::KeySlot([first, second]),
        [VERSION, b'g'] => Invalidation::Generations,
        _ => Invalidation::All,
    })
}

/// Time without a message after which the server is pinged. A dead connection counts as connected
/// for this long and the timeout of an operation.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// Range of the backoff between attempts to connect.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// The longest pauses between attempts to connect, in a row, for leases alone on a server that offers no messages.
const PAUSES_FOR_LEASES: u32 = 12;

/// The listeners of a cache, and the state of the task that notifies them.
#[derive(Default)]
pub(crate) struct Subscribers {
    listeners: Mutex<Vec<Weak<dyn InvalidationListener>>>,
    /// The callers that wait for leases, if the backend has any.
    watches: Weak<Watches>,
    is_running: AtomicBool,
    is_connected: AtomicBool,
    /// The [`WaiterId`] of this process, or zero while it receives no messages for callers that wait for leases.
    waiter: AtomicU64,
    first: OnceLock<(Process, Channel)>,
    /// The process of the task, if that is a child of the process that subscribed first.
    child: Mutex<Option<Process>>,
}

/// A channel of a server, and the timeout of its operations.
#[derive(Clone)]
pub(crate) struct Channel {
    pub(crate) server: Arc<Server>,
    pub(crate) name: Vec<u8>,
    /// The beginning of the names of the channels for callers that wait for leases.
    pub(crate) released: Vec<u8>,
    pub(crate) timeout: Duration,
}

impl Subscribers {
    /// Creates the state of a backend. The messages for callers that wait for leases go to `watches`.
    pub(crate) fn new(watches: Weak<Watches>) -> Self {
        Self { watches, ..Self::default() }
    }

    /// Adds a listener, and starts the task with the first one.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        listener: Weak<dyn InvalidationListener>,
        channel: Channel,
    ) {
        self.listeners().push(listener);
        self.start(channel);
    }

    /// Starts to receive messages for callers that wait for leases, for as long as there are leases.
    pub(crate) fn start_for_leases(self: &Arc<Self>, channel: impl FnOnce() -> Channel) {
        if !self.is_running.load(Ordering::Acquire) {
            self.start(channel());
        }
    }

    /// Starts the task unless it runs.
    fn start(self: &Arc<Self>, channel: Channel) {
        let (_, channel) = self.first.get_or_init(|| (Process::current(), channel));
        // In a child process the state of the task is that of the parent.
        self.is_connected();
        if !self.is_running.swap(true, Ordering::AcqRel) {
            SubscriptionTask::start(self, channel);
        }
    }

    /// Returns whether the connection is established, as far as is known.
    #[inline]
    pub(crate) fn is_connected(self: &Arc<Self>) -> bool {
        match self.first.get() {
            Some((process, channel)) if !process.is_current() => self.restart_in_child(channel),
            _ => self.is_connected.load(Ordering::Acquire),
        }
    }

    /// Returns the id by which the holder of a lease reaches this process, while it receives messages.
    pub(crate) fn waiter(self: &Arc<Self>) -> Option<WaiterId> {
        if self.is_connected() {
            WaiterId::from_number(self.waiter.load(Ordering::Acquire))
        } else {
            None
        }
    }

    /// Returns [`is_connected`](Self::is_connected) in a child of the process that subscribed. The
    /// task does not exist there, so the first call starts another one and invalidates everything.
    #[cold]
    fn restart_in_child(self: &Arc<Self>, channel: &Channel) -> bool {
        let mut child = lock(&self.child);
        if !child.as_ref().is_some_and(Process::is_current) {
            *child = Some(Process::current());
            self.set_disconnected();
            self.notify_waiting(Watches::forget_all);
            self.notify(Invalidation::All);
            self.is_running.store(true, Ordering::Release);
            SubscriptionTask::start(self, channel);
        }
        drop(child);
        self.is_connected.load(Ordering::Acquire)
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Weak<dyn InvalidationListener>>> {
        lock(&self.listeners)
    }

    fn notify(&self, invalidation: Invalidation) {
        let listeners = self.listeners().clone();
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.on_invalidation(invalidation);
        }
    }

    /// Records that no messages are received.
    fn set_disconnected(&self) {
        self.is_connected.store(false, Ordering::Release);
        self.waiter.store(0, Ordering::Release);
    }

    fn notify_waiting(&self, notify: impl FnOnce(&Watches)) {
        if let Some(watches) = self.watches.upgrade() {
            notify(&watches);
        }
    }

    /// Returns whether messages are of use, for listeners or for leases.
    fn is_needed(&self) -> bool {
        self.watches.strong_count() > 0 || self.has_listeners()
    }

    /// Returns whether there are listeners: copies in memory that are to be invalidated.
    fn has_listeners(&self) -> bool {
        let mut listeners = self.listeners();
        listeners.retain(|listener| listener.strong_count() > 0);
        !listeners.is_empty()
    }
}

struct SubscriptionTask {
    subscribers: Arc<Subscribers>,
    channel: Channel,
}

impl SubscriptionTask {
    fn start(subscribers: &Arc<Subscribers>, channel: &Channel) {
        let task = Self { subscribers: Arc::clone(subscribers), channel: channel.clone() };
        match runtime::handle() {
            Ok(runtime) => drop(runtime.spawn(task.run())),
            Err(_) => subscribers.is_running.store(false, Ordering::Release),
        }
    }

    /// Runs for as long as messages are needed.
    async fn run(self) {
        let (mut attempt, mut backoff) = (0, MIN_BACKOFF);
        while self.subscribers.is_needed() {
            let limit = self.channel.timeout;
            let connected = timeout(limit, self.connect(attempt)).await;
            let diagnostics = self.channel.server.diagnostics();
            let mut is_refused = false;
            match connected.unwrap_or(Err(Failure::Timeout(limit))) {
                Ok((subscription, messages, waiter)) => {
                    backoff = MIN_BACKOFF;
                    // Earlier messages are lost.
                    self.subscribers.notify(Invalidation::All);
                    let waiter = waiter.map_or(0, WaiterId::number);
                    self.subscribers.waiter.store(waiter, Ordering::Release);
                    self.subscribers.is_connected.store(true, Ordering::Release);
                    diagnostics.record_feed();
                    let lost = self.receive(subscription, messages).await;
                    self.subscribers.set_disconnected();
                    // Those that wait for a message poll from here on.
                    self.subscribers.notify_waiting(Watches::notify_all);
                    if let Err(failure) = lost {
                        self.record_lost(&failure);
                    }
                }
                Err(failure) => {
                    is_refused = failure.is_command_error()
                        || failure.misconfiguration().is_some()
                        || backoff == MAX_BACKOFF;
                    self.record_lost(&failure);
                }
            }
            attempt += 1;
            if is_refused {
                self.pause_for_leases().await;
            }
            sleep(jittered(backoff)).await;
            backoff = (2 * backoff).min(MAX_BACKOFF);
        }
        self.subscribers.is_running.store(false, Ordering::Release);
    }

    /// Records that no messages are received. For leases alone that is no problem: those that wait for them poll.
    fn record_lost(&self, failure: &Failure) {
        let diagnostics = self.channel.server.diagnostics();
        if self.subscribers.has_listeners() {
            diagnostics.record_lost_feed(failure);
        } else {
            tracing::debug!(
                target: "vayu",
                "redis at {}: no messages about released leases: {}",
                diagnostics.address(),
                with_causes(failure)
            );
        }
    }

    /// Waits for a minute while messages are needed for leases alone.
    async fn pause_for_leases(&self) {
        for _ in 0..PAUSES_FOR_LEASES {
            if self.subscribers.has_listeners() || !self.subscribers.is_needed() {
                break;
            }
            sleep(MAX_BACKOFF).await;
        }
    }

    async fn connect(
        &self,
        attempt: usize,
    ) -> Result<(Subscription, UnboundedReceiver<PushInfo>, Option<WaiterId>), Failure> {
        let (sender, messages) = unbounded_channel();
        let server = &self.channel.server;
        let connect = async {
            let mut subscription = server.connect_subscription(attempt, sender).await?;
            subscription.subscribe(&self.channel.name).await?;
            Ok(subscription)
        };
        let subscription = connect.await;
        // Leases work without messages.
        if subscription.is_ok() || self.subscribers.has_listeners() {
            server.diagnostics().record(&Operation::Subscribe, subscription.as_ref().err());
        }
        let mut subscription = subscription?;
        let id = WaiterId::random()?;
        let channel = [&self.channel.released[..], id.as_bytes()].concat();
        match subscription.subscribe(&channel).await {
            Ok(()) => Ok((subscription, messages, Some(id))),
            // The user may have no right to the channel. Callers that wait for leases poll.
            Err(failure) if failure.is_command_error() => Ok((subscription, messages, None)),
            Err(failure) => Err(failure),
        }
    }

    /// Notifies the listeners of received messages until there are none, or the connection is lost.
    async fn receive(
        &self,
        mut subscription: Subscription,
        mut messages: UnboundedReceiver<PushInfo>,
    ) -> Result<(), Failure> {
        while self.subscribers.is_needed() {
            match timeout(PING_INTERVAL, messages.recv()).await {
                Ok(Some(PushInfo { kind: PushKind::Message, data })) => {
                    subscription.reset_budget();
                    let notice = match data.as_slice() {
                        [_channel, Value::BulkString(message)] => parse(message),
                        _ => Notice::Changed(Invalidation::All),
                    };
                    match notice {
                        Notice::Changed(change) => self.subscribers.notify(change),
                        Notice::Released(lease) => {
                            self.subscribers.notify_waiting(|watches| watches.notify(lease));
                        }
                    }
                }
                Ok(Some(PushInfo { kind: PushKind::Subscribe, .. })) => {}
                Ok(Some(_) | None) => {
                    return Err(io::Error::from(io::ErrorKind::ConnectionAborted).into());
                }
                Err(_) => {
                    let (ping, limit) = (request::ping(), self.channel.timeout);
                    let reply = timeout(limit, subscription.send(ping.command())).await;
                    reply.unwrap_or(Err(Failure::Timeout(limit)))?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use vayu_core::Key;

    use super::*;

    #[test]
    fn unknown_message_invalidates_everything() {
        let key = WireKey::new(&Key::from_text("p", "k"));
        let digest = *key.digest();
        let invalidation = |message: &[u8]| match parse(message) {
            Notice::Changed(change) => change,
            released @ Notice::Released(_) => panic!("{released:?}"),
        };
        let slot = Invalidation::KeySlot([digest[0], digest[1]]);
        assert_eq!(invalidation(&Message::key(&key)), slot);
        assert_eq!(invalidation(&Message::GENERATIONS), Invalidation::Generations);
        assert_eq!(invalidation(&Message::ALL), Invalidation::All);
        for unknown in [&b""[..], b"\x02g", b"\x01k1", b"\x01k123", b"\x01z", b"\x01r1234567"] {
            assert_eq!(invalidation(unknown), Invalidation::All);
        }
        let lease = LeaseId::new(&key);
        assert_eq!(parse(&Message::released(lease)), Notice::Released(lease));
    }
}

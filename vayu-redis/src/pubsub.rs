//! Telling other machines what was removed, and hearing it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};
use vayu_core::wire::WireKey;
use vayu_core::{Invalidation, InvalidationListener};

use crate::diagnostics::Operation;
use crate::error::Failure;
use crate::fork::Process;
use crate::random;
use crate::request;
use crate::runtime;
use crate::server::Server;
use crate::subscription::Subscription;

/// What is published.
pub(crate) struct Message;

impl Message {
    pub(crate) const GENERATIONS: [u8; 2] = [VERSION, b'g'];
    pub(crate) const ALL: [u8; 2] = [VERSION, b'a'];

    pub(crate) fn key(key: &WireKey) -> [u8; 4] {
        let digest = key.digest();
        [VERSION, b'k', digest[0], digest[1]]
    }
}

const VERSION: u8 = 1;

/// What a message says. One that is not understood may say anything.
fn parse(message: &[u8]) -> Invalidation {
    match *message {
        [VERSION, b'k', first, second] => Invalidation::KeySlot([first, second]),
        [VERSION, b'g'] => Invalidation::Generations,
        _ => Invalidation::All,
    }
}

/// How long nothing may be heard before the server is asked whether it is still there: with the time
/// limit of an operation the longest time for which a dead connection is believed.
const PING_INTERVAL: Duration = Duration::from_secs(1);

/// The pauses between attempts to connect.
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// Those who want to hear.
#[derive(Default)]
pub(crate) struct Subscribers {
    listeners: Mutex<Vec<Weak<dyn InvalidationListener>>>,
    is_running: AtomicBool,
    is_connected: AtomicBool,
    first: OnceLock<(Process, Source)>,
    /// The process of the listener, where that is a child of the one that subscribed first.
    child: Mutex<Option<Process>>,
}

/// The server and the channel on which it publishes, and how long it may take to respond.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) server: Arc<Server>,
    pub(crate) channel: Vec<u8>,
    pub(crate) timeout: Duration,
}

impl Subscribers {
    /// Returns whether the connection stands, as far as is known.
    #[inline]
    pub(crate) fn is_connected(self: &Arc<Self>) -> bool {
        match self.first.get() {
            Some((process, source)) if !process.is_current() => self.restart_in_child(source),
            _ => self.is_connected.load(Ordering::Acquire),
        }
    }

    /// [`is_connected`](Self::is_connected) in a child of the process that subscribed. The thread that listens there
    /// does not exist here, so the first call starts another one, and no copy of before is trusted.
    #[cold]
    fn restart_in_child(self: &Arc<Self>, source: &Source) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if !child.as_ref().is_some_and(Process::is_current) {
            *child = Some(Process::current());
            self.is_connected.store(false, Ordering::Release);
            self.notify(Invalidation::All);
            self.is_running.store(true, Ordering::Release);
            SubscriptionTask::start(self, source);
        }
        drop(child);
        self.is_connected.load(Ordering::Acquire)
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<Weak<dyn InvalidationListener>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self, change: Invalidation) {
        let listeners = self.listeners().clone();
        for listener in listeners.iter().filter_map(Weak::upgrade) {
            listener.on_invalidation(change);
        }
    }

    /// Whether anybody is left.
    fn has_listeners(&self) -> bool {
        let mut listeners = self.listeners();
        listeners.retain(|listener| listener.strong_count() > 0);
        !listeners.is_empty()
    }
}

/// Adds a watcher, and begins to listen with the first.
pub(crate) fn subscribe(
    subscribers: &Arc<Subscribers>,
    listener: Weak<dyn InvalidationListener>,
    source: Source,
) {
    subscribers.listeners().push(listener);
    let (_, source) = subscribers.first.get_or_init(|| (Process::current(), source));
    // In a child, whatever was noted of a listener is of its parent.
    subscribers.is_connected();
    if !subscribers.is_running.swap(true, Ordering::AcqRel) {
        SubscriptionTask::start(subscribers, source);
    }
}

struct SubscriptionTask {
    subscribers: Arc<Subscribers>,
    source: Source,
}

impl SubscriptionTask {
    fn start(subscribers: &Arc<Subscribers>, source: &Source) {
        let listener = Self { subscribers: Arc::clone(subscribers), source: source.clone() };
        match runtime::handle() {
            Ok(runtime) => drop(runtime.spawn(listener.run())),
            Err(_) => subscribers.is_running.store(false, Ordering::Release),
        }
    }

    /// Listens for as long as there is anybody to tell.
    async fn run(self) {
        let (mut attempt, mut backoff) = (0, MIN_BACKOFF);
        while self.subscribers.has_listeners() {
            let connected = timeout(self.source.timeout, self.connect(attempt)).await;
            match connected.unwrap_or(Err(Failure::Timeout(self.source.timeout))) {
                Ok((connection, messages)) => {
                    backoff = MIN_BACKOFF;
                    // Whatever was said before is lost.
                    self.subscribers.notify(Invalidation::All);
                    self.subscribers.is_connected.store(true, Ordering::Release);
                    self.listen(connection, messages).await;
                    self.subscribers.is_connected.store(false, Ordering::Release);
                }
                Err(failure) if attempt == 0 => tracing::warn!(
                    target: "vayu",
                    error = &failure as &dyn std::error::Error,
                    "not subscribed to invalidations; in-memory copies may be stale until they \
                     expire"
                ),
                Err(_) => {}
            }
            attempt += 1;
            sleep(random::jittered(backoff)).await;
            backoff = (2 * backoff).min(MAX_BACKOFF);
        }
        self.subscribers.is_running.store(false, Ordering::Release);
    }

    async fn connect(
        &self,
        attempt: usize,
    ) -> Result<(Subscription, UnboundedReceiver<PushInfo>), Failure> {
        let (sender, messages) = unbounded_channel();
        let server = &self.source.server;
        let connect = async {
            let mut connection = server.connect_subscription(attempt, sender).await?;
            connection.subscribe(&self.source.channel).await?;
            Ok(connection)
        };
        let connection = connect.await;
        server.diagnostics().record(&Operation::Subscribe, connection.as_ref().err());
        Ok((connection?, messages))
    }

    /// Tells what is heard until the connection is broken.
    async fn listen(
        &self,
        mut connection: Subscription,
        mut messages: UnboundedReceiver<PushInfo>,
    ) {
        while self.subscribers.has_listeners() {
            match timeout(PING_INTERVAL, messages.recv()).await {
                Ok(Some(PushInfo { kind: PushKind::Message, data })) => {
                    connection.reset();
                    self.subscribers.notify(match data.as_slice() {
                        [_channel, Value::BulkString(message)] => parse(message),
                        _ => Invalidation::All,
                    });
                }
                Ok(Some(PushInfo { kind: PushKind::Subscribe, .. })) => {}
                Ok(Some(_) | None) => return,
                Err(_) => {
                    let answer =
                        timeout(self.source.timeout, connection.execute(&request::ping())).await;
                    if !matches!(answer, Ok(Ok(_))) {
                        return;
                    }
                }
            }
        }
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
        assert_eq!(parse(&Message::key(&key)), Invalidation::KeySlot([digest[0], digest[1]]));
        assert_eq!(parse(&Message::GENERATIONS), Invalidation::Generations);
        assert_eq!(parse(&Message::ALL), Invalidation::All);
        for unknown in [&b""[..], b"\x02g", b"\x01k1", b"\x01k123", b"\x01z"] {
            assert_eq!(parse(unknown), Invalidation::All);
        }
    }
}

//! Telling other machines what was removed, and hearing it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use redis::{PushInfo, PushKind, Value};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};
use vayu_core::wire::WireKey;
use vayu_core::{Invalidation, InvalidationListener};

use crate::command;
use crate::error::Failure;
use crate::fork::Process;
use crate::random;
use crate::runtime::helper;
use crate::server::Server;
use crate::setup::Step;
use crate::subscription::Subscription;

/// What is published.
pub(crate) struct Message;

impl Message {
    pub(crate) const GROUPS: [u8; 2] = [VERSION, b'g'];
    pub(crate) const EVERYTHING: [u8; 2] = [VERSION, b'a'];

    pub(crate) fn key(key: &WireKey) -> [u8; 4] {
        let digest = key.digest();
        [VERSION, b'k', digest[0], digest[1]]
    }
}

const VERSION: u8 = 1;

/// What a message says. One that is not understood may say anything.
fn read(message: &[u8]) -> Invalidation {
    match *message {
        [VERSION, b'k', first, second] => Invalidation::KeySlot([first, second]),
        [VERSION, b'g'] => Invalidation::Generations,
        _ => Invalidation::All,
    }
}

/// How long nothing may be heard before the server is asked whether it is still there: with the time
/// limit of an operation the longest time for which a dead connection is believed.
const SILENCE: Duration = Duration::from_secs(1);

/// The pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Those who want to hear.
#[derive(Default)]
pub(crate) struct Audience {
    watchers: Mutex<Vec<Weak<dyn InvalidationListener>>>,
    has_listener: AtomicBool,
    hears: AtomicBool,
    first: OnceLock<(Process, Source)>,
    /// The process of the listener, where that is a child of the one that subscribed first.
    child: Mutex<Option<Process>>,
}

/// The server and the channel on which it publishes, and how long it may take to respond.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) server: Arc<Server>,
    pub(crate) channel: Vec<u8>,
    pub(crate) patience: Duration,
}

impl Audience {
    /// Returns whether the connection stands, as far as is known.
    #[inline]
    pub(crate) fn hears(self: &Arc<Self>) -> bool {
        match self.first.get() {
            Some((process, source)) if !process.is_current() => self.hears_in_child(source),
            _ => self.hears.load(Ordering::Acquire),
        }
    }

    /// [`hears`](Self::hears) in a child of the process that subscribed. The thread that listens there
    /// does not exist here, so the first call starts another one, and no copy of before is trusted.
    #[cold]
    fn hears_in_child(self: &Arc<Self>, source: &Source) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        if !child.as_ref().is_some_and(Process::is_current) {
            *child = Some(Process::current());
            self.hears.store(false, Ordering::Release);
            self.tell(Invalidation::All);
            self.has_listener.store(true, Ordering::Release);
            Listener::start(self, source);
        }
        drop(child);
        self.hears.load(Ordering::Acquire)
    }

    fn watchers(&self) -> MutexGuard<'_, Vec<Weak<dyn InvalidationListener>>> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: Invalidation) {
        let told = self.watchers().clone();
        for watcher in told.iter().filter_map(Weak::upgrade) {
            watcher.on_invalidation(change);
        }
    }

    /// Whether anybody is left.
    fn is_attended(&self) -> bool {
        let mut watchers = self.watchers();
        watchers.retain(|watcher| watcher.strong_count() > 0);
        !watchers.is_empty()
    }
}

/// Adds a watcher, and begins to listen with the first.
pub(crate) fn join(
    audience: &Arc<Audience>,
    watcher: Weak<dyn InvalidationListener>,
    source: Source,
) {
    audience.watchers().push(watcher);
    let (_, source) = audience.first.get_or_init(|| (Process::current(), source));
    // In a child, whatever was noted of a listener is of its parent.
    audience.hears();
    if !audience.has_listener.swap(true, Ordering::AcqRel) {
        Listener::start(audience, source);
    }
}

struct Listener {
    audience: Arc<Audience>,
    source: Source,
}

impl Listener {
    fn start(audience: &Arc<Audience>, source: &Source) {
        let listener = Self { audience: Arc::clone(audience), source: source.clone() };
        match helper() {
            Ok(runtime) => drop(runtime.spawn(listener.run())),
            Err(_) => audience.has_listener.store(false, Ordering::Release),
        }
    }

    /// Listens for as long as there is anybody to tell.
    async fn run(self) {
        let (mut attempt, mut pause) = (0, FIRST_PAUSE);
        while self.audience.is_attended() {
            let connected = timeout(self.source.patience, self.connect(attempt)).await;
            match connected.unwrap_or(Err(Failure::Timeout(self.source.patience))) {
                Ok((line, heard)) => {
                    pause = FIRST_PAUSE;
                    // Whatever was said before is lost.
                    self.audience.tell(Invalidation::All);
                    self.audience.hears.store(true, Ordering::Release);
                    self.listen(line, heard).await;
                    self.audience.hears.store(false, Ordering::Release);
                }
                Err(failure) if attempt == 0 => tracing::warn!(
                    target: "vayu",
                    error = &failure as &dyn std::error::Error,
                    "copies in memory are believed until they expire: what other machines \
                     invalidate is not heard of"
                ),
                Err(_) => {}
            }
            attempt += 1;
            sleep(random::part_of(pause)).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        self.audience.has_listener.store(false, Ordering::Release);
    }

    async fn connect(
        &self,
        attempt: usize,
    ) -> Result<(Subscription, UnboundedReceiver<PushInfo>), Failure> {
        let (hear, heard) = unbounded_channel();
        let server = &self.source.server;
        let connect = async {
            let mut line = server.listener(attempt, hear).await?;
            line.subscribe(&self.source.channel).await?;
            Ok(line)
        };
        let line = connect.await;
        server.setup().note(&Step::Subscribe, line.as_ref().err());
        Ok((line?, heard))
    }

    /// Tells what is heard until the connection is broken.
    async fn listen(&self, mut line: Subscription, mut heard: UnboundedReceiver<PushInfo>) {
        while self.audience.is_attended() {
            match timeout(SILENCE, heard.recv()).await {
                Ok(Some(PushInfo { kind: PushKind::Message, data })) => {
                    line.settle();
                    self.audience.tell(match data.as_slice() {
                        [_channel, Value::BulkString(message)] => read(message),
                        _ => Invalidation::All,
                    });
                }
                Ok(Some(PushInfo { kind: PushKind::Subscribe, .. })) => {}
                Ok(Some(_) | None) => return,
                Err(_) => {
                    let answer = timeout(self.source.patience, line.ask(&command::ping())).await;
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
    fn messages_are_understood_and_others_mean_everything() {
        let key = WireKey::new(&Key::from_text("p", "k"));
        let digest = *key.digest();
        assert_eq!(read(&Message::key(&key)), Invalidation::KeySlot([digest[0], digest[1]]));
        assert_eq!(read(&Message::GROUPS), Invalidation::Generations);
        assert_eq!(read(&Message::EVERYTHING), Invalidation::All);
        for unknown in [&b""[..], b"\x02g", b"\x01k1", b"\x01k123", b"\x01z"] {
            assert_eq!(read(unknown), Invalidation::All);
        }
    }
}

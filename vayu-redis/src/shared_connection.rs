//! The connection that all async callers of a process share.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::time::timeout_at;
use vayu_core::__internal::remote::{self, Process};

use crate::async_connection::AsyncConnection;
use crate::error::Failure;
use crate::request::Replies;
use crate::runtime;
use crate::server::Server;
use crate::sync;

pub(crate) type Permit<'a> = remote::Permit<'a, Failure>;

/// The current connection, if there is one.
pub(crate) struct SharedConnection {
    server: Arc<Server>,
    /// A connection that was idle for longer may have been dropped silently by the network.
    max_idle: Duration,
    current: RwLock<Option<Arc<PendingConnection>>>,
}

/// A connection that is being opened, is open, or could not be opened.
///
/// A task of its own opens it, so the callers that wait for it share one attempt and may be
/// cancelled.
pub(crate) struct PendingConnection {
    process: Process,
    began: Instant,
    /// Time of the last use, in milliseconds since `began`.
    used: AtomicU64,
    result: watch::Sender<Option<Result<AsyncConnection, Failure>>>,
    /// Number of replies over a connection of the `redis` crate.
    replies: AtomicU64,
    /// Set when a connection of the `redis` crate has received nothing for a whole timeout.
    is_silent: AtomicBool,
}

impl SharedConnection {
    pub(crate) fn new(server: Arc<Server>, max_idle: Duration) -> Self {
        Self { server, max_idle, current: RwLock::default() }
    }

    /// Returns the connection, and whether it was open before. Starts to open a new one if there is
    /// none that can be used.
    pub(crate) fn get_or_open(
        &self,
        permit: &Permit<'_>,
    ) -> Result<(Arc<PendingConnection>, bool), Failure> {
        let known = sync::read(&self.current).clone();
        if let Some(connection) = known.filter(|connection| connection.is_usable(self.max_idle)) {
            let is_reused = connection.is_open();
            connection.mark_used();
            return Ok((connection, is_reused));
        }
        let mut current = sync::write(&self.current);
        // Another caller may have replaced it in the meantime.
        if let Some(connection) = current.as_ref().filter(|now| now.is_usable(self.max_idle)) {
            return Ok((Arc::clone(connection), connection.is_open()));
        }
        permit.check()?;
        let connection = PendingConnection::open(&self.server)?;
        let old = current.replace(Arc::clone(&connection));
        drop(current);
        // A forked child must not touch a connection of its parent, not even to close it.
        if let Some(old) = old.filter(|old| !old.process.is_current()) {
            std::mem::forget(old);
        }
        Ok((connection, false))
    }

    /// Discards a connection if it is still the current one, so that the next caller opens another.
    pub(crate) fn discard(&self, connection: &Arc<PendingConnection>) {
        let mut current = sync::write(&self.current);
        let old = current.take_if(|current| Arc::ptr_eq(current, connection));
        drop(current);
        drop(old);
    }
}

impl PendingConnection {
    fn open(server: &Arc<Server>) -> Result<Arc<Self>, Failure> {
        let pending = Arc::new(Self {
            process: Process::current(),
            began: Instant::now(),
            used: AtomicU64::new(0),
            result: watch::Sender::new(None),
            replies: AtomicU64::new(0),
            is_silent: AtomicBool::new(false),
        });
        let (this, server) = (Arc::clone(&pending), Arc::clone(server));
        runtime::handle()?.spawn(async move {
            let connection = server.connect_async().await;
            this.result.send_replace(Some(connection));
        });
        Ok(pending)
    }

    /// Returns the connection if it is open.
    pub(crate) fn get(&self) -> Option<AsyncConnection> {
        self.result.borrow().as_ref()?.as_ref().ok().cloned()
    }

    /// Waits until the connection is open.
    async fn opened(&self) -> Result<AsyncConnection, Failure> {
        let mut result = self.result.subscribe();
        let opened = result.wait_for(Option::is_some).await;
        let opened = opened.map_err(|_| Failure::RuntimeStopped)?;
        opened.clone().unwrap_or(Err(Failure::RuntimeStopped))
    }

    /// Returns the reply to a command, over a connection that may still have to be opened or is one
    /// of the `redis` crate. Must run in the background runtime.
    pub(crate) async fn send(&self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let send = async { self.opened().await?.send(command, deadline).await };
        self.receive(send, deadline).await
    }

    /// Returns the replies to several commands, like [`send`](Self::send).
    pub(crate) async fn send_all(
        &self,
        commands: &[Cmd],
        deadline: Instant,
    ) -> Result<Replies, Failure> {
        let send = async { self.opened().await?.send_all(commands, deadline).await };
        self.receive(send, deadline).await
    }

    /// Waits for a reply until the deadline.
    async fn receive<T>(
        &self,
        send: impl Future<Output = Result<T, Failure>>,
        deadline: Instant,
    ) -> Result<T, Failure> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let replies = self.replies.load(Ordering::Relaxed);
        match timeout_at(deadline.into(), send).await {
            Ok(reply) => {
                self.replies.fetch_add(1, Ordering::Relaxed);
                reply
            }
            Err(_) => {
                let has_replied = self.replies.load(Ordering::Relaxed) != replies;
                let is_silent = match self.get() {
                    // The driver of the pipeline decides.
                    None | Some(AsyncConnection::Plaintext(_)) => false,
                    #[cfg(feature = "tls")]
                    Some(AsyncConnection::Tls(_)) => !has_replied,
                    // One node may be silent while the others reply.
                    #[cfg(feature = "cluster")]
                    Some(AsyncConnection::Cluster(_)) => true,
                };
                let _ = has_replied;
                if is_silent {
                    self.is_silent.store(true, Ordering::Relaxed);
                }
                Err(Failure::Timeout(limit))
            }
        }
    }

    /// Returns when the connection was begun to be opened.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    fn is_open(&self) -> bool {
        matches!(&*self.result.borrow(), Some(Ok(_)))
    }

    fn is_usable(&self, max_idle: Duration) -> bool {
        self.process.is_current()
            && match &*self.result.borrow() {
                None => true,
                Some(Ok(_)) => {
                    self.idle_time() < max_idle && !self.is_silent.load(Ordering::Relaxed)
                }
                Some(Err(_)) => false,
            }
    }

    fn mark_used(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(since, Ordering::Relaxed);
    }

    fn idle_time(&self) -> Duration {
        let used = Duration::from_millis(self.used.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(used)
    }
}

//! The connection of async callers: all of a process share one, which the helper runtime carries.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::async_connection::AsyncConnection;
use crate::breaker::Permit;
use crate::error::Failure;
use crate::fork::Process;
use crate::runtime;
use crate::server::Server;

/// The connection, whether it is open yet or not.
pub(crate) struct SharedConnection {
    server: Arc<Server>,
    /// A connection that was idle for longer than this may have been dropped without a sign.
    max_idle: Duration,
    current: RwLock<Option<Arc<PendingConnection>>>,
}

/// A connection that is being opened, or is open, or could not be opened.
///
/// It is opened by a task of its own: callers who want it may go, and all of them have one attempt.
pub(crate) struct PendingConnection {
    process: Process,
    began: Instant,
    /// When it was used last, in milliseconds since `began`.
    used: AtomicU64,
    result: watch::Sender<Option<Result<AsyncConnection, Failure>>>,
    /// Replies to commands over a connection of the library.
    replies: AtomicU64,
    /// Whether a connection of the library was silent for as long as a reply may take.
    is_silent: AtomicBool,
}

impl SharedConnection {
    pub(crate) fn new(server: Arc<Server>, max_idle: Duration) -> Self {
        Self { server, max_idle, current: RwLock::default() }
    }

    /// Returns the connection, and whether others have used it before. Begins to open one if there is
    /// none that can be used.
    pub(crate) fn get_or_open(
        &self,
        permit: &Permit<'_>,
    ) -> Result<(Arc<PendingConnection>, bool), Failure> {
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(pending) = known.filter(|pending| pending.is_usable(self.max_idle)) {
            let is_reused = pending.is_open();
            pending.mark_used();
            return Ok((pending, is_reused));
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Another caller may have been faster.
        if let Some(pending) = current.as_ref().filter(|now| now.is_usable(self.max_idle)) {
            return Ok((Arc::clone(pending), pending.is_open()));
        }
        if permit.is_revoked() {
            return Err(Failure::CircuitOpen);
        }
        let pending = PendingConnection::open(&self.server)?;
        let old = current.replace(Arc::clone(&pending));
        drop(current);
        // In a forked process nothing may be done to a connection of the parent, not even closing it.
        if let Some(old) = old.filter(|old| !old.process.is_current()) {
            std::mem::forget(old);
        }
        Ok((pending, false))
    }

    /// Lets the next caller open another connection than this.
    pub(crate) fn discard(&self, pending: &Arc<PendingConnection>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = current.take_if(|current| Arc::ptr_eq(current, pending));
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
    pub(crate) fn connection(&self) -> Option<AsyncConnection> {
        self.result.borrow().as_ref()?.as_ref().ok().cloned()
    }

    /// Waits until the connection is open.
    pub(crate) async fn ready(&self) -> Result<AsyncConnection, Failure> {
        let mut result = self.result.subscribe();
        let opened = result.wait_for(Option::is_some).await.map_err(|_| Failure::RuntimeStopped)?;
        opened.clone().unwrap_or(Err(Failure::RuntimeStopped))
    }

    /// Returns the reply to a command, over a connection that may still have to be opened or is one of
    /// the library. Runs in the helper runtime.
    pub(crate) async fn execute(&self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let replies = self.replies.load(Ordering::Relaxed);
        let ask = async { self.ready().await?.execute(command, deadline).await };
        match timeout_at(deadline.into(), ask).await {
            Ok(reply) => {
                self.replies.fetch_add(1, Ordering::Relaxed);
                reply
            }
            Err(_) => {
                let has_replied = self.replies.load(Ordering::Relaxed) != replies;
                let is_silent = match self.connection() {
                    // Its driver decides.
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

    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    fn is_open(&self) -> bool {
        matches!(&*self.result.borrow(), Some(Ok(_)))
    }

    fn is_usable(&self, max_idle: Duration) -> bool {
        let is_of_this_process = self.process.is_current();
        is_of_this_process
            && match &*self.result.borrow() {
                None => true,
                Some(Ok(_)) => self.idle() < max_idle && !self.is_silent.load(Ordering::Relaxed),
                Some(Err(_)) => false,
            }
    }

    fn mark_used(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(since, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        self.began
            .elapsed()
            .saturating_sub(Duration::from_millis(self.used.load(Ordering::Relaxed)))
    }
}

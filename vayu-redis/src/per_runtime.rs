//! The connection of async callers: all of a process share one, which the helper runtime carries.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::async_connection::Line;
use crate::breaker::Permit;
use crate::error::Failure;
use crate::fork::Process;
use crate::runtime::helper;
use crate::server::Server;

/// The connection, whether it is open yet or not.
pub(crate) struct Cell {
    server: Arc<Server>,
    /// A connection that was idle for longer than this may have been dropped without a sign.
    max_idle: Duration,
    current: RwLock<Option<Arc<Opening>>>,
}

/// A connection that is being opened, or is open, or could not be opened.
///
/// It is opened by a task of its own: callers who want it may go, and all of them have one attempt.
pub(crate) struct Opening {
    process: Process,
    began: Instant,
    /// When it was used last, in milliseconds since `began`.
    used: AtomicU64,
    result: watch::Sender<Option<Result<Line, Failure>>>,
    /// Replies to commands over a connection of the library.
    replies: AtomicU64,
    /// Whether a connection of the library was silent for as long as a reply may take.
    is_silent: AtomicBool,
}

impl Cell {
    pub(crate) fn new(server: Arc<Server>, max_idle: Duration) -> Self {
        Self { server, max_idle, current: RwLock::default() }
    }

    /// Returns the connection, and whether others have used it before. Begins to open one if there is
    /// none that can be used.
    pub(crate) fn of_callers(&self, permit: &Permit<'_>) -> Result<(Arc<Opening>, bool), Failure> {
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(opening) = known.filter(|opening| opening.is_usable(self.max_idle)) {
            let is_reused = opening.is_open();
            opening.touch();
            return Ok((opening, is_reused));
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Another caller may have been faster.
        if let Some(opening) = current.as_ref().filter(|now| now.is_usable(self.max_idle)) {
            return Ok((Arc::clone(opening), opening.is_open()));
        }
        if permit.is_outdated() {
            return Err(Failure::Resting);
        }
        let opening = Opening::begin(&self.server)?;
        let old = current.replace(Arc::clone(&opening));
        drop(current);
        // In a forked process nothing may be done to a connection of the parent, not even closing it.
        if let Some(old) = old.filter(|old| !old.process.is_current()) {
            std::mem::forget(old);
        }
        Ok((opening, false))
    }

    /// Lets the next caller open another connection than this.
    pub(crate) fn give_up(&self, opening: &Arc<Opening>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = current.take_if(|current| Arc::ptr_eq(current, opening));
        drop(current);
        drop(old);
    }
}

impl Opening {
    fn begin(server: &Arc<Server>) -> Result<Arc<Self>, Failure> {
        let opening = Arc::new(Self {
            process: Process::current(),
            began: Instant::now(),
            used: AtomicU64::new(0),
            result: watch::Sender::new(None),
            replies: AtomicU64::new(0),
            is_silent: AtomicBool::new(false),
        });
        let (this, server) = (Arc::clone(&opening), Arc::clone(server));
        helper()?.spawn(async move {
            let line = server.line().await;
            this.result.send_replace(Some(line));
        });
        Ok(opening)
    }

    /// Returns the connection if it is open.
    pub(crate) fn line(&self) -> Option<Line> {
        self.result.borrow().as_ref()?.as_ref().ok().cloned()
    }

    /// Waits until the connection is open.
    pub(crate) async fn opened(&self) -> Result<Line, Failure> {
        let mut result = self.result.subscribe();
        let opened = result.wait_for(Option::is_some).await.map_err(|_| Failure::Helper)?;
        opened.clone().unwrap_or(Err(Failure::Helper))
    }

    /// Returns the reply to a command, over a connection that may still have to be opened or is one of
    /// the library. Runs in the helper runtime.
    pub(crate) async fn ask(&self, command: &Cmd, deadline: Instant) -> Result<Value, Failure> {
        let limit = deadline.saturating_duration_since(Instant::now());
        let replies = self.replies.load(Ordering::Relaxed);
        let ask = async { self.opened().await?.ask(command, deadline).await };
        match timeout_at(deadline.into(), ask).await {
            Ok(reply) => {
                self.replies.fetch_add(1, Ordering::Relaxed);
                reply
            }
            Err(_) => {
                let has_replied = self.replies.load(Ordering::Relaxed) != replies;
                let is_silent = match self.line() {
                    // Its driver decides.
                    None | Some(Line::Plain(_)) => false,
                    #[cfg(feature = "tls")]
                    Some(Line::Tls(_)) => !has_replied,
                    // One node may be silent while the others reply.
                    #[cfg(feature = "cluster")]
                    Some(Line::Cluster(_)) => true,
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
        let is_ours = self.process.is_current();
        is_ours
            && match &*self.result.borrow() {
                None => true,
                Some(Ok(_)) => self.idle() < max_idle && !self.is_silent.load(Ordering::Relaxed),
                Some(Err(_)) => false,
            }
    }

    fn touch(&self) {
        let since = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(since, Ordering::Relaxed);
    }

    fn idle(&self) -> Duration {
        self.began
            .elapsed()
            .saturating_sub(Duration::from_millis(self.used.load(Ordering::Relaxed)))
    }
}

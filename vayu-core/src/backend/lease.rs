//! Leases: the right to compute a key for all processes.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::key::Key;
use crate::panic::{catch_panic, clear_quietly};
use crate::per_process::ProcessId;

/// The callers among which a key is computed once at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SingleFlight {
    /// The callers of this process.
    #[default]
    Process,
    /// All processes that share the entries.
    Everywhere,
}

/// The default of the longest pause between two attempts to acquire a lease.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_millis(32);

/// The leases of a backend whose entries several processes share ([`Capabilities::leases`]).
///
/// [`Capabilities::leases`]: crate::Capabilities::leases
#[async_trait]
pub trait Leases: Send + Sync {
    /// Tries to acquire the lease for computing a key, without waiting. One caller of this process
    /// does so at a time, and again after a while where the result is [`Lease::Held`] or [`Lease::Watched`].
    ///
    /// A lease must end with its process. A future that is dropped before it is ready leaves no lease
    /// behind.
    ///
    /// # Errors
    ///
    /// When it is unknown whether the lease is held. The engine then computes.
    fn try_acquire(&self, key: &Key) -> Result<Lease>;

    /// Tries to acquire a lease, for async callers. The default calls
    /// [`try_acquire`](Self::try_acquire).
    async fn try_acquire_async(&self, key: &Key) -> Result<Lease> {
        self.try_acquire(key)
    }

    /// Tries to acquire a lease for a caller that waits if another process holds it. Only such a caller has a use for
    /// [`Lease::Watched`], so an attempt by the other methods need not cost the holder a notification. The default calls
    /// [`try_acquire`](Self::try_acquire).
    ///
    /// # Errors
    ///
    /// Those of [`try_acquire`](Self::try_acquire).
    fn try_acquire_or_watch(&self, key: &Key) -> Result<Lease> {
        self.try_acquire(key)
    }

    /// Tries to acquire a lease, for async callers that wait if another process holds it. The default calls
    /// [`try_acquire_async`](Self::try_acquire_async).
    async fn try_acquire_or_watch_async(&self, key: &Key) -> Result<Lease> {
        self.try_acquire_async(key).await
    }

    /// Returns the longest pause between two attempts to acquire a lease that another process holds, each of which also
    /// reads the entry. The pauses grow up to it. The default is 32 ms, for a backend that responds within a
    /// millisecond and does not charge for requests. The pauses for a [`Lease::Watched`] are longer.
    fn longest_pause(&self) -> Duration {
        LONGEST_PAUSE
    }
}

/// The result of an attempt to acquire the lease of a key.
#[derive(Debug)]
#[non_exhaustive]
pub enum Lease {
    /// Processes do not wait for each other.
    NotRequired,
    /// The caller computes, and other processes wait until it has released this.
    Acquired(LeaseGuard),
    /// Another process computes.
    Held,
    /// Another process computes, and the caller is notified when it has released the lease.
    Watched(LeaseWatch),
}

impl Lease {
    /// Returns the watch of a lease that another process holds.
    pub(crate) fn into_watch(self) -> Option<LeaseWatch> {
        match self {
            Self::Watched(watch) => Some(watch),
            Self::NotRequired | Self::Acquired(_) | Self::Held => None,
        }
    }
}

/// A notification that another process may have released a lease.
///
/// A caller that waits for a lease with a watch tries again as soon as the watch is ready, and in any case after a pause
/// that grows from half a second to a second. So a notification may come without a reason, and one that is lost delays
/// the caller by no more than that.
pub struct LeaseWatch(Pin<Box<dyn Future<Output = ()> + Send>>);

impl LeaseWatch {
    /// Creates a watch that is ready when `released` is. The attempt that returns the watch must have begun to watch
    /// before it found the lease held, so that a release in between is noticed.
    pub fn new(released: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(released))
    }

    /// Polls the watch. One that panics is ready.
    fn is_ready(&mut self, context: &mut Context<'_>) -> bool {
        let poll = catch_panic("watch lease", || Ok(self.0.as_mut().poll(context)));
        poll.map_or(true, |poll| poll.is_ready())
    }

    /// Polls watches, and removes those that are ready. Ready if there are any of these.
    pub(crate) fn poll_any(watches: &mut [Option<Self>], context: &mut Context<'_>) -> Poll<()> {
        let mut result = Poll::Pending;
        for watch in watches {
            if watch.as_mut().is_some_and(|watch| watch.is_ready(context)) {
                clear_quietly(watch);
                result = Poll::Ready(());
            }
        }
        result
    }
}

impl fmt::Debug for LeaseWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseWatch(..)")
    }
}

/// The right to compute a key for all processes.
///
/// The engine releases it with [`release`](Self::release) or
/// [`release_async`](Self::release_async) before the call returns. Where that is impossible, because
/// the function panics or the future of the call is dropped, the lease is dropped.
///
/// A child process that is forked has a copy of the lease, which belongs to its parent: there it is neither released nor
/// dropped.
pub struct LeaseGuard {
    lease: Option<Box<dyn ReleaseLease>>,
    process: ProcessId,
}

/// The release of a lease, as a backend implements it.
///
/// A lease that is dropped without a call of these methods is released too, by the `Drop` of the
/// implementor. That runs when the function of a call panics, and when the future of an async call is
/// dropped, possibly by a runtime that is shutting down: it must not rely on that runtime, nor block
/// for long.
#[async_trait]
pub trait ReleaseLease: Send + 'static {
    /// Releases the lease. Other processes can acquire it when this returns.
    ///
    /// # Errors
    ///
    /// When others may have to wait until it expires.
    fn release(self: Box<Self>) -> Result<()>;

    /// Releases the lease, for async callers. The default calls [`release`](Self::release).
    async fn release_async(self: Box<Self>) -> Result<()> {
        self.release()
    }
}

/// A lease that is released by being dropped.
struct Dropped<T> {
    _guard: T,
}

impl<T: Send + 'static> ReleaseLease for Dropped<T> {
    fn release(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl LeaseGuard {
    /// Creates a lease that is released when `guard` is dropped, which cannot fail and does not block.
    pub fn new(guard: impl Any + Send) -> Self {
        Self::with_release(Dropped { _guard: guard })
    }

    /// Creates a lease whose release takes a message to another process.
    pub fn with_release(lease: impl ReleaseLease) -> Self {
        Self { lease: Some(Box::new(lease)), process: ProcessId::current() }
    }

    /// Takes the lease out, unless it is that of the parent process.
    fn take(&mut self) -> Option<Box<dyn ReleaseLease>> {
        let lease = self.lease.take()?;
        if self.process.is_current() {
            return Some(lease);
        }
        mem::forget(lease);
        None
    }

    /// Releases the lease.
    ///
    /// # Errors
    ///
    /// When other processes may have to wait until it expires.
    pub fn release(mut self) -> Result<()> {
        self.take().map_or(Ok(()), ReleaseLease::release)
    }

    /// Releases the lease, for async callers.
    ///
    /// # Cancellation
    ///
    /// When the future is dropped, the lease is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`release`](Self::release).
    pub async fn release_async(mut self) -> Result<()> {
        match self.take() {
            Some(lease) => lease.release_async().await,
            None => Ok(()),
        }
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        clear_quietly(&mut self.take());
    }
}

impl fmt::Debug for LeaseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeaseGuard(..)")
    }
}

//! Handing operations over to the threads for blocking work of a tokio runtime.
//!
//! An operation waits in a slot until one of two threads takes it out and runs it: one of the
//! runtime's blocking pool, or, when the pool has no thread to spare for a while, the thread that
//! polls. The slot is locked only while the operation is taken out, so neither thread waits for the
//! other, and the future can be dropped at any time.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinError;
use vayu_core::{Clock, Error, ErrorKind, Result, SystemClock};

use crate::lock::KeyLock;

/// How long an operation is queued before the thread that polls looks whether the pool is full of
/// threads that may wait for this very operation.
const PATIENCE: Duration = Duration::from_millis(20);

/// How many operations of a backend run on blocking threads at the moment.
pub(crate) type UnderWay = AtomicUsize;

/// Set when the caller of an operation has gone.
#[derive(Debug, Default)]
pub(crate) struct CancelFlag(AtomicBool);

impl CancelFlag {
    /// The flag of a caller that waits to the end.
    pub(crate) const fn never() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The error of an operation whose caller has gone.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Backend, "the operation was cancelled")
}

/// An operation that was handed over.
struct Order<F> {
    operation: Mutex<Option<F>>,
    cancelled: CancelFlag,
}

impl<F> Order<F> {
    /// Takes the operation out, unless another thread has, or the caller has gone.
    fn take(&self) -> Option<F> {
        self.operation.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The caller's side of an order. Dropping it cancels the operation if that has not begun, and waits
/// for nothing.
struct Caller<F>(Arc<Order<F>>);

impl<F> Drop for Caller<F> {
    fn drop(&mut self) {
        self.0.cancelled.set();
        drop(self.0.take());
    }
}

/// Counts one operation until it is dropped.
struct Counted<'a>(&'a UnderWay);

impl<'a> Counted<'a> {
    fn new(count: &'a UnderWay) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs an operation on a blocking thread of the runtime. Where the pool has no thread for it for
/// [`PATIENCE`], and none is at work for this backend, it runs on the thread that polls: the threads
/// of the pool may be those of callers that wait for it.
pub(crate) async fn run<T: Send + 'static>(
    runtime: &Handle,
    under_way: Arc<UnderWay>,
    operation: impl FnOnce(&CancelFlag) -> Result<T> + Send + 'static,
) -> Result<T> {
    let order = Arc::new(Order {
        operation: Mutex::new(Some(operation)),
        cancelled: CancelFlag::default(),
    });
    let caller = Caller(Arc::clone(&order));
    let count = Arc::clone(&under_way);
    let mut task = runtime.spawn_blocking(move || {
        let operation = order.take()?;
        let _counted = Counted::new(&count);
        Some(operation(&order.cancelled))
    });
    loop {
        let mut patience = SystemClock.sleep(PATIENCE);
        let ended = poll_fn(|context| match Pin::new(&mut task).poll(context) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => patience.as_mut().poll(context).map(|()| None),
        })
        .await;
        match ended {
            Some(Ok(Some(result))) => return result,
            // A queue moves on when what is at work in front of it ends.
            None if under_way.load(Ordering::Acquire) > 0 => {}
            // The queue stands still, or the runtime has ended.
            _ => match (caller.0.take(), ended) {
                (Some(operation), _) => return operation(&caller.0.cancelled),
                // It has begun just now.
                (None, None) => {}
                (None, Some(ended)) => return Err(no_result(ended.err())),
            },
        }
    }
}

fn no_result(error: Option<JoinError>) -> Error {
    let failed = Error::new(ErrorKind::Backend, "hand over to a blocking thread");
    match error {
        Some(error) => failed.with_source(error),
        None => failed,
    }
}

/// The lock of a key that an async caller holds. It is given back at once when this is dropped;
/// its file is removed on a blocking thread.
pub(crate) struct OffloadedLock {
    lock: Option<KeyLock>,
    runtime: Handle,
}

impl OffloadedLock {
    pub(crate) fn new(lock: KeyLock, runtime: Handle) -> Self {
        Self { lock: Some(lock), runtime }
    }
}

impl Drop for OffloadedLock {
    fn drop(&mut self) {
        let Some(left) = self.lock.take().and_then(KeyLock::unlock) else { return };
        // Tokio panics where no thread can be started. The file is swept later then.
        let hand_over = || drop(self.runtime.spawn_blocking(move || left.remove()));
        let _ = catch_unwind(AssertUnwindSafe(hand_over));
    }
}

//! Running operations on the blocking threads of a tokio runtime.
//!
//! An operation waits in a slot until one of two threads takes it out and runs it: one of the runtime's
//! blocking pool, or, when the pool has no free thread for a while, the polling thread. The slot is
//! locked only while the operation is taken out, so neither thread waits for the other, and the future
//! can be dropped at any time.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinError;
use vayu_core::__internal::{IgnorePoison, catch_panic};
use vayu_core::{Clock, Error, ErrorKind, Result, SystemClock};

use crate::lock::KeyLock;

/// The time after which the polling thread checks whether a queued operation waits for threads of the
/// pool that may all wait for it.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(20);

/// The number of operations of a backend that are running on blocking threads.
pub(crate) type RunningCount = AtomicUsize;

/// A flag that is set when the caller has dropped the future of an operation.
#[derive(Debug, Default)]
pub(crate) struct CancelFlag(AtomicBool);

impl CancelFlag {
    /// Creates the flag of a caller that waits until the end.
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

/// Creates the error of a cancelled operation, which no caller receives.
pub(crate) fn cancelled() -> Error {
    Error::new(ErrorKind::Backend, "the operation was cancelled")
}

/// A queued operation.
struct Job<F> {
    operation: Mutex<Option<F>>,
    cancel: CancelFlag,
}

impl<F> Job<F> {
    /// Takes the operation out, unless another thread did, or it was cancelled.
    fn take(&self) -> Option<F> {
        self.operation.lock().ignore_poison().take()
    }
}

/// The caller's side of a job. Dropping it cancels the operation if that has not started, and never
/// waits.
struct Caller<F>(Arc<Job<F>>);

impl<F> Drop for Caller<F> {
    fn drop(&mut self) {
        self.0.cancel.set();
        drop(self.0.take());
    }
}

/// Counts one running operation until it is dropped.
struct RunningGuard<'a>(&'a RunningCount);

impl<'a> RunningGuard<'a> {
    fn new(count: &'a RunningCount) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for RunningGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Runs an operation on a blocking thread of the runtime. If the pool has no free thread for
/// [`QUEUE_TIMEOUT`] while no operation of this backend is running, it runs on the polling thread: the
/// threads of the pool may be those of callers that wait for it.
pub(crate) async fn run<T: Send + 'static>(
    runtime: &Handle,
    running: Arc<RunningCount>,
    operation: impl FnOnce(&CancelFlag) -> Result<T> + Send + 'static,
) -> Result<T> {
    let job =
        Arc::new(Job { operation: Mutex::new(Some(operation)), cancel: CancelFlag::default() });
    let caller = Caller(Arc::clone(&job));
    let count = Arc::clone(&running);
    let mut task = runtime.spawn_blocking(move || {
        let operation = job.take()?;
        let _running = RunningGuard::new(&count);
        Some(operation(&job.cancel))
    });
    loop {
        let mut timeout = SystemClock.sleep(QUEUE_TIMEOUT);
        let ended = poll_fn(|context| match Pin::new(&mut task).poll(context) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => timeout.as_mut().poll(context).map(|()| None),
        })
        .await;
        match ended {
            Some(Ok(Some(result))) => return result,
            // The queue advances when a running operation ends.
            None if running.load(Ordering::Acquire) > 0 => {}
            // The queue does not advance, or the runtime has shut down.
            _ => match (caller.0.take(), ended) {
                (Some(operation), _) => return operation(&caller.0.cancel),
                // A blocking thread has just started it.
                (None, None) => {}
                (None, Some(ended)) => return Err(no_result(ended.err())),
            },
        }
    }
}

fn no_result(error: Option<JoinError>) -> Error {
    let failed = Error::new(ErrorKind::Backend, "run on a blocking thread");
    match error {
        Some(error) => failed.with_source(error),
        None => failed,
    }
}

/// The lock of a key that an async caller holds. Dropping it releases the lock at once; a blocking
/// thread removes the file.
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
        let Some(file) = self.lock.take().and_then(KeyLock::unlock) else { return };
        // Tokio panics if it cannot start a thread. A sweep removes the file later then.
        let _ =
            catch_panic("remove lock file", || Ok(self.runtime.spawn_blocking(|| file.remove())));
    }
}

//! Running operations on the blocking threads of a tokio runtime.
//!
//! An operation waits in a slot until a thread takes it out and runs it: one of the runtime's blocking
//! pool, or, when the pool has no free thread for a while, a thread of the backend. The slot is locked
//! only while the operation is taken out, so no thread waits for another, and the future can be dropped
//! at any time.

use std::any::Any;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot::{self, Receiver, Sender};
use vayu_core::__internal::{IgnorePoison, ProcessId, catch_panic};
use vayu_core::{Clock, Error, ErrorKind, Result, SystemClock};

use crate::lock::KeyLock;

/// The time after which a queued operation is overdue: the threads of the pool may all be those of
/// callers that wait for it.
const QUEUE_TIMEOUT: Duration = Duration::from_millis(20);

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

/// The value of an operation. All operations have one type, so their way through the runtime is compiled once.
type Value = Box<dyn Any + Send>;

type Operation = Box<dyn FnOnce(&CancelFlag) -> Result<Value> + Send>;

/// A queued operation, and the channel for its result.
struct Job {
    operation: Mutex<Option<(Operation, Sender<Result<Value>>)>>,
    cancel: CancelFlag,
}

impl Job {
    fn new(operation: Operation) -> (Self, Receiver<Result<Value>>) {
        let (sender, result) = oneshot::channel();
        let operation = Mutex::new(Some((operation, sender)));
        (Self { operation, cancel: CancelFlag::default() }, result)
    }

    /// Takes the operation out, unless another thread did, or it was cancelled.
    fn take(&self) -> Option<(Operation, Sender<Result<Value>>)> {
        self.operation.lock().ignore_poison().take()
    }

    /// Runs the operation, unless it was taken out.
    fn run(&self) {
        let Some((operation, sender)) = self.take() else { return };
        let result = catch_panic("access files", || operation(&self.cancel));
        // The caller may be gone. A panic of its waker must not end the thread.
        let _ = catch_panic("wake the caller", || Ok(sender.send(result)));
    }

    /// Returns whether the operation was not taken out.
    fn is_queued(&self) -> bool {
        self.operation.lock().ignore_poison().is_some()
    }
}

/// The caller's side of a job. Dropping it cancels the operation if that has not started, and never
/// waits.
struct Caller(Arc<Job>);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.cancel.set();
        drop(self.0.take());
    }
}

/// The operations of a backend that are overdue. One thread runs them, one after the other, and ends
/// when there are none.
#[derive(Default)]
pub(crate) struct Overdue(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Arc<Job>>,
    /// The process in which the thread runs.
    thread: Option<ProcessId>,
}

impl Overdue {
    /// Lets the thread run an operation, unless it was taken out. If it cannot be started, this thread runs it.
    fn run(self: &Arc<Self>, job: Arc<Job>) {
        if !job.is_queued() {
            return;
        }
        let mut queue = self.queue();
        if queue.thread.is_some_and(ProcessId::is_current) {
            // Other threads may have taken out those that wait for one that hangs.
            while queue.jobs.front().is_some_and(|job| !job.is_queued()) {
                queue.jobs.pop_front();
            }
            queue.jobs.push_back(job);
            return;
        }
        // After a fork these are of the parent, which has the thread.
        queue.jobs.clear();
        let (this, first) = (Arc::clone(self), Arc::clone(&job));
        let thread = thread::Builder::new().name("vayu-file".to_owned());
        let started = thread.spawn(move || {
            let mut next = Some(first);
            while let Some(job) = next {
                job.run();
                next = this.next();
            }
        });
        queue.thread = started.is_ok().then(ProcessId::current);
        drop(queue);
        if started.is_err() {
            job.run();
        }
    }

    /// Returns the next operation. If there is none, the thread ends.
    fn next(&self) -> Option<Arc<Job>> {
        let mut queue = self.queue();
        let next = queue.jobs.pop_front();
        if next.is_none() {
            queue.thread = None;
        }
        next
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().ignore_poison()
    }

    /// Returns whether the thread runs.
    #[cfg(test)]
    pub(crate) fn has_thread(&self) -> bool {
        self.queue().thread.is_some()
    }
}

/// Runs an operation on a blocking thread of the runtime, or, if the pool has no free thread for
/// [`QUEUE_TIMEOUT`], on that for overdue operations. The polling thread does not wait for the disk.
pub(crate) async fn run<T: Send + 'static>(
    runtime: &Handle,
    overdue: &Arc<Overdue>,
    operation: impl FnOnce(&CancelFlag) -> Result<T> + Send + 'static,
) -> Result<T> {
    let operation = |cancel: &CancelFlag| Ok(Box::new(operation(cancel)?) as Value);
    let value = run_boxed(runtime, overdue, Box::new(operation)).await?;
    value.downcast().map(|value| *value).map_err(|_| lost())
}

async fn run_boxed(
    runtime: &Handle,
    overdue: &Arc<Overdue>,
    operation: Operation,
) -> Result<Value> {
    let (job, mut result) = Job::new(operation);
    let caller = Caller(Arc::new(job));
    let job = Arc::clone(&caller.0);
    // Its end is not waited for: when the runtime shuts down, the operation becomes overdue.
    drop(runtime.spawn_blocking(move || job.run()));
    let mut timeout = Some(SystemClock.sleep(QUEUE_TIMEOUT));
    let ended = poll_fn(|context| {
        if let Poll::Ready(ended) = Pin::new(&mut result).poll(context) {
            return Poll::Ready(ended);
        }
        if timeout.as_mut().is_some_and(|timeout| timeout.as_mut().poll(context).is_ready()) {
            timeout = None;
            overdue.run(Arc::clone(&caller.0));
        }
        Poll::Pending
    });
    ended.await.unwrap_or_else(|_| Err(lost()))
}

fn lost() -> Error {
    Error::new(ErrorKind::Backend, "run on a blocking thread")
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, channel};
    use std::task::{Context, Wake, Waker};

    use vayu_core::__internal::block_on;
    use vayu_core::testing::watchdog;

    use super::*;

    const HANG: Duration = Duration::from_secs(60);

    fn queued(operation: impl FnOnce() + Send + 'static) -> (Arc<Job>, Receiver<Result<Value>>) {
        let operation = |_: &CancelFlag| {
            operation();
            Ok(Box::new(()) as Value)
        };
        let (job, result) = Job::new(Box::new(operation));
        (Arc::new(job), result)
    }

    fn wait_for(receiver: mpsc::Receiver<()>) -> impl FnOnce() + Send + 'static {
        move || {
            let _ = receiver.recv();
        }
    }

    #[test]
    fn panic_of_a_waker_does_not_end_the_thread() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("planned");
            }
        }
        watchdog(HANG, || {
            let overdue = Arc::new(Overdue::default());
            let (start, wait) = channel();
            let (first, mut result) = queued(wait_for(wait));
            let waker = Waker::from(Arc::new(Panics));
            let mut context = Context::from_waker(&waker);
            assert!(Pin::new(&mut result).poll(&mut context).is_pending());
            let (second, ended) = queued(|| ());
            overdue.run(first);
            overdue.run(second);
            drop(start);
            block_on(ended).expect("it ran").expect("no error");
        });
    }

    #[test]
    fn operation_that_was_taken_out_is_not_overdue() {
        watchdog(HANG, || {
            let overdue = Arc::new(Overdue::default());
            let (taken, _result) = queued(|| ());
            drop(taken.take());
            overdue.run(Arc::clone(&taken));
            assert!(!overdue.has_thread(), "a thread for nothing");

            let (end, wait) = channel();
            let (hangs, _hanging) = queued(wait_for(wait));
            overdue.run(hangs);
            for _ in 0..100 {
                let (job, _result) = queued(|| ());
                overdue.run(Arc::clone(&job));
                drop(job.take());
            }
            assert!(overdue.queue().jobs.len() <= 1, "those that ran elsewhere are removed");
            drop(end);
        });
    }
}

//! Watching the calls that a piece of code makes.
//!
//! A thread has a stack of watches: those of the code that it runs at this moment. A watched future puts its
//! watch there for each poll, so the calls of another task on the thread are not in it. A call is added to
//! all watches of its thread, by the path that observers are notified on. While there are watches in the process, each
//! cache has a flag set, in the word that a hit checks for observers anyway.

use std::cell::RefCell;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::observer::CallEvent;
use crate::outcome::CallOutcome;
use crate::registry::Watching;

/// A call of a cached function, as [`watch`] returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WatchedCall {
    /// The path of the function, or the string that is its prefix.
    pub function: String,
    /// The source of the value.
    pub outcome: CallOutcome,
    /// The age of the value, if it was cached.
    pub age: Option<Duration>,
    /// The time for which the value, or the error of an error hit, is still fresh: zero past the ttl. `None` for
    /// an output that is not a stored value.
    pub ttl_left: Option<Duration>,
    /// The time that the function took to compute the value, in this call or earlier. Zero if unknown.
    pub compute_time: Duration,
}

impl WatchedCall {
    /// Returns the time that the cache has saved: that of the computation, if this call did not run the
    /// function.
    pub fn time_saved(&self) -> Duration {
        match self.outcome {
            CallOutcome::Miss | CallOutcome::Refresh => Duration::ZERO,
            _ => self.compute_time,
        }
    }
}

/// Awaits a future, and returns its output with the calls of cached functions that it made, in the order in
/// which they ended: for headers such as `Age`, `X-Cache` and `Cache-Control`.
///
/// The calls of all caches of the process are reported, sync and async ones, with those that a cached function makes
/// while it runs. Each element of a batch is a call. A call that bypasses the cache is a miss without a `ttl_left`,
/// and is reported when it begins. Watches may be nested: each gets the calls inside of it.
///
/// Calls in other threads and tasks that the future starts are not reported, nor is a refresh in the background.
/// With `spawn`, the computation of a call is in a task, but belongs to the call: it is reported. A watch that is
/// dropped or panics is without effect on others.
///
/// A watch keeps the first 10,000 calls, and leaves out later ones. A list of that length may be incomplete.
///
/// Nothing is read for it a second time. While there are watches in the process, each call checks whether it is watched.
/// Otherwise, calls cost nothing more.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
/// # use vayu_core as vayu;
/// # use std::time::Duration;
/// # use vayu::{Cache, CallOutcome, Key, MessagePack, testing::MapBackend};
/// # let cache: Cache<MapBackend, MessagePack> = Cache::new();
/// # let key = Key::from_text("squares", "12");
/// # let minute = Duration::from_secs(60);
/// # let future = std::pin::pin!(async {
/// let square = || cache.get_or_insert_with_async(&key, minute, async { 144 });
/// let (sum, calls) = vayu::watch(async { square().await + square().await }).await;
/// assert_eq!(sum, 288);
/// let outcomes: Vec<_> = calls.iter().map(|call| call.outcome).collect();
/// assert_eq!(outcomes, [CallOutcome::Miss, CallOutcome::Hit]);
/// assert!(calls.iter().all(|call| call.ttl_left <= Some(minute)));
/// # });
/// # let mut context = std::task::Context::from_waker(std::task::Waker::noop());
/// # assert!(future.poll(&mut context).is_ready());
/// # }
/// ```
pub fn watch<F: Future>(future: F) -> impl Future<Output = (F::Output, Vec<WatchedCall>)> {
    Watch { calls: Vec::new(), _watching: Watching::begin(), future }
}

/// Runs sync code, and returns its output with the calls of cached functions that it made on this thread: see
/// [`watch`].
pub fn watch_sync<T>(code: impl FnOnce() -> T) -> (T, Vec<WatchedCall>) {
    let _watching = Watching::begin();
    let mut calls = Vec::new();
    let output = in_watch(&mut calls, code);
    (output, calls)
}

pin_project! {
    /// The future of [`watch`].
    struct Watch<F> {
        calls: Vec<WatchedCall>,
        _watching: Watching,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Watch<F> {
    type Output = (F::Output, Vec<WatchedCall>);

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = in_watch(this.calls, || this.future.poll(context));
        polled.map(|output| (output, mem::take(this.calls)))
    }
}

pin_project! {
    /// A future outside of the watches of the thread that polls it, such as a refresh in the background.
    pub(crate) struct Unwatched<F> {
        #[pin]
        future: F,
    }
}

impl<F> Unwatched<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future> Future for Unwatched<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        CallsOfTask::default().collect(|| self.project().future.poll(context))
    }
}

thread_local! {
    /// The calls of each watch of the running code, the innermost last.
    static WATCHES: RefCell<Vec<Vec<WatchedCall>>> = const { RefCell::new(Vec::new()) };
}

/// Runs code whose calls are added to `calls`, also if it panics.
fn in_watch<T>(calls: &mut Vec<WatchedCall>, code: impl FnOnce() -> T) -> T {
    struct InWatch<'a>(&'a mut Vec<WatchedCall>);
    impl Drop for InWatch<'_> {
        fn drop(&mut self) {
            if let Ok(Some(calls)) = WATCHES.try_with(|watches| watches.borrow_mut().pop()) {
                *self.0 = calls;
            }
        }
    }
    let begun = mem::take(calls);
    // The destructor of a thread-local may run code of users after the watches are gone.
    if WATCHES.try_with(|watches| watches.borrow_mut().push(begun)).is_err() {
        return code();
    }
    let _watch = InWatch(calls);
    code()
}

/// The maximum number of calls of a watch.
const MAX_CALLS: usize = 10_000;

/// Adds a call to the watches of this thread.
pub(crate) fn record(call: &CallEvent<'_>) {
    let _ = WATCHES.try_with(|watches| {
        let mut watches = watches.borrow_mut();
        for calls in watches.iter_mut().filter(|calls| calls.len() < MAX_CALLS) {
            let CallEvent { function, outcome, age, ttl_left, compute_time } = *call;
            let function = function.to_owned();
            calls.push(WatchedCall { function, outcome, age, ttl_left, compute_time });
        }
    });
}

/// The calls of the part of a call that runs in a task, for the watches of its caller.
#[derive(Debug, Default)]
pub(crate) struct CallsOfTask(Option<Vec<WatchedCall>>);

impl CallsOfTask {
    /// Creates an empty list, which stays empty unless this thread is in a watch.
    pub(crate) fn new() -> Self {
        let is_watched = WATCHES.try_with(|watches| !watches.borrow().is_empty());
        Self(is_watched.unwrap_or(false).then(Vec::new))
    }

    /// Runs code of the task outside of the watches of this thread, which polls the task but has not made its calls.
    pub(crate) fn collect<T>(&mut self, code: impl FnOnce() -> T) -> T {
        struct Outside(Vec<Vec<WatchedCall>>);
        impl Drop for Outside {
            fn drop(&mut self) {
                let _ = WATCHES.try_with(|watches| watches.replace(mem::take(&mut self.0)));
            }
        }
        let _outside = WATCHES.try_with(RefCell::take).map(Outside);
        match &mut self.0 {
            Some(calls) => in_watch(calls, code),
            None => code(),
        }
    }

    /// Adds the calls to the watches of this thread.
    pub(crate) fn record(self) {
        let Some(calls) = self.0.filter(|calls| !calls.is_empty()) else { return };
        let _ = WATCHES.try_with(|watches| {
            for watch in watches.borrow_mut().iter_mut() {
                let space = MAX_CALLS - watch.len();
                watch.extend_from_slice(&calls[..calls.len().min(space)]);
            }
        });
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use std::thread;

    use super::*;
    use crate::Cache;
    use crate::serializer::{AnyValue, ByReference};
    use crate::testing::MapBackend;

    #[test]
    fn caches_are_watched_while_there_are_watches() {
        type TestCache = Cache<MapBackend<AnyValue>, ByReference>;
        let is_watched = |cache: &TestCache| cache.engine().flags().is_watched();
        let cache = TestCache::new();
        assert!(!is_watched(&cache));
        let rounds = if cfg!(miri) { 10 } else { 2_000 };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        let code = || is_watched(&cache) && is_watched(&TestCache::new());
                        assert!(watch_sync(code).0);
                    }
                });
            }
        });
        assert!(!is_watched(&cache) && !is_watched(&TestCache::new()));
        let watch = watch(async {});
        assert!(is_watched(&cache));
        drop(watch);
        assert!(!is_watched(&cache), "its future was dropped");
    }
}

//! Cached calls on a backend in memory, with and without faults.

mod backend_faults;
mod batches;
mod freshness;
mod hedges;
mod hits;
mod invalidation;
mod leaders;
mod leases;
mod recursion;
mod user_code;
mod waiting;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use crate::serializer::{AnyValue, ByReference};
use crate::testing::{FaultyBackend, ManualClock, MapBackend, watchdog};
use crate::{Cache, Key};

const MINUTE: Duration = Duration::from_secs(60);
/// The default limit of the waits of a call.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The time after which a test is considered hung.
const HANG: Duration = Duration::from_secs(if cfg!(miri) { 600 } else { 60 });

type Backend = FaultyBackend<MapBackend<AnyValue>>;
type TestCache = Cache<Backend, ByReference>;

/// A cache under test. When it is dropped, no computation may be in progress.
struct Fixture {
    cache: TestCache,
    clock: ManualClock,
    runs: AtomicUsize,
}

impl Fixture {
    fn new() -> Arc<Self> {
        let clock = ManualClock::new();
        let backend = FaultyBackend::new(MapBackend::with_clock(clock.clone()));
        Arc::new(Self { cache: Cache::with_backend(backend), clock, runs: AtomicUsize::new(0) })
    }

    /// Counts one run of a body.
    fn run(&self) -> usize {
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    /// Waits until at least this many callers wait for a computation of another one.
    fn until_waiting(&self, callers: usize) {
        until(|| self.clock.sleepers() >= callers);
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(self.cache.stats().in_flight, 0, "flights that were never completed");
        }
    }
}

fn key(text: &str) -> Key {
    Key::from_text("test", text)
}

/// Yields to other threads until a condition holds. The watchdog ends a test in which it never does.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

/// A waker that counts its calls.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future that is polled by hand.
struct Task<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    wakes: Arc<Wakes>,
}

impl<'a, T> Task<'a, T> {
    fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self { future: Box::pin(future), wakes: Arc::default() }
    }

    fn poll(&mut self) -> Poll<T> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }
}

/// A future that is pending for this many polls.
struct Yield(usize);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.0 == 0 {
            return Poll::Ready(());
        }
        self.0 -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

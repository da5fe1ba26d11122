//! The end of runs in the background. A program of its own: they are counted in the process.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use vayu::testing::{ManualClock, watchdog};
use vayu::{MemoryCache, MemoryOptions, cached, finish_background, finish_background_async};

const LONG: Duration = Duration::from_secs(600);

/// A source that responds once it is open.
#[derive(Default)]
struct Source {
    is_open: AtomicBool,
    is_called: AtomicBool,
    opened: tokio::sync::Notify,
}

impl Source {
    fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    async fn query(&self) -> u8 {
        self.is_called.store(true, Ordering::SeqCst);
        while !self.is_open.load(Ordering::SeqCst) {
            self.opened.notified().await;
        }
        7
    }
}

#[cached(cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = tokio::spawn)]
async fn stale(cache: MemoryCache, source: Arc<Source>) -> u8 {
    source.query().await
}

#[cached(cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = tokio::spawn, patience = "50ms")]
async fn patient(cache: MemoryCache, source: Arc<Source>) -> u8 {
    source.query().await
}

#[cached(cache = cache, ttl = "1m", key = "k", spawn = tokio::spawn)]
async fn spawned(cache: MemoryCache, source: Arc<Source>) -> u8 {
    source.query().await
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

type Call = fn(MemoryCache, Arc<Source>) -> Pin<Box<dyn Future<Output = u8> + Send>>;

#[test]
fn end_of_all_runs_in_the_background_is_awaited() {
    let calls: [Call; 3] = [
        |cache, source| Box::pin(stale(cache, source)),
        |cache, source| Box::pin(patient(cache, source)),
        |cache, source| Box::pin(spawned(cache, source)),
    ];
    watchdog(LONG / 10, move || {
        for call in calls {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
            runtime.expect("a runtime").block_on(one_run(call));
            assert!(finish_background(Duration::ZERO), "its task was dropped");
        }
        one_run_in_a_thread();
    });
}

#[cached(cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = std::thread::spawn)]
fn in_a_thread(cache: MemoryCache, source: Arc<Source>) -> u8 {
    source.is_called.store(true, Ordering::SeqCst);
    while !source.is_open.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    7
}

fn one_run_in_a_thread() {
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let source = Arc::new(Source::default());
    source.open();
    assert_eq!(in_a_thread(cache.clone(), source), 7);
    clock.advance(Duration::from_secs(60));
    let source = Arc::new(Source::default());
    assert_eq!(in_a_thread(cache.clone(), Arc::clone(&source)), 7);
    assert!(!finish_background(Duration::ZERO));
    source.open();
    assert!(finish_background(LONG));
    assert_eq!((cache.stats().refreshes, cache.stats().in_flight), (1, 0), "its value is stored");
}

async fn one_run(call: Call) {
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    assert!(finish_background(LONG), "there is none");
    let open = Arc::new(Source::default());
    open.open();
    assert_eq!(call(cache.clone(), open).await, 7);
    assert!(finish_background_async(LONG).await);
    clock.advance(Duration::from_secs(60));
    let source = Arc::new(Source::default());
    // A caller that gives up.
    let _ = poll(call(cache.clone(), Arc::clone(&source)).as_mut());
    while !source.is_called.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    assert!(!finish_background(Duration::ZERO) && !finish_background_async(Duration::ZERO).await);
    let mut finished = pin!(finish_background_async(LONG));
    assert!(poll(finished.as_mut()).is_pending());
    source.open();
    let finished_sync = tokio::task::spawn_blocking(|| finish_background(LONG));
    assert!(finished.await && finished_sync.await.expect("no panic"));
    let stats = cache.stats();
    assert_eq!((stats.inserts, stats.in_flight), (2, 0), "its value is stored");
    // One that never ends is dropped with the runtime.
    clock.advance(Duration::from_secs(60));
    let _ = poll(call(cache, Arc::new(Source::default())).as_mut());
    assert!(!finish_background(Duration::ZERO));
}

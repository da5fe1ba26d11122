//! `spawn = ..`: stale values that a task refreshes.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Cache, ErrorKind, MemoryCache, MemoryOptions, cached};

use crate::{HANG, with_every_backend};

#[derive(Debug, Default)]
struct Source {
    runs: AtomicU32,
    is_down: AtomicBool,
}

impl Source {
    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
}

#[cached(cache = cache, ttl = "1m", stale = "30s", spawn = tokio::spawn, key = "k", cache_if = |v: &u32| *v > 0)]
async fn call<B, S>(cache: Cache<B, S>, source: Arc<Source>) -> Result<u32, String>
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    let run = source.runs.fetch_add(1, Ordering::SeqCst) + 1;
    tokio::task::yield_now().await;
    if source.is_down.load(Ordering::SeqCst) { Err("down".to_owned()) } else { Ok(run) }
}

/// Runs tasks until the expected number has run, or for a few more rounds.
async fn let_tasks_run() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

fn follow_a_task<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let clock = ManualClock::new();
        let cache = open(clock.clone());
        let source = Arc::new(Source::default());
        let ask = || call(cache.clone(), Arc::clone(&source));
        let pass = |seconds| clock.advance(Duration::from_secs(seconds));

        assert_eq!(ask().await, Ok(1));
        pass(60);
        assert_eq!(ask().await, Ok(1), "the one that finds it past its ttl does not wait");
        assert_eq!(ask().await, Ok(1), "nor do the others");
        assert_eq!(source.runs(), 1, "it has not run yet");
        let_tasks_run().await;
        assert_eq!(source.runs(), 2, "once");
        assert_eq!(ask().await, Ok(2));

        pass(60);
        source.is_down.store(true, Ordering::SeqCst);
        for expected in [3, 3, 4] {
            assert_eq!(ask().await, Ok(2), "the source is down");
            let_tasks_run().await;
            assert_eq!(source.runs(), expected);
            pass(if expected == 3 { 3 } else { 0 });
        }
        assert_eq!(cache.stats().failed_refreshes, 2);
        source.is_down.store(false, Ordering::SeqCst);
        pass(5);
        assert_eq!(ask().await, Ok(2));
        let_tasks_run().await;
        assert_eq!(ask().await, Ok(5));
        pass(90);
        assert_eq!(ask().await, Ok(6), "too old to be served");
        assert_eq!(cache.stats().in_flight, 0);
    });
}

#[test]
fn spawned_refresh_works_on_every_backend() {
    watchdog(HANG, || with_every_backend!(follow_a_task));
}

#[test]
fn thousand_callers_at_expiry_do_not_wait() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let source = Arc::new(Source::default());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        runtime.expect("a runtime").block_on(async {
            call(cache.clone(), Arc::clone(&source)).await.unwrap();
            clock.advance(Duration::from_secs(60));
            let tasks: Vec<_> = (0..1_000)
                .map(|_| tokio::spawn(call(cache.clone(), Arc::clone(&source))))
                .collect();
            for task in tasks {
                assert!(task.await.expect("no panic").unwrap() <= 2);
            }
            while source.runs() < 2 || cache.stats().in_flight > 0 {
                tokio::task::yield_now().await;
            }
        });
        let stats = cache.stats();
        assert_eq!((source.runs(), stats.refreshes, stats.coalesced), (2, 1, 0));
    });
}

#[test]
fn failure_to_spawn_does_not_affect_the_call() {
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let source = Arc::new(Source::default());
    let ask = || smol::block_on(call(cache.clone(), Arc::clone(&source)));
    assert_eq!(ask(), Ok(1));
    clock.advance(Duration::from_secs(60));
    assert_eq!(ask(), Ok(1), "without a tokio runtime");
    assert_eq!(cache.stats().errors_of(ErrorKind::Panic), 1);
    clock.advance(Duration::from_secs(30));
    assert_eq!(ask(), Ok(2));
}

#[test]
fn number_of_tasks_is_limited() {
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = n.to_string(), spawn = tokio::spawn)]
    async fn call(cache: MemoryCache, source: Arc<Source>, n: u32) -> u32 {
        let run = source.runs.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        run + n
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let source = Arc::new(Source::default());
        let ask_all = async || {
            for n in 0..5 {
                call(cache.clone(), Arc::clone(&source), n).await;
            }
        };
        ask_all().await;
        cache.set_max_background_refreshes(2);
        clock.advance(Duration::from_secs(60));
        for expected in [7, 9, 10, 10] {
            ask_all().await;
            ask_all().await;
            let_tasks_run().await;
            assert_eq!(source.runs(), expected);
        }
    });
}

#[test]
fn runs_that_hang_do_not_end_the_refreshes_of_other_functions() {
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = n.to_string(), spawn = tokio::spawn)]
    async fn hangs(cache: MemoryCache, n: u32, is_hanging: bool) -> u32 {
        if is_hanging { pending().await } else { n }
    }
    #[cached(
        cache = cache, ttl = "1m", stale = "1h", key = n.to_string(), spawn = tokio::spawn, patience = "50ms"
    )]
    async fn hangs_patiently(cache: MemoryCache, n: u32, is_hanging: bool) -> u32 {
        if is_hanging { pending().await } else { n }
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = tokio::spawn)]
    async fn works(cache: MemoryCache, runs: Arc<AtomicU32>) -> u32 {
        runs.fetch_add(1, Ordering::SeqCst)
    }
    // Together, the default limit.
    const RUNS: u32 = 128;
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let runs = Arc::new(AtomicU32::new(0));
        let ask_all = async |is_hanging| {
            for n in 0..RUNS {
                assert_eq!(hangs(cache.clone(), n, is_hanging).await, n);
                let waiting = tokio::spawn(hangs_patiently(cache.clone(), n, is_hanging));
                let_tasks_run().await;
                clock.advance(Duration::from_millis(50));
                assert_eq!(waiting.await.expect("no panic"), n);
            }
        };
        let work = async || works(cache.clone(), Arc::clone(&runs)).await;
        ask_all(false).await;
        assert_eq!(work().await, 0);
        clock.advance(Duration::from_secs(60));
        ask_all(true).await;
        assert_eq!(cache.stats().in_flight, 2 * RUNS as usize);
        assert_eq!(work().await, 0);
        let_tasks_run().await;
        assert_eq!(work().await, 0, "the limit");
        clock.advance(Duration::from_secs(30));
        assert_eq!(work().await, 0);
        let_tasks_run().await;
        assert_eq!(work().await, 1, "the new value");
    });
}

#[test]
fn every_executor_and_every_form_of_spawn_works() {
    struct Shop(MemoryCache, AtomicU32);
    impl Shop {
        #[cached(
            cache = self.0, ttl = |_: &u32| Duration::from_secs(60), stale = 60, tags("{sku}"), version = 2,
            spawn = |task| smol::spawn(task).detach(), handle = price_entry
        )]
        async fn price(self: Arc<Self>, sku: String) -> u32 {
            drop(sku);
            self.1.fetch_add(1, Ordering::SeqCst)
        }
    }
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let shop = Arc::new(Shop(cache, AtomicU32::new(0)));
        let ask = || smol::block_on(Arc::clone(&shop).price("tea".to_owned()));
        assert_eq!((ask(), ask()), (0, 0));
        clock.advance(Duration::from_secs(60));
        assert_eq!(ask(), 0);
        crate::until(|| shop.0.stats().refreshes == 1);
        assert_eq!(ask(), 1);
        let entry = Arc::clone(&shop).price_entry("tea".to_owned());
        assert_eq!(smol::block_on(entry.refresh_async()), 2);
        assert_eq!(ask(), 2);
    });
}

#[test]
fn caller_that_is_dropped_gives_up_the_lead_before_its_body_is_dropped() {
    /// Records how many flights are running when it is dropped.
    struct Flights(MemoryCache, Arc<Mutex<Vec<usize>>>);
    impl Drop for Flights {
        fn drop(&mut self) {
            self.1.lock().expect("no panic").push(self.0.stats().in_flight);
        }
    }
    #[cached(cache = cache, ttl = 60, stale = 60, spawn = tokio::spawn, key = "k")]
    async fn hanging(cache: MemoryCache, flights: Arc<Mutex<Vec<usize>>>) -> u32 {
        let _flights = Flights(cache, flights);
        pending().await
    }
    let cache = MemoryOptions::new().build();
    let flights: Arc<Mutex<Vec<usize>>> = Arc::default();
    let mut call = Box::pin(hanging(cache.clone(), Arc::clone(&flights)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(call.as_mut().poll(&mut context).is_pending());
    assert_eq!(cache.stats().in_flight, 1);
    drop(call);
    assert_eq!(*flights.lock().expect("no panic"), [0]);
}

#[test]
fn cancelled_refresh_is_retried_after_a_backoff() {
    #[cached(cache = cache, ttl = 60, stale = 60, key = "k")]
    async fn hanging(cache: &MemoryCache, first: bool) -> u32 {
        if !first {
            std::future::pending::<()>().await;
        }
        cache.stats().misses as u32
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    assert_eq!(smol::block_on(hanging(&cache, true)), 1);
    clock.advance(Duration::from_secs(60));
    let give_up = || {
        let mut call = std::pin::pin!(hanging(&cache, false));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        call.as_mut().poll(&mut context)
    };
    assert!(give_up().is_pending(), "this one refreshes, and gives up");
    assert_eq!(give_up(), std::task::Poll::Ready(1), "the others get the old value");
    clock.advance(Duration::from_secs(5));
    assert!(give_up().is_pending(), "until the pause is over");
}

#[test]
fn stale_value_is_not_served_after_a_slow_failure() {
    #[cached(cache = cache, ttl = 60, stale = 60, key = "k")]
    fn slow(cache: &MemoryCache, clock: &ManualClock, takes: u64) -> Result<u32, ()> {
        clock.advance(Duration::from_secs(takes));
        if takes == 0 { Ok(1) } else { Err(()) }
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    assert_eq!(slow(&cache, &clock, 0), Ok(1));
    clock.advance(Duration::from_secs(60));
    assert_eq!(slow(&cache, &clock, 30), Ok(1));
    assert_eq!(slow(&cache, &clock, 30), Ok(1), "in the pause");
    clock.advance(Duration::from_secs(5));
    assert_eq!(slow(&cache, &clock, 30), Err(()));
}

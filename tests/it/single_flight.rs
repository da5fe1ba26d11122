//! Single flight: many callers of one key, on threads, tasks and several executors.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier, LazyLock};
use std::thread;
use std::time::Duration;

use vayu::backend::{AnyValue, ByReference};
use vayu::testing::{ManualClock, MapBackend, watchdog};
use vayu::{Cache, MemoryCache, MemoryOptions, cached};

use crate::{HANG, Runs, until};

/// A cache whose clock counts the callers that wait for the leader.
type Watched = Cache<MapBackend<AnyValue>, ByReference>;

fn watched() -> (Watched, ManualClock) {
    let clock = ManualClock::new();
    (Cache::with_backend(MapBackend::with_clock(clock.clone())), clock)
}

/// Yields in a body until all other callers wait.
async fn until_async(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn sixty_four_threads_on_one_cold_key_compute_once() {
    static RUNS: Runs = Runs::new();
    static CACHE: LazyLock<(Watched, ManualClock)> = LazyLock::new(watched);
    #[cached(cache = CACHE.0, ttl = 60)]
    fn slow(n: u64) -> usize {
        let _ = n;
        until(|| CACHE.1.sleepers() == 63);
        RUNS.count()
    }
    watchdog(HANG, || {
        let barrier = Barrier::new(64);
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    barrier.wait();
                    assert_eq!(slow(7), 1);
                });
            }
        });
        let stats = CACHE.0.stats();
        assert_eq!((stats.misses, stats.coalesced, stats.hits, stats.in_flight), (1, 63, 0, 0));
    });
}

#[test]
fn thousand_tasks_on_one_cold_key_compute_once() {
    for workers in [1, 2] {
        static RUNS: Runs = Runs::new();
        #[cached(cache = cache, ttl = 60, key = "k")]
        async fn slow(cache: Watched, clock: ManualClock) -> usize {
            until_async(|| clock.sleepers() == 999).await;
            RUNS.count()
        }
        watchdog(HANG, move || {
            let runtime = runtime(workers);
            let (cache, clock) = watched();
            let expected = RUNS.get() + 1;
            runtime.block_on(async {
                let tasks: Vec<_> =
                    (0..1000).map(|_| tokio::spawn(slow(cache.clone(), clock.clone()))).collect();
                for task in tasks {
                    assert_eq!(task.await.expect("no panic"), expected);
                }
            });
            let stats = cache.stats();
            assert_eq!((stats.misses, stats.coalesced, stats.in_flight), (1, 999, 0));
        });
    }
}

fn runtime(workers: usize) -> tokio::runtime::Runtime {
    let mut builder = if workers == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.worker_threads(workers).enable_time().build().expect("a runtime")
}

#[test]
fn sync_threads_and_async_tasks_on_one_key_compute_once() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, prefix = "both", key = "k")]
    fn from_threads(cache: &Watched, clock: &ManualClock) -> usize {
        until(|| clock.sleepers() == 63);
        RUNS.count()
    }
    #[cached(cache = cache, ttl = 60, prefix = "both", key = "k")]
    async fn from_tasks(cache: Watched, clock: ManualClock) -> usize {
        until_async(|| clock.sleepers() == 63).await;
        RUNS.count()
    }
    watchdog(HANG, || {
        for round in 1..=20 {
            let (cache, clock) = watched();
            let runtime = runtime(2);
            thread::scope(|scope| {
                for _ in 0..32 {
                    scope.spawn(|| assert_eq!(from_threads(&cache, &clock), round));
                }
                runtime.block_on(async {
                    let task = || tokio::spawn(from_tasks(cache.clone(), clock.clone()));
                    let tasks: Vec<_> = (0..32).map(|_| task()).collect();
                    for task in tasks {
                        assert_eq!(task.await.expect("no panic"), round);
                    }
                });
            });
            assert_eq!((RUNS.get(), cache.stats().in_flight), (round, 0));
        }
    });
}

#[test]
fn sync_call_inside_of_a_runtime_of_one_thread_does_not_block_the_leader() {
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = CACHE, ttl = 60, prefix = "shared", key = "k")]
    fn sync_call() -> &'static str {
        "sync"
    }
    #[cached(cache = CACHE, ttl = 60, prefix = "shared", key = "k")]
    async fn async_call() -> &'static str {
        tokio::task::yield_now().await;
        "async"
    }
    watchdog(HANG, || {
        runtime(1).block_on(async {
            let leader = tokio::spawn(async_call());
            until_async(|| CACHE.stats().in_flight == 1).await;
            assert_eq!(sync_call(), "sync", "computed beside the leader");
            assert_eq!(leader.await.expect("no panic"), "async");
            assert_eq!(sync_call(), "async", "what the leader stored");
        });
    });
}

#[test]
fn dropped_runtime_wakes_waiters_on_other_runtimes() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn call(cache: Watched) -> usize {
        let run = RUNS.count();
        if run == 1 {
            std::future::pending::<()>().await;
        }
        run
    }
    watchdog(HANG, || {
        let (cache, clock) = watched();
        let doomed = runtime(2);
        doomed.spawn(call(cache.clone()));
        until(|| RUNS.get() == 1);
        let waiter = {
            let cache = cache.clone();
            thread::spawn(move || runtime(1).block_on(call(cache)))
        };
        until(|| clock.sleepers() == 1);
        doomed.shutdown_background();
        assert_eq!(waiter.join().expect("no panic"), 2);
    });
}

#[test]
fn executors_other_than_tokio_work() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60)]
    async fn call(executor: &'static str) -> usize {
        smol::future::yield_now().await;
        let _ = executor;
        RUNS.count()
    }
    watchdog(HANG, || {
        let smol_runs = smol::block_on(async {
            let executor = smol::Executor::new();
            let tasks: Vec<_> = (0..100).map(|_| executor.spawn(call("smol"))).collect();
            executor
                .run(async {
                    let mut runs = Vec::new();
                    for task in tasks {
                        runs.push(task.await);
                    }
                    runs
                })
                .await
        });
        assert_eq!(smol_runs, [1; 100]);
        // A minimal executor.
        let mut call = std::pin::pin!(call("by hand"));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let output = loop {
            if let std::task::Poll::Ready(run) = call.as_mut().poll(&mut context) {
                break run;
            }
        };
        assert_eq!(output, 2);
    });
}

#[test]
fn waiter_on_another_executor_is_woken() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn call(cache: Watched, clock: ManualClock) -> usize {
        until_async(|| clock.sleepers() == 2).await;
        RUNS.count()
    }
    watchdog(HANG, || {
        let (cache, clock) = watched();
        let call = || call(cache.clone(), clock.clone());
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(runtime(1).block_on(call()), 1));
            scope.spawn(|| assert_eq!(runtime(2).block_on(call()), 1));
            scope.spawn(|| assert_eq!(smol::block_on(call()), 1));
        });
    });
}

#[test]
fn panicking_leader_keeps_its_panic_and_the_others_get_a_value() {
    static RUNS: Runs = Runs::new();
    static CACHE: LazyLock<(Watched, ManualClock)> = LazyLock::new(watched);
    #[cached(cache = CACHE.0, ttl = 60)]
    fn call() -> usize {
        if RUNS.count() == 1 {
            until(|| CACHE.1.sleepers() == 63);
            panic!("planned panic of the leader");
        }
        RUNS.get()
    }
    watchdog(HANG, || {
        let panics: usize = thread::scope(|scope| {
            let callers: Vec<_> =
                (0..64).map(|_| scope.spawn(|| catch_unwind(AssertUnwindSafe(call)))).collect();
            callers
                .into_iter()
                .map(|caller| match caller.join().expect("caught") {
                    Ok(run) => {
                        assert_eq!(run, 2);
                        0
                    }
                    Err(payload) => {
                        let text = payload.downcast_ref::<&str>();
                        assert_eq!(text, Some(&"planned panic of the leader"));
                        1
                    }
                })
                .sum()
        });
        assert_eq!((panics, RUNS.get()), (1, 2));
        assert_eq!(CACHE.0.stats().in_flight, 0);
    });
}

#[test]
fn timeout_around_a_call_cancels_only_that_call() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn call(cache: Watched) -> usize {
        let run = RUNS.count();
        if run == 1 {
            std::future::pending::<()>().await;
        }
        run
    }
    watchdog(HANG, || {
        let (cache, clock) = watched();
        runtime(2).block_on(async {
            let impatient = tokio::spawn({
                let (cache, clock) = (cache.clone(), clock.clone());
                async move {
                    tokio::select! {
                        _ = call(cache) => unreachable!("it never ends"),
                        () = until_async(|| clock.sleepers() == 10) => (),
                    }
                }
            });
            until_async(|| RUNS.get() == 1).await;
            let waiters: Vec<_> = (0..10).map(|_| tokio::spawn(call(cache.clone()))).collect();
            impatient.await.expect("no panic");
            for waiter in waiters {
                assert_eq!(waiter.await.expect("no panic"), 2);
            }
        });
        assert_eq!(cache.stats().in_flight, 0);
    });
}

#[test]
fn futures_of_cached_functions_are_send() {
    #[cached(ttl = 60, skip(text))]
    async fn call(text: &str, n: u64) -> Arc<str> {
        tokio::task::yield_now().await;
        format!("{text}{n}").into()
    }
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let output = smol::block_on(is_send(call("a", 1)));
    assert_eq!(&*output, "a1");
}

#[test]
fn mixed_threads_and_keys_always_get_the_right_value() {
    static CACHE: LazyLock<MemoryCache> =
        LazyLock::new(|| MemoryOptions::new().max_entries(64).build());
    #[cached(cache = CACHE, ttl = Duration::from_nanos(1 + n % 3 * 1_000_000))]
    fn square(n: u64) -> u64 {
        n * n
    }
    #[cached(cache = CACHE, ttl = 60)]
    async fn cube(n: u64) -> u64 {
        tokio::task::yield_now().await;
        n * n * n
    }
    watchdog(HANG, || {
        thread::scope(|scope| {
            for seed in 0..4_u64 {
                scope.spawn(move || {
                    let mut state = seed + 1;
                    for _ in 0..20_000 {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let n = (state >> 33) % 200;
                        assert_eq!(square(n), n * n);
                        assert_eq!(smol::block_on(cube(n)), n * n * n);
                    }
                });
            }
        });
        assert_eq!(CACHE.stats().in_flight, 0);
    });
}

/// Starts callers every millisecond that are cancelled after the next time of `patience`,
/// and one with enough time. Returns whether that one gets a value.
fn is_served_among(patience: &'static [u64]) -> bool {
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn slow(cache: MemoryCache) -> u8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        7
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let cache = MemoryCache::new();
        let others = cache.clone();
        let storm = tokio::spawn(async move {
            for patience in patience.iter().cycle() {
                let patience = Duration::from_millis(*patience);
                tokio::spawn(tokio::time::timeout(patience, slow(others.clone())));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let value = tokio::time::timeout(Duration::from_millis(250), slow(cache)).await;
        storm.abort();
        value == Ok(7)
    })
}

#[test]
fn patient_caller_is_not_starved_by_cancelled_callers() {
    watchdog(HANG, || {
        for patience in [&[30][..], &[60], &[80], &[30, 60, 80], &[10, 90], &[95]] {
            assert!(is_served_among(patience), "among callers that wait {patience:?} ms");
        }
    });
}

#[test]
fn waiter_that_is_never_polled_again_does_not_block_the_lead() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn call(cache: &MemoryCache) -> usize {
        let run = RUNS.count();
        if run == 1 {
            std::future::pending::<()>().await;
        }
        run
    }
    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
    }
    watchdog(HANG, || {
        let cache = MemoryCache::new();
        let mut leader = Box::pin(call(&cache));
        let mut parked = Box::pin(call(&cache));
        assert!(!poll(leader.as_mut()) && !poll(parked.as_mut()));
        drop(leader);
        assert_eq!(smol::block_on(call(&cache)), 2);
        assert_eq!(smol::block_on(parked), 2);
        assert_eq!(cache.stats().in_flight, 0);
    });
}

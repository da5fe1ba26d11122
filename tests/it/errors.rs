//! Errors of functions: the callers that wait for a run that fails get clones of its error.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, LazyLock, OnceLock};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use vayu::backend::{AnyValue, ByReference};
use vayu::telemetry::{CallEvent, CallOutcome, Observer};
use vayu::testing::{ManualClock, MapBackend, watchdog};
use vayu::{Cache, ErrorKind, MemoryCache, MemoryOptions, cached};

use crate::{HANG, Runs, poll, poll_all, until};

/// A cache whose clock counts the callers that wait for the leader.
type Watched = Cache<MapBackend<AnyValue>, ByReference>;

fn watched() -> (Watched, ManualClock) {
    let clock = ManualClock::new();
    (Cache::with_backend(MapBackend::with_clock(clock.clone())), clock)
}

#[derive(Debug, Clone, PartialEq)]
struct Failure(usize);

/// An error that is not `Clone`.
#[derive(Debug, PartialEq)]
struct Unique(usize);

/// Yields in a body until all other callers wait.
async fn until_async(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime")
}

#[test]
fn sixty_four_threads_on_one_failing_key_run_once() {
    static RUNS: Runs = Runs::new();
    static CACHE: LazyLock<(Watched, ManualClock)> = LazyLock::new(watched);
    #[cached(cache = CACHE.0, ttl = 60)]
    fn fails(n: u64) -> Result<u64, Failure> {
        if n == 7 {
            until(|| CACHE.1.sleepers() == 63);
        }
        Err(Failure(RUNS.count()))
    }
    watchdog(HANG, || {
        let barrier = Barrier::new(64);
        thread::scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|| {
                    barrier.wait();
                    assert_eq!(fails(7), Err(Failure(1)));
                });
            }
        });
        let stats = CACHE.0.stats();
        assert_eq!((stats.misses, stats.coalesced, stats.inserts), (1, 63, 0));
        assert_eq!((stats.in_flight, stats.errors), (0, 0));
        assert_eq!(fails(8), Err(Failure(2)));
        assert_eq!(fails(8), Err(Failure(3)), "a later caller runs again");
    });
}

#[test]
fn sixty_four_threads_on_one_failing_batch_do_not_run_one_after_the_other() {
    static RUNS: Runs = Runs::new();
    static ALL_WAIT: OnceLock<()> = OnceLock::new();
    static CACHE: LazyLock<(Watched, ManualClock)> = LazyLock::new(watched);
    #[cached(cache = CACHE.0, ttl = 60, each = ids)]
    fn fail(ids: &[usize]) -> Result<HashMap<usize, u64>, Failure> {
        let run = RUNS.count();
        // Callers that come at the same moment may lead a part of the elements each. The first run
        // that returns wakes callers, so the others do not count again.
        until(|| ALL_WAIT.get().is_some() || CACHE.1.sleepers() + RUNS.get() == 64);
        let _ = ALL_WAIT.set(());
        Err(Failure(run + ids.len()))
    }
    watchdog(HANG, || {
        let barrier = Barrier::new(64);
        thread::scope(|scope| {
            for n in 0..64 {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    assert!(fail(&[n % 3, (n + 1) % 3, (n + 2) % 3]).is_err());
                });
            }
        });
        let stats = CACHE.0.stats();
        assert!(RUNS.get() <= 3, "{} runs for three elements", RUNS.get());
        assert_eq!((stats.misses, stats.inserts), (3, 0));
        assert_eq!((stats.in_flight, stats.errors), (0, 0));
    });
}

#[test]
fn thousand_tasks_on_one_failing_key_run_once() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn fails(cache: Watched, clock: ManualClock) -> Result<u8, Arc<str>> {
        until_async(|| clock.sleepers() == 999).await;
        Err(format!("run {}", RUNS.count()).into())
    }
    watchdog(HANG, || {
        let (cache, clock) = watched();
        runtime().block_on(async {
            let tasks: Vec<_> =
                (0..1000).map(|_| tokio::spawn(fails(cache.clone(), clock.clone()))).collect();
            for task in tasks {
                assert_eq!(task.await.expect("no panic"), Err("run 1".into()));
            }
        });
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.coalesced, stats.in_flight), (1, 999, 0));
    });
}

#[test]
fn sync_threads_and_async_tasks_share_an_error() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, prefix = "both fail", key = "k")]
    fn from_threads(cache: &Watched, clock: &ManualClock) -> Result<u8, Failure> {
        until(|| clock.sleepers() == 63);
        Err(Failure(RUNS.count()))
    }
    #[cached(cache = cache, ttl = 60, prefix = "both fail", key = "k")]
    async fn from_tasks(cache: Watched, clock: ManualClock) -> Result<u8, Failure> {
        until_async(|| clock.sleepers() == 63).await;
        Err(Failure(RUNS.count()))
    }
    watchdog(HANG, || {
        for round in 1..=20 {
            let (cache, clock) = watched();
            let runtime = runtime();
            thread::scope(|scope| {
                for _ in 0..32 {
                    scope.spawn(|| {
                        assert_eq!(from_threads(&cache, &clock), Err(Failure(round)));
                    });
                }
                runtime.block_on(async {
                    let task = || tokio::spawn(from_tasks(cache.clone(), clock.clone()));
                    let tasks: Vec<_> = (0..32).map(|_| task()).collect();
                    for task in tasks {
                        assert_eq!(task.await.expect("no panic"), Err(Failure(round)));
                    }
                });
            });
            assert_eq!((RUNS.get(), cache.stats().in_flight), (round, 0));
        }
    });
}

/// Calls a function a hundred times while it runs, in two rounds, and returns the numbers in its errors.
fn rounds<F: Future<Output = Result<u8, E>>, E: Debug>(
    open: &Notify,
    call: impl Fn() -> F,
    number: fn(E) -> usize,
) -> [Vec<usize>; 2] {
    [(); 2].map(|()| {
        let mut callers: Vec<_> = (0..100).map(|_| Box::pin(call())).collect();
        assert!(poll_all(&mut callers).is_empty());
        open.notify_one();
        let mut outputs = Vec::new();
        for mut caller in callers {
            let output = loop {
                if let Poll::Ready(output) = poll(caller.as_mut()) {
                    break output;
                }
                open.notify_one();
            };
            outputs.push(number(output.expect_err("each run fails")));
        }
        outputs
    })
}

#[test]
fn error_that_is_not_clone_is_for_its_own_caller() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, key = "k")]
    async fn fails(open: &Notify) -> Result<u8, Unique> {
        open.notified().await;
        Err(Unique(RUNS.count()))
    }
    let open = Notify::new();
    let [mut first, second] = rounds(&open, || fails(&open), |Unique(run)| run);
    first.extend(second);
    first.sort_unstable();
    assert_eq!(first, (1..=200).collect::<Vec<_>>());
}

#[test]
fn errors_of_methods_of_traits_and_behind_aliases_are_shared() {
    type Fallible = Result<u8, Failure>;
    static RUNS: Runs = Runs::new();
    trait Load {
        type Error;
        async fn load(&self, open: &Notify) -> Result<u8, Self::Error>;
    }
    struct Shop;
    impl Load for Shop {
        type Error = Failure;

        #[cached(ttl = 60, key = "shop")]
        async fn load(&self, open: &Notify) -> Result<u8, Self::Error> {
            open.notified().await;
            Err(Failure(RUNS.count()))
        }
    }
    #[cached(ttl = 60, key = "alias")]
    async fn behind_an_alias(open: &Notify) -> Fallible {
        open.notified().await;
        Err(Failure(RUNS.count()))
    }
    let (open, number) = (Notify::new(), |Failure(run)| run);
    assert_eq!(rounds(&open, || Shop.load(&open), number), [vec![1; 100], vec![2; 100]]);
    assert_eq!(rounds(&open, || behind_an_alias(&open), number), [vec![3; 100], vec![4; 100]]);
}

#[test]
fn error_of_a_type_parameter_is_shared_if_its_bounds_permit_it() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, key = "bounded")]
    async fn bounded<E>(open: &Notify, make: fn(usize) -> E) -> Result<u8, E>
    where
        E: Clone + Send + Sync + 'static,
    {
        open.notified().await;
        Err(make(RUNS.count()))
    }
    #[cached(ttl = 60, key = "not static")]
    async fn not_static<E: Clone + Send + Sync>(
        open: &Notify,
        make: fn(usize) -> E,
    ) -> Result<u8, E> {
        open.notified().await;
        Err(make(RUNS.count()))
    }
    #[cached(ttl = 60, key = "unbounded")]
    async fn unbounded<E: Debug>(open: &Notify, make: fn(usize) -> E) -> Result<u8, E> {
        open.notified().await;
        Err(make(RUNS.count()))
    }
    let (open, number) = (Notify::new(), |Failure(run)| run);
    assert_eq!(rounds(&open, || bounded(&open, Failure), number), [vec![1; 100], vec![2; 100]]);
    let count = |rounds: [Vec<usize>; 2]| {
        let mut runs = rounds.concat();
        runs.sort_unstable();
        runs.dedup();
        runs.len()
    };
    assert_eq!(count(rounds(&open, || not_static(&open, Failure), number)), 200);
    assert_eq!(count(rounds(&open, || unbounded(&open, Failure), number)), 200);
}

/// The attribute on a method does not see the parameters of its `impl`.
#[test]
fn error_that_is_a_parameter_of_an_impl_needs_no_bound() {
    struct Repository<E>(fn(u8) -> E);
    impl<E: Clone + Send + Sync> Repository<E> {
        #[cached(ttl = 60, key = "impl")]
        fn load(&self) -> Result<u8, E> {
            Err((self.0)(1))
        }
    }
    assert_eq!(Repository(|n| Failure(n.into())).load(), Err(Failure(1)));
}

#[test]
fn borrowed_error_goes_to_its_own_caller() {
    #[cached(ttl = 60)]
    fn parse(text: &str) -> Result<u8, &str> {
        text.parse().map_err(|_| text)
    }
    struct Parser<'a>(&'a str);
    impl<'a> Parser<'a> {
        #[cached(ttl = 60, include(self.0))]
        fn parse(&self) -> Result<u8, std::borrow::Cow<'a, str>> {
            self.0.parse().map_err(|_| self.0.into())
        }
    }
    let text = "x".to_owned();
    assert_eq!((parse(&text), Parser(&text).parse()), (Err("x"), Err("x".into())));
    assert_eq!((parse("7"), Parser("8").parse()), (Ok(7), Ok(8)));
}

#[test]
fn caller_of_another_type_of_error_runs_itself() {
    #[cached(ttl = 60, prefix = "types of errors", key = "k")]
    async fn number(open: &Notify) -> Result<u8, usize> {
        open.notified().await;
        Err(1)
    }
    #[cached(ttl = 60, prefix = "types of errors", key = "k")]
    async fn text() -> Result<u8, String> {
        Err("own".to_owned())
    }
    let open = Notify::new();
    let mut leader = pin!(number(&open));
    let mut other = pin!(text());
    assert!(poll(leader.as_mut()).is_pending() && poll(other.as_mut()).is_pending());
    open.notify_one();
    assert_eq!(poll(leader.as_mut()), Poll::Ready(Err(1)));
    assert_eq!(poll(other.as_mut()), Poll::Ready(Err("own".to_owned())));
}

#[test]
fn error_of_a_run_that_began_before_an_invalidation_is_not_for_later_callers() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, key = "k", tags("t"), handle = fails_entry)]
    async fn fails(cache: &MemoryCache, open: &Notify) -> Result<usize, Failure> {
        let run = RUNS.count();
        open.notified().await;
        if run.is_multiple_of(2) { Ok(run) } else { Err(Failure(run)) }
    }
    let cache = MemoryCache::new();
    let open = Notify::new();
    for (round, by_tag) in [(0, false), (2, true)] {
        let mut leader = pin!(fails(&cache, &open));
        let mut waiting = pin!(fails(&cache, &open));
        assert!(poll(leader.as_mut()).is_pending() && poll(waiting.as_mut()).is_pending());
        if by_tag {
            cache.invalidate_tag("t").expect("invalidated");
        } else {
            fails_entry(&cache, &open).invalidate().expect("invalidated");
        }
        let mut later = pin!(fails(&cache, &open));
        assert!(poll(later.as_mut()).is_pending());
        assert_eq!(RUNS.get(), round + 2, "the later caller runs");
        open.notify_one(); // the first in the queue is the first leader
        assert_eq!(poll(leader.as_mut()), Poll::Ready(Err(Failure(round + 1))));
        let waited = poll(waiting.as_mut());
        open.notify_one();
        assert_eq!(poll(later.as_mut()), Poll::Ready(Ok(round + 2)));
        if by_tag {
            assert_eq!(
                waited,
                Poll::Ready(Err(Failure(round + 1))),
                "the later run is not its own"
            );
        } else {
            assert!(waited.is_pending(), "it has joined the later run");
            assert_eq!(poll(waiting.as_mut()), Poll::Ready(Ok(round + 2)));
        }
        assert_eq!(poll(pin!(fails(&cache, &open))), Poll::Ready(Ok(round + 2)), "a hit");
        fails_entry(&cache, &open).invalidate().expect("invalidated");
    }
}

#[test]
fn stale_value_wins_over_the_error_of_a_refresh() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, stale = 60, prefix = "refreshed", key = "k")]
    async fn rate(cache: &MemoryCache, open: &Notify) -> Result<usize, Failure> {
        let run = RUNS.count();
        if run > 1 {
            open.notified().await;
            return Err(Failure(run));
        }
        Ok(run)
    }
    #[cached(cache = cache, ttl = 60, prefix = "refreshed", key = "k")]
    async fn without_stale(cache: &MemoryCache) -> Result<usize, Failure> {
        Err(Failure(RUNS.count()))
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let open = Notify::new();
    assert_eq!(poll(pin!(rate(&cache, &open))), Poll::Ready(Ok(1)));
    clock.advance(Duration::from_secs(60));
    let mut refresh = pin!(rate(&cache, &open));
    let mut waiting = pin!(without_stale(&cache));
    assert!(poll(refresh.as_mut()).is_pending() && poll(waiting.as_mut()).is_pending());
    assert_eq!(poll(pin!(rate(&cache, &open))), Poll::Ready(Ok(1)), "it does not wait");
    open.notify_one();
    assert_eq!(poll(refresh.as_mut()), Poll::Ready(Ok(1)));
    assert_eq!(poll(waiting.as_mut()), Poll::Ready(Err(Failure(2))), "it has no other value");
    let stats = cache.stats();
    assert_eq!((stats.stale, stats.failed_refreshes, stats.coalesced), (2, 1, 1));
}

#[test]
fn calls_that_refresh_together_share_the_error_and_the_value_stays() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, key = "k", refresh_if = is_forced)]
    async fn rate(open: &Notify, is_forced: bool) -> Result<usize, Failure> {
        let run = RUNS.count();
        if is_forced {
            open.notified().await;
            return Err(Failure(run));
        }
        Ok(run)
    }
    let open = Notify::new();
    assert_eq!(poll(pin!(rate(&open, false))), Poll::Ready(Ok(1)));
    let mut refreshes: Vec<_> = (0..10).map(|_| Box::pin(rate(&open, true))).collect();
    assert_eq!(poll_all(&mut refreshes), []);
    open.notify_one();
    assert_eq!(poll_all(&mut refreshes), vec![Err(Failure(2)); 10]);
    assert_eq!(poll(pin!(rate(&open, false))), Poll::Ready(Ok(1)));
}

#[test]
fn error_of_a_task_is_shared_with_callers_that_wait_for_it() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, key = "k", spawn = tokio::spawn)]
    async fn fails(cache: Watched, clock: ManualClock, waiting: usize) -> Result<u8, Failure> {
        until_async(|| clock.sleepers() == waiting).await;
        Err(Failure(RUNS.count()))
    }
    watchdog(HANG, || {
        let (cache, clock) = watched();
        runtime().block_on(async {
            let tasks: Vec<_> =
                (0..100).map(|_| tokio::spawn(fails(cache.clone(), clock.clone(), 99))).collect();
            for task in tasks {
                assert_eq!(task.await.expect("no panic"), Err(Failure(1)));
            }
            // The caller that began the run is gone.
            let mut dropped = Box::pin(fails(cache.clone(), clock.clone(), 1));
            assert!(poll(dropped.as_mut()).is_pending());
            drop(dropped);
            until_async(|| cache.stats().in_flight == 1).await;
            assert_eq!(fails(cache.clone(), clock.clone(), 1).await, Err(Failure(2)));
        });
        assert_eq!((RUNS.get(), cache.stats().in_flight), (2, 0));
    });
}

#[test]
fn panic_is_not_shared() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, key = "k")]
    async fn fails(open: &Notify) -> Result<u8, Failure> {
        open.notified().await;
        let run = RUNS.count();
        assert_ne!(run, 1, "planned panic of the first run");
        Err(Failure(run))
    }
    let open = Notify::new();
    let mut leader = Box::pin(fails(&open));
    let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(fails(&open))).collect();
    assert!(poll(leader.as_mut()).is_pending() && poll_all(&mut waiting).is_empty());
    open.notify_one();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(leader.as_mut())));
    assert!(panicked.is_err());
    assert_eq!(poll_all(&mut waiting), [], "one of them leads");
    open.notify_one();
    assert_eq!(poll_all(&mut waiting), vec![Err(Failure(2)); 10]);
}

#[test]
fn error_whose_clone_panics_is_for_its_own_caller() {
    static PANICS: AtomicBool = AtomicBool::new(true);
    #[derive(Debug, PartialEq)]
    struct Bomb(usize);
    impl Clone for Bomb {
        fn clone(&self) -> Self {
            assert!(!PANICS.load(Ordering::SeqCst), "planned panic of a clone");
            Self(self.0)
        }
    }
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, key = "k", log = false)]
    async fn fails(cache: &MemoryCache, open: &Notify) -> Result<u8, Bomb> {
        let run = RUNS.count();
        if run == 1 {
            open.notified().await;
        }
        Err(Bomb(run))
    }
    let (cache, open) = (MemoryCache::new(), Notify::new());
    let mut callers: Vec<_> = (0..3).map(|_| Box::pin(fails(&cache, &open))).collect();
    assert_eq!(poll_all(&mut callers), []);
    open.notify_one();
    assert_eq!(poll_all(&mut callers), [Err(Bomb(1)), Err(Bomb(2)), Err(Bomb(3))]);
    assert_eq!(cache.stats().errors_of(ErrorKind::Panic), 1);
    assert_eq!(cache.stats().in_flight, 0);
}

#[test]
fn observer_sees_the_calls_that_share_an_error_with_the_time_of_its_run() {
    #[derive(Default)]
    struct Events(Arc<std::sync::Mutex<Vec<(CallOutcome, Duration)>>>);
    impl Observer for Events {
        fn on_call(&self, call: &CallEvent<'_>) {
            self.0.lock().expect("no panic").push((call.outcome, call.compute_time));
        }
    }
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn fails(cache: &MemoryCache, open: &Notify) -> Result<u8, Failure> {
        open.notified().await;
        Err(Failure(0))
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let events = Events::default();
    let seen = Arc::clone(&events.0);
    cache.observe(events);
    let open = Notify::new();
    let mut callers: Vec<_> = (0..3).map(|_| Box::pin(fails(&cache, &open))).collect();
    assert_eq!(poll_all(&mut callers), []);
    clock.advance(Duration::from_millis(20));
    open.notify_one();
    assert_eq!(poll_all(&mut callers), vec![Err(Failure(0)); 3]);
    let time = Duration::from_millis(20);
    let expected =
        [(CallOutcome::Miss, time), (CallOutcome::Coalesced, time), (CallOutcome::Coalesced, time)];
    assert_eq!(*seen.lock().expect("no panic"), expected);
}

#[test]
fn recursion_that_fails_does_not_wait_for_itself() {
    thread_local! {
        static DEPTHS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    #[cached(ttl = 60, key = "k")]
    fn nested(depth: u8) -> Result<u8, Failure> {
        DEPTHS.with_borrow_mut(|depths| depths.push(depth));
        if depth == 0 { Err(Failure(0)) } else { nested(depth - 1) }
    }
    watchdog(HANG, || {
        assert_eq!(nested(3), Err(Failure(0)));
        assert_eq!(DEPTHS.take(), [3, 2, 1, 0]);
    });
}

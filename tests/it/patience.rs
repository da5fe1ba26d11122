//! `patience`: callers that wait a while for the refresh of a value past its ttl.

use std::future::pending;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinHandle;
use vayu::backend::{Backend, Serializer};
use vayu::telemetry::CallOutcome::{self, Coalesced, Hit, Miss, Refresh, Stale};
use vayu::telemetry::{CallEvent, Observer};
use vayu::testing::{ManualClock, watchdog};
use vayu::time::Clock;
use vayu::{Cache, ErrorKind, MemoryCache, MemoryOptions, cached, watch};

use crate::{HANG, poll, poll_all, with_every_backend};

/// A source whose queries take a time of the clock.
#[derive(Debug)]
struct Source {
    clock: ManualClock,
    runs: AtomicU32,
    millis: AtomicU64,
    is_down: AtomicBool,
    panics: AtomicBool,
}

/// The time of a query that never ends.
const FOREVER: u64 = u64::MAX;

impl Source {
    fn new(clock: &ManualClock) -> Arc<Self> {
        let (clock, runs, millis) = (clock.clone(), AtomicU32::new(0), AtomicU64::new(0));
        let (is_down, panics) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { clock, runs, millis, is_down, panics })
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    fn takes(&self, millis: u64) {
        self.millis.store(millis, Ordering::SeqCst);
    }

    async fn query(&self) -> Result<u32, String> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        match self.millis.load(Ordering::SeqCst) {
            FOREVER => pending::<()>().await,
            millis => self.clock.sleep(Duration::from_millis(millis)).await,
        }
        assert!(!self.panics.load(Ordering::SeqCst), "planned panic");
        if self.is_down.load(Ordering::SeqCst) { Err("down".to_owned()) } else { Ok(run) }
    }
}

#[cached(cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = tokio::spawn, patience = "50ms")]
async fn call<B, S>(cache: Cache<B, S>, source: Arc<Source>) -> Result<u32, String>
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    source.query().await
}

/// Runs tasks for a few rounds.
async fn let_tasks_run() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

/// Returns the outputs of the tasks that have ended.
async fn ended<T>(tasks: &mut Vec<JoinHandle<T>>) -> Vec<T> {
    let mut outputs = Vec::new();
    for task in tasks.extract_if(.., |task| task.is_finished()) {
        outputs.push(task.await.expect("no panic"));
    }
    outputs
}

fn in_runtime<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(test)
}

/// Runs callers of a value past its ttl, and checks that none waits longer than the patience.
fn callers_wait_for_the_patience_at_most<B, S>(
    callers: usize,
    make: impl Fn(ManualClock) -> Cache<B, S>,
) where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    in_runtime(async {
        let clock = ManualClock::new();
        let (cache, source) = (make(clock.clone()), Source::new(&clock));
        let ask = || call(cache.clone(), Arc::clone(&source));
        // The lookup of some backends takes several polls.
        let pass = async |millis| {
            clock.advance(Duration::from_millis(millis));
            for _ in 0..4 {
                let_tasks_run().await;
            }
        };
        let begin = async || {
            let mut waiting: Vec<_> = (0..callers).map(|_| tokio::spawn(ask())).collect();
            pass(0).await;
            assert_eq!(ended(&mut waiting).await, [], "the new value is not there yet");
            waiting
        };
        assert_eq!(ask().await, Ok(1));

        // A source that is slower than the callers are patient.
        pass(60_000).await;
        source.takes(2_000);
        let mut waiting = begin().await;
        pass(49).await;
        assert_eq!(ended(&mut waiting).await, []);
        pass(1).await;
        assert_eq!(ended(&mut waiting).await, vec![Ok(1); callers], "the old value after 50 ms");
        assert_eq!(source.runs(), 2);
        pass(1_950).await;
        assert_eq!(ask().await, Ok(2), "the run went on and has stored");

        // A source that is faster.
        pass(60_000).await;
        source.takes(20);
        let mut waiting = begin().await;
        pass(20).await;
        assert_eq!(ended(&mut waiting).await, vec![Ok(3); callers], "the new value");
        let counted = |stats: vayu::Stats| (stats.stale, stats.coalesced, stats.refreshes);
        let callers_counted = callers as u64;
        assert_eq!(counted(cache.stats()), (callers_counted, callers_counted - 1, 2));

        // One that fails, and is left alone for a while.
        pass(60_000).await;
        source.is_down.store(true, Ordering::SeqCst);
        let mut waiting = begin().await;
        pass(20).await;
        assert_eq!(ended(&mut waiting).await, vec![Ok(3); callers], "as soon as it has failed");
        assert_eq!((source.runs(), cache.stats().failed_refreshes), (4, 1));
        pass(4_000).await;
        assert_eq!(ask().await, Ok(3), "no wait without a run");

        // One that hangs forever.
        source.is_down.store(false, Ordering::SeqCst);
        pass(1_000).await;
        source.takes(FOREVER);
        for expected in [5, 5, 5, 6, 6, 6, 7] {
            let mut waiting = begin().await;
            pass(50).await;
            assert_eq!(
                ended(&mut waiting).await,
                vec![Ok(3); callers],
                "the old value after 50 ms"
            );
            assert_eq!(source.runs(), expected, "a run for each time limit of waits, 30 s");
            pass(10_000).await;
        }
        source.takes(0);
        pass(20_000).await;
        assert_eq!(ask().await, Ok(8), "the key is not held");
        assert_eq!((ask().await, source.runs()), (Ok(8), 8));
        assert_eq!((cache.stats().in_flight, cache.stats().errors), (0, 0));
    });
}

#[test]
fn callers_of_every_backend_wait_for_the_patience_at_most() {
    fn run<B, S>(make: impl Fn(ManualClock) -> Cache<B, S>)
    where
        B: Backend,
        S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
    {
        callers_wait_for_the_patience_at_most(10, make);
    }
    watchdog(HANG, || with_every_backend!(run));
}

#[test]
fn thousand_callers_wait_for_the_patience_at_most() {
    watchdog(HANG, || {
        callers_wait_for_the_patience_at_most(1_000, |clock| {
            MemoryOptions::new().clock(clock).build()
        });
    });
}

#[test]
fn run_outlives_the_callers_and_its_panic_is_not_theirs() {
    in_runtime(async {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let source = Source::new(&clock);
        let ask = || Box::pin(call(cache.clone(), Arc::clone(&source)));
        assert_eq!(ask().await, Ok(1));
        source.takes(10);
        clock.advance(Duration::from_secs(60));
        let mut given_up = ask();
        assert!(poll(given_up.as_mut()).is_pending());
        drop(given_up);
        let_tasks_run().await;
        clock.advance(Duration::from_millis(10));
        let_tasks_run().await;
        assert_eq!(poll(ask().as_mut()), Poll::Ready(Ok(2)));
        clock.advance(Duration::from_secs(60));
        source.panics.store(true, Ordering::SeqCst);
        let mut waiting = [ask(), ask()];
        assert_eq!(poll_all(&mut waiting), []);
        let_tasks_run().await;
        clock.advance(Duration::from_millis(10));
        let_tasks_run().await;
        assert_eq!(poll_all(&mut waiting), [Ok(2), Ok(2)]);
        assert_eq!((source.runs(), cache.stats().in_flight), (3, 0));
    });
}

#[test]
fn callers_wait_up_to_the_end_of_the_old_value() {
    in_runtime(async {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let source = Source::new(&clock);
        let ask = || Box::pin(call(cache.clone(), Arc::clone(&source)));
        assert_eq!(ask().await, Ok(1));
        source.takes(2_000);
        // 20 ms before the end of `stale`.
        clock.advance(Duration::from_millis(61 * 60_000 - 20));
        let mut waiting = vec![ask(), ask()];
        assert_eq!(poll_all(&mut waiting), []);
        let_tasks_run().await;
        clock.advance(Duration::from_millis(19));
        let_tasks_run().await;
        assert_eq!(poll_all(&mut waiting), []);
        clock.advance(Duration::from_millis(1));
        let_tasks_run().await;
        assert_eq!(poll_all(&mut waiting), [Ok(1), Ok(1)]);
    });
}

#[test]
fn callers_return_the_old_value_at_once_if_nothing_can_be_spawned() {
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let source = Source::new(&clock);
    let ask = || Box::pin(call(cache.clone(), Arc::clone(&source)));
    assert_eq!(poll(ask().as_mut()), Poll::Ready(Ok(1)));
    clock.advance(Duration::from_secs(60));
    assert_eq!(poll(ask().as_mut()), Poll::Ready(Ok(1)), "without a tokio runtime");
    let stats = cache.stats();
    assert_eq!((stats.errors_of(ErrorKind::Panic), stats.in_flight, source.runs()), (1, 0, 1));
}

#[test]
fn each_form_of_function_may_have_a_patience() {
    struct Shop(MemoryCache, AtomicU32);
    impl Shop {
        #[cached(
            cache = self.0, ttl = |_: &u32| Duration::from_secs(60), stale = 60, tags("{sku}"), version = 2,
            spawn = |task| tokio::spawn(task), patience = Duration::from_millis(u64::from(limit)), skip(limit),
            handle = price_entry
        )]
        async fn price(self: Arc<Self>, sku: String, limit: u16) -> u32 {
            drop(sku);
            tokio::task::yield_now().await;
            self.1.fetch_add(1, Ordering::SeqCst)
        }
    }
    fn send<T: Send>(future: T) -> T {
        future
    }
    in_runtime(async {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let shop = Arc::new(Shop(cache, AtomicU32::new(0)));
        let ask = |limit| Box::pin(send(watch(Arc::clone(&shop).price("tea".to_owned(), limit))));
        let (output, calls) = ask(10).await;
        assert_eq!((output, calls.len()), (0, 1));
        clock.advance(Duration::from_secs(60));
        let (mut short, mut long) = (pin!(ask(10)), pin!(ask(20)));
        assert!(poll(short.as_mut()).is_pending() && poll(long.as_mut()).is_pending());
        clock.advance(Duration::from_millis(10));
        let Poll::Ready((0, calls)) = poll(short) else { panic!("its time is over") };
        assert_eq!((calls[0].outcome, calls[0].ttl_left), (Stale, Some(Duration::ZERO)));
        let_tasks_run().await;
        let Poll::Ready((1, calls)) = poll(long) else { panic!("there is a new value") };
        assert_eq!(
            (calls[0].outcome, calls[0].ttl_left),
            (Coalesced, Some(Duration::from_secs(60)))
        );
        assert_eq!(shop.price_entry("tea".to_owned(), 1).peek().unwrap(), Some(1));
    });
}

#[test]
fn runs_of_many_keys_that_hang_are_each_replaced_after_the_time_limit_of_waits() {
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = n.to_string(), spawn = tokio::spawn, patience = "50ms")]
    async fn call(cache: MemoryCache, source: Arc<Source>, n: u32) -> Result<u32, String> {
        source.query().await.map(|_| n)
    }
    // More than the keys of which a failed refresh is recorded.
    const KEYS: u32 = 5_000;
    in_runtime(async {
        let clock = ManualClock::new();
        // Runs of one key begin no more often than refreshes that fail.
        for (max_wait, seconds) in [(None, 30), (Some(Duration::ZERO), 5)] {
            let cache = MemoryOptions::new().clock(clock.clone()).build();
            cache.set_max_background_refreshes(usize::MAX);
            let cache = match max_wait {
                Some(max_wait) => cache.with_max_wait(max_wait),
                None => cache,
            };
            let source = Source::new(&clock);
            let ask_all = async || {
                let ask = |n| Box::pin(call(cache.clone(), Arc::clone(&source), n));
                let mut waiting: Vec<_> = (0..KEYS).flat_map(|n| [ask(n), ask(n)]).collect();
                let ready = poll_all(&mut waiting).len();
                for _ in 0..8 {
                    let_tasks_run().await;
                }
                if ready == 0 {
                    clock.advance(Duration::from_millis(50));
                    assert_eq!(poll_all(&mut waiting).len(), waiting.len());
                }
                source.runs() / KEYS
            };
            assert_eq!(ask_all().await, 1);
            source.takes(FOREVER);
            clock.advance(Duration::from_secs(60));
            assert_eq!(ask_all().await, 2);
            clock.advance(Duration::from_secs(seconds) - Duration::from_millis(100));
            assert_eq!((ask_all().await, ask_all().await), (2, 3), "after {seconds} s");
            clock.advance(Duration::from_secs(seconds) - Duration::from_millis(100));
            assert_eq!((ask_all().await, ask_all().await), (3, 4));
        }
    });
}

#[test]
fn calls_return_the_old_value_at_once_while_too_many_runs_are_in_the_background() {
    in_runtime(async {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let source = Source::new(&clock);
        let ask = || Box::pin(call(cache.clone(), Arc::clone(&source)));
        assert_eq!(ask().await, Ok(1));
        cache.set_max_background_refreshes(0);
        clock.advance(Duration::from_secs(60));
        assert_eq!(poll(ask().as_mut()), Poll::Ready(Ok(1)));
        assert_eq!(cache.stats().in_flight, 0);
        cache.set_max_background_refreshes(1);
        assert_eq!((ask().await, source.runs()), (Ok(2), 2), "left to the next call");
    });
}

#[cached(
    cache = cache, ttl = "1m", stale = "1h", key = "k", prefix = "tagged", tags("t"), handle = tagged_entry,
    spawn = tokio::spawn, patience = "50ms"
)]
async fn tagged<B, S>(cache: Cache<B, S>, source: Arc<Source>) -> Result<u32, String>
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    source.query().await
}

type Invalidate<'a, B, S> = &'a dyn Fn(&Cache<B, S>, &Arc<Source>);

#[test]
fn old_value_that_was_invalidated_in_a_wait_is_not_returned() {
    fn run<B, S>(make: impl Fn(ManualClock) -> Cache<B, S>)
    where
        B: Backend,
        S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
    {
        let by_tag: Invalidate<'_, B, S> = &|cache, _| cache.invalidate_tag("t").unwrap();
        let by_clear: Invalidate<'_, B, S> = &|cache, _| {
            // Not each backend can be cleared.
            if cache.clear().is_err() {
                cache.invalidate_all().unwrap();
            }
        };
        let by_entry: Invalidate<'_, B, S> = &|cache, source| {
            tagged_entry(cache.clone(), Arc::clone(source)).invalidate().unwrap();
        };
        let is_first = |clock| make(clock);
        let is_not_first = |clock| {
            let cache = make(clock);
            cache.invalidate_tag("other").unwrap();
            cache
        };
        for fails in [false, true] {
            for invalidate in [by_tag, by_clear, by_entry] {
                let expected = in_runtime(after_invalidation(is_not_first, invalidate, fails));
                assert_eq!(expected, (Ok(3), 3));
            }
            // Calls before the first invalidation of a cache in memory have computed no tags.
            let (value, runs) = in_runtime(after_invalidation(is_first, by_tag, fails));
            assert!(value == Ok(runs) && (3..=4).contains(&runs), "{value:?}");
        }
    }
    watchdog(HANG, || with_every_backend!(run));
}

/// Invalidates an old value in the wait of several callers for a run that takes longer than they are patient, or that
/// `fails` before. Returns the output of the next call, and the number of runs.
async fn after_invalidation<B, S>(
    make: impl Fn(ManualClock) -> Cache<B, S>,
    invalidate: Invalidate<'_, B, S>,
    fails: bool,
) -> (Result<u32, String>, u32)
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    let clock = ManualClock::new();
    let (cache, source) = (make(clock.clone()), Source::new(&clock));
    let ask = || tokio::spawn(tagged(cache.clone(), Arc::clone(&source)));
    let pass = async |millis| {
        clock.advance(Duration::from_millis(millis));
        for _ in 0..4 {
            let_tasks_run().await;
        }
    };
    assert_eq!(ask().await.unwrap(), Ok(1));
    pass(60_000).await;
    source.takes(if fails { 20 } else { 2_000 });
    source.is_down.store(fails, Ordering::SeqCst);
    let callers = [(); 3].map(|()| ask());
    pass(0).await;
    pass(10).await;
    assert_eq!(source.runs(), 2);
    invalidate(&cache, &source);
    let mut results = Vec::new();
    if fails {
        pass(10).await;
        source.is_down.store(false, Ordering::SeqCst);
        pass(20).await;
    } else {
        pass(40).await;
        let are_waiting = callers.iter().all(|caller| !caller.is_finished());
        assert!(are_waiting, "the old value is gone: {:?}", cache.stats());
        pass(2_000).await;
    }
    for caller in callers {
        results.push(caller.await.unwrap());
    }
    results.sort();
    let own = if fails { Err("down".to_owned()) } else { Ok(2) };
    let mut expected = [own, Ok(3), Ok(3)];
    expected.sort();
    assert_eq!(results, expected, "the caller that leads has its own run, others share a new one");
    source.takes(0);
    (ask().await.unwrap(), source.runs())
}

/// The calls and failed refreshes that are reported.
#[derive(Default, Clone)]
struct Reports(Arc<Mutex<Vec<(CallOutcome, u128)>>>, Arc<AtomicU32>);

impl Observer for Reports {
    fn on_call(&self, call: &CallEvent<'_>) {
        self.0.lock().unwrap().push((call.outcome, call.compute_time.as_millis()));
    }

    fn on_refresh_error(&self, _: &str, _: Option<&str>) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn each_call_is_reported_once_with_the_compute_time() {
    in_runtime(async {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let (source, reports) = (Source::new(&clock), Reports::default());
        cache.observe(reports.clone());
        let ask = || Box::pin(watch(call(cache.clone(), Arc::clone(&source))));
        let ask_two = async |millis: &[u64]| {
            clock.advance(Duration::from_secs(60));
            let (mut first, mut second) = (ask(), ask());
            assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
            let_tasks_run().await;
            let mut watched = Vec::new();
            clock.advance(Duration::from_millis(millis[0]));
            let_tasks_run().await;
            for future in [first, second] {
                let (output, calls) = future.await;
                let calls = calls.iter().map(|call| (call.outcome, call.ttl_left));
                watched.push((output.unwrap(), calls.collect::<Vec<_>>()));
            }
            for &millis in &millis[1..] {
                clock.advance(Duration::from_millis(millis));
                let_tasks_run().await;
            }
            // A record has its compute time with few bits.
            let mut reported = std::mem::take(&mut *reports.0.lock().unwrap());
            for (_, time) in &mut reported {
                *time = (*time + 5) / 10 * 10;
            }
            (watched, reported, reports.1.load(Ordering::SeqCst))
        };
        let minute = Some(Duration::from_secs(60));
        assert_eq!(ask().await.1.len(), 1);
        assert_eq!(std::mem::take(&mut *reports.0.lock().unwrap()), [(Miss, 0)]);
        source.takes(20);
        let (watched, reported, failed) = ask_two(&[20]).await;
        let expected = [(2, vec![(Refresh, minute)]), (2, vec![(Coalesced, minute)])];
        assert_eq!(watched, expected);
        assert_eq!((reported, failed), (vec![(Refresh, 20), (Coalesced, 20)], 0));
        let stale = || (2, vec![(Stale, Some(Duration::ZERO))]);
        source.is_down.store(true, Ordering::SeqCst);
        let failing = ask_two(&[20]).await;
        assert_eq!(failing, (vec![stale(), stale()], vec![(Stale, 20), (Stale, 20)], 1));
        source.panics.store(true, Ordering::SeqCst);
        let panicking = ask_two(&[20]).await;
        assert_eq!(panicking, (vec![stale(), stale()], vec![(Stale, 20), (Stale, 20)], 2));
        assert_eq!(cache.stats().failed_refreshes, 2);
        source.is_down.store(false, Ordering::SeqCst);
        source.panics.store(false, Ordering::SeqCst);
        source.takes(2_000);
        let (watched, reported, failed) = ask_two(&[50, 1_950]).await;
        let background = vec![(Stale, 20), (Stale, 20), (Refresh, 2_000)];
        assert_eq!((watched, reported, failed), (vec![stale(), stale()], background, 2));
        assert_eq!(ask().await.1[0].outcome, Hit);
    });
}

//! `patience`: callers that wait a while for the refresh of a value past its ttl.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::telemetry::CallOutcome::{Coalesced, Stale};
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

fn in_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(test);
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
        let ask = || Box::pin(call(cache.clone(), Arc::clone(&source)));
        let pass = async |millis| {
            clock.advance(Duration::from_millis(millis));
            let_tasks_run().await;
        };
        let begin = async || {
            let mut waiting: Vec<_> = (0..callers).map(|_| ask()).collect();
            // The lookup of some backends takes several polls.
            for _ in 0..4 {
                assert_eq!(poll_all(&mut waiting), [], "the new value is not there yet");
                let_tasks_run().await;
            }
            waiting
        };
        assert_eq!(ask().await, Ok(1));

        // A source that is slower than the callers are patient.
        pass(60_000).await;
        source.takes(2_000);
        let mut waiting = begin().await;
        pass(49).await;
        assert_eq!(poll_all(&mut waiting), []);
        pass(1).await;
        assert_eq!(poll_all(&mut waiting), vec![Ok(1); callers], "the old value after 50 ms");
        assert_eq!(source.runs(), 2);
        pass(1_950).await;
        assert_eq!(ask().await, Ok(2), "the run went on and has stored");

        // A source that is faster.
        pass(60_000).await;
        source.takes(20);
        let mut waiting = begin().await;
        pass(20).await;
        assert_eq!(poll_all(&mut waiting), vec![Ok(3); callers], "the new value");
        let counted = |stats: vayu::Stats| (stats.stale, stats.coalesced, stats.refreshes);
        let callers_counted = callers as u64;
        assert_eq!(counted(cache.stats()), (callers_counted, callers_counted, 2));

        // One that fails, and is left alone for a while.
        pass(60_000).await;
        source.is_down.store(true, Ordering::SeqCst);
        let mut waiting = begin().await;
        pass(20).await;
        assert_eq!(poll_all(&mut waiting), vec![Ok(3); callers], "as soon as it has failed");
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
            assert_eq!(poll_all(&mut waiting), vec![Ok(3); callers], "the old value after 50 ms");
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

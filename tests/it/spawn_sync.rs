//! `spawn = ..` on sync functions: stale values that another thread refreshes.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::telemetry::CallOutcome::{Refresh, Stale};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Cache, ErrorKind, MemoryCache, MemoryOptions, cached, watch_sync};

use crate::{HANG, until, with_every_backend};

type Job = Box<dyn FnOnce() + Send>;

/// A queue of jobs, which the test runs.
#[derive(Default)]
struct Jobs {
    queue: Mutex<Vec<Job>>,
    refuses: AtomicBool,
    panics: AtomicBool,
}

impl Jobs {
    fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        assert!(!self.panics.load(Ordering::SeqCst), "planned panic of the spawner");
        if !self.refuses.load(Ordering::SeqCst) {
            self.queue.lock().unwrap().push(Box::new(job));
        }
    }

    /// Runs the jobs in the queue, each in a thread, and returns their number.
    fn run(&self) -> usize {
        let jobs = std::mem::take(&mut *self.queue.lock().unwrap());
        jobs.into_iter().map(|job| thread::spawn(job).join().expect("no panic")).count()
    }
}

#[derive(Default)]
struct Source {
    runs: AtomicU32,
    is_down: AtomicBool,
    panics: AtomicBool,
}

impl Source {
    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    fn query(&self) -> Result<u32, String> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        assert!(!self.panics.load(Ordering::SeqCst), "planned panic");
        if self.is_down.load(Ordering::SeqCst) { Err("down".to_owned()) } else { Ok(run) }
    }
}

#[cached(
    cache = cache, ttl = "1m", stale = "30s", key = n.to_string(), cache_if = |v: &u32| *v > 0,
    spawn = |job| jobs.spawn(job)
)]
fn call<B, S>(
    cache: Cache<B, S>,
    source: Arc<Source>,
    jobs: Arc<Jobs>,
    n: u32,
) -> Result<u32, String>
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    source.query()
}

fn refresh_in_another_thread<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    let clock = ManualClock::new();
    let cache = open(clock.clone());
    let (source, jobs) = (Arc::new(Source::default()), Arc::new(Jobs::default()));
    let ask = || call(cache.clone(), Arc::clone(&source), Arc::clone(&jobs), 1);
    let pass = |seconds| clock.advance(Duration::from_secs(seconds));

    assert_eq!(ask(), Ok(1));
    pass(60);
    assert_eq!(ask(), Ok(1), "the one that finds it past its ttl does not wait");
    assert_eq!(ask(), Ok(1), "nor do the others");
    assert_eq!(source.runs(), 1, "it has not run yet");
    assert_eq!((jobs.run(), source.runs()), (1, 2), "once");
    assert_eq!(ask(), Ok(2));

    pass(60);
    source.is_down.store(true, Ordering::SeqCst);
    for expected in [3, 3, 4] {
        assert_eq!(ask(), Ok(2), "the source is down");
        jobs.run();
        assert_eq!(source.runs(), expected);
        pass(if expected == 3 { 3 } else { 0 });
    }
    assert_eq!(cache.stats().failed_refreshes, 2);
    source.is_down.store(false, Ordering::SeqCst);
    pass(5);
    assert_eq!(ask(), Ok(2));
    jobs.run();
    assert_eq!(ask(), Ok(5));
    pass(90);
    assert_eq!(ask(), Ok(6), "too old to be served");
    assert_eq!((jobs.run(), cache.stats().in_flight), (0, 0));
}

#[test]
fn refresh_in_another_thread_works_on_every_backend() {
    watchdog(HANG, || with_every_backend!(refresh_in_another_thread));
}

/// A cache, a source and jobs, with a value that is past its ttl.
struct Fixture {
    clock: ManualClock,
    cache: MemoryCache,
    source: Arc<Source>,
    jobs: Arc<Jobs>,
}

impl Fixture {
    fn new() -> Self {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let fixture = Self { clock, cache, source: Arc::default(), jobs: Arc::default() };
        assert_eq!(fixture.ask(1), Ok(1));
        fixture.clock.advance(Duration::from_secs(60));
        fixture
    }

    fn ask(&self, n: u32) -> Result<u32, String> {
        call(self.cache.clone(), Arc::clone(&self.source), Arc::clone(&self.jobs), n)
    }
}

#[test]
fn refresh_that_was_not_spawned_is_left_to_a_later_call() {
    let fixture = Fixture::new();
    let Fixture { clock, cache, source, jobs } = &fixture;
    jobs.refuses.store(true, Ordering::SeqCst);
    assert_eq!((fixture.ask(1), cache.stats().in_flight), (Ok(1), 0));
    jobs.refuses.store(false, Ordering::SeqCst);
    assert_eq!(fixture.ask(1), Ok(1));
    // It was in the queue, and is dropped there.
    drop(std::mem::take(&mut *jobs.queue.lock().unwrap()));
    assert_eq!(
        (fixture.ask(1), jobs.run(), source.runs()),
        (Ok(1), 1, 2),
        "the next call refreshes"
    );
    clock.advance(Duration::from_secs(60));
    jobs.panics.store(true, Ordering::SeqCst);
    assert_eq!((fixture.ask(1), fixture.ask(1)), (Ok(2), Ok(2)));
    assert_eq!((cache.stats().errors_of(ErrorKind::Panic), cache.stats().in_flight), (1, 0));
    jobs.panics.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(5));
    assert_eq!((fixture.ask(1), jobs.run(), fixture.ask(1)), (Ok(2), 1, Ok(3)), "after a pause");
}

#[test]
fn panic_of_a_run_is_a_failed_refresh_and_ends_no_thread() {
    let fixture = Fixture::new();
    fixture.source.panics.store(true, Ordering::SeqCst);
    assert_eq!((fixture.ask(1), fixture.jobs.run(), fixture.ask(1)), (Ok(1), 1, Ok(1)));
    let stats = fixture.cache.stats();
    assert_eq!((stats.failed_refreshes, stats.in_flight, fixture.source.runs()), (1, 0, 2));
    assert_eq!((fixture.ask(1), fixture.jobs.run()), (Ok(1), 0), "the source is left alone");
    fixture.source.panics.store(false, Ordering::SeqCst);
    fixture.clock.advance(Duration::from_secs(5));
    assert_eq!((fixture.ask(1), fixture.jobs.run(), fixture.ask(1)), (Ok(1), 1, Ok(3)));
}

#[test]
fn number_of_refreshes_in_the_background_is_limited() {
    let fixture = Fixture::new();
    let Fixture { clock, cache, jobs, .. } = &fixture;
    let ask_all = || {
        let values: Vec<_> = (1..=5).map(|n| fixture.ask(n)).collect();
        assert!(values.iter().all(Result::is_ok));
    };
    ask_all();
    clock.advance(Duration::from_secs(60));
    jobs.run();
    clock.advance(Duration::from_secs(60));
    ask_all();
    clock.advance(Duration::from_secs(60));
    cache.set_max_background_refreshes(2);
    for expected in [2, 2, 1, 0] {
        ask_all();
        ask_all();
        assert_eq!(jobs.run(), expected, "of those that were left to a later call");
    }
    assert_eq!(cache.stats().failed_refreshes, 0);
    clock.advance(Duration::from_secs(60));
    cache.set_max_background_refreshes(0);
    ask_all();
    assert_eq!(jobs.run(), 0);
}

#[test]
fn refresh_that_hangs_is_replaced_after_the_time_limit_of_waits() {
    static RELEASE: Mutex<Option<mpsc::Receiver<()>>> = Mutex::new(None);
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = thread::spawn)]
    fn call(cache: MemoryCache, runs: Arc<AtomicU32>) -> u32 {
        let run = runs.fetch_add(1, Ordering::SeqCst) + 1;
        if run == 2 {
            let release = RELEASE.lock().unwrap().take().expect("it hangs once");
            let _ = release.recv();
        }
        run
    }
    watchdog(HANG, || {
        let (release, hang) = mpsc::channel();
        *RELEASE.lock().unwrap() = Some(hang);
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let runs = Arc::new(AtomicU32::new(0));
        let ask = || call(cache.clone(), Arc::clone(&runs));
        assert_eq!(ask(), 1);
        clock.advance(Duration::from_secs(60));
        assert_eq!(ask(), 1);
        until(|| runs.load(Ordering::SeqCst) == 2);
        for _ in 0..3 {
            clock.advance(Duration::from_secs(10));
            assert_eq!((ask(), runs.load(Ordering::SeqCst)), (1, 2), "no second thread");
        }
        clock.advance(Duration::from_secs(10));
        assert_eq!(ask(), 1);
        until(|| cache.stats().refreshes == 1);
        assert_eq!(ask(), 3);
        release.send(()).unwrap();
        until(|| cache.stats().in_flight == 0);
        assert_eq!(ask(), 3, "not that of the older run");
    });
}

#[test]
fn runs_that_hang_do_not_end_the_refreshes_of_other_functions() {
    static RELEASE: RwLock<()> = RwLock::new(());
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = n.to_string(), spawn = thread::spawn)]
    fn hangs(cache: MemoryCache, n: u32, runs: Arc<AtomicU32>) -> u32 {
        runs.fetch_add(1, Ordering::SeqCst);
        drop(RELEASE.read().unwrap());
        n
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = n.to_string(), spawn = thread::spawn)]
    fn works(cache: MemoryCache, n: u32, runs: Arc<AtomicU32>) -> u32 {
        runs.fetch_add(1, Ordering::SeqCst)
    }
    // The default limit.
    const RUNS: u32 = 256;
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let (hanging, working) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let hang = |n| assert_eq!(hangs(cache.clone(), n, Arc::clone(&hanging)), n);
        let work = |n| works(cache.clone(), n, Arc::clone(&working));
        (0..RUNS).for_each(hang);
        assert_eq!((work(0), work(1)), (0, 1));
        clock.advance(Duration::from_secs(60));
        let closed = RELEASE.write().unwrap();
        (0..RUNS).for_each(hang);
        until(|| hanging.load(Ordering::SeqCst) == 2 * RUNS);
        clock.advance(Duration::from_secs(29));
        assert_eq!((work(0), cache.stats().in_flight), (0, 256), "the limit");
        clock.advance(Duration::from_secs(1));
        assert_eq!(work(0), 0);
        until(|| cache.stats().refreshes == 1);
        assert_eq!(work(0), 2, "the new value");
        drop(closed);
        until(|| cache.stats().in_flight == 0);
        assert_eq!(work(1), 1);
        until(|| cache.stats().refreshes == u64::from(RUNS) + 2);
    });
}

#[test]
fn every_spawner_and_every_form_of_function_works() {
    #[derive(Clone)]
    struct Shop(MemoryCache, Arc<AtomicU32>);
    impl Shop {
        #[cached(
            cache = self.0, ttl = |_: &u32| minutes(sku.len()), stale = 60, tags("{sku}"), version = 2,
            spawn = std::thread::spawn, handle = price_entry
        )]
        fn price(self: Arc<Self>, sku: String) -> u32 {
            drop(sku);
            self.1.fetch_add(1, Ordering::SeqCst)
        }

        #[cached(cache = self.0, ttl = 60, stale = 60, spawn = rayon::spawn)]
        fn by_rayon(self, (number, _unused): (u32, u32)) -> u32 {
            number * self.1.fetch_add(1, Ordering::SeqCst)
        }

        #[cached(cache = self.0, ttl = 60, stale = 60, spawn = tokio::task::spawn_blocking)]
        fn by_tokio(self) -> &'static str {
            if self.1.fetch_add(1, Ordering::SeqCst) == 0 { "first" } else { "second" }
        }

        #[cached(cache = self.0, ttl = 60, stale = 60, spawn = |job| job())]
        fn in_place(self) -> u32 {
            self.1.fetch_add(1, Ordering::SeqCst)
        }
    }
    fn minutes(n: usize) -> Duration {
        Duration::from_secs(60 * n as u64)
    }
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let new = || {
            let cache = MemoryOptions::new().clock(clock.clone()).build();
            Shop(cache, Arc::new(AtomicU32::new(0)))
        };
        let pass = |seconds| clock.advance(Duration::from_secs(seconds));
        let shop = Arc::new(new());
        let ask = || Arc::clone(&shop).price("tea".to_owned());
        assert_eq!((ask(), ask()), (0, 0));
        pass(180);
        assert_eq!(ask(), 0);
        until(|| shop.0.stats().refreshes == 1);
        assert_eq!(ask(), 1);
        assert_eq!(Arc::clone(&shop).price_entry("tea".to_owned()).refresh(), 2);
        assert_eq!(ask(), 2);

        let shop = new();
        assert_eq!(shop.clone().by_rayon((7, 1)), 0);
        pass(60);
        assert_eq!(shop.clone().by_rayon((7, 1)), 0);
        until(|| shop.0.stats().refreshes == 1);
        assert_eq!(shop.clone().by_rayon((7, 1)), 7);

        let shop = new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            assert_eq!(shop.clone().by_tokio(), "first");
            pass(60);
            assert_eq!(shop.clone().by_tokio(), "first");
            until(|| shop.0.stats().refreshes == 1);
            assert_eq!(shop.clone().by_tokio(), "second");
        });

        let shop = new();
        assert_eq!(shop.clone().in_place(), 0);
        pass(60);
        let (old, calls) = watch_sync(|| shop.clone().in_place());
        assert_eq!((old, calls.len(), calls[0].outcome), (0, 1, Stale), "not with its refresh");
        assert_eq!((shop.clone().in_place(), shop.0.stats().refreshes), (1, 1));
    });
}

#[test]
fn refresh_may_call_its_own_function_and_wait_for_others() {
    static RUNNING: AtomicU32 = AtomicU32::new(0);
    fn spawn(job: impl FnOnce() + Send + 'static) {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        thread::spawn(|| {
            job();
            RUNNING.fetch_sub(1, Ordering::SeqCst);
        });
    }
    #[cached(cache = cache, ttl = 60, stale = 60, key = n.to_string(), spawn = spawn)]
    fn count(cache: MemoryCache, runs: Arc<AtomicU32>, n: u32) -> u32 {
        let run = runs.fetch_add(1, Ordering::SeqCst);
        match n {
            // The values of both are past their ttl.
            0 if run % 2 == 1 => count(cache.clone(), Arc::clone(&runs), 0) + count(cache, runs, 1),
            1 => count(cache, runs, 0),
            _ => run,
        }
    }
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let runs = Arc::new(AtomicU32::new(0));
        for _ in 0..10 {
            for n in [0, 1, 0] {
                count(cache.clone(), Arc::clone(&runs), n);
            }
            until(|| RUNNING.load(Ordering::SeqCst) == 0);
            clock.advance(Duration::from_secs(60));
        }
        assert_eq!(cache.stats().in_flight, 0);
    });
}

#[test]
fn thousand_callers_at_expiry_do_not_wait_and_run_once() {
    let fixture = Fixture::new();
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                for _ in 0..100 {
                    assert_eq!(watch_sync(|| fixture.ask(1)).1[0].outcome, Stale);
                }
            });
        }
    });
    assert_eq!(fixture.jobs.run(), 1);
    let calls = watch_sync(|| fixture.ask(1)).1;
    assert_ne!(calls[0].outcome, Refresh);
    let stats = fixture.cache.stats();
    assert_eq!((fixture.source.runs(), stats.refreshes, stats.coalesced), (2, 1, 0));
}

//! `patience` of sync functions: callers that wait a while for a refresh in another thread.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::telemetry::CallOutcome::{Coalesced, Refresh, Stale};
use vayu::testing::{ManualClock, watchdog};
use vayu::time::Clock;
use vayu::{Cache, ErrorKind, MemoryCache, MemoryOptions, cached, watch_sync};

use crate::{HANG, until, with_every_backend};

/// A source whose queries take a time of the clock.
struct Source {
    clock: ManualClock,
    runs: AtomicU32,
    millis: AtomicU64,
    is_down: AtomicBool,
    panics: AtomicBool,
    /// Queries that hang wait for it to be open.
    gate: (Mutex<bool>, Condvar),
}

/// The time of a query that hangs.
const HANGS: u64 = u64::MAX;

impl Source {
    fn new(clock: &ManualClock) -> Arc<Self> {
        let (clock, runs, millis) = (clock.clone(), AtomicU32::new(0), AtomicU64::new(0));
        let (is_down, panics) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { clock, runs, millis, is_down, panics, gate: Default::default() })
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }

    fn takes(&self, millis: u64) {
        self.millis.store(millis, Ordering::SeqCst);
    }

    fn open(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }

    fn query(&self) -> Result<u32, String> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        match self.millis.load(Ordering::SeqCst) {
            HANGS => {
                let mut is_open = self.gate.0.lock().unwrap();
                while !*is_open {
                    is_open = self.gate.1.wait(is_open).unwrap();
                }
            }
            millis => smol::block_on(self.clock.sleep(Duration::from_millis(millis))),
        }
        assert!(!self.panics.load(Ordering::SeqCst), "planned panic");
        if self.is_down.load(Ordering::SeqCst) { Err("down".to_owned()) } else { Ok(run) }
    }
}

#[cached(
    cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = thread::spawn, own(source), patience = "50ms"
)]
fn call<B, S>(cache: Cache<B, S>, source: &Arc<Source>) -> Result<u32, String>
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    source.query()
}

/// Runs callers in threads, moves the clock once they all wait, and returns their outputs with the times that they
/// took. `sleeps` is the number of their sleeps and those of the source.
fn run_callers<T: Send>(
    clock: &ManualClock,
    callers: usize,
    sleeps: usize,
    steps: &[u64],
    ask: impl Fn() -> T + Sync,
) -> Vec<(T, Duration)> {
    thread::scope(|scope| {
        let caller = || {
            let began = clock.now();
            let output = ask();
            (output, clock.now().saturating_since(began))
        };
        let threads: Vec<_> = (0..callers).map(|_| scope.spawn(caller)).collect();
        until(|| clock.sleepers() == sleeps);
        for &millis in steps {
            let before = clock.sleepers();
            clock.advance(Duration::from_millis(millis));
            // Those that are not due sleep again.
            until(|| {
                clock.sleepers() == before || threads.iter().all(ScopedJoinHandle::is_finished)
            });
        }
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

#[test]
fn thousand_callers_of_a_slow_source_wait_for_the_patience_at_most() {
    const CALLERS: usize = 1_000;
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let source = Source::new(&clock);
        assert_eq!(call(cache.clone(), &source), Ok(1));
        clock.advance(Duration::from_secs(60));
        source.takes(2_000);
        let steps = [10, 10, 10, 10, 9, 1];
        let ask = || call(cache.clone(), &source);
        let mut times = Vec::new();
        for (output, time) in run_callers(&clock, CALLERS, CALLERS + 1, &steps, ask) {
            assert_eq!(output, Ok(1), "the old value");
            times.push(time);
        }
        times.sort_unstable();
        assert_eq!(times[CALLERS * 99 / 100], Duration::from_millis(50), "p99, without a margin");
        assert_eq!((times[0], times[CALLERS - 1], source.runs()), (times[1], times[0], 2));
        clock.advance(Duration::from_millis(1_950));
        until(|| cache.stats().in_flight == 0);
        assert_eq!(call(cache.clone(), &source), Ok(2), "the run went on and has stored");
    });
}

fn callers_wait_for_the_patience_at_most<B, S>(make: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    const CALLERS: usize = 4;
    let clock = ManualClock::new();
    let (cache, source) = (make(clock.clone()), Source::new(&clock));
    let ask = || call(cache.clone(), &source);
    let minute = || clock.advance(Duration::from_secs(60));
    let outputs = |sleeps, steps: &[u64]| {
        let results = run_callers(&clock, CALLERS, sleeps, steps, ask);
        results.into_iter().map(|(output, _)| output).collect::<Vec<_>>()
    };
    assert_eq!(ask(), Ok(1));
    minute();
    source.takes(2_000);
    assert_eq!(outputs(CALLERS + 1, &[49, 1]), vec![Ok(1); CALLERS]);
    clock.advance(Duration::from_millis(1_950));
    until(|| cache.stats().in_flight == 0);
    assert_eq!((ask(), source.runs()), (Ok(2), 2));

    minute();
    source.takes(20);
    assert_eq!(outputs(CALLERS + 1, &[20]), vec![Ok(3); CALLERS], "the new value");

    minute();
    source.is_down.store(true, Ordering::SeqCst);
    assert_eq!(outputs(CALLERS + 1, &[20]), vec![Ok(3); CALLERS], "as soon as it has failed");
    assert_eq!((source.runs(), cache.stats().failed_refreshes), (4, 1));
    clock.advance(Duration::from_secs(4));
    assert_eq!(ask(), Ok(3), "no wait without a run");

    source.is_down.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(1));
    source.takes(HANGS);
    for expected in [5, 5, 5, 6, 6, 6, 7] {
        assert_eq!(outputs(CALLERS, &[50]), vec![Ok(3); CALLERS], "the old value after 50 ms");
        until(|| source.runs() >= expected);
        assert_eq!(source.runs(), expected, "a thread for each time limit of waits, 30 s");
        clock.advance(Duration::from_secs(10));
    }
    source.takes(0);
    clock.advance(Duration::from_secs(20));
    until(|| ask() == Ok(8));
    source.open();
    until(|| cache.stats().in_flight == 0);
    assert_eq!((ask(), source.runs(), cache.stats().errors), (Ok(8), 8, 0));
}

#[test]
fn callers_of_every_backend_wait_for_the_patience_at_most() {
    watchdog(HANG, || with_every_backend!(callers_wait_for_the_patience_at_most));
}

#[test]
fn each_call_is_reported_once() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let source = Source::new(&clock);
        let ask = || {
            let (output, calls) = watch_sync(|| call(cache.clone(), &source));
            assert_eq!(calls.len(), 1);
            (output.unwrap(), calls[0].outcome)
        };
        ask();
        clock.advance(Duration::from_secs(60));
        source.takes(20);
        let mut outcomes: Vec<_> =
            run_callers(&clock, 2, 3, &[20], ask).into_iter().map(|(output, _)| output).collect();
        outcomes.sort_by_key(|(_, outcome)| *outcome == Refresh);
        assert_eq!(outcomes, [(2, Coalesced), (2, Refresh)]);
        clock.advance(Duration::from_secs(60));
        source.panics.store(true, Ordering::SeqCst);
        for ((value, outcome), _) in run_callers(&clock, 2, 3, &[20], ask) {
            assert_eq!((value, outcome), (2, Stale), "a panic of the run is not that of a caller");
        }
        assert_eq!((cache.stats().failed_refreshes, cache.stats().in_flight), (1, 0));
    });
}

#[test]
fn callers_return_the_old_value_at_once_if_nothing_is_spawned() {
    #[cached(
        cache = cache, ttl = "1m", stale = "1h", key = "k", patience = "50ms",
        spawn = |job| if panics { panic!("planned panic of the spawner") } else { drop(job) }
    )]
    fn call(cache: MemoryCache, runs: Arc<AtomicU32>, panics: bool) -> u32 {
        runs.fetch_add(1, Ordering::SeqCst)
    }
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let runs = Arc::new(AtomicU32::new(0));
        let ask = |panics| call(cache.clone(), Arc::clone(&runs), panics);
        assert_eq!(ask(false), 0);
        for panics in [false, true] {
            clock.advance(Duration::from_secs(60));
            assert_eq!((ask(panics), cache.stats().in_flight), (0, 0));
        }
        let errors = cache.stats().errors_of(ErrorKind::Panic);
        assert_eq!((errors, runs.load(Ordering::SeqCst)), (1, 1));
    });
}

#[test]
fn thread_that_an_async_leader_needs_does_not_wait() {
    #[cached(cache = cache, ttl = "1h", key = "outer")]
    async fn outer(cache: &MemoryCache, source: &Arc<Source>) -> Result<u32, String> {
        call(cache.clone(), source)
    }
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let source = Source::new(&clock);
        assert_eq!(call(cache.clone(), &source), Ok(1));
        clock.advance(Duration::from_secs(60));
        source.takes(HANGS);
        assert_eq!(smol::block_on(outer(&cache, &source)), Ok(1), "the clock stands still");
        source.open();
        until(|| cache.stats().in_flight == 0);
    });
}

#[test]
fn runs_that_hang_do_not_end_the_refreshes_of_other_functions() {
    #[cached(
        cache = cache, ttl = "1m", stale = "1h", key = n.to_string(), spawn = thread::spawn, patience = "50ms"
    )]
    fn hangs(cache: MemoryCache, source: Arc<Source>, n: u32) -> Result<u32, String> {
        source.query()
    }
    // The default limit.
    const RUNS: u32 = 256;
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let (source, works) = (Source::new(&clock), Source::new(&clock));
        let next = AtomicU32::new(0);
        let hang = || {
            let n = next.fetch_add(1, Ordering::SeqCst) % RUNS;
            hangs(cache.clone(), Arc::clone(&source), n).unwrap()
        };
        for _ in 0..RUNS {
            hang();
        }
        assert_eq!(call(cache.clone(), &works), Ok(1));
        clock.advance(Duration::from_secs(60));
        source.takes(HANGS);
        run_callers(&clock, RUNS as usize, RUNS as usize, &[50], hang);
        until(|| source.runs() == 2 * RUNS);
        clock.advance(Duration::from_secs(29));
        assert_eq!((call(cache.clone(), &works), works.runs()), (Ok(1), 1), "the limit");
        clock.advance(Duration::from_secs(1));
        assert_eq!(call(cache.clone(), &works), Ok(2), "the new value");
        source.open();
        until(|| cache.stats().in_flight == 0);
    });
}

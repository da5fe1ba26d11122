//! `stale = ..`: stale-while-revalidate and stale-if-error.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::time::Clock;
use vayu::{Cache, MemoryCache, MemoryOptions, Stats, cached};

use crate::{HANG, with_every_backend};

/// A source of values: each call returns the next number, unless the source is down.
#[derive(Default)]
struct Source {
    runs: AtomicU32,
    is_down: AtomicBool,
}

impl Source {
    fn ask(&self) -> Result<u32, String> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        if self.is_down.load(Ordering::SeqCst) { Err("down".to_owned()) } else { Ok(run) }
    }

    fn runs(&self) -> u32 {
        self.runs.load(Ordering::SeqCst)
    }
}

#[cached(cache = cache, ttl = "1m", stale = "30s", key = "k")]
fn sync_call<B, S>(cache: &Cache<B, S>, source: &Source) -> Result<u32, String>
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored>,
{
    source.ask()
}

#[cached(cache = cache, ttl = 60, stale = Duration::from_secs(30), key = "k")]
async fn async_call<B, S>(cache: &Cache<B, S>, source: &Source) -> Result<u32, String>
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored>,
{
    tokio::task::yield_now().await;
    source.ask()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Hit,
    Miss,
    Stale,
    Refresh,
}

/// Second, whether the source is up, output, outcome, and calls of the source so far.
type Step = (u64, bool, Result<u32, ()>, Way, u32);

/// The calls of an entry that was computed at second 0 with the output 1, `ttl = "60s"` and
/// `stale = "30s"`: at a time, with the source up or down, the output and the outcome of a call,
/// and the calls of the source so far.
const TABLE: &[(&str, &[Step])] = {
    use Way::{Hit, Miss, Refresh, Stale};
    const UP: bool = true;
    const DOWN: bool = false;
    &[
        ("fresh", &[(0, UP, Ok(1), Hit, 1), (59, DOWN, Ok(1), Hit, 1)]),
        ("stale is refreshed", &[(60, UP, Ok(2), Refresh, 2), (61, UP, Ok(2), Hit, 2)]),
        (
            "its new ttl counts from there",
            &[(89, UP, Ok(2), Refresh, 2), (148, UP, Ok(2), Hit, 2), (149, UP, Ok(3), Refresh, 3)],
        ),
        (
            "the source fails",
            &[
                (60, DOWN, Ok(1), Stale, 2),
                (60, DOWN, Ok(1), Stale, 2),
                (64, UP, Ok(1), Stale, 2),
                (65, UP, Ok(3), Refresh, 3),
            ],
        ),
        (
            "it goes on failing",
            &[
                (60, DOWN, Ok(1), Stale, 2),
                (65, DOWN, Ok(1), Stale, 3),
                (70, DOWN, Ok(1), Stale, 4),
                (89, DOWN, Ok(1), Stale, 5),
                (90, DOWN, Err(()), Miss, 6),
                (91, DOWN, Err(()), Miss, 7),
                (91, UP, Ok(8), Miss, 8),
            ],
        ),
        ("too old to be served", &[(90, UP, Ok(2), Miss, 2), (149, UP, Ok(2), Hit, 2)]),
        ("too old, and the source fails", &[(90, DOWN, Err(()), Miss, 2)]),
    ]
};

/// Returns the outcome of the last call.
fn way(before: &Stats, after: &Stats) -> Vec<Way> {
    let counts = [
        (after.hits - before.hits, Way::Hit),
        (after.misses - before.misses, Way::Miss),
        (after.stale - before.stale, Way::Stale),
        (after.refreshes - before.refreshes, Way::Refresh),
    ];
    counts.iter().flat_map(|&(count, way)| (0..count).map(move |_| way)).collect()
}

fn check_table<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored>,
{
    for is_async in [false, true] {
        for (name, steps) in TABLE {
            let clock = ManualClock::new();
            let start = clock.now();
            let (cache, source) = (open(clock.clone()), Source::default());
            let call = || {
                if is_async {
                    smol::block_on(async_call(&cache, &source))
                } else {
                    sync_call(&cache, &source)
                }
            };
            assert_eq!(call(), Ok(1), "{name}");
            for &(second, is_up, output, expected, runs) in *steps {
                clock.set(start.saturating_add(Duration::from_secs(second)));
                source.is_down.store(!is_up, Ordering::SeqCst);
                let before = cache.stats();
                assert_eq!(call().map_err(drop), output, "{name}, {second} s, async: {is_async}");
                assert_eq!(way(&before, &cache.stats()), [expected], "{name}, {second} s");
                assert_eq!(source.runs(), runs, "{name}, {second} s");
            }
            assert_eq!(cache.stats().in_flight, 0);
        }
    }
}

#[test]
fn stale_values_behave_as_in_the_table_on_every_backend() {
    with_every_backend!(check_table);
}

fn memory() -> (ManualClock, MemoryCache) {
    let clock = ManualClock::new();
    (clock.clone(), MemoryOptions::new().clock(clock).build())
}

#[test]
fn concurrent_callers_get_the_stale_value_at_once() {
    #[cached(cache = cache, ttl = 60, stale = 60, key = "k")]
    fn call(cache: &MemoryCache, beside: &(dyn Fn() + Sync)) -> u32 {
        let stats = cache.stats();
        beside();
        u32::try_from(stats.misses + stats.refreshes).expect("few")
    }
    watchdog(HANG, || {
        let (clock, cache) = memory();
        assert_eq!(call(&cache, &|| {}), 1);
        clock.advance(Duration::from_secs(60));
        let returned = AtomicUsize::new(0);
        let beside = || {
            // On other threads, while the body runs.
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        assert_eq!(call(&cache, &|| panic!("only one refreshes")), 1);
                        returned.fetch_add(1, Ordering::SeqCst);
                    });
                }
            });
        };
        assert_eq!(call(&cache, &beside), 1);
        let stats = cache.stats();
        assert_eq!((stats.stale, stats.refreshes, stats.coalesced), (8, 1, 0));
        assert_eq!(returned.load(Ordering::SeqCst), 8);
    });
}

/// Calls from a thousand tasks at the moment of expiry.
fn stampede(stale: Duration) -> (Stats, usize) {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    const TASKS: usize = 1_000;
    #[cached(cache = cache, ttl = 60, stale = stale, key = "k")]
    async fn call(cache: MemoryCache, stale: Duration, is_refresh: bool) -> usize {
        // Until all others have returned, or wait for this one.
        let are_all_served = || {
            let stats = cache.stats();
            stale.is_zero() || stats.stale == TASKS as u64 - 1
        };
        // Not before the others have returned.
        loop {
            if !is_refresh || are_all_served() {
                break;
            }
            tokio::task::yield_now().await;
        }
        RUNS.fetch_add(1, Ordering::SeqCst) + 1
    }
    RUNS.store(0, Ordering::SeqCst);
    let (clock, cache) = memory();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    runtime.expect("a runtime").block_on(async {
        call(cache.clone(), stale, false).await;
        clock.advance(Duration::from_secs(60));
        let tasks: Vec<_> =
            (0..TASKS).map(|_| tokio::spawn(call(cache.clone(), stale, true))).collect();
        for task in tasks {
            task.await.expect("no panic");
        }
    });
    (cache.stats(), RUNS.load(Ordering::SeqCst))
}

#[test]
fn one_of_a_thousand_callers_at_expiry_refreshes() {
    watchdog(HANG, || {
        let (stats, runs) = stampede(Duration::from_secs(60));
        assert_eq!((stats.refreshes, stats.stale, stats.coalesced), (1, 999, 0));
        assert_eq!(runs, 2);
        let (stats, runs) = stampede(Duration::ZERO);
        assert_eq!((stats.refreshes, stats.stale), (0, 0));
        assert_eq!((stats.misses, stats.misses + stats.coalesced + stats.hits), (2, 1_001));
        assert_eq!(runs, 2);
    });
}

#[test]
fn failing_source_is_called_once_per_backoff() {
    #[cached(cache = cache, ttl = 60, stale = "2h", key = "k")]
    fn call(cache: &MemoryCache, source: &Source) -> Result<u32, String> {
        source.ask()
    }
    let (clock, cache) = memory();
    let source = Source::default();
    assert_eq!(call(&cache, &source), Ok(1));
    clock.advance(Duration::from_secs(60));
    source.is_down.store(true, Ordering::SeqCst);
    for _ in 0..3_600 {
        for _ in 0..3 {
            assert_eq!(call(&cache, &source), Ok(1));
        }
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(source.runs(), 1 + 3_600 / 5);
    let stats = cache.stats();
    assert_eq!((stats.failed_refreshes, stats.stale), (720, 3 * 3_600));
    source.is_down.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(5));
    assert_eq!(call(&cache, &source), Ok(722));
}

#[test]
fn panic_of_a_refresh_reaches_its_caller_and_the_others_get_the_stale_value() {
    #[cached(cache = cache, ttl = 60, stale = 60, key = "k")]
    fn call(cache: &MemoryCache, is_bad: bool) -> u32 {
        assert!(!is_bad, "planned");
        u32::try_from(cache.stats().inserts).expect("few")
    }
    let (clock, cache) = memory();
    call(&cache, false);
    clock.advance(Duration::from_secs(60));
    assert!(catch_unwind(AssertUnwindSafe(|| call(&cache, true))).is_err());
    assert_eq!(cache.stats().in_flight, 0);
    assert_eq!(call(&cache, true), 0, "the old value, for as long as after a failure");
    assert_eq!((cache.stats().stale, cache.stats().refreshes), (1, 0));
    clock.advance(Duration::from_secs(5));
    assert_eq!(call(&cache, false), 1, "computed again");
    assert_eq!(cache.stats().refreshes, 1);
}

#[test]
fn text_of_an_error_is_not_made_without_an_observer() {
    struct Untold;
    impl std::fmt::Display for Untold {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            unreachable!("nothing observes the cache")
        }
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "k")]
    fn call(cache: &MemoryCache, is_down: bool) -> Result<u8, Untold> {
        if is_down { Err(Untold) } else { Ok(1) }
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    assert!(call(&cache, false).is_ok());
    clock.advance(Duration::from_secs(60));
    assert!(call(&cache, true).is_ok(), "the old value");
    let stats = cache.stats();
    assert_eq!((stats.failed_refreshes, stats.errors), (1, 0));
}

#[test]
fn observers_get_the_text_of_an_error_that_is_display() {
    use std::sync::{Arc, Mutex};
    use vayu::telemetry::Observer;
    #[derive(Default, Clone)]
    struct Texts(Arc<Mutex<Vec<Option<String>>>>);
    impl Observer for Texts {
        fn on_refresh_error(&self, _: &str, error: Option<&str>) {
            self.0.lock().unwrap().push(error.map(ToOwned::to_owned));
        }
    }
    #[derive(Debug, Clone, PartialEq)]
    struct Hidden;
    #[derive(Debug)]
    struct Shown(std::io::Error);
    impl std::fmt::Display for Shown {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "source: {}", self.0)
        }
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "shared")]
    fn shared(cache: &MemoryCache, is_down: bool) -> Result<u8, String> {
        if is_down { Err("down".to_owned()) } else { Ok(1) }
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "shown")]
    fn shown(cache: &MemoryCache, is_down: bool) -> Result<u8, Shown> {
        if is_down { Err(Shown(std::io::Error::other("fire"))) } else { Ok(1) }
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "hidden")]
    fn hidden(cache: &MemoryCache, is_down: bool) -> Result<u8, Hidden> {
        if is_down { Err(Hidden) } else { Ok(1) }
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "generic")]
    fn generic<E: Clone + Send + Sync + 'static>(
        cache: &MemoryCache,
        error: Option<E>,
    ) -> Result<u8, E> {
        error.map_or(Ok(1), Err)
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let texts = Texts::default();
    cache.observe(texts.clone());
    for is_down in [false, true] {
        assert_eq!(shared(&cache, is_down), Ok(1));
        assert_eq!(shown(&cache, is_down).unwrap(), 1);
        assert_eq!(hidden(&cache, is_down), Ok(1));
        assert_eq!(generic(&cache, is_down.then(|| "x".to_owned())), Ok(1));
        clock.advance(Duration::from_secs(60));
    }
    let expected = [Some("down".to_owned()), Some("source: fire".to_owned()), None, None];
    assert_eq!(*texts.0.lock().unwrap(), expected);
}

#[test]
fn dropped_refresh_keeps_the_stale_value() {
    let (clock, cache) = memory();
    let source = Source::default();
    assert_eq!(smol::block_on(async_call(&cache, &source)), Ok(1));
    clock.advance(Duration::from_secs(60));
    let mut context = Context::from_waker(Waker::noop());
    {
        let mut refresh = pin!(async_call(&cache, &source));
        assert!(refresh.as_mut().poll(&mut context).is_pending());
        let mut beside = pin!(async_call(&cache, &source));
        assert_eq!(beside.as_mut().poll(&mut context), Poll::Ready(Ok(1)), "without a wait");
    }
    assert_eq!(cache.stats().in_flight, 0);
    assert_eq!(smol::block_on(async_call(&cache, &source)), Ok(1), "as after a failure");
    clock.advance(Duration::from_secs(5));
    assert_eq!(smol::block_on(async_call(&cache, &source)), Ok(2), "another one refreshes");
}

#[test]
fn refresh_during_which_its_entry_was_invalidated_is_not_stored() {
    #[cached(cache = cache, ttl = 60, stale = 60, prefix = "p", key = "k")]
    fn call(cache: &MemoryCache, source: &Source, invalidates: bool) -> Result<u32, String> {
        if invalidates {
            assert!(cache.remove(&vayu::Key::from_text("p", "k")).expect("delete"));
        }
        source.ask()
    }
    let (clock, cache) = memory();
    let source = Source::default();
    assert_eq!(call(&cache, &source, false), Ok(1));
    clock.advance(Duration::from_secs(60));
    assert_eq!(call(&cache, &source, true), Ok(2), "its caller gets it");
    source.is_down.store(true, Ordering::SeqCst);
    assert!(call(&cache, &source, false).is_err(), "nothing is left to be served");
}

#[test]
fn function_without_a_result_cannot_fail_and_is_refreshed() {
    #[cached(cache = cache, ttl = 60, stale = 60, key = "k", cache_if = |n: &u32| *n < 2)]
    fn call(cache: &MemoryCache, source: &Source) -> u32 {
        source.ask().expect("it is up")
    }
    let (clock, cache) = memory();
    let source = Source::default();
    assert_eq!(call(&cache, &source), 1);
    clock.advance(Duration::from_secs(60));
    assert_eq!(call(&cache, &source), 2, "not to be stored, and no failure");
    assert_eq!(cache.stats().failed_refreshes, 0);
}

#[test]
fn lowered_stale_time_applies_to_existing_entries() {
    #[cached(cache = cache, ttl = 60, stale = stale, key = "k")]
    fn call(cache: &MemoryCache, stale: Duration, source: &Source) -> Result<u32, String> {
        source.ask()
    }
    let (clock, cache) = memory();
    let source = Source::default();
    let (long, short) = (Duration::from_secs(600), Duration::from_secs(10));
    assert_eq!(call(&cache, long, &source), Ok(1));
    source.is_down.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_secs(70));
    assert!(call(&cache, short, &source).is_err());
    assert_eq!(call(&cache, long, &source), Ok(1));
}

#[test]
fn jitter_spreads_the_expiry_of_entries_written_together() {
    #[cached(cache = cache, ttl = 1_000, jitter = "10%", skip(cache))]
    fn call(cache: &MemoryCache, n: u32) -> u32 {
        n
    }
    let (clock, cache) = memory();
    for n in 0..1_000 {
        call(&cache, n);
    }
    let mut left = Vec::new();
    for _ in 0..=10 {
        // Read with `peek`, since a call would recompute an expired entry.
        let before = cache.stats().usage.entries.expect("a count");
        left.push(before);
        clock.advance(Duration::from_secs(if left.len() == 1 { 900 } else { 10 }));
    }
    assert_eq!((left[0], left[1]), (1_000, 1_000), "none goes before nine tenths of the ttl");
    let steps: Vec<u64> = left[1..].windows(2).map(|pair| pair[0] - pair[1]).collect();
    assert!(steps.iter().all(|&gone| (40..=180).contains(&gone)), "about a tenth each: {steps:?}");
    clock.advance(Duration::from_secs(10));
    assert_eq!(cache.stats().usage.entries, Some(0), "all are gone at the end of the ttl");
}

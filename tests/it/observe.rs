//! Events of observers, and statistics per function.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::telemetry::{CallEvent, CallOutcome, Metrics, Observer, PerFunctionStats};
use vayu::testing::{FaultyBackend, ManualClock, MapBackend, watchdog};
use vayu::{Cache, Error, ErrorKind, Key, MemoryCache, MemoryOptions, MessagePack, cached};

use crate::{HANG, with_every_backend};

/// Records all events.
#[derive(Debug, Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn write(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// Returns the events since the last call.
    fn read(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Observer for Recorder {
    fn on_call(&self, call: &CallEvent<'_>) {
        let age = call.age.map_or(-1, |age| i64::try_from(age.as_secs()).unwrap());
        let (outcome, compute_time) = (call.outcome.as_str(), call.compute_time.as_secs());
        self.write(format!("{} {outcome}, age {age}, took {compute_time}", call.function));
    }

    fn on_insert(&self, function: &str) {
        self.write(format!("{function} stored"));
    }

    fn on_error(&self, function: &str, error: &Error) {
        self.write(format!("{function} failed: {:?}", error.kind()));
    }

    fn on_refresh_error(&self, function: &str, _: Option<&str>) {
        self.write(format!("{function} was not refreshed"));
    }
}

type CallResult = Result<u32, String>;

#[cached(cache = cache, ttl = "1m", stale = "1m", prefix = "f", key = secret, log = false, handle = sync_entry)]
fn sync_call<B, S>(cache: &Cache<B, S>, secret: &str, body: &dyn Fn() -> CallResult) -> CallResult
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync,
{
    body()
}

#[cached(cache = cache, ttl = "1m", stale = "1m", prefix = "f", key = secret)]
async fn async_call<B, S>(
    cache: &Cache<B, S>,
    secret: &str,
    body: &dyn Fn() -> CallResult,
) -> CallResult
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync,
{
    body()
}

fn check_each_call<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync,
{
    for is_async in [false, true] {
        let clock = ManualClock::new();
        let cache = open(clock.clone());
        let (recorder, tally) = (Recorder::default(), PerFunctionStats::new());
        cache.observe(recorder.clone());
        cache.observe(tally.clone());
        let pass = |seconds| clock.advance(Duration::from_secs(seconds));
        let call = |output: CallResult| {
            let body = || {
                pass(3);
                output.clone()
            };
            let _ = if is_async {
                smol::block_on(async_call(&cache, "secret", &body))
            } else {
                sync_call(&cache, "secret", &body)
            };
            recorder.read()
        };
        let down = || Err("down".to_owned());

        assert_eq!(call(Ok(1)), ["f stored", "f miss, age -1, took 3"]);
        pass(10);
        assert_eq!(call(Ok(2)), ["f hit, age 10, took 3"]);
        pass(60);
        assert_eq!(call(down()), ["f was not refreshed", "f stale, age 70, took 3"]);
        assert_eq!(call(down()), ["f stale, age 73, took 3"]);
        pass(5);
        assert_eq!(call(Ok(3)), ["f stored", "f refresh, age -1, took 3"]);
        let asked = sync_entry(&cache, "secret", &|| Ok(4)).refresh();
        assert_eq!(asked, Ok(4));
        assert_eq!(recorder.read(), ["f stored", "f refresh, age -1, took 0"]);
        let pause = cache.pause();
        assert_eq!(call(Ok(5)), ["f miss, age -1, took 0"]);
        pause.resume();

        let [function] = &tally.functions()[..] else { panic!("one function") };
        let mut expected = cache.stats();
        expected.usage = vayu::backend::Usage::default();
        assert_eq!((function.function.as_str(), &function.stats), ("f", &expected));
        // One hit and two stale hits of 3 s each; compute times keep four digits.
        assert_eq!(function.time_saved.as_millis(), 9_000);
    }
}

#[test]
fn observers_receive_each_call_once() {
    with_every_backend!(check_each_call);
}

#[test]
fn coalesced_calls_report_the_time_saved() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        // With a limit that is set, a computation of 3 s is not hedged.
        let cache = cache.with_max_wait(Duration::from_secs(60));
        let recorder = Recorder::default();
        cache.observe(recorder.clone());
        let key = Key::from_text("f", "k");
        std::thread::scope(|scope| {
            let leader = || {
                cache.get_or_insert_with(&key, Duration::from_secs(60), || {
                    let wait = || cache.get_or_insert_with(&key, Duration::from_secs(60), || 2);
                    scope.spawn(wait);
                    crate::until(|| clock.sleepers() > 0);
                    clock.advance(Duration::from_secs(3));
                    1
                })
            };
            assert_eq!(leader(), 1);
        });
        let events = recorder.read();
        assert!(events.contains(&"f coalesced, age -1, took 3".to_owned()), "{events:?}");
        assert_eq!(events.len(), 3, "{events:?}");
    });
}

#[test]
fn panicking_observer_does_not_affect_the_call() {
    struct Rude;
    impl Observer for Rude {
        fn on_call(&self, _: &CallEvent<'_>) {
            panic!("rude");
        }
        fn on_insert(&self, _: &str) {
            panic!("rude");
        }
    }
    let cache = MemoryCache::new();
    let recorder = Recorder::default();
    cache.observe(Rude);
    cache.observe(recorder.clone());
    for _ in 0..2 {
        assert_eq!(sync_call(&cache, "k", &|| Ok(1)), Ok(1));
    }
    assert_eq!(cache.stats().errors_of(ErrorKind::Panic), 3);
    assert_eq!((cache.stats().hits, cache.stats().inserts), (1, 1));
    assert_eq!(recorder.read().len(), 3, "the others are events");
}

#[test]
fn errors_are_reported_with_their_function() {
    let backend = FaultyBackend::new(MapBackend::default());
    backend.set_fault(vayu::testing::Fault::FailsWrites);
    let cache: Cache<_, MessagePack> = Cache::with_backend(backend);
    let (recorder, tally) = (Recorder::default(), PerFunctionStats::new());
    cache.observe(recorder.clone());
    cache.observe(tally.clone());
    assert_eq!(sync_call(&cache, "k", &|| Ok(1)), Ok(1));
    let events = recorder.read();
    assert!(events.contains(&"f failed: Backend".to_owned()), "{events:?}");
    assert!(events.iter().all(|line| !line.contains("stored")), "{events:?}");
    let stats = &tally.functions()[0].stats;
    assert_eq!(stats.errors_of(ErrorKind::Backend), cache.stats().errors_of(ErrorKind::Backend));
    assert!(stats.errors > 0);
}

#[test]
fn clones_of_a_cache_have_the_same_observers() {
    let cache = MemoryCache::new();
    let recorder = Recorder::default();
    cache.clone().observe(recorder.clone());
    sync_call(&cache, "k", &|| Ok(1)).unwrap();
    assert_eq!(recorder.read().len(), 2);
}

#[test]
fn per_function_stats_count_from_many_threads() {
    #[cached(cache = cache, ttl = 60, skip(cache))]
    fn one(cache: &MemoryCache, n: u64) -> u64 {
        n
    }
    #[cached(cache = cache, ttl = 60, skip(cache))]
    fn two(cache: &MemoryCache, n: u64) -> u64 {
        n
    }
    let cache = MemoryCache::new();
    let tally = PerFunctionStats::new();
    cache.observe(tally.clone());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..100 {
                    one(&cache, n % 10);
                    two(&cache, n % 20);
                }
            });
        }
    });
    let functions = tally.functions();
    let names: Vec<_> = functions.iter().map(|f| f.function.rsplit("::").next().unwrap()).collect();
    assert_eq!(names, ["one", "two"]);
    assert!(functions.iter().all(|function| function.stats.calls() == 400));
    assert_eq!(functions.iter().map(|f| f.stats.hits).sum::<u64>(), cache.stats().hits);
}

#[test]
fn metrics_equal_the_stats() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};

    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        cache.observe(Metrics::new());
        for _ in 0..3 {
            let body = || {
                clock.advance(Duration::from_millis(2));
                Ok(1)
            };
            sync_call(&cache, "secret", &body).unwrap();
        }
    });
    let mut found: Vec<String> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels: Vec<_> =
                key.key().labels().map(|l| format!("{}={}", l.key(), l.value())).collect();
            let value = match value {
                DebugValue::Histogram(values) => {
                    format!("{:?}", values.into_iter().map(f64::from).collect::<Vec<_>>())
                }
                DebugValue::Counter(count) => count.to_string(),
                DebugValue::Gauge(level) => level.to_string(),
            };
            format!("{} {} {value}", key.key().name(), labels.join(" "))
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            "vayu.call.count vayu.function=f vayu.outcome=hit 2",
            "vayu.call.count vayu.function=f vayu.outcome=miss 1",
            "vayu.computation.duration vayu.function=f [0.002]",
            "vayu.insert.count vayu.function=f 1",
            "vayu.saved.duration vayu.function=f 4000",
        ]
    );
}

#[test]
fn outcomes_have_the_names_of_the_log() {
    let all = [
        CallOutcome::Hit,
        CallOutcome::Miss,
        CallOutcome::Coalesced,
        CallOutcome::Stale,
        CallOutcome::Refresh,
    ];
    assert_eq!(all.map(CallOutcome::as_str), ["hit", "miss", "coalesced", "stale", "refresh"]);
}

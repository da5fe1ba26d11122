//! Errors that are cached: `err_ttl`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use vayu::backend::{Backend, Serializer};
use vayu::telemetry::{CallEvent, CallOutcome, Observer};
use vayu::testing::ManualClock;
use vayu::{Cache, ErrorKind, Explanation, FileOptions, MemoryCache, MemoryOptions, cached};

use crate::{Runs, poll, with_every_backend};

const SECOND: Duration = Duration::from_secs(1);
const MICROSECOND: Duration = Duration::from_micros(1);

#[derive(Debug, Clone, PartialEq)]
enum Failure {
    NotFound(usize),
    Down(usize),
}
use Failure::{Down, NotFound};

impl Failure {
    fn seconds(&self) -> Duration {
        if let NotFound(_) = self { SECOND } else { Duration::ZERO }
    }
}

fn memory() -> (MemoryCache, ManualClock) {
    let clock = ManualClock::new();
    (MemoryOptions::new().clock(clock.clone()).build(), clock)
}

/// A source that fails or does not, and counts its queries.
#[derive(Default)]
struct Source {
    is_up: Cell<bool>,
    queries: Cell<usize>,
}

impl Source {
    fn query(&self) -> Result<usize, Failure> {
        self.queries.set(self.queries.get() + 1);
        if self.is_up.get() { Ok(self.queries.get()) } else { Err(Down(self.queries.get())) }
    }
}

#[test]
fn error_is_cached_for_its_ttl_and_no_longer_on_every_backend() {
    with_every_backend!(run);

    fn run<B: Backend, S>(make: impl Fn(ManualClock) -> Cache<B, S>)
    where
        S: Serializer<usize, Stored = B::Stored>,
    {
        #[cached(cache = cache, ttl = 60, err_ttl = "2s", skip(cache, source), prefix = "err_ttl")]
        fn query<B: Backend, S>(
            cache: &Cache<B, S>,
            source: &Source,
            id: u8,
        ) -> Result<usize, Failure>
        where
            S: Serializer<usize, Stored = B::Stored>,
        {
            source.query()
        }
        let clock = ManualClock::new();
        let (cache, source) = (make(clock.clone()), Source::default());
        for _ in 0..3 {
            assert_eq!(query(&cache, &source, 1), Err(Down(1)));
        }
        assert_eq!(query(&cache, &source, 2), Err(Down(2)), "another key");
        clock.advance(2 * SECOND);
        assert_eq!(query(&cache, &source, 1), Err(Down(3)));
        source.is_up.set(true);
        assert_eq!(query(&cache, &source, 1), Err(Down(3)));
        clock.advance(2 * SECOND);
        for _ in 0..2 {
            assert_eq!(query(&cache, &source, 1), Ok(4));
        }
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.error_hits, stats.hits), (4, 3, 1));
        assert_eq!((stats.inserts, stats.errors, stats.calls()), (1, 0, 8));
    }
}

#[test]
fn closure_gives_each_error_its_ttl_and_may_name_arguments() {
    #[cached(cache = cache, ttl = 60, key = id.to_string(), err_ttl = |error: &Failure| match error {
        NotFound(_) => seconds * SECOND,
        Down(_) => Duration::ZERO,
    })]
    fn query(
        cache: &MemoryCache,
        id: u8,
        seconds: u32,
        body: &dyn Fn() -> Result<usize, Failure>,
    ) -> Result<usize, Failure> {
        body()
    }
    #[cached(cache = cache, ttl = 60, key = "k", err_ttl = |error| name.len() as u32 * error.seconds())]
    async fn query_async(cache: MemoryCache, name: String) -> Result<usize, Failure> {
        let moved = name;
        Err(NotFound(moved.len()))
    }
    let (cache, clock) = memory();
    let fails = |error: &'static dyn Fn() -> Failure| move || Err(error());
    let (first, second) = (fails(&|| NotFound(1)), fails(&|| NotFound(2)));
    assert_eq!(query(&cache, 1, 5, &first), Err(NotFound(1)));
    clock.advance(5 * SECOND - MICROSECOND);
    assert_eq!(query(&cache, 1, 5, &second), Err(NotFound(1)));
    assert_eq!(query(&cache, 1, 4, &second), Err(NotFound(2)), "the ttl of this call is shorter");
    let (down, up) = (fails(&|| Down(3)), || Ok(4));
    assert_eq!(query(&cache, 2, 5, &down), Err(Down(3)));
    assert_eq!(query(&cache, 2, 5, &up), Ok(4), "an error with a ttl of zero is not cached");
    let call = || poll(pin!(query_async(cache.clone(), "abc".to_owned())));
    assert_eq!((call(), call()), (Poll::Ready(Err(NotFound(3))), Poll::Ready(Err(NotFound(3)))));
    assert_eq!(cache.stats().error_hits, 2);
}

#[test]
fn stale_value_wins_over_a_cached_error_and_is_not_refreshed_meanwhile() {
    #[cached(cache = cache, ttl = 10, stale = 60, err_ttl = 20, key = "k")]
    fn rate(cache: &MemoryCache, source: &Source) -> Result<usize, Failure> {
        source.query()
    }
    let (cache, clock) = memory();
    let source = Source::default();
    source.is_up.set(true);
    assert_eq!(rate(&cache, &source), Ok(1));
    source.is_up.set(false);
    clock.advance(10 * SECOND);
    let mut queried = Vec::new();
    for second in 10..130 {
        let expected = if second < 70 { Ok(1) } else { Err(Down(source.queries.get())) };
        let before = source.queries.get();
        let output = rate(&cache, &source);
        if source.queries.get() > before {
            queried.push(second);
        }
        if second < 70 || source.queries.get() == before {
            assert_eq!(output, expected, "after {second} s");
        }
        clock.advance(SECOND);
    }
    assert_eq!(queried, [10, 30, 50, 70, 90, 110]);
    assert_eq!(cache.stats().failed_refreshes, 3);
}

#[test]
fn all_that_removes_or_stores_a_value_removes_the_error() {
    #[cached(cache = cache, ttl = 60, err_ttl = 60, key = "k", tags("t"), handle = query_entry)]
    fn query(cache: &MemoryCache, source: &Source) -> Result<usize, Failure> {
        source.query()
    }
    #[cached(cache = cache, ttl = 60, err_ttl = 60, key = "k", tags("t"), refresh_if = source.queries.get() > 0, prefix = "r")]
    fn refreshed(cache: &MemoryCache, source: &Source) -> Result<usize, Failure> {
        source.query()
    }
    type Removal<'a> = (&'a str, &'a dyn Fn(&MemoryCache, &Source));
    let removals: [Removal<'_>; 8] = [
        ("key", &|cache, source| {
            query_entry(cache, source).invalidate().expect("no fault");
        }),
        ("key of the cache", &|cache, source| {
            let entry = query_entry(cache, source);
            cache.remove(entry.key().expect("a key")).expect("no fault");
        }),
        ("tag", &|cache, _| cache.invalidate_tag("t").expect("no fault")),
        ("function", &|cache, _| cache.invalidate_function(&query).expect("no fault")),
        ("all", &|cache, _| cache.invalidate_all().expect("no fault")),
        ("clear", &|cache, _| cache.clear().expect("no fault")),
        ("set and remove", &|cache, source| {
            let entry = query_entry(cache, source);
            assert!(entry.set(Ok(0)).expect("no fault"));
            assert_eq!(query(cache, source), Ok(0));
            cache.remove(entry.key().expect("a key")).expect("no fault");
        }),
        ("update", &|cache, source| {
            let entry = query_entry(cache, source);
            let key = entry.key().expect("a key");
            let updated = cache.update_with(key, 60 * SECOND, |old: Option<usize>| {
                assert_eq!(old, None);
                7
            });
            assert_eq!((updated.expect("no fault"), query(cache, source)), (7, Ok(7)));
            cache.remove(key).expect("no fault");
        }),
    ];
    for (name, remove) in removals {
        let (cache, source) = (MemoryCache::new(), Source::default());
        assert_eq!(query(&cache, &source), Err(Down(1)), "{name}");
        assert_eq!(query(&cache, &source), Err(Down(1)), "{name}");
        assert!(matches!(query_entry(&cache, &source).explain(), Explanation::ErrorHit));
        remove(&cache, &source);
        assert!(!matches!(query_entry(&cache, &source).explain(), Explanation::ErrorHit), "{name}");
        assert_eq!(query(&cache, &source), Err(Down(2)), "{name}");
    }
    // A refresh replaces it by its own.
    let (cache, source) = (MemoryCache::new(), Source::default());
    assert_eq!(query(&cache, &source), Err(Down(1)));
    assert_eq!(query_entry(&cache, &source).refresh(), Err(Down(2)));
    assert_eq!(query(&cache, &source), Err(Down(2)));
    source.is_up.set(true);
    assert_eq!(query_entry(&cache, &source).refresh(), Ok(3));
    assert_eq!(query(&cache, &source), Ok(3));
    source.is_up.set(false);
    assert_eq!(refreshed(&cache, &source), Err(Down(4)));
    assert_eq!(
        refreshed(&cache, &source),
        Err(Down(5)),
        "a refresh does not return a cached error"
    );
}

#[test]
fn value_that_is_not_stored_removes_the_error() {
    #[cached(cache = cache, ttl = 1, err_ttl = 60, key = "k", cache_if = |run| *run > 3, refresh_if = is_forced)]
    fn query(cache: &MemoryCache, source: &Source, is_forced: bool) -> Result<usize, Failure> {
        source.query()
    }
    let (cache, clock) = memory();
    let source = Source::default();
    assert_eq!(query(&cache, &source, false), Err(Down(1)));
    source.is_up.set(true);
    assert_eq!(query(&cache, &source, false), Err(Down(1)));
    assert_eq!(query(&cache, &source, true), Ok(2));
    assert_eq!(query(&cache, &source, false), Ok(3));
    // Nor does an error come back when the value that replaced it expires.
    source.is_up.set(false);
    assert_eq!(query(&cache, &source, false), Err(Down(4)));
    source.is_up.set(true);
    assert_eq!(query(&cache, &source, true), Ok(5));
    clock.advance(SECOND);
    assert_eq!(query(&cache, &source, false), Ok(6));
}

#[test]
fn version_and_type_of_the_error_separate_cached_errors() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, err_ttl = 60, key = "k", prefix = "versions", version = 1)]
    fn first(cache: &MemoryCache) -> Result<u8, usize> {
        Err(RUNS.count())
    }
    #[cached(cache = cache, ttl = 60, err_ttl = 60, key = "k", prefix = "versions", version = 2)]
    fn second(cache: &MemoryCache) -> Result<u8, usize> {
        Err(RUNS.count())
    }
    #[cached(cache = cache, ttl = 60, err_ttl = 60, key = "k", prefix = "versions", version = 1)]
    fn text(cache: &MemoryCache) -> Result<u8, String> {
        Err(format!("run {}", RUNS.count()))
    }
    #[cached(cache = cache, ttl = 60, key = "k", prefix = "versions", version = 1)]
    fn without(cache: &MemoryCache) -> Result<u8, usize> {
        Err(RUNS.count())
    }
    let cache = MemoryCache::new();
    assert_eq!((first(&cache), second(&cache)), (Err(1), Err(2)));
    assert_eq!((first(&cache), second(&cache)), (Err(1), Err(2)));
    assert_eq!(without(&cache), Err(3), "a function without `err_ttl` runs");
    assert_eq!(text(&cache), Err("run 4".to_owned()));
}

#[test]
fn error_is_in_this_process_only_and_takes_the_place_of_no_value() {
    #[cached(cache = cache, ttl = 60, err_ttl = 60, skip(cache, source))]
    fn query<B: Backend, S>(cache: &Cache<B, S>, source: &Source, id: u32) -> Result<usize, Failure>
    where
        S: Serializer<usize, Stored = B::Stored>,
    {
        source.query()
    }
    let directory = tempfile::tempdir().expect("a directory");
    let open = || FileOptions::new().open(directory.path()).expect("a cache");
    let (one, other, source) = (open(), open(), Source::default());
    assert_eq!((query(&one, &source, 1), query(&one, &source, 1)), (Err(Down(1)), Err(Down(1))));
    assert_eq!(query(&other, &source, 1), Err(Down(2)), "as in another process");
    assert_eq!(one.stats().usage.entries.unwrap_or(0), 0);
    let cache = MemoryOptions::new().max_entries(8).build();
    source.is_up.set(true);
    for id in 0..8 {
        query(&cache, &source, id).expect("it is up");
    }
    source.is_up.set(false);
    for id in 100..10_000 {
        query(&cache, &source, id).expect_err("it is down");
    }
    let queries = source.queries.get();
    for id in 0..8 {
        query(&cache, &source, id).expect("a hit");
    }
    assert_eq!(source.queries.get(), queries);
}

#[test]
fn callers_that_wait_share_the_error_and_later_ones_get_it_from_the_cache() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, err_ttl = 60, key = "k", tags("t"), handle = fails_entry)]
    async fn fails(cache: &MemoryCache, open: &Notify) -> Result<u8, usize> {
        let run = RUNS.count();
        open.notified().await;
        Err(run)
    }
    let (cache, open) = (MemoryCache::new(), Notify::new());
    let mut leader = pin!(fails(&cache, &open));
    let mut waiting = pin!(fails(&cache, &open));
    assert!(poll(leader.as_mut()).is_pending() && poll(waiting.as_mut()).is_pending());
    open.notify_one();
    assert_eq!((poll(leader), poll(waiting)), (Poll::Ready(Err(1)), Poll::Ready(Err(1))));
    assert_eq!(poll(pin!(fails(&cache, &open))), Poll::Ready(Err(1)));
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.coalesced, stats.error_hits), (1, 1, 1));
    // The error of a run that was invalidated is not cached.
    for (run, by_tag) in [(2, false), (3, true)] {
        cache.clear().expect("cleared");
        let mut leader = pin!(fails(&cache, &open));
        assert!(poll(leader.as_mut()).is_pending());
        if by_tag {
            cache.invalidate_tag("t").expect("invalidated");
        } else {
            fails_entry(&cache, &open).invalidate().expect("invalidated");
        }
        open.notify_one();
        assert_eq!(poll(leader), Poll::Ready(Err(run)));
        let next = fails_entry(&cache, &open).explain();
        assert!(!matches!(next, Explanation::ErrorHit), "{next}");
    }
}

#[test]
fn observer_sees_calls_that_return_a_cached_error() {
    type Event = (CallOutcome, Option<Duration>, Duration);
    #[derive(Default)]
    struct Events(Arc<Mutex<Vec<Event>>>);
    impl Observer for Events {
        fn on_call(&self, call: &CallEvent<'_>) {
            let event = (call.outcome, call.age, call.compute_time);
            self.0.lock().expect("no panic").push(event);
        }
    }
    #[cached(cache = cache, ttl = 60, err_ttl = 60, key = "k")]
    fn fails(cache: &MemoryCache, clock: &ManualClock) -> Result<u8, ()> {
        clock.advance(SECOND / 4);
        Err(())
    }
    let (cache, clock) = memory();
    let events = Events::default();
    let seen = Arc::clone(&events.0);
    cache.observe(events);
    assert_eq!(fails(&cache, &clock), Err(()));
    clock.advance(5 * SECOND);
    assert_eq!(fails(&cache, &clock), Err(()));
    let expected = [
        (CallOutcome::Miss, None, SECOND / 4),
        (CallOutcome::ErrorHit, Some(5 * SECOND), SECOND / 4),
    ];
    assert_eq!(*seen.lock().expect("no panic"), expected);
}

#[test]
fn panic_of_the_closure_is_counted_and_the_error_is_not_cached() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, key = "k", log = false, err_ttl = |_| panic!("planned panic"))]
    fn fails(cache: &MemoryCache) -> Result<u8, usize> {
        Err(RUNS.count())
    }
    let cache = MemoryCache::new();
    assert_eq!((fails(&cache), fails(&cache)), (Err(1), Err(2)));
    assert_eq!(cache.stats().errors_of(ErrorKind::Panic), 2);
}

/// The state of a key, as the documentation says: a value, and beside it an error.
#[derive(Default)]
struct Expected {
    value: Option<(usize, Duration)>,
    error: Option<(usize, Duration)>,
}

#[test]
fn random_calls_and_invalidations_are_as_in_a_model() {
    const TTL: Duration = Duration::from_secs(4);
    const ERR_TTL: Duration = Duration::from_secs(2);
    thread_local! {
        static SOURCE: RefCell<(bool, usize)> = const { RefCell::new((false, 0)) };
    }
    #[cached(cache = cache, ttl = TTL, err_ttl = ERR_TTL, tags("t"), handle = query_entry, skip(cache))]
    fn query(cache: &MemoryCache, id: u64) -> Result<usize, Failure> {
        SOURCE.with_borrow_mut(|(is_up, queries)| {
            *queries += 1;
            if *is_up { Ok(*queries) } else { Err(Down(*queries)) }
        })
    }
    let (cache, clock) = memory();
    let mut model: HashMap<u64, Expected> = HashMap::new();
    let (mut now, mut seed, mut error_hits) = (Duration::ZERO, 0x2545_F491_4F6C_DD1D_u64, 0);
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 33) % below
    };
    for step in 0..20_000 {
        let id = random(3);
        match random(16) {
            0..8 => {
                let is_up = random(2) == 0;
                let queries = SOURCE.with_borrow_mut(|source| {
                    source.0 = is_up;
                    source.1
                });
                let expected = model.entry(id).or_default();
                let value = expected.value.filter(|(_, stored)| now < *stored + TTL);
                let error = expected.error.filter(|(_, stored)| now < *stored + ERR_TTL);
                let wanted = match (value, error) {
                    (Some((value, _)), _) => Ok(value),
                    (None, Some((error, _))) => {
                        error_hits += 1;
                        Err(Down(error))
                    }
                    (None, None) if is_up => {
                        *expected = Expected { value: Some((queries + 1, now)), error: None };
                        Ok(queries + 1)
                    }
                    (None, None) => {
                        expected.error = Some((queries + 1, now));
                        Err(Down(queries + 1))
                    }
                };
                assert_eq!(query(&cache, id), wanted, "step {step}");
            }
            8..12 => {
                let time = Duration::from_millis(random(2000));
                now += time;
                clock.advance(time);
            }
            12 => {
                model.remove(&id);
                query_entry(&cache, id).invalidate().expect("no fault");
            }
            13 if random(4) == 0 => {
                model.clear();
                match random(4) {
                    0 => cache.invalidate_tag("t").expect("no fault"),
                    1 => cache.invalidate_function(&query).expect("no fault"),
                    2 => cache.invalidate_all().expect("no fault"),
                    _ => cache.clear().expect("no fault"),
                }
            }
            14 => {
                let value = usize::try_from(step).expect("a number") + 1_000_000;
                model.insert(id, Expected { value: Some((value, now)), error: None });
                assert!(query_entry(&cache, id).set(Ok(value)).expect("no fault"));
            }
            _ => {
                let is_up = random(2) == 0;
                let queries = SOURCE.with_borrow_mut(|source| {
                    source.0 = is_up;
                    source.1
                });
                let expected = model.entry(id).or_default();
                if is_up {
                    *expected = Expected { value: Some((queries + 1, now)), error: None };
                } else {
                    expected.error = Some((queries + 1, now));
                }
                let refreshed = query_entry(&cache, id).refresh();
                assert_eq!(refreshed, if is_up { Ok(queries + 1) } else { Err(Down(queries + 1)) });
            }
        }
    }
    assert_eq!(cache.stats().error_hits, error_hits);
    assert!(error_hits > 1000, "{error_hits}");
}

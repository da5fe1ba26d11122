//! Semantics: which results are cached, ttl, limits and expiry.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use vayu::backend::{AnyValue, Backend, ByReference};
use vayu::testing::ManualClock;
use vayu::{Cache, Key, MemoryCache, MemoryOptions, cached, mem_cached};

use crate::Runs;

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn err_is_not_cached_for_any_alias_of_result() {
    type CallResult<T> = Result<T, String>;
    trait Source {
        type Output;
    }
    struct Here;
    impl Source for Here {
        type Output = Result<usize, String>;
    }
    static RUNS: Runs = Runs::new();
    fn output() -> Result<usize, String> {
        let run = RUNS.count();
        if run % 2 == 1 { Err("odd".to_owned()) } else { Ok(run) }
    }
    #[cached(ttl = 60)]
    fn plain() -> Result<usize, String> {
        output()
    }
    #[cached(ttl = 60)]
    fn alias() -> CallResult<usize> {
        output()
    }
    #[cached(ttl = 60)]
    fn projected() -> <Here as Source>::Output {
        output()
    }
    #[cached(ttl = 60)]
    fn of_io() -> io::Result<usize> {
        output().map_err(io::Error::other)
    }
    #[cached(ttl = 60)]
    fn generic<T: From<u8> + Clone + Send + Sync + 'static>() -> Result<T, String> {
        output().map(|_| T::from(1))
    }
    for call in [plain, alias, projected] {
        assert!(call().is_err());
        let first = call().expect("the second run");
        assert_eq!(call(), Ok(first));
    }
    assert!(of_io().is_err());
    assert_eq!(of_io().ok(), of_io().ok());
    assert!(generic::<u16>().is_err());
    assert_eq!((generic::<u16>(), generic::<u16>()), (Ok(1), Ok(1)));
    assert_eq!(RUNS.get(), 10);
}

#[test]
fn result_as_a_type_parameter_is_returned_and_not_cached() {
    static RUNS: Runs = Runs::new();
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = CACHE, ttl = 60, key = "k")]
    fn make_it<T: Clone + Send + Sync + 'static>(make: fn(usize) -> T) -> T {
        make(RUNS.count())
    }
    let fallible = |run| if run == 1 { Err("down") } else { Ok(run) };
    let results: Vec<Result<usize, &str>> = (0..3).map(|_| make_it(fallible)).collect();
    assert_eq!(results, [Err("down"), Ok(2), Ok(3)]);
    assert_eq!(
        CACHE.stats().errors_of(vayu::ErrorKind::Configuration),
        3,
        "and an error is counted"
    );
    assert_eq!((make_it(|run| run), make_it(|run| run)), (4, 4), "other types are");
}

#[test]
fn none_is_cached_unless_cache_if_rejects_it() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60)]
    fn find(n: u8) -> Option<u8> {
        let _ = n;
        RUNS.count();
        None
    }
    #[cached(ttl = 60, cache_if = Option::is_some)]
    fn find_some(n: u8) -> Option<u8> {
        (RUNS.count() > 3).then_some(n)
    }
    #[cached(ttl = 60, cache_if = |found: &Vec<u8>| !found.is_empty())]
    fn find_all() -> Result<Vec<u8>, ()> {
        RUNS.count();
        Ok(Vec::new())
    }
    assert_eq!((find(1), find(1)), (None, None));
    assert_eq!(RUNS.get(), 1);
    assert_eq!((find_some(1), find_some(1)), (None, None));
    assert_eq!((find_some(1), find_some(1)), (Some(1), Some(1)));
    assert_eq!(RUNS.get(), 4);
    assert_eq!((find_all(), find_all()), (Ok(Vec::new()), Ok(Vec::new())));
    assert_eq!(RUNS.get(), 6);
}

#[test]
fn all_threads_share_one_cache() {
    static RUNS: Runs = Runs::new();
    #[mem_cached(ttl = 60)]
    fn call() -> usize {
        RUNS.count()
    }
    call();
    let others: Vec<usize> =
        (0..4).map(|_| thread::spawn(call).join().expect("no panic")).collect();
    assert_eq!(others, [1; 4]);
}

#[test]
fn maximal_ttl_is_without_expiry() {
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = Duration::MAX, key = "k")]
    fn for_ever(cache: &MemoryCache) -> usize {
        RUNS.count()
    }
    #[cached(cache = cache, ttl = 18446744073709551615, key = "k")]
    fn in_seconds(cache: &MemoryCache) -> usize {
        RUNS.count()
    }
    let first = (for_ever(&cache), in_seconds(&cache));
    clock.advance(Duration::from_secs(1000 * 365 * 24 * 60 * 60));
    assert_eq!((for_ever(&cache), in_seconds(&cache)), first);
}

#[test]
fn lowered_ttl_applies_to_existing_entries() {
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    static RUNS: Runs = Runs::new();
    // Two releases of one function.
    #[cached(cache = cache, ttl = "1h", prefix = "f", key = "k")]
    fn before(cache: &MemoryCache) -> usize {
        RUNS.count()
    }
    #[cached(cache = cache, ttl = "1m", prefix = "f", key = "k")]
    fn after(cache: &MemoryCache) -> usize {
        RUNS.count()
    }
    assert_eq!(before(&cache), 1);
    clock.advance(MINUTE - Duration::from_secs(1));
    assert_eq!((before(&cache), after(&cache)), (1, 1));
    clock.advance(Duration::from_secs(1));
    assert_eq!((before(&cache), after(&cache)), (1, 2));
}

#[test]
fn all_forms_of_a_ttl_have_their_length() {
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h 30m", skip(cache), include(1))]
    fn text(cache: &MemoryCache) -> usize {
        RUNS.count()
    }
    #[cached(cache = cache, ttl = 30, skip(cache), include(1))]
    fn whole(cache: &MemoryCache) -> usize {
        RUNS.count()
    }
    #[cached(cache = cache, ttl = 0.5, skip(cache), include(1))]
    fn fraction(cache: &MemoryCache) -> usize {
        RUNS.count()
    }
    #[cached(cache = cache, ttl = MINUTE * factor, skip(cache))]
    fn expression(cache: &MemoryCache, factor: u32) -> usize {
        RUNS.count()
    }
    #[cached(cache = cache, ttl = |run: &usize| MINUTE * u32::from(*run > 0), skip(cache), include(1))]
    fn by_value(cache: &MemoryCache) -> usize {
        RUNS.count()
    }
    let check = |call: &dyn Fn() -> usize, ttl: Duration| {
        let first = call();
        clock.advance(ttl - Duration::from_micros(1));
        assert_eq!(call(), first);
        clock.advance(Duration::from_micros(1));
        assert_ne!(call(), first);
    };
    check(&|| text(&cache), 90 * MINUTE);
    check(&|| whole(&cache), Duration::from_secs(30));
    check(&|| fraction(&cache), Duration::from_millis(500));
    check(&|| expression(&cache, 3), 3 * MINUTE);
    check(&|| by_value(&cache), MINUTE);
}

#[test]
fn zero_ttl_stores_nothing() {
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    static RUNS: Runs = Runs::new();
    #[cached(cache = CACHE, ttl = Duration::from_secs(u64::from(seconds)))]
    fn call(seconds: u8) -> usize {
        let _ = seconds;
        RUNS.count()
    }
    assert_eq!((call(0), call(0), call(9), call(9)), (1, 2, 3, 3));
    assert_eq!(CACHE.stats().errors_of(vayu::ErrorKind::Configuration), 2);
}

/// A value that shows when its memory is freed.
#[derive(Clone)]
struct Held(#[expect(dead_code, reason = "it is counted")] Arc<()>);

/// As a response that may not be cached at all, for instance of a name server.
#[test]
fn value_whose_own_ttl_is_zero_is_returned_and_not_stored() {
    struct Server {
        cache: MemoryCache,
        runs: Runs,
    }

    impl Server {
        #[cached(
            cache = self.cache, stale = "1h", prefix = "address", handle = address_entry,
            ttl = |(seconds, _): &(u64, usize)| Duration::from_secs(*seconds)
        )]
        fn address(&self, seconds: u64) -> Result<(u64, usize), String> {
            Ok((seconds, self.runs.count()))
        }

        #[cached(
            cache = self.cache, skip(self), prefix = "address",
            ttl = |(seconds, _): &(u64, usize)| Duration::from_secs(*seconds)
        )]
        async fn address_async(&self, seconds: u64) -> Result<(u64, usize), String> {
            Ok((seconds, self.runs.count()))
        }
    }

    let server = Server { cache: MemoryCache::new(), runs: Runs::new() };
    assert_eq!((server.address(0), server.address(0)), (Ok((0, 1)), Ok((0, 2))));
    assert_eq!(smol::block_on(server.address_async(0)), Ok((0, 3)));
    assert_eq!((server.address(60), server.address(60)), (Ok((60, 4)), Ok((60, 4))));
    assert!(!server.address_entry(0).set(Ok((0, 0))).expect("no fault"));
    assert_eq!((server.cache.stats().errors, server.cache.stats().inserts), (0, 1));
}

fn check_expired_entries_are_removed<
    B: vayu::backend::Backend<Stored = vayu::backend::AnyValue>,
>(
    cache: &Cache<B, vayu::backend::ByReference>,
    clock: &ManualClock,
    more_operations: usize,
) {
    let memory = Arc::new(());
    for n in 0..1000 {
        let key = Key::new("held", &(n,)).expect("a number");
        cache.set(&key, &Held(Arc::clone(&memory)), MINUTE).expect("write");
    }
    assert_eq!(Arc::strong_count(&memory), 1001);
    clock.advance(2 * MINUTE);
    // Another key: the expired ones are never read again.
    cache.get::<Held>(&Key::from_text("other", "")).expect("read");
    let usage = cache.stats().usage;
    for _ in 0..more_operations {
        if Arc::strong_count(&memory) == 1 {
            break;
        }
        std::thread::yield_now();
        cache.get::<Held>(&Key::from_text("other", "")).expect("read");
    }
    assert_eq!(Arc::strong_count(&memory), 1, "{usage:?}");
    assert_eq!((usage.entries, usage.expirations), (Some(0), Some(1000)));
}

#[test]
fn memory_of_expired_entries_is_freed_without_a_read() {
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    check_expired_entries_are_removed(&cache, &clock, 0);
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build_moka();
    // Moka frees an entry when no thread of the process reads one of its maps that did so before.
    check_expired_entries_are_removed(&cache, &clock, 100_000);
}

#[test]
fn limit_is_in_the_stats_and_evictions_are_counted() {
    let cache = MemoryOptions::new().max_entries(100).build();
    assert_eq!(cache.stats().usage.max_entries, Some(100));
    assert_eq!(MemoryCache::new().stats().usage.max_entries, Some(10_000));
    for n in 0..1000 {
        let key = Key::new("n", &(n,)).expect("a number");
        cache.set(&key, &n, MINUTE).expect("write");
    }
    let usage = cache.stats().usage;
    let entries = usage.entries.expect("known");
    assert!(entries <= 100, "{entries}");
    assert_eq!(usage.evictions, Some(1000 - entries));
}

fn text_length(_: &Key, value: &AnyValue) -> u32 {
    value.downcast_ref::<String>().map_or(1, |text| u32::try_from(text.len()).expect("short"))
}

#[test]
fn weight_can_be_the_limit() {
    fn test<B: Backend<Stored = AnyValue>>(cache: &Cache<B, ByReference>) {
        for n in 0..1000 {
            let key = Key::new("n", &(n,)).expect("a number");
            cache.set(&key, &"x".repeat(100), MINUTE).expect("write");
        }
        let usage = cache.stats().usage;
        assert!(usage.weight.is_some_and(|weight| weight <= 10_000), "{usage:?}");
        assert!(usage.entries.is_some_and(|entries| (50..=100).contains(&entries)), "{usage:?}");
    }
    let options = || MemoryOptions::new().max_weight(10_000, text_length);
    test(&options().build());
    test(&options().build_moka());
}

#[test]
fn value_up_to_the_limit_is_stored_in_a_full_cache() {
    for max in [20, 1_000, 10_000, 1_000_000] {
        let cache = MemoryOptions::new().max_weight(max, text_length).build();
        for n in 0..100_u64 {
            // From a twentieth of the limit to almost all of it, repeatedly.
            let weight = max * 99 / 100 * (n % 20 + 1) / 20;
            let text = "x".repeat(usize::try_from(weight).expect("short"));
            let key = Key::new("n", &n).expect("a number");
            cache.set(&key, &text, MINUTE).expect("write");
            assert_eq!(cache.get(&key).expect("read"), Some(text), "{weight} of {max}");
            assert!(cache.stats().usage.weight.is_some_and(|weight| weight <= max));
        }
        assert_eq!(cache.stats().usage.rejections, Some(0));
    }
}

#[test]
fn too_heavy_value_is_counted_and_removes_the_old_one() {
    fn test<B: Backend<Stored = AnyValue>>(cache: &Cache<B, ByReference>) {
        let key = Key::from_text("k", "");
        cache.set(&key, &"old".to_owned(), MINUTE).expect("write");
        assert_eq!(cache.get::<String>(&key).expect("read").as_deref(), Some("old"));
        cache.set(&key, &"x".repeat(10_001), MINUTE).expect("write");
        assert_eq!(cache.get::<String>(&key).expect("read"), None);
        assert_eq!(cache.stats().usage.rejections, Some(1));
    }
    let options = || MemoryOptions::new().max_weight(10_000, text_length);
    test(&options().build());
    test(&options().build_moka());
}

#[test]
fn cache_of_zero_entries_stores_nothing_and_runs_functions() {
    let cache = MemoryOptions::new().max_entries(0).build();
    let runs = Runs::new();
    let call = || cache.get_or_insert_with(&Key::from_text("p", "k"), MINUTE, || runs.count());
    assert_eq!((call(), call()), (1, 2));
}

#[test]
fn map_arguments_hit() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60)]
    fn call(map: HashMap<String, Vec<HashMap<u8, u8>>>) -> usize {
        let _ = map;
        RUNS.count()
    }
    let map = || {
        let inner = || (0..20).map(|n| (n, n)).collect::<HashMap<u8, u8>>();
        (0..20).map(|n| (n.to_string(), vec![inner(), inner()])).collect()
    };
    for _ in 0..10 {
        assert_eq!(call(map()), 1);
    }
}

#[test]
fn key_is_computed_once_a_call() {
    static ENCODED: Runs = Runs::new();
    struct Counted;
    impl serde::Serialize for Counted {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            ENCODED.count();
            serializer.serialize_unit()
        }
    }
    #[cached(ttl = 60)]
    fn call(argument: &Counted) -> u8 {
        let _ = argument;
        1
    }
    call(&Counted);
    assert_eq!(ENCODED.get(), 1, "a miss");
    call(&Counted);
    assert_eq!(ENCODED.get(), 2, "a hit");
}

#[test]
fn future_of_a_cached_function_is_small() {
    #[cached(ttl = 60)]
    async fn number(n: u64) -> u64 {
        n
    }
    let size = size_of_val(&number(1));
    // The whole future is moved into the task that awaits it.
    assert!(size <= 1536, "{size} bytes");
}

#[test]
fn value_with_ttl_by_value_is_read_without_a_lock() {
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = CACHE, ttl = |_: &u64| MINUTE, handle = by_value)]
    fn asked(n: u64) -> u64 {
        n
    }
    #[cached(cache = CACHE, ttl = "1m", handle = for_all)]
    fn known(n: u64) -> u64 {
        n
    }
    assert_eq!((asked(1), known(1)), (1, 1));
    let is_read_without_a_lock = |key: &Key| CACHE.backend().read_optimistic(key).is_some();
    assert!(is_read_without_a_lock(by_value(1).key().expect("a key")));
    assert!(is_read_without_a_lock(for_all(1).key().expect("a key")));
}

//! Calls of sync functions.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use vayu::testing::{ManualClock, MapBackend};
use vayu::{
    Cache, Json, MemoryCache, MemoryOptions, MessagePack, TieredOptions, cached, invalidates,
    mem_cache, watch_sync,
};

use crate::{Check, host};

pub(crate) const CHECKS: &[Check] = &[
    ("second call is a hit", second_call_is_a_hit),
    ("value expires by the clock of the host", value_expires_by_the_clock_of_the_host),
    ("value expires by a manual clock", value_expires_by_a_manual_clock),
    ("value expires at its moment", value_expires_at_its_moment),
    ("tags, functions and all are invalidated", tags_functions_and_all_are_invalidated),
    ("write invalidates", write_invalidates),
    ("stale value is returned while the function fails", stale_value_is_returned_on_failure),
    ("error is cached", error_is_cached),
    ("batch runs with what is missing", batch_runs_with_what_is_missing),
    ("own cache evicts", own_cache_evicts),
    ("entry is inspected", entry_is_inspected),
    ("call within itself runs", call_within_itself_runs),
    ("value passes through tiers and bytes", value_passes_through_tiers_and_bytes),
    ("update is atomic", update_is_atomic),
    ("nothing runs in the background", nothing_runs_in_the_background),
    #[cfg(any(feature = "js", not(all(target_family = "wasm", target_os = "unknown"))))]
    ("sealed value is returned", sealed_value_is_returned),
    #[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
    ("moka expires", moka_expires),
];

/// A source that counts its runs.
struct Runs(AtomicU32);

impl Runs {
    const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    fn count(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed) + 1
    }
}

#[cfg(all(target_family = "wasm", target_os = "unknown", not(feature = "js")))]
pub(crate) fn caches_are_paused_until_a_clock_is_set() {
    static RUNS: Runs = Runs::new();

    #[cached(ttl = "1h")]
    fn call(_n: u64) -> u32 {
        RUNS.count()
    }

    assert_eq!((call(1), call(1)), (1, 2));
}

fn second_call_is_a_hit() {
    static RUNS: Runs = Runs::new();

    #[cached(ttl = "1h", jitter = "10%")]
    fn call(_name: &str, _n: u64) -> u32 {
        RUNS.count()
    }

    let (sum, calls) = watch_sync(|| call("a", 1) + call("a", 1) + call("b", 1));
    assert_eq!((sum, calls.len()), (1 + 1 + 2, 3));
    assert_eq!(mem_cache().stats().errors, 0);
}

fn value_expires_by_the_clock_of_the_host() {
    static RUNS: Runs = Runs::new();

    #[cached(ttl = "50ms")]
    fn call() -> u32 {
        RUNS.count()
    }

    assert_eq!((call(), call()), (1, 1));
    host::pass(Duration::from_millis(60));
    assert_eq!(call(), 2);
}

fn value_expires_by_a_manual_clock() {
    static RUNS: Runs = Runs::new();

    #[cached(cache = cache, ttl = "1m", skip(cache))]
    fn call(cache: &MemoryCache, _n: u64) -> u32 {
        RUNS.count()
    }

    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    assert_eq!((call(&cache, 1), call(&cache, 1)), (1, 1));
    clock.advance(Duration::from_secs(59));
    assert_eq!(call(&cache, 1), 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(call(&cache, 1), 2);
}

fn value_expires_at_its_moment() {
    static RUNS: Runs = Runs::new();

    #[cached(expires_at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))]
    fn call(seconds: u64) -> u32 {
        RUNS.count()
    }

    // In the year 1970, and in 2200.
    assert_eq!((call(1), call(1)), (1, 2));
    assert_eq!((call(7_258_118_400), call(7_258_118_400)), (3, 3));
}

fn tags_functions_and_all_are_invalidated() {
    static RUNS: Runs = Runs::new();
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);

    #[cached(cache = CACHE, ttl = "1h", tags("user:{id}"))]
    fn call(id: u64) -> u32 {
        RUNS.count()
    }

    assert_eq!((call(1), call(2), call(1)), (1, 2, 1));
    CACHE.invalidate_tag("user:1").expect("memory");
    assert_eq!((call(1), call(2)), (3, 2));
    CACHE.invalidate_function(&call).expect("memory");
    assert_eq!(call(2), 4);
    CACHE.invalidate_all().expect("memory");
    assert_eq!(call(2), 5);
}

fn write_invalidates() {
    static RUNS: Runs = Runs::new();

    #[cached(ttl = "1h", tags("name:{id}"))]
    fn name(id: u64) -> u32 {
        RUNS.count()
    }

    #[invalidates(tags("name:{id}"))]
    fn rename(id: u64) {}

    assert_eq!((name(1), name(1)), (1, 1));
    rename(1);
    assert_eq!(name(1), 2);
}

fn stale_value_is_returned_on_failure() {
    static IS_DOWN: AtomicBool = AtomicBool::new(false);

    #[cached(cache = cache, ttl = "1m", stale = "1h", skip(cache))]
    fn rate(cache: &MemoryCache, _base: &str) -> Result<f64, String> {
        if IS_DOWN.load(Ordering::Relaxed) { Err("down".to_owned()) } else { Ok(1.5) }
    }

    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    assert_eq!(rate(&cache, "EUR"), Ok(1.5));
    IS_DOWN.store(true, Ordering::Relaxed);
    clock.advance(Duration::from_secs(90));
    assert_eq!(rate(&cache, "EUR"), Ok(1.5));
    assert_eq!(cache.stats().failed_refreshes, 1);
    clock.advance(Duration::from_secs(3600));
    assert!(rate(&cache, "EUR").is_err());
}

fn error_is_cached() {
    static RUNS: Runs = Runs::new();

    #[cached(ttl = "1h", err_ttl = "1h")]
    fn call() -> Result<u32, u32> {
        Err(RUNS.count())
    }

    assert_eq!((call(), call()), (Err(1), Err(1)));
}

fn batch_runs_with_what_is_missing() {
    static RUNS: Runs = Runs::new();

    #[cached(ttl = "1h", each = ids)]
    fn squares(ids: &[u64]) -> HashMap<u64, (u64, u32)> {
        let run = RUNS.count();
        ids.iter().map(|id| (*id, (id * id, run))).collect()
    }

    assert_eq!(squares(&[1, 2]), HashMap::from([(1, (1, 1)), (2, (4, 1))]));
    assert_eq!(squares(&[2, 3]), HashMap::from([(2, (4, 1)), (3, (9, 2))]));
}

fn own_cache_evicts() {
    #[cached(ttl = "1h", max_entries = 100, handle = square_entry, idle = "1h")]
    fn square(n: u64) -> u64 {
        n * n
    }

    for n in 0..1000 {
        assert_eq!(square(n), n * n);
    }
    let usage = square_entry(0).cache().stats().usage;
    assert!(usage.entries.is_some_and(|entries| entries <= 100), "{usage:?}");
}

fn entry_is_inspected() {
    #[cached(ttl = "1h", handle = call_entry)]
    fn call(n: u64) -> u64 {
        n + 1
    }

    assert_eq!(call_entry(1).peek().expect("memory"), None);
    assert_eq!(call(1), 2);
    assert!(call_entry(1).age().expect("memory").is_some());
    call_entry(1).set(5).expect("memory");
    assert_eq!(call(1), 5);
    assert_eq!(call_entry(1).refresh(), 2);
    call_entry(1).invalidate().expect("memory");
    assert!(!call_entry(1).explain().is_hit());
}

fn call_within_itself_runs() {
    #[cached(ttl = "1h")]
    fn call(depth: u32) -> u32 {
        if depth == 0 { 0 } else { call(depth - 1) + again(depth) }
    }

    #[cached(ttl = "1h", key = "same")]
    fn again(depth: u32) -> u32 {
        if depth == 0 { 1 } else { again(0) }
    }

    assert_eq!(call(5), 5);
}

fn value_passes_through_tiers_and_bytes() {
    static RUNS: Runs = Runs::new();

    #[cached(cache = cache, ttl = "1h", skip(cache))]
    fn call(cache: &vayu::TieredCache<MapBackend>, n: u64) -> Vec<u64> {
        vec![n, RUNS.count().into()]
    }

    let backing: Cache<MapBackend, MessagePack> = Cache::new();
    let (one, other) = (TieredOptions::new().over(&backing), TieredOptions::new().over(&backing));
    assert_eq!((call(&one, 7), call(&other, 7)), (vec![7, 1], vec![7, 1]));

    #[cached(cache = cache, ttl = "1h", serializer = Json, skip(cache))]
    fn json(cache: &Cache<MapBackend, MessagePack>, n: u64) -> (u64, u32) {
        (n, RUNS.count())
    }

    assert_eq!((json(&backing, 7), json(&backing, 7)), ((7, 2), (7, 2)));
    assert_eq!(backing.stats().errors, 0);
}

fn update_is_atomic() {
    let cache = MemoryCache::new();
    let key = vayu::Key::new("counter", &1).expect("a key");
    for expected in 1..=3 {
        let update = |before: Option<u32>| before.unwrap_or(0) + 1;
        let after = cache.update_with(&key, Duration::from_secs(60), update).expect("memory");
        assert_eq!(after, expected);
    }
}

fn nothing_runs_in_the_background() {
    assert!(vayu::finish_background(Duration::from_secs(60)));
}

#[cfg(any(feature = "js", not(all(target_family = "wasm", target_os = "unknown"))))]
fn sealed_value_is_returned() {
    use vayu::{SealKeys, Sealed};
    static RUNS: Runs = Runs::new();

    #[cached(cache = cache, ttl = "1h", skip(cache, keys), serializer = Sealed::new(keys.clone(), MessagePack))]
    fn call(cache: &Cache<MapBackend, MessagePack>, keys: &SealKeys, _n: u64) -> u32 {
        RUNS.count()
    }

    let (cache, keys) = (Cache::new(), SealKeys::new([7; 32]));
    assert_eq!((call(&cache, &keys, 1), call(&cache, &keys, 1)), (1, 1));
    assert_eq!(cache.stats().errors, 0);
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
fn moka_expires() {
    static RUNS: Runs = Runs::new();

    #[cached(cache = cache, ttl = "1m", skip(cache))]
    fn call(cache: &vayu::MokaCache, _n: u64) -> u32 {
        RUNS.count()
    }

    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build_moka();
    assert_eq!((call(&cache, 1), call(&cache, 1)), (1, 1));
    clock.advance(Duration::from_secs(60));
    assert_eq!(call(&cache, 1), 2);
}

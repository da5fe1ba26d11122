//! `idle = ..`: an entry that no call uses for a while expires.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use vayu::testing::{ManualClock, watchdog};
use vayu::time::{Clock, Timestamp};
use vayu::{ErrorKind, Explanation, Key, MemoryCache, MemoryOptions, cached};

use crate::{HANG, Runs};

const MINUTE: Duration = Duration::from_secs(60);

fn cache() -> (ManualClock, MemoryCache) {
    let clock = ManualClock::new();
    (clock.clone(), MemoryOptions::new().clock(clock).build())
}

/// Generates a function for a type of values and keys, and its test.
macro_rules! used_entries_stay {
    ($($name:ident: $argument:ty => $value:ty, $arguments:expr, $compute:expr;)*) => {$(
        #[test]
        fn $name() {
            #[cached(cache = cache, ttl = "1h", idle = "10m", skip(cache, runs))]
            fn function(cache: &MemoryCache, argument: $argument, runs: &Runs) -> $value {
                runs.count();
                ($compute)(argument)
            }

            #[cached(cache = cache, ttl = "1h", idle = "10m", skip(cache, runs))]
            async fn function_async(cache: &MemoryCache, argument: $argument, runs: &Runs) -> $value {
                runs.count();
                ($compute)(argument)
            }

            let run = |call: &dyn Fn(&MemoryCache, $argument, &Runs) -> $value| {
                let ((clock, cache), runs) = (cache(), Runs::new());
                let call = |n: usize| call(&cache, ($arguments)(n), &runs);
                for n in 0..2 {
                    assert_eq!(call(n), ($compute)(($arguments)(n)));
                }
                // The second entry is never used again.
                for _ in 0..6 {
                    clock.advance(9 * MINUTE);
                    assert_eq!(call(0), ($compute)(($arguments)(0)));
                }
                assert_eq!(runs.get(), 2, "an entry that is used stays");
                call(1);
                assert_eq!(runs.get(), 3, "an entry that is not used expires");
                // 54 minutes have passed.
                clock.advance(Duration::from_micros(6 * 60_000_000 - 2));
                call(0);
                assert_eq!(runs.get(), 3, "the ttl is not over");
                clock.advance(Duration::from_micros(2));
                call(0);
                assert_eq!(runs.get(), 4, "the ttl ends an entry that is used, too");
                clock.advance(10 * MINUTE);
                call(0);
                assert_eq!(runs.get(), 5, "the new entry was not used");
            };
            run(&function);
            run(&|cache, argument, runs| smol::block_on(function_async(cache, argument, runs)));
        }
    )*};
}

used_entries_stay! {
    used_number_stays: u64 => u64, |n| n as u64, |n: u64| n + 7;
    used_string_stays: u64 => String, |n| n as u64, |n: u64| format!("value {n}");
    used_shared_value_stays: u64 => Arc<str>, |n| n as u64, |n: u64| Arc::from(format!("value {n}"));
    used_number_by_a_string_stays: String => u64, |n| format!("sixteen letters! {n}"), |key: String| key.len() as u64;
    used_number_by_a_long_string_stays: String => u64, |n| format!("{n}{}", "k".repeat(200)), |key: String| key.len() as u64;
    used_string_by_a_long_string_stays: String => String, |n| format!("{n}{}", "k".repeat(200)), |key: String| key;
    used_unit_stays: u64 => Option<()>, |n| n as u64, |n: u64| (n < 9).then_some(());
}

#[test]
fn entry_lasts_between_fifteen_sixteenths_of_the_idle_time_and_all_of_it() {
    #[cached(cache = cache, ttl = "1h", idle = "16s", key = "k")]
    fn function(cache: &MemoryCache, runs: &Runs) -> usize {
        runs.count()
    }

    for used_after in [0, 500, 999, 1000, 1500, 7777, 15_999] {
        let ((clock, cache), runs) = (cache(), Runs::new());
        function(&cache, &runs);
        clock.advance(Duration::from_millis(used_after));
        function(&cache, &runs);
        clock.advance(Duration::from_millis(14_999));
        let entry = cache.stats().usage.entries;
        assert_eq!(entry, Some(1), "{used_after}");
        clock.advance(Duration::from_millis(1001));
        function(&cache, &runs);
        assert_eq!(runs.get(), 2, "{used_after}");
    }
}

#[test]
fn ttl_of_the_value_limits_the_idle_time() {
    #[cached(cache = cache, ttl = |seconds: &u64| Duration::from_secs(*seconds), idle = 10, skip(cache, runs))]
    fn function(cache: &MemoryCache, seconds: u64, runs: &Runs) -> u64 {
        runs.count();
        seconds
    }

    for (seconds, hits) in [(5, 4), (10, 9), (25, 24), (1000, 200)] {
        let ((clock, cache), runs) = (cache(), Runs::new());
        function(&cache, seconds, &runs);
        for _ in 0..hits {
            clock.advance(Duration::from_secs(1));
            function(&cache, seconds, &runs);
        }
        assert_eq!(runs.get(), 1, "{seconds}");
        clock.advance(Duration::from_secs(if seconds < 1000 { 1 } else { 10 }));
        function(&cache, seconds, &runs);
        assert_eq!(runs.get(), 2, "{seconds}");
    }
}

#[cached(cache = cache, ttl = "1h", idle = "10m", stale = "1h", skip(cache, fails), handle = page_entry)]
fn page(cache: &MemoryCache, n: u64, fails: &AtomicBool) -> Result<u64, u64> {
    if fails.load(Ordering::SeqCst) { Err(n) } else { Ok(n) }
}

#[test]
fn stale_serves_no_entry_that_was_not_used() {
    let ((clock, cache), fails) = (cache(), AtomicBool::new(false));
    assert_eq!((page(&cache, 1, &fails), page(&cache, 2, &fails)), (Ok(1), Ok(2)));
    fails.store(true, Ordering::SeqCst);
    for _ in 0..11 {
        clock.advance(5 * MINUTE);
        assert_eq!(page(&cache, 1, &fails), Ok(1));
    }
    assert_eq!(page(&cache, 2, &fails), Err(2), "it was not used for 55 minutes");
    // 61 minutes after the computation.
    clock.advance(6 * MINUTE);
    assert!(matches!(page_entry(&cache, 1, &fails).explain(), Explanation::Stale));
    assert_eq!(page(&cache, 1, &fails), Ok(1), "stale, and used 6 minutes ago");
    // A stale value that is served is used.
    clock.advance(9 * MINUTE);
    assert_eq!(page(&cache, 1, &fails), Ok(1));
    clock.advance(10 * MINUTE);
    let explanation = page_entry(&cache, 1, &fails).explain();
    assert!(matches!(explanation, Explanation::Expired | Explanation::Absent), "{explanation}");
    assert_eq!(page(&cache, 1, &fails), Err(1));
    assert_eq!(cache.stats().misses, 4);
}

#[test]
fn stale_value_is_served_for_all_of_its_time_while_it_is_used() {
    #[cached(cache = cache, ttl = "1m", idle = "10m", stale = "1d", key = "k")]
    fn function(cache: &MemoryCache, fails: bool) -> Result<u64, u64> {
        if fails { Err(0) } else { Ok(7) }
    }
    #[cached(cache = cache, ttl = "1m", idle = "10m", stale = "1d", each = ids, skip(cache, fails))]
    fn batch(cache: &MemoryCache, ids: &[u64], fails: bool) -> Result<Vec<u64>, u64> {
        if fails { Err(0) } else { Ok(ids.to_vec()) }
    }

    let (clock, cache) = cache();
    let call = |fails| (function(&cache, fails), batch(&cache, &[7], fails));
    assert_eq!(call(false), (Ok(7), Ok(vec![7])));
    for n in 0..288 {
        clock.advance(5 * MINUTE);
        assert_eq!(call(true), (Ok(7), Ok(vec![7])), "after {n} times five minutes");
    }
    clock.advance(MINUTE);
    assert_eq!(call(true), (Err(0), Err(0)));
}

/// Calls a function that is in use all the time, and returns the minutes for which it does not run again.
fn lifetime(clock: &ManualClock, runs: &Runs, call: &dyn Fn()) -> usize {
    call();
    let first = runs.get();
    (1..=600)
        .find(|_| {
            clock.advance(MINUTE);
            call();
            runs.get() > first
        })
        .unwrap_or(600)
}

#[test]
fn moment_of_expiry_is_not_moved_by_uses() {
    #[cached(cache = cache, expires_at = SystemTime::now() + 60 * MINUTE, idle = "10m", key = "k")]
    fn function(cache: &MemoryCache, runs: &Runs) -> usize {
        runs.count()
    }

    let ((clock, cache), runs) = (cache(), Runs::new());
    let minutes = lifetime(&clock, &runs, &|| {
        function(&cache, &runs);
    });
    assert!((59..=60).contains(&minutes), "{minutes}");
}

#[test]
fn use_runs_no_code_of_the_caller() {
    #[cached(
        cache = cache, ttl = |_: &usize| runs_of_ttl.left(), idle = "10m", key = "k"
    )]
    fn function(cache: &MemoryCache, runs: &Runs, runs_of_ttl: &Left) -> usize {
        runs.count()
    }

    /// The time left, which is computed for each call.
    struct Left(Runs);

    impl Left {
        fn left(&self) -> Duration {
            assert!(self.0.count() <= 2, "a use does not evaluate the ttl");
            60 * MINUTE
        }
    }

    let ((clock, cache), runs, left) = (cache(), Runs::new(), Left(Runs::new()));
    assert_eq!(
        lifetime(&clock, &runs, &|| {
            function(&cache, &runs, &left);
        }),
        60
    );
    assert_eq!((left.0.get(), cache.stats().errors), (2, 0));
}

#[test]
fn jitter_shortens_the_life_of_an_entry_that_is_used() {
    #[cached(cache = cache, ttl = "10h", jitter = "50%", idle = "10m", skip(cache, runs))]
    fn function(cache: &MemoryCache, n: u64, runs: &Runs) -> usize {
        runs.count()
    }

    let minutes = [1, 2, 3, 4, 5, 6].map(|n| {
        let ((clock, cache), runs) = (cache(), Runs::new());
        lifetime(&clock, &runs, &|| {
            function(&cache, n, &runs);
        })
    });
    let [least, most] = [minutes.iter().min(), minutes.iter().max()];
    assert!(least < Some(&500) && least < most, "{minutes:?}");
}

#[test]
fn entries_with_tags_are_used_and_invalidated() {
    #[cached(cache = cache, ttl = "1h", idle = "10m", tags("n:{n}"), skip(cache, runs))]
    fn function(cache: &MemoryCache, n: u64, runs: &Runs) -> usize {
        runs.count()
    }

    let ((clock, cache), runs) = (cache(), Runs::new());
    assert_eq!(
        lifetime(&clock, &runs, &|| {
            function(&cache, 1, &runs);
        }),
        60
    );
    cache.invalidate_tag("n:1").unwrap();
    assert_eq!(
        lifetime(&clock, &runs, &|| {
            function(&cache, 1, &runs);
        }),
        60
    );
    assert_eq!(runs.get(), 4);
}

#[test]
fn clock_that_is_set_back_does_not_extend_the_idle_time() {
    #[cached(cache = cache, ttl = "1h", idle = "1m", key = "k")]
    fn function(cache: &MemoryCache, runs: &Runs) -> usize {
        runs.count()
    }

    let ((clock, cache), runs) = (cache(), Runs::new());
    function(&cache, &runs);
    // Within the skew that clocks may have.
    clock.set(Timestamp::from_micros(clock.now().as_micros() - 240_000_000));
    assert_eq!(function(&cache, &runs), 1);
    clock.advance(MINUTE);
    assert_eq!(function(&cache, &runs), 2, "it was not used for a minute");
    clock.advance(30 * MINUTE);
    assert_eq!(function(&cache, &runs), 3);
}

#[test]
fn shorter_idle_time_of_a_call_applies_from_its_use_on() {
    #[cached(cache = cache, ttl = "1h", idle = idle, key = "k")]
    fn function(cache: &MemoryCache, idle: Duration, runs: &Runs) -> usize {
        runs.count()
    }

    for long in [30 * MINUTE, 120 * MINUTE] {
        let ((clock, cache), runs) = (cache(), Runs::new());
        function(&cache, long, &runs);
        assert_eq!(function(&cache, MINUTE, &runs), 1);
        clock.advance(MINUTE);
        assert_eq!(function(&cache, long, &runs), 2);
    }
}

#[test]
fn function_without_an_idle_time_returns_no_entry_that_was_not_used() {
    #[cached(cache = cache, ttl = "1h", idle = "10m", prefix = "n", tags("n"), skip(cache))]
    fn with(cache: &MemoryCache, n: u64) -> u64 {
        1
    }
    #[cached(cache = cache, ttl = "1h", stale = "1h", prefix = "n", tags("n"), skip(cache))]
    fn without(cache: &MemoryCache, n: u64) -> u64 {
        2
    }
    #[cached(cache = cache, ttl = "1h", prefix = "n", tags("n"), each = ids, skip(cache))]
    async fn batch(cache: &MemoryCache, ids: &[u64]) -> Vec<u64> {
        ids.iter().map(|_| 3).collect()
    }

    let (clock, cache) = cache();
    for n in 1..3 {
        assert_eq!(with(&cache, n), 1);
    }
    clock.advance(9 * MINUTE);
    assert_eq!((without(&cache, 1), with(&cache, 1)), (1, 1));
    assert_eq!(smol::block_on(batch(&cache, &[1, 2])), [1, 1]);
    clock.advance(9 * MINUTE);
    assert_eq!(
        smol::block_on(batch(&cache, &[1, 2])),
        [1, 3],
        "a hit of another function is no use"
    );
    clock.advance(MINUTE);
    assert_eq!(without(&cache, 1), 2);
}

#[test]
fn peek_and_keys_made_by_hand_are_no_uses() {
    let ((clock, cache), fails) = (cache(), AtomicBool::new(false));
    assert_eq!(page(&cache, 1, &fails), Ok(1));
    let entry = page_entry(&cache, 1, &fails);
    let key: Key = entry.key().unwrap().clone();
    for minutes in 1..10 {
        clock.advance(MINUTE);
        assert_eq!(entry.peek().unwrap(), Some(Ok(1)));
        assert_eq!(entry.ttl_left().unwrap(), Some((10 - minutes) * MINUTE));
        assert_eq!(cache.get::<u64>(&key).unwrap(), Some(1));
        assert!(matches!(entry.explain(), Explanation::Hit));
    }
    clock.advance(MINUTE);
    assert_eq!(entry.peek().unwrap(), None);
    assert_eq!(cache.get::<u64>(&key).unwrap(), None);
    // A value that is stored by the entry has the idle time, too, and one by a key has its ttl.
    assert!(entry.set(Ok(5)).unwrap());
    assert_eq!(entry.ttl_left().unwrap(), Some(10 * MINUTE));
    cache.set(&key, &7_u64, 2 * MINUTE).unwrap();
    clock.advance(Duration::from_secs(119));
    assert_eq!(page(&cache, 1, &fails), Ok(7));
    clock.advance(Duration::from_secs(1));
    assert_eq!(page(&cache, 1, &fails), Ok(1));
}

#[test]
fn elements_of_a_batch_are_used_one_by_one() {
    #[cached(cache = cache, ttl = "1h", idle = "10m", each = ids, prefix = "user", skip(cache))]
    fn users(cache: &MemoryCache, ids: &[u64]) -> Vec<(u64, usize)> {
        ids.iter().map(|id| (*id, ids.len())).collect()
    }
    #[cached(cache = cache, ttl = "1h", idle = "10m", each = ids, prefix = "name", skip(cache))]
    async fn names(cache: &MemoryCache, ids: &[u64]) -> Vec<String> {
        ids.iter().map(|id| format!("{id} of {}", ids.len())).collect()
    }
    #[cached(cache = cache, ttl = "1h", idle = "10m", prefix = "user", skip(cache))]
    fn user(cache: &MemoryCache, id: u64) -> (u64, usize) {
        (id, 0)
    }

    let (clock, cache) = cache();
    let names = |ids: &[u64]| smol::block_on(names(&cache, ids));
    assert_eq!(users(&cache, &[1, 2, 3]), [(1, 3), (2, 3), (3, 3)]);
    assert_eq!(names(&[1, 2]), ["1 of 2", "2 of 2"]);
    for _ in 0..6 {
        clock.advance(9 * MINUTE);
        assert_eq!(users(&cache, &[1]), [(1, 3)]);
        assert_eq!(user(&cache, 2), (2, 3), "a use by the function of one element counts, too");
        assert_eq!(names(&[1]), ["1 of 2"]);
    }
    assert_eq!(users(&cache, &[1, 2, 3]), [(1, 3), (2, 3), (3, 1)]);
    assert_eq!(names(&[2, 1]), ["2 of 1", "1 of 2"]);
    clock.advance(6 * MINUTE);
    assert_eq!(users(&cache, &[1, 2, 3]), [(1, 2), (2, 2), (3, 1)], "the ttl is over");
}

#[test]
fn cached_error_has_its_own_ttl_and_no_idle_time() {
    #[cached(cache = cache, ttl = "1h", idle = "1m", err_ttl = "10m", skip(cache, fails, runs))]
    fn function(cache: &MemoryCache, n: u64, fails: bool, runs: &Runs) -> Result<usize, usize> {
        if fails { Err(runs.count()) } else { Ok(runs.count()) }
    }

    let ((clock, cache), runs) = (cache(), Runs::new());
    assert_eq!(function(&cache, 1, true, &runs), Err(1));
    clock.advance(9 * MINUTE);
    assert_eq!(function(&cache, 1, false, &runs), Err(1));
    clock.advance(MINUTE);
    assert_eq!(function(&cache, 1, false, &runs), Ok(2));
    for _ in 0..4 {
        clock.advance(MINUTE / 2);
        assert_eq!(function(&cache, 1, true, &runs), Ok(2));
    }
    clock.advance(MINUTE);
    assert_eq!(function(&cache, 1, true, &runs), Err(3));
}

#[test]
fn functions_with_a_cache_of_their_own_may_have_an_idle_time() {
    #[cached(ttl = "1d", idle = "1m", max_entries = 500, handle = square_entry)]
    fn square(n: u64) -> u64 {
        n * n
    }
    #[cached(ttl = "1d", idle = "1m", max_weight = 500, weigh = |_: &u64| 2, handle = double_entry)]
    fn double(n: u64) -> u64 {
        2 * n
    }
    assert_eq!((square(3), square(3)), (9, 9));
    assert_eq!(square_entry(3).cache().stats().hits, 1);
    assert_eq!((double(3), double(3)), (6, 6));
    let stats = double_entry(3).cache().stats();
    assert_eq!((stats.hits, stats.usage.weight), (1, Some(2)));
}

#[test]
fn sweep_frees_entries_that_are_not_used() {
    #[cached(cache = cache, ttl = "1d", idle = "1m", skip(cache))]
    fn cube(cache: &MemoryCache, n: u64) -> String {
        (n * n * n).to_string()
    }

    let (clock, cache) = cache();
    for n in 0..200 {
        cube(&cache, n);
    }
    for _ in 0..3 {
        clock.advance(Duration::from_secs(50));
        cube(&cache, 7);
    }
    let usage = cache.stats().usage;
    assert_eq!((usage.entries, usage.expirations), (Some(1), Some(199)));
}

#[test]
fn idle_time_of_zero_is_an_error_of_the_cache() {
    #[cached(cache = cache, ttl = "1h", idle = time, key = "k")]
    fn function(cache: &MemoryCache, time: Duration) -> u64 {
        7
    }

    let (clock, cache) = cache();
    assert_eq!(function(&cache, Duration::ZERO), 7);
    assert_eq!(cache.stats().errors_of(ErrorKind::Configuration), 1);
    assert_eq!(cache.stats().inserts, 0);
    for time in [Duration::MAX, Duration::from_micros(2)] {
        assert_eq!((function(&cache, time), function(&cache, time)), (7, 7));
        clock.advance(Duration::from_micros(2));
    }
    assert_eq!((cache.stats().misses, cache.stats().hits, cache.stats().errors), (2, 3, 1));
}

#[test]
fn many_callers_extend_an_entry_while_others_replace_it() {
    #[cached(cache = cache, ttl = "1h", idle = "16ms", skip(cache, version))]
    fn function(cache: &MemoryCache, n: u64, version: &AtomicU64) -> u64 {
        version.load(Ordering::SeqCst)
    }

    watchdog(HANG, || {
        let (clock, cache) = cache();
        let (version, invalidated) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for first in 0..3 {
                let (cache, version, invalidated) = (&cache, &version, &invalidated);
                scope.spawn(move || {
                    let mut last = [0; 7];
                    for n in 0..20_000_usize {
                        let n = (first + n) % 7;
                        let oldest = invalidated.load(Ordering::SeqCst).max(last[n]);
                        last[n] = function(cache, n as u64, version);
                        assert!(last[n] >= oldest, "{} is older than {oldest}", last[n]);
                    }
                });
            }
            for n in 1..=2000 {
                clock.advance(Duration::from_millis(1));
                version.store(n, Ordering::SeqCst);
                cache.invalidate_function(&function).unwrap();
                invalidated.store(n, Ordering::SeqCst);
                thread::yield_now();
            }
        });
        assert!(cache.stats().hits > 0);
    });
}

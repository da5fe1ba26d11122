//! `refresh_if` and `bypass_if`: conditions on the arguments.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Cache, MemoryCache, MemoryOptions, cached};

use crate::{HANG, Runs, until, with_every_backend};

const MINUTE: Duration = Duration::from_secs(60);

/// The way in which a call uses the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Normal,
    Refresh,
    Bypass,
}

#[cached(
    cache = cache, ttl = "1m", prefix = "call", key = "k", refresh_if = mode == Mode::Refresh,
    bypass_if = mode == Mode::Bypass
)]
fn call<B, S>(
    cache: &Cache<B, S>,
    mode: Mode,
    run: impl Fn() -> Result<u32, u32>,
) -> Result<u32, u32>
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored>,
{
    run()
}

#[cached(
    cache = cache, ttl = "1m", key = "k", refresh_if = mode == Mode::Refresh,
    bypass_if = mode == Mode::Bypass
)]
async fn call_async<B, S>(
    cache: &Cache<B, S>,
    mode: Mode,
    run: Result<u32, u32>,
) -> Result<u32, u32>
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored>,
{
    run
}

fn follow_both<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored>,
{
    for is_async in [false, true] {
        let clock = ManualClock::new();
        let cache = open(clock.clone());
        let ask = |mode, result: Result<u32, u32>| {
            if is_async {
                smol::block_on(call_async(&cache, mode, result))
            } else {
                call(&cache, mode, || result)
            }
        };
        assert_eq!(ask(Mode::Bypass, Ok(1)), Ok(1));
        assert_eq!(ask(Mode::Normal, Ok(2)), Ok(2), "a bypass stores nothing");
        assert_eq!(ask(Mode::Bypass, Ok(3)), Ok(3), "and reads nothing");
        assert_eq!(ask(Mode::Normal, Ok(4)), Ok(2));
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.hits, stats.inserts, stats.errors), (3, 1, 1, 0));

        assert_eq!(ask(Mode::Refresh, Ok(5)), Ok(5));
        assert_eq!(ask(Mode::Normal, Ok(6)), Ok(5));
        assert_eq!(ask(Mode::Refresh, Err(7)), Err(7), "the error is the caller's");
        assert_eq!(ask(Mode::Normal, Ok(8)), Ok(5), "and the value stays");
        clock.advance(Duration::from_secs(59));
        assert_eq!(ask(Mode::Refresh, Ok(9)), Ok(9));
        clock.advance(Duration::from_secs(59));
        assert_eq!(ask(Mode::Normal, Ok(10)), Ok(9), "the ttl counts from the refresh");
        let stats = cache.stats();
        assert_eq!((stats.refreshes, stats.inserts, stats.errors, stats.in_flight), (3, 3, 0, 0));
    }
}

#[test]
fn conditions_work_on_every_backend() {
    watchdog(HANG, || with_every_backend!(follow_both));
}

#[test]
fn refreshes_at_the_same_time_share_one_run() {
    watchdog(HANG, || {
        let (clock, runs) = (ManualClock::new(), Runs::new());
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let cache = cache.with_max_wait(Duration::from_secs(300));
        call(&cache, Mode::Normal, || Ok(0)).unwrap();
        let is_open = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let value = call(&cache, Mode::Refresh, || {
                        let run = runs.count() as u32;
                        until(|| is_open.load(Ordering::SeqCst));
                        Ok(run)
                    });
                    assert_eq!(value, Ok(1));
                });
            }
            until(|| runs.get() == 1);
            // Others get the stored value in the meantime, and a bypass joins no flight.
            assert_eq!(call(&cache, Mode::Normal, || Ok(99)), Ok(0));
            assert_eq!(call(&cache, Mode::Bypass, || Ok(98)), Ok(98));
            until(|| clock.sleepers() == 15);
            is_open.store(true, Ordering::SeqCst);
        });
        assert_eq!(call(&cache, Mode::Normal, || Ok(97)), Ok(1));
        let stats = cache.stats();
        assert_eq!((runs.get(), stats.refreshes, stats.coalesced), (1, 1, 15));
    });
}

#[test]
fn refresh_does_not_share_the_run_of_a_miss_that_began_before() {
    watchdog(HANG, || {
        let cache = MemoryCache::new();
        let (is_running, is_open) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| {
                call(&cache, Mode::Normal, || {
                    is_running.store(true, Ordering::SeqCst);
                    until(|| is_open.load(Ordering::SeqCst));
                    Ok(1)
                })
            });
            until(|| is_running.load(Ordering::SeqCst));
            assert_eq!(call(&cache, Mode::Refresh, || Ok(2)), Ok(2));
            is_open.store(true, Ordering::SeqCst);
            assert_eq!(slow.join().unwrap(), Ok(1));
        });
        assert_eq!(call(&cache, Mode::Normal, || Ok(3)), Ok(2), "the newer value stays");
    });
}

#[test]
fn refresh_that_replaces_a_slow_one_is_shared() {
    watchdog(HANG, || {
        let (clock, runs) = (ManualClock::new(), Runs::new());
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let cache = cache.with_max_wait(Duration::from_secs(10));
        call(&cache, Mode::Normal, || Ok(0)).unwrap();
        let is_open = [false, false, true].map(AtomicBool::new);
        let refresh = || {
            call(&cache, Mode::Refresh, || {
                let run = runs.count();
                until(|| is_open[run - 1].load(Ordering::SeqCst));
                Ok(run as u32)
            })
        };
        std::thread::scope(|scope| {
            let slow = scope.spawn(refresh);
            until(|| runs.get() == 1);
            let second = scope.spawn(refresh);
            until(|| clock.sleepers() == 1);
            clock.advance(Duration::from_secs(10));
            until(|| runs.get() == 2);
            let third = scope.spawn(refresh);
            until(|| clock.sleepers() == 1 || runs.get() == 3);
            is_open[1].store(true, Ordering::SeqCst);
            assert_eq!((second.join().unwrap(), third.join().unwrap()), (Ok(2), Ok(2)));
            is_open[0].store(true, Ordering::SeqCst);
            slow.join().unwrap().unwrap();
        });
        assert_eq!(runs.get(), 2);
    });
}

#[test]
fn waiter_takes_over_a_refresh_whose_caller_panics() {
    watchdog(HANG, || {
        let (clock, runs) = (ManualClock::new(), Runs::new());
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        call(&cache, Mode::Normal, || Ok(0)).unwrap();
        let is_open = AtomicBool::new(false);
        let refresh = || {
            call(&cache, Mode::Refresh, || {
                let run = runs.count() as u32;
                if run == 1 {
                    until(|| is_open.load(Ordering::SeqCst));
                    panic!("planned panic");
                }
                Ok(run)
            })
        };
        std::thread::scope(|scope| {
            let first = scope.spawn(refresh);
            until(|| runs.get() == 1);
            let second = scope.spawn(refresh);
            until(|| clock.sleepers() == 1);
            is_open.store(true, Ordering::SeqCst);
            assert!(first.join().is_err());
            assert_eq!(second.join().unwrap(), Ok(2), "not the stored value");
        });
        assert_eq!(call(&cache, Mode::Normal, || Ok(9)), Ok(2));
    });
}

#[test]
fn condition_is_evaluated_once_and_its_panic_is_the_callers() {
    static EVALUATIONS: Runs = Runs::new();

    fn is_forced(n: u32) -> bool {
        EVALUATIONS.count();
        assert!(n < 100, "planned panic");
        false
    }

    struct Request {
        n: u32,
        is_forced: bool,
    }

    struct Shop(MemoryCache, Runs);
    impl Shop {
        #[cached(cache = self.0, ttl = "1m", refresh_if = is_forced(n), handle = price_entry)]
        fn price(&self, n: u32) -> usize {
            self.1.count()
        }

        #[cached(
            cache = self.0, ttl = "1m", include(n), skip(is_forced, n), refresh_if = is_forced,
            handle = tax_entry
        )]
        async fn tax(self: Arc<Self>, Request { n, is_forced }: Request) -> usize {
            self.1.count()
        }
    }

    let shop = Arc::new(Shop(MemoryCache::new(), Runs::new()));
    assert_eq!((shop.price(1), shop.price(1), shop.price(2)), (1, 1, 2));
    assert_eq!(EVALUATIONS.get(), 3);
    assert_eq!(shop.price_entry(1).peek().unwrap(), Some(1));
    assert_eq!(EVALUATIONS.get(), 3, "an entry does not evaluate it");
    assert_eq!(shop.price_entry(1).get(), 1);
    assert_eq!(shop.price_entry(1).refresh(), 3);
    assert!(catch_unwind(AssertUnwindSafe(|| shop.price(100))).is_err());
    let stats = shop.0.stats();
    assert_eq!((stats.errors, stats.in_flight), (0, 0));

    let tax = |n, is_forced| smol::block_on(Arc::clone(&shop).tax(Request { n, is_forced }));
    assert_eq!((tax(1, false), tax(1, false), tax(1, true), tax(1, false)), (4, 4, 5, 5));
    let entry = Arc::clone(&shop).tax_entry(Request { n: 1, is_forced: true });
    assert_eq!(smol::block_on(entry.get_async()), 6);
}

#[test]
fn request_of_an_entry_ends_with_a_call_that_bypasses_the_cache() {
    static RUNS: Runs = Runs::new();

    #[cached(ttl = "1m", max_entries = 10, bypass_if = is_outer, skip(is_outer), handle = entry)]
    fn nested(n: usize, is_outer: bool) -> usize {
        if is_outer { nested(n, false) } else { RUNS.count() }
    }

    #[cached(ttl = "1m", max_entries = 10, bypass_if = is_outer, skip(is_outer), handle = entry_async)]
    async fn nested_async(n: usize, is_outer: bool) -> usize {
        if is_outer { Box::pin(nested_async(n, false)).await } else { RUNS.count() }
    }

    assert_eq!(nested(7, false), 1);
    assert_eq!((entry(7, true).refresh(), entry(7, true).run()), (1, 1), "cached");
    assert_eq!(entry(7, false).refresh(), 2);
    smol::block_on(async {
        assert_eq!(nested_async(7, false).await, 3);
        assert_eq!(entry_async(7, true).refresh_async().await, 3, "cached");
        assert_eq!(entry_async(7, true).run_async().await, 3, "cached");
    });
}

#[test]
fn call_evaluates_its_conditions_first_and_then_the_cache_also_if_it_bypasses_that() {
    static EVALUATED: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    fn note<T>(name: &'static str, value: T) -> T {
        EVALUATED.lock().expect("no panic").push(name);
        value
    }

    #[cached(
        cache = note("cache", cache), ttl = note("ttl", MINUTE), stale = note("stale", MINUTE),
        key = note("key", "k"), include(note("include", 1)), prefix = note("prefix", "p"),
        bypass_if = note("bypass_if", mode == Mode::Bypass), refresh_if = note("refresh_if", mode == Mode::Refresh)
    )]
    fn ordered(cache: &MemoryCache, mode: Mode) -> u8 {
        note("body", 1)
    }

    #[cached(
        cache = note("cache", cache), ttl = note("ttl", MINUTE), stale = note("stale", MINUTE),
        key = note("key", "k"), include(note("include", 1)), prefix = note("prefix", "p"),
        bypass_if = note("bypass_if", mode == Mode::Bypass), refresh_if = note("refresh_if", mode == Mode::Refresh)
    )]
    async fn ordered_async(cache: &MemoryCache, mode: Mode) -> u8 {
        note("body", 1)
    }

    let order =
        ["bypass_if", "refresh_if", "cache", "ttl", "stale", "key", "include", "prefix", "body"];
    for mode in [Mode::Normal, Mode::Refresh, Mode::Bypass] {
        let cache = MemoryCache::new();
        ordered(&cache, mode);
        assert_eq!(std::mem::take(&mut *EVALUATED.lock().expect("no panic")), order, "{mode:?}");
        let cache = MemoryCache::new();
        smol::block_on(ordered_async(&cache, mode));
        assert_eq!(std::mem::take(&mut *EVALUATED.lock().expect("no panic")), order, "{mode:?}");
    }
}

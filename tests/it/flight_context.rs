//! Bodies that go on in other threads and tasks, and call their own function there.
//!
//! The clock stands still: a call that waits for its own computation waits forever.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use vayu::testing::{ManualClock, watchdog};
use vayu::{FlightContext, MemoryCache, MemoryOptions, cached};

use crate::{HANG, Runs, until};

fn cache() -> MemoryCache {
    MemoryOptions::new().clock(ManualClock::new()).build()
}

/// How a body reaches its own function.
type Below<'a> = &'a dyn Fn() -> usize;

#[cached(cache = cache, ttl = 60, key = "k")]
fn call(cache: &MemoryCache, body: Below<'_>) -> usize {
    body()
}

#[cached(cache = cache, ttl = 60, key = "other")]
fn call_other(cache: &MemoryCache, body: Below<'_>) -> usize {
    body()
}

/// Runs code in a thread that is part of the computations of this one.
fn in_thread(code: impl FnOnce() -> usize + Send) -> usize {
    let context = FlightContext::current();
    thread::scope(|scope| scope.spawn(move || context.in_scope(code)).join().expect("no panic"))
}

#[test]
fn scoped_thread_in_the_context_of_a_body_runs_the_function() {
    watchdog(HANG, || {
        let (cache, runs) = (cache(), Runs::new());
        let once = || runs.count();
        let outer = call(&cache, &|| {
            runs.count();
            in_thread(|| call(&cache, &once)) + 10
        });
        assert_eq!((outer, runs.get()), (12, 2));
        assert_eq!(call(&cache, &|| 0), 12, "the outer value is stored");
    });
}

#[test]
fn threads_below_threads_are_part_of_the_outermost_computation() {
    watchdog(HANG, || {
        let cache = cache();
        let innermost = || call(&cache, &|| 1);
        let middle = || in_thread(|| innermost() + 1);
        let other = || in_thread(|| call_other(&cache, &middle) + 1);
        assert_eq!(call(&cache, &|| in_thread(|| other() + 1)), 4);
        assert_eq!(call_other(&cache, &|| 0), 2, "the other computation was led and stored");
    });
}

#[test]
fn functions_that_call_each_other_across_threads_run() {
    fn one(cache: &MemoryCache, depth: usize) -> usize {
        let below = || if depth == 0 { 0 } else { in_thread(|| other(cache, depth - 1)) + 1 };
        call(cache, &below)
    }
    fn other(cache: &MemoryCache, depth: usize) -> usize {
        let below = || if depth == 0 { 0 } else { in_thread(|| one(cache, depth - 1)) + 1 };
        call_other(cache, &below)
    }
    watchdog(HANG, || {
        for depth in 0..5 {
            assert_eq!(one(&cache(), depth), depth);
            let cache = cache();
            thread::scope(|scope| {
                let callers =
                    [scope.spawn(|| one(&cache, depth)), scope.spawn(|| other(&cache, depth))];
                for caller in callers {
                    caller.join().expect("no panic");
                }
            });
        }
    });
}

/// A call that makes itself again in tasks.
fn task(cache: MemoryCache, depth: usize) -> Pin<Box<dyn Future<Output = usize> + Send>> {
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn call(cache: MemoryCache, depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        let below = FlightContext::current().in_scope_async(task(cache.clone(), depth - 1));
        tokio::spawn(below).await.expect("no panic") + 1
    }
    Box::pin(call(cache, depth))
}

#[test]
fn spawned_task_in_the_context_of_a_body_runs_the_function() {
    watchdog(HANG, || {
        for workers in [1, 2] {
            let runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = { runtime }.worker_threads(workers).build().expect("a runtime");
            let cache = cache();
            assert_eq!(runtime.block_on(task(cache.clone(), 3)), 3);
            let stats = cache.stats();
            assert_eq!((stats.misses, stats.coalesced, stats.in_flight), (4, 0, 0));
        }
    });
}

#[test]
fn blocking_thread_in_the_context_of_an_async_body_runs_the_function() {
    #[cached(cache = cache, ttl = 60, prefix = "both", key = "k")]
    fn blocking(cache: &MemoryCache) -> usize {
        1
    }
    #[cached(cache = cache, ttl = 60, prefix = "both", key = "k")]
    async fn outer(cache: MemoryCache) -> usize {
        let (context, cache) = (FlightContext::current(), cache.clone());
        let below = move || context.in_scope(|| blocking(&cache));
        tokio::task::spawn_blocking(below).await.expect("no panic") + 1
    }
    watchdog(HANG, || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let cache = cache();
        assert_eq!(runtime.block_on(outer(cache.clone())), 2);
        assert_eq!(cache.stats().misses, 2);
    });
}

#[test]
fn half_of_a_join_that_takes_a_call_of_its_own_computation_runs_the_function() {
    watchdog(HANG, || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
        let (cache, runs, is_done) = (cache(), Runs::new(), AtomicBool::new(false));
        let once = || runs.count();
        let body = || {
            runs.count();
            let context = FlightContext::current();
            rayon::join(
                || until(|| is_done.load(Ordering::SeqCst)),
                || {
                    context.in_scope(|| {
                        // As any join does that waits for a half that another thread took.
                        rayon::in_place_scope(|scope| {
                            scope.spawn(|_| {
                                call(&cache, &|| runs.count());
                                is_done.store(true, Ordering::SeqCst);
                            });
                            while !is_done.load(Ordering::SeqCst) {
                                rayon::yield_now();
                            }
                        });
                    });
                },
            );
            once()
        };
        assert_eq!(pool.install(|| call(&cache, &body)), 3);
    });
}

#[test]
fn joins_that_pass_on_the_context_never_wait_for_themselves() {
    /// Two halves that are each part of what this thread is part of.
    fn join(left: impl FnOnce() -> u64 + Send, right: impl FnOnce() -> u64 + Send) -> u64 {
        let context = FlightContext::current();
        let (left, right) = rayon::join(|| context.in_scope(left), || context.in_scope(right));
        left + right
    }
    #[cached(cache = cache, ttl = 60, key = "always the same")]
    fn same_key(cache: &MemoryCache, n: u64) -> u64 {
        if n < 2 { n } else { join(|| same_key(cache, n - 1), || same_key(cache, n - 2)) }
    }
    #[cached(cache = cache, ttl = 60, key = (n % 3).to_string())]
    fn three_keys(cache: &MemoryCache, n: u64) -> u64 {
        if n < 2 { n } else { join(|| three_keys(cache, n - 1), || three_keys(cache, n - 2)) }
    }
    watchdog(HANG, || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("a pool");
        for _ in 0..20 {
            let cache = cache();
            pool.install(|| {
                rayon::scope(|scope| {
                    for n in 0..12 {
                        let cache = &cache;
                        scope.spawn(move |_| {
                            same_key(cache, n);
                            three_keys(cache, n);
                        });
                    }
                });
            });
            assert_eq!(cache.stats().in_flight, 0);
        }
    });
}

#[test]
fn context_that_is_kept_has_no_effect_on_later_computations() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let mut kept = FlightContext::default();
        for round in 0..100 {
            let slot = std::sync::Mutex::new(FlightContext::default());
            assert!(
                call(&cache, &|| {
                    *slot.lock().expect("no panic") = FlightContext::current();
                    round
                }) == round
            );
            kept = slot.into_inner().expect("no panic");
            cache.clear().expect("memory can be cleared");
        }
        // Waits for the computation that runs now, as any other caller.
        thread::scope(|scope| {
            scope.spawn(|| {
                call(&cache, &|| {
                    until(|| clock.sleepers() == 1);
                    7
                })
            });
            until(|| cache.stats().in_flight == 1);
            assert_eq!(kept.in_scope(|| call(&cache, &|| 0)), 7);
        });
        assert_eq!(cache.stats().coalesced, 1);
    });
}

#[test]
fn context_names_the_computations_of_its_own_cache_alone() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let second = MemoryOptions::new().clock(clock.clone()).build();
        let first = cache();
        thread::scope(|scope| {
            scope.spawn(|| {
                call(&second, &|| {
                    until(|| clock.sleepers() == 1);
                    7
                })
            });
            until(|| second.stats().in_flight == 1);
            let value = call(&first, &|| in_thread(|| call(&second, &|| 0)));
            assert_eq!(value, 7, "it waits: the key is the same, the cache is not");
        });
    });
}

#[test]
fn context_outside_of_computations_is_empty() {
    let context = FlightContext::current();
    assert_eq!(format!("{context:?}"), format!("{:?}", FlightContext::default()));
    let cache = cache();
    assert_eq!(context.in_scope(|| call(&cache, &|| 1)), 1);
    let future = context.in_scope_async(async { call(&cache, &|| 2) });
    assert_eq!(smol::block_on(future), 1);
}

#[test]
fn context_leaves_with_a_panic() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let context = Arc::new(std::sync::Mutex::new(FlightContext::default()));
        thread::scope(|scope| {
            scope.spawn(|| {
                call(&cache, &|| {
                    *context.lock().expect("no panic") = FlightContext::current();
                    until(|| clock.sleepers() == 1);
                    7
                })
            });
            until(|| cache.stats().in_flight == 1);
            until(|| {
                format!("{:?}", context.lock())
                    != format!("{:?}", std::sync::Mutex::new(FlightContext::default()).lock())
            });
            let context = context.lock().expect("no panic").clone();
            let scope = || context.in_scope(|| panic!("planned"));
            assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(scope)).is_err());
            assert_eq!(call(&cache, &|| 0), 7, "it waits");
        });
    });
}

/// The time after which a computation of an unknown function is hedged.
const HEDGE: Duration = Duration::from_secs(3);

#[test]
fn thread_without_a_context_waits_for_its_own_computation_no_longer_than_any_hedge() {
    watchdog(HANG, || {
        let (clock, runs) = (ManualClock::new(), Runs::new());
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let body = || {
            let inner = || call(&cache, &|| runs.count());
            thread::scope(|scope| scope.spawn(inner).join().expect("no panic")) + 10
        };
        thread::scope(|scope| {
            let outer = scope.spawn(|| call(&cache, &body));
            until(|| clock.sleepers() == 1);
            clock.advance(HEDGE);
            assert_eq!(outer.join().expect("no panic"), 11);
        });
    });
}

#[test]
fn task_without_a_context_waits_for_its_own_computation_no_longer_than_any_hedge() {
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn call(cache: MemoryCache, depth: usize) -> usize {
        if depth == 0 {
            return 0;
        }
        tokio::spawn(boxed(cache.clone(), depth - 1)).await.expect("no panic") + 1
    }
    fn boxed(cache: MemoryCache, depth: usize) -> Pin<Box<dyn Future<Output = usize> + Send>> {
        Box::pin(call(cache, depth))
    }
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let runtime = runtime.expect("a runtime");
        let outer = runtime.spawn(call(cache, 1));
        until(|| clock.sleepers() == 1);
        clock.advance(HEDGE);
        assert_eq!(runtime.block_on(outer).expect("no panic"), 1);
    });
}

#[test]
fn pool_whose_threads_wait_for_what_they_are_to_finish_goes_on_after_a_hedge() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().expect("a pool");
        let is_done = AtomicBool::new(false);
        let stolen_half = || {
            rayon::in_place_scope(|scope| {
                scope.spawn(|_| {
                    call(&cache, &|| 2);
                    is_done.store(true, Ordering::SeqCst);
                });
                while !is_done.load(Ordering::SeqCst) {
                    rayon::yield_now();
                }
            });
        };
        let body = || {
            rayon::join(|| until(|| is_done.load(Ordering::SeqCst)), stolen_half);
            1
        };
        thread::scope(|scope| {
            let outer = scope.spawn(|| pool.install(|| call(&cache, &body)));
            until(|| clock.sleepers() == 1);
            clock.advance(HEDGE);
            assert_eq!(outer.join().expect("no panic"), 1);
        });
        assert_eq!(cache.stats().misses, 2);
    });
}

//! Traps of calls that share a computation: stampedes, panics, cancellation, recursion.

use std::cell::Cell;
use std::convert::Infallible;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Barrier, LazyLock};
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use cached::prelude::*;
use hitbox::concurrency::BroadcastConcurrencyManager;
use hitbox::policy::{ConcurrencyLimit, PolicyConfig};
use hitbox_moka::MokaBackend;

use super::Program::{None as Without, Run};
use super::{Outcome, Trap, WAITS, expect};

const ASYNC_CRATE: &str = "async functions are in the crate cachelito-async";
const SYNC_ONLY: &str = "for sync functions only";
const ASYNC_ONLY: &str = "for async functions only";

pub(super) const TRAPS: &[Trap] = &[
    Trap {
        name: "threads",
        title: "32 threads call one missing key: the function runs once",
        programs: &[
            ("vayu", Run(|| threads(vayu_slow))),
            ("cached", Run(|| threads(cached_slow))),
            ("cached by_key", Run(|| threads(by_key_slow))),
            ("cachelito", Run(|| threads(cachelito_slow))),
            ("memoize", Run(|| threads(memoize_slow))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Run(|| threads(|n| MOKA.get_with(n, || slow(n))))),
        ],
        documented: "[cached](https://docs.rs/cached): `sync_writes` is an option",
    },
    Trap {
        name: "tasks",
        title: "100 tasks call one missing key: the function runs once",
        programs: &[
            ("vayu", Run(|| tasks(async |n| vayu_slow_async(n).await))),
            ("cached", Run(|| tasks(async |n| cached_slow_async(n).await))),
            ("cached by_key", Run(|| tasks(async |n| by_key_slow_async(n).await))),
            ("cachelito", Without(ASYNC_CRATE)),
            ("memoize", Without(SYNC_ONLY)),
            ("hitbox", Run(|| tasks(async |n| hitbox_slow(n).await))),
            ("hitbox concurrency", Run(|| tasks(async |n| hitbox_slow_once(n).await))),
            ("moka", Run(|| tasks(async |n| FUTURES.get_with(n, slow_async(n)).await))),
        ],
        documented: "[hitbox](https://github.com/hit-box/hitbox): the concurrency is a setting of the policy, which its \
            first example does not set",
    },
    Trap {
        name: "panic",
        title: "the first call panics while another waits: the other, and later calls, return",
        programs: &[
            ("vayu", Run(|| panics(vayu_panics))),
            ("cached", Run(|| panics(cached_panics))),
            ("cached by_key", Run(|| panics(by_key_panics))),
            ("cachelito", Run(|| panics(cachelito_panics))),
            ("memoize", Run(|| panics(memoize_panics))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Run(|| panics(|n| MOKA.get_with(n, || panic_once(n))))),
        ],
        documented: "",
    },
    Trap {
        name: "cancelled",
        title: "the caller that computes is dropped while another waits: the other returns",
        programs: &[
            ("vayu", Run(|| cancelled(async |n| vayu_slow_async(n).await))),
            ("cached", Run(|| cancelled(async |n| cached_slow_async(n).await))),
            ("cached by_key", Run(|| cancelled(async |n| by_key_slow_async(n).await))),
            ("cachelito", Without(ASYNC_CRATE)),
            ("memoize", Without(SYNC_ONLY)),
            ("hitbox", Run(|| cancelled(async |n| hitbox_slow(n).await))),
            ("hitbox concurrency", Run(|| cancelled(async |n| hitbox_slow_once(n).await))),
            ("moka", Run(|| cancelled(async |n| FUTURES.get_with(n, slow_async(n)).await))),
        ],
        documented: "",
    },
    Trap {
        name: "parked",
        title: "a future is polled once and kept, the same task awaits another one of its key: it returns",
        programs: &[
            ("vayu", Run(|| parked(async |n| vayu_slow_async(n).await))),
            ("cached", Run(|| parked(async |n| cached_slow_async(n).await))),
            ("cached by_key", Run(|| parked(async |n| by_key_slow_async(n).await))),
            ("cachelito", Without(ASYNC_CRATE)),
            ("memoize", Without(SYNC_ONLY)),
            ("hitbox", Run(|| parked(async |n| hitbox_slow(n).await))),
            ("hitbox concurrency", Run(|| parked(async |n| hitbox_slow_once(n).await))),
            ("moka", Run(|| parked(async |n| FUTURES.get_with(n, slow_async(n)).await))),
        ],
        documented: "",
    },
    Trap {
        name: "recursion",
        title: "`fib(30)` calls itself: it returns",
        programs: &[
            ("vayu", Run(|| expect("fib(30)", &vayu_fib(30), &832_040))),
            ("cached", Run(|| expect("fib(30)", &cached_fib(30), &832_040))),
            ("cached by_key", Run(|| expect("fib(30)", &by_key_fib(30), &832_040))),
            ("cachelito", Run(|| expect("fib(30)", &cachelito_fib(30), &832_040))),
            ("memoize", Run(|| expect("fib(30)", &memoize_fib(30), &832_040))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Run(|| expect("fib(30)", &moka_fib(30), &832_040))),
        ],
        documented: "",
    },
    Trap {
        name: "self-call",
        title: "the function calls itself with the same argument, and then ends: it returns",
        programs: &[
            ("vayu", Run(|| expect("the value", &vayu_again(1), &1))),
            ("cached", Run(|| expect("the value", &cached_again(1), &1))),
            ("cached by_key", Run(|| expect("the value", &by_key_again(1), &1))),
            ("cachelito", Run(|| expect("the value", &cachelito_again(1), &1))),
            ("memoize", Run(|| expect("the value", &memoize_again(1), &1))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Run(|| expect("the value", &moka_again(1), &1))),
        ],
        documented: "",
    },
    Trap {
        name: "crossing",
        title: "two threads call functions that call each other: both return",
        programs: &[
            ("vayu", Run(|| crossing(vayu_left, vayu_right))),
            ("cached", Run(|| crossing(cached_left, cached_right))),
            ("cached by_key", Run(|| crossing(by_key_left, by_key_right))),
            ("cachelito", Run(|| crossing(cachelito_left, cachelito_right))),
            ("memoize", Run(|| crossing(memoize_left, memoize_right))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Run(|| crossing(moka_left, moka_right))),
        ],
        documented: "",
    },
    Trap {
        name: "other-keys",
        title: "a call takes 2 s: calls of 500 other keys do not wait for it",
        programs: &[
            ("vayu", Run(|| other_keys(vayu_first))),
            ("cached", Run(|| other_keys(cached_first))),
            ("cached by_key", Run(|| other_keys(by_key_first))),
            ("cachelito", Run(|| other_keys(cachelito_first))),
            ("memoize", Run(|| other_keys(memoize_first))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            ("moka", Run(|| other_keys(|n| MOKA.get_with(n, || first(n))))),
        ],
        documented: "[cached](https://docs.rs/cached): `sync_writes_buckets` is the number of locks",
    },
    Trap {
        name: "invalidation",
        title: "an entry is invalidated while it is computed from older data: the next call has the newer",
        programs: &[
            ("vayu", Run(|| invalidation(vayu_source, vayu_invalidate))),
            ("cached", Run(|| invalidation(cached_source, || CACHED_SOURCE.write().cache_clear()))),
            ("cached by_key", Without("as `cached`")),
            (
                "cachelito",
                Run(|| {
                    let invalidate = || drop(cachelito::invalidate_by_tag("source"));
                    invalidation(cachelito_source, invalidate)
                }),
            ),
            ("memoize", Run(|| invalidation(memoize_source, memoized_flush_memoize_source))),
            ("hitbox", Without(ASYNC_ONLY)),
            ("hitbox concurrency", Without(ASYNC_ONLY)),
            (
                "moka",
                Run(|| invalidation(|n| MOKA.get_with(n, || source(n)), || MOKA.invalidate(&1))),
            ),
        ],
        documented: "",
    },
];

static RUNS: AtomicU64 = AtomicU64::new(0);
static SOURCE: AtomicU64 = AtomicU64::new(1);
static MOKA: LazyLock<moka::sync::Cache<u64, u64>> =
    LazyLock::new(|| moka::sync::Cache::new(10_000));
static FUTURES: LazyLock<moka::future::Cache<u64, u64>> =
    LazyLock::new(|| moka::future::Cache::new(10_000));
static HITBOX: LazyLock<hitbox_fn::Cache<MokaBackend>> = LazyLock::new(|| {
    hitbox_fn::Cache::builder()
        .backend(MokaBackend::builder().max_entries(10_000).build())
        .policy(PolicyConfig::builder().ttl(Duration::from_hours(1)).build())
        .build()
});

static HITBOX_ONCE: LazyLock<
    hitbox_fn::Cache<MokaBackend, BroadcastConcurrencyManager<Result<u64, Infallible>>>,
> = LazyLock::new(|| {
    let policy =
        PolicyConfig::builder().ttl(Duration::from_hours(1)).concurrency(ConcurrencyLimit::MIN);
    hitbox_fn::Cache::builder()
        .backend(MokaBackend::builder().max_entries(10_000).build())
        .policy(policy.build())
        .concurrency_manager(BroadcastConcurrencyManager::new())
        .build()
});

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

const WORK: Duration = Duration::from_millis(100);

fn slow(n: u64) -> u64 {
    RUNS.fetch_add(1, Ordering::SeqCst);
    thread::sleep(WORK);
    n
}

async fn slow_async(n: u64) -> u64 {
    RUNS.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(WORK).await;
    n
}

fn panic_once(n: u64) -> u64 {
    let is_first = RUNS.fetch_add(1, Ordering::SeqCst) == 0;
    thread::sleep(WORK);
    assert!(!is_first, "planned panic");
    n
}

/// Calls a function once for each thread and twice at most, so that functions may call each other.
fn deeper(call: impl FnOnce() -> u64) -> u64 {
    let depth = DEPTH.get();
    if depth >= 2 {
        return 1;
    }
    DEPTH.set(depth + 1);
    thread::sleep(WORK);
    let value = call();
    DEPTH.set(depth);
    value
}

/// Calls a function unless this is a call of that kind.
fn again(n: u64, call: impl FnOnce(u64) -> u64) -> u64 {
    if DEPTH.replace(1) > 0 { n } else { call(n) }
}

fn first(n: u64) -> u64 {
    if n == 0 {
        RUNS.fetch_add(1, Ordering::SeqCst);
        thread::sleep(Duration::from_secs(2));
    }
    n
}

fn source(_: u64) -> u64 {
    let value = SOURCE.load(Ordering::SeqCst);
    RUNS.fetch_add(1, Ordering::SeqCst);
    thread::sleep(2 * WORK);
    value
}

/// Defines functions of the same body under each attribute.
macro_rules! functions {
    ($(#[$attribute:meta] fn $name:ident($n:ident) { $($body:tt)* })*) => {
        $(#[$attribute] fn $name($n: u64) -> u64 { $($body)* })*
    };
}

functions! {
    #[vayu::cached(ttl = "1h")] fn vayu_slow(n) { slow(n) }
    #[cached::macros::cached] fn cached_slow(n) { slow(n) }
    #[cached::macros::cached(sync_writes = "by_key")] fn by_key_slow(n) { slow(n) }
    #[cachelito::cache] fn cachelito_slow(n) { slow(n) }
    #[memoize::memoize(SharedCache)] fn memoize_slow(n) { slow(n) }

    #[vayu::cached(ttl = "1h")] fn vayu_panics(n) { panic_once(n) }
    #[cached::macros::cached] fn cached_panics(n) { panic_once(n) }
    #[cached::macros::cached(sync_writes = "by_key")] fn by_key_panics(n) { panic_once(n) }
    #[cachelito::cache] fn cachelito_panics(n) { panic_once(n) }
    #[memoize::memoize(SharedCache)] fn memoize_panics(n) { panic_once(n) }

    #[vayu::cached(ttl = "1h")] fn vayu_fib(n) { if n < 2 { n } else { vayu_fib(n - 1) + vayu_fib(n - 2) } }
    #[cached::macros::cached] fn cached_fib(n) { if n < 2 { n } else { cached_fib(n - 1) + cached_fib(n - 2) } }
    #[cached::macros::cached(sync_writes = "by_key")]
    fn by_key_fib(n) { if n < 2 { n } else { by_key_fib(n - 1) + by_key_fib(n - 2) } }
    #[cachelito::cache] fn cachelito_fib(n) { if n < 2 { n } else { cachelito_fib(n - 1) + cachelito_fib(n - 2) } }
    #[memoize::memoize(SharedCache)]
    fn memoize_fib(n) { if n < 2 { n } else { memoize_fib(n - 1) + memoize_fib(n - 2) } }

    #[vayu::cached(ttl = "1h")] fn vayu_again(n) { again(n, vayu_again) }
    #[cached::macros::cached] fn cached_again(n) { again(n, cached_again) }
    #[cached::macros::cached(sync_writes = "by_key")] fn by_key_again(n) { again(n, by_key_again) }
    #[cachelito::cache] fn cachelito_again(n) { again(n, cachelito_again) }
    #[memoize::memoize(SharedCache)] fn memoize_again(n) { again(n, memoize_again) }

    #[vayu::cached(ttl = "1h")] fn vayu_left(n) { deeper(|| vayu_right(n)) }
    #[vayu::cached(ttl = "1h")] fn vayu_right(n) { deeper(|| vayu_left(n)) }
    #[cached::macros::cached] fn cached_left(n) { deeper(|| cached_right(n)) }
    #[cached::macros::cached] fn cached_right(n) { deeper(|| cached_left(n)) }
    #[cached::macros::cached(sync_writes = "by_key")] fn by_key_left(n) { deeper(|| by_key_right(n)) }
    #[cached::macros::cached(sync_writes = "by_key")] fn by_key_right(n) { deeper(|| by_key_left(n)) }
    #[cachelito::cache] fn cachelito_left(n) { deeper(|| cachelito_right(n)) }
    #[cachelito::cache] fn cachelito_right(n) { deeper(|| cachelito_left(n)) }
    #[memoize::memoize(SharedCache)] fn memoize_left(n) { deeper(|| memoize_right(n)) }
    #[memoize::memoize(SharedCache)] fn memoize_right(n) { deeper(|| memoize_left(n)) }

    #[vayu::cached(ttl = "1h")] fn vayu_first(n) { first(n) }
    #[cached::macros::cached] fn cached_first(n) { first(n) }
    #[cached::macros::cached(sync_writes = "by_key")] fn by_key_first(n) { first(n) }
    #[cachelito::cache] fn cachelito_first(n) { first(n) }
    #[memoize::memoize(SharedCache)] fn memoize_first(n) { first(n) }

    #[vayu::cached(ttl = "1h", tags("source"))] fn vayu_source(n) { source(n) }
    #[cached::macros::cached] fn cached_source(n) { source(n) }
    #[cachelito::cache(tags = ["source"], name = "source")] fn cachelito_source(n) { source(n) }
    #[memoize::memoize(SharedCache)] fn memoize_source(n) { source(n) }
}

fn vayu_invalidate() {
    vayu::mem_cache().invalidate_tag("source").expect("a cache in memory has generations");
}

fn moka_fib(n: u64) -> u64 {
    MOKA.get_with(n, || if n < 2 { n } else { moka_fib(n - 1) + moka_fib(n - 2) })
}

fn moka_again(n: u64) -> u64 {
    MOKA.get_with(n, || again(n, moka_again))
}

fn moka_left(n: u64) -> u64 {
    MOKA.get_with(n, || deeper(|| moka_right(n)))
}

fn moka_right(n: u64) -> u64 {
    MOKA.get_with(n + 1000, || deeper(|| moka_left(n)))
}

#[vayu::cached(ttl = "1h")]
async fn vayu_slow_async(n: u64) -> u64 {
    slow_async(n).await
}

#[cached::macros::cached]
async fn cached_slow_async(n: u64) -> u64 {
    slow_async(n).await
}

#[cached::macros::cached(sync_writes = "by_key")]
async fn by_key_slow_async(n: u64) -> u64 {
    slow_async(n).await
}

#[derive(hitbox_fn::KeyExtract)]
struct Number(u64);

#[hitbox_fn::prelude::cached]
async fn hitbox_slow_number(key: Number) -> Result<u64, Infallible> {
    let Number(n) = key;
    Ok(slow_async(n).await)
}

async fn hitbox_slow(n: u64) -> u64 {
    let Ok(value) = hitbox_slow_number(Number(n)).cache(&*HITBOX).await;
    value
}

async fn hitbox_slow_once(n: u64) -> u64 {
    let Ok(value) = hitbox_slow_number(Number(n)).cache(&*HITBOX_ONCE).await;
    value
}

fn threads(call: fn(u64) -> u64) -> Outcome {
    let start = Barrier::new(32);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                start.wait();
                call(1)
            });
        }
    });
    expect("the number of runs", &RUNS.load(Ordering::SeqCst), &1)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn tasks(call: impl AsyncFn(u64) -> u64) -> Outcome {
    runtime().block_on(async {
        let mut calls: Vec<_> = (0..100).map(|_| Box::pin(call(1))).collect();
        std::future::poll_fn(|context| {
            calls.retain_mut(|call| call.as_mut().poll(context).is_pending());
            if calls.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    });
    expect("the number of runs", &RUNS.load(Ordering::SeqCst), &1)
}

fn panics(call: fn(u64) -> u64) -> Outcome {
    let leader = thread::spawn(move || call(1));
    while RUNS.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    let other = thread::spawn(move || call(1));
    if leader.join().is_ok() {
        return Err("the panic was swallowed".to_owned());
    }
    let other = other.join().map_err(|_| "the call that waited panics, too")?;
    expect("the value of the other", &other, &1)?;
    let later = catch_unwind(|| call(1)).map_err(|_| "a later call panics, too")?;
    expect("the value of a later call", &later, &1)?;
    let later = catch_unwind(|| call(2)).map_err(|_| "calls of other keys panic, too")?;
    expect("the value of another key", &later, &2)
}

fn cancelled(call: impl AsyncFn(u64) -> u64) -> Outcome {
    let value = runtime().block_on(async {
        let mut leader = Some(Box::pin(call(1)));
        let mut other = Box::pin(call(1));
        let deadline = tokio::time::sleep(WORK / 2);
        let mut deadline = std::pin::pin!(deadline);
        std::future::poll_fn(|context| {
            if let Some(call) = &mut leader {
                let _ = call.as_mut().poll(context);
            }
            if deadline.as_mut().poll(context).is_ready() {
                leader = None;
            }
            match other.as_mut().poll(context) {
                Poll::Ready(value) => Poll::Ready(value),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    });
    expect("the value", &value, &1)
}

fn parked(call: impl AsyncFn(u64) -> u64) -> Outcome {
    let value = runtime().block_on(async {
        let mut kept = Box::pin(call(1));
        std::future::poll_fn(|context| {
            let _ = kept.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
        let value = call(1).await;
        drop(kept);
        value
    });
    expect("the value", &value, &1)
}

fn crossing(left: fn(u64) -> u64, right: fn(u64) -> u64) -> Outcome {
    let (left, right) = (thread::spawn(move || left(1)), thread::spawn(move || right(1)));
    for thread in [left, right] {
        expect("the value", &thread.join().map_err(|_| "a call panics")?, &1)?;
    }
    Ok(())
}

fn other_keys(call: fn(u64) -> u64) -> Outcome {
    thread::spawn(move || call(0));
    while RUNS.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    let began = Instant::now();
    for n in 1..=500 {
        expect("the value", &call(n), &n)?;
    }
    match began.elapsed().as_millis() {
        0..1000 => Ok(()),
        time => Err(format!("{WAITS}the other calls took {time} ms")),
    }
}

fn invalidation(call: fn(u64) -> u64, invalidate: fn()) -> Outcome {
    let older = thread::spawn(move || call(1));
    while RUNS.load(Ordering::SeqCst) == 0 {
        thread::yield_now();
    }
    SOURCE.store(2, Ordering::SeqCst);
    invalidate();
    older.join().map_err(|_| "the first call panics")?;
    expect("the value after the invalidation", &call(1), &2)
}

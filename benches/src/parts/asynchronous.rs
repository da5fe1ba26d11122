//! Hits of async functions.

use std::convert::Infallible;
use std::error::Error;
use std::hint::black_box;

use tokio::runtime::{Builder, Runtime};

use crate::comparison::{Contender, Role, Schedule, compare};
use crate::keys::{Cycle, uniform, zipf};
use crate::quick;
use crate::report::{Limit, Report};

#[derive(hitbox_fn::KeyExtract)]
struct Number(u64);

#[hitbox_fn::prelude::cached]
async fn hitbox_number(key: Number) -> Result<u64, Infallible> {
    let Number(number) = key;
    Ok(number)
}

/// Functions in caches for so many entries, with these arguments of vayu.
macro_rules! functions {
    ($name:ident, $entries:tt, [$($vayu:tt)*]) => {
        mod $name {
            use std::sync::LazyLock;
            use std::time::Duration;

            use hitbox::policy::PolicyConfig;
            use hitbox_moka::MokaBackend;
            use vayu::{MemoryCache, MemoryOptions};

            #[allow(dead_code, reason = "functions with few keys are in the default cache")]
            static CACHE: LazyLock<MemoryCache> =
                LazyLock::new(|| MemoryOptions::new().max_entries($entries).build());

            #[vayu::cached($($vayu)*)]
            pub(super) async fn vayu(key: u64) -> u64 {
                key
            }

            #[cached::macros::cached(ttl_secs = 3600)]
            pub(super) async fn cached_ttl(key: u64) -> u64 {
                key
            }

            #[cached::macros::cached(ttl_secs = 3600, sync_writes = "by_key")]
            pub(super) async fn cached_by_key(key: u64) -> u64 {
                key
            }

            #[cached::macros::cached(max_size = $entries, ttl_secs = 3600)]
            pub(super) async fn cached_bounded(key: u64) -> u64 {
                key
            }

            #[cached::macros::concurrent_cached(ttl_secs = 3600)]
            pub(super) async fn cached_concurrent(key: u64) -> u64 {
                key
            }

            static HITBOX: LazyLock<hitbox_fn::Cache<MokaBackend>> = LazyLock::new(|| {
                hitbox_fn::Cache::builder()
                    .backend(MokaBackend::builder().max_entries($entries).build())
                    .policy(PolicyConfig::builder().ttl(Duration::from_hours(1)).build())
                    .build()
            });

            pub(super) async fn hitbox(key: u64) -> u64 {
                let Ok(number) = super::hitbox_number(super::Number(key)).cache(&*HITBOX).await;
                number
            }

            pub(super) static MOKA: LazyLock<moka::future::Cache<u64, u64>> = LazyLock::new(|| {
                moka::future::Cache::builder()
                    .max_capacity($entries)
                    .time_to_live(Duration::from_hours(1))
                    .build()
            });
        }
    };
}

functions!(few, 10_000, [ttl = "1h"]);
functions!(many, 250_000, [cache = CACHE, ttl = "1h"]);

/// Loops over a call in a runtime of one thread.
macro_rules! alone {
    ($runtime:expr, $keys:expr, $call:expr) => {{
        let (runtime, mut cycle) = (&$runtime, Cycle::new($keys));
        move |times| {
            runtime.block_on(async {
                for _ in 0..times {
                    black_box($call(black_box(cycle.next())).await);
                }
            });
        }
    }};
}

/// The same, where each key depends on the last value.
macro_rules! chained {
    ($runtime:expr, $keys:expr, $call:expr) => {{
        let (runtime, mut cycle) = (&$runtime, Cycle::new($keys));
        let mask = black_box(0);
        move |times| {
            let mut last = 0;
            runtime.block_on(async {
                for _ in 0..times {
                    last = $call(black_box(cycle.next() ^ (last & mask))).await;
                }
            });
            black_box(last);
        }
    }};
}

/// Loops over a call in a task of its own, on a runtime of one thread.
macro_rules! spawned {
    ($runtime:expr, $keys:expr, $call:expr) => {{
        let (runtime, keys) = (&$runtime, $keys);
        move |times| {
            runtime.block_on(async {
                let call = $call;
                let task = tokio::spawn(async move {
                    let mut cycle = Cycle::new(keys);
                    for _ in 0..times {
                        black_box(call(black_box(cycle.next())).await);
                    }
                });
                task.await.expect("no panic");
            });
        }
    }};
}

/// Runs two tasks on two workers.
macro_rules! together {
    ($runtime:expr, $keys:expr, $call:expr) => {{
        let (runtime, keys) = (&$runtime, $keys);
        move |times| {
            runtime.block_on(async {
                let task = |skip: usize| {
                    let call = $call;
                    tokio::spawn(async move {
                        let mut cycle = Cycle::new(keys);
                        (0..skip).for_each(|_| drop(cycle.next()));
                        for _ in 0..times {
                            black_box(call(black_box(cycle.next())).await);
                        }
                    })
                };
                let tasks = [task(0), task(97)];
                for task in tasks {
                    task.await.expect("no panic");
                }
            });
        }
    }};
}

/// The contenders of a module of functions, each run by the given macro.
macro_rules! contenders {
    ($form:ident, $runtime:expr, $keys:expr, $of:ident) => {{
        let moka: &'static moka::future::Cache<u64, u64> = &$of::MOKA;
        vec![
            Contender::new("vayu", Role::Vayu, $form!($runtime, $keys, $of::vayu)),
            Contender::new(
                "cached, ttl",
                Role::Unbounded,
                $form!($runtime, $keys, $of::cached_ttl),
            ),
            Contender::new(
                "cached, ttl, by_key",
                Role::Unbounded,
                $form!($runtime, $keys, $of::cached_by_key),
            ),
            Contender::new(
                "cached, max_size, ttl",
                Role::Bounded,
                $form!($runtime, $keys, $of::cached_bounded),
            ),
            Contender::new(
                "cached, concurrent, ttl",
                Role::Unbounded,
                $form!($runtime, $keys, $of::cached_concurrent),
            ),
            Contender::new(
                "hitbox, moka, ttl",
                Role::Bounded,
                $form!($runtime, $keys, $of::hitbox),
            ),
            Contender::new(
                "moka, ttl, get",
                Role::Bounded,
                $form!($runtime, $keys, move |key: u64| async move {
                    moka.get(&key).await.unwrap_or(0)
                }),
            ),
            Contender::new(
                "moka, ttl, get_with",
                Role::Bounded,
                $form!($runtime, $keys, move |key: u64| moka.get_with(key, async move { key })),
            ),
        ]
    }};
}

fn runtime(workers: usize) -> Result<Runtime, Box<dyn Error>> {
    Ok(if workers == 1 {
        Builder::new_current_thread().enable_all().build()?
    } else {
        Builder::new_multi_thread().worker_threads(workers).enable_all().build()?
    })
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let few: &'static [u64] = uniform(1000, 1 << 14, 4).leak();
    let count = quick::or(100_000, 1000);
    let many: &'static [u64] = zipf(count, 0.9, 1 << 18, 4).leak();
    let (one, two) = (runtime(1)?, runtime(2)?);
    let limits = [Limit::of_best_peer(0.80)];
    let measurements = compare(Schedule::SHORT, contenders!(alone, one, few, few));
    report.comparison("u64 -> u64, current thread", &measurements, &limits);
    let measurements = compare(Schedule::SHORT, contenders!(chained, one, few, few));
    report.comparison("u64 -> u64, current thread, latency", &measurements, &[]);
    let measurements = compare(Schedule::SHORT, contenders!(spawned, one, few, few));
    report.comparison("u64 -> u64, current thread, spawned", &measurements, &[]);
    let measurements = compare(Schedule::LONG, contenders!(together, two, few, few));
    report.comparison("u64 -> u64, 2 workers", &measurements, &limits);

    let title = "u64 -> u64, 100,000 keys, zipf 0.9";
    let schedule = Schedule::SHORT.warm(1 << 20);
    let measurements = compare(schedule, contenders!(alone, one, many, many));
    report.comparison(&format!("{title}, current thread"), &measurements, &limits);
    let schedule = Schedule::LONG.warm(1 << 18);
    let measurements = compare(schedule, contenders!(together, two, many, many));
    report.comparison(&format!("{title}, 2 workers"), &measurements, &limits);
    Ok(())
}

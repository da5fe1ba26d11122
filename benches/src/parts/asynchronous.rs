//! Hits of async functions.

use std::convert::Infallible;
use std::error::Error;
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::Duration;

use hitbox::policy::PolicyConfig;
use hitbox_moka::MokaBackend;
use tokio::runtime::{Builder, Runtime};

use crate::comparison::{Contender, Role, Schedule, compare};
use crate::keys::{Cycle, uniform};
use crate::report::{Limit, Report};

#[vayu::cached(ttl = "1h")]
async fn vayu(key: u64) -> u64 {
    key
}

#[cached::macros::cached(ttl_secs = 3600)]
async fn cached_ttl(key: u64) -> u64 {
    key
}

#[cached::macros::cached(ttl_secs = 3600, sync_writes = "by_key")]
async fn cached_by_key(key: u64) -> u64 {
    key
}

#[cached::macros::cached(max_size = 10_000, ttl_secs = 3600)]
async fn cached_bounded(key: u64) -> u64 {
    key
}

#[cached::macros::concurrent_cached(ttl_secs = 3600)]
async fn cached_concurrent(key: u64) -> u64 {
    key
}

#[derive(hitbox_fn::KeyExtract)]
struct Number(u64);

#[hitbox_fn::prelude::cached]
async fn hitbox_number(key: Number) -> Result<u64, Infallible> {
    let Number(number) = key;
    Ok(number)
}

static HITBOX: LazyLock<hitbox_fn::Cache<MokaBackend>> = LazyLock::new(|| {
    hitbox_fn::Cache::builder()
        .backend(MokaBackend::builder().max_entries(10_000).build())
        .policy(PolicyConfig::builder().ttl(Duration::from_hours(1)).build())
        .build()
});

async fn hitbox(key: u64) -> u64 {
    let Ok(number) = hitbox_number(Number(key)).cache(&*HITBOX).await;
    number
}

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

macro_rules! contenders {
    ($form:ident, $runtime:expr, $keys:expr, $moka:expr) => {{
        let moka: &'static moka::future::Cache<u64, u64> = $moka;
        vec![
            Contender::new("vayu", Role::Vayu, $form!($runtime, $keys, vayu)),
            Contender::new("cached, ttl", Role::Peer, $form!($runtime, $keys, cached_ttl)),
            Contender::new(
                "cached, ttl, by_key",
                Role::Peer,
                $form!($runtime, $keys, cached_by_key),
            ),
            Contender::new(
                "cached, max_size, ttl",
                Role::Peer,
                $form!($runtime, $keys, cached_bounded),
            ),
            Contender::new(
                "cached, concurrent, ttl",
                Role::Peer,
                $form!($runtime, $keys, cached_concurrent),
            ),
            Contender::new("hitbox, moka, ttl", Role::Peer, $form!($runtime, $keys, hitbox)),
            Contender::new(
                "moka, ttl, get",
                Role::Peer,
                $form!($runtime, $keys, move |key: u64| async move { moka.get(&key).await }),
            ),
            Contender::new(
                "moka, ttl, get_with",
                Role::Peer,
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
    let keys: &'static [u64] = uniform(1000, 1 << 14, 4).leak();
    let moka: &'static moka::future::Cache<u64, u64> = Box::leak(Box::new(
        moka::future::Cache::builder()
            .max_capacity(10_000)
            .time_to_live(Duration::from_hours(1))
            .build(),
    ));
    let one = runtime(1)?;
    let measurements = compare(Schedule::SHORT, contenders!(alone, one, keys, moka));
    report.comparison("u64 -> u64, current thread", &measurements, &[Limit::of_best_peer(0.80)]);
    let two = runtime(2)?;
    let measurements = compare(Schedule::LONG, contenders!(together, two, keys, moka));
    report.comparison("u64 -> u64, 2 workers", &measurements, &[Limit::of_best_peer(0.80)]);
    Ok(())
}

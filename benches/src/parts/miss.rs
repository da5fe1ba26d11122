//! Misses: a new key each time, in a bounded cache.

use std::error::Error;
use std::hint::black_box;

use crate::comparison::{Contender, Role, Schedule, compare};
use crate::report::{Limit, Report};

#[vayu::cached(ttl = "1h")]
fn vayu(key: u64) -> u64 {
    key
}

#[cached::macros::cached(max_size = 10_000, ttl_secs = 3600)]
fn cached_bounded(key: u64) -> u64 {
    key
}

#[cached::macros::cached(max_size = 10_000, ttl_secs = 3600, sync_writes = "by_key")]
fn cached_by_key(key: u64) -> u64 {
    key
}

#[vayu::cached(ttl = "1h")]
async fn vayu_async(key: u64) -> u64 {
    key
}

#[cached::macros::cached(max_size = 10_000, ttl_secs = 3600, sync_writes = "by_key")]
async fn cached_by_key_async(key: u64) -> u64 {
    key
}

#[cached::macros::cached(max_size = 10_000, ttl_secs = 3600)]
async fn cached_bounded_async(key: u64) -> u64 {
    key
}

/// Calls it with new numbers.
fn new_keys(mut call: impl FnMut(u64)) -> impl FnMut(u64) {
    let mut next = 0;
    move |times| {
        for _ in 0..times {
            next += 1;
            call(black_box(next));
        }
    }
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let moka = moka::sync::Cache::builder()
        .max_capacity(10_000)
        .time_to_live(std::time::Duration::from_hours(1))
        .build();
    let by_key = "cached, max_size, ttl, by_key";
    let measurements = compare(
        Schedule::SHORT,
        vec![
            Contender::new("vayu", Role::Vayu, new_keys(|key| drop(black_box(vayu(key))))),
            Contender::new(
                by_key,
                Role::Bounded,
                new_keys(|key| drop(black_box(cached_by_key(key)))),
            ),
            Contender::new(
                "cached, max_size, ttl",
                Role::Partial,
                new_keys(|key| drop(black_box(cached_bounded(key)))),
            )
            .note("no single flight"),
            Contender::new(
                "moka, ttl, get_with",
                Role::Bounded,
                new_keys(|key| drop(black_box(moka.get_with(key, || key)))),
            )
            .note("evicts later"),
        ],
    );
    report.comparison("miss and insert, bounded", &measurements, &[Limit::of(by_key, 1.2)]);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    macro_rules! new_keys_async {
        ($call:expr) => {{
            let (runtime, mut next) = (&runtime, 0);
            move |times| {
                runtime.block_on(async {
                    for _ in 0..times {
                        next += 1;
                        black_box($call(black_box(next)).await);
                    }
                });
            }
        }};
    }
    let measurements = compare(
        Schedule::SHORT,
        vec![
            Contender::new("vayu", Role::Vayu, new_keys_async!(vayu_async)),
            Contender::new(by_key, Role::Bounded, new_keys_async!(cached_by_key_async)),
            Contender::new(
                "cached, max_size, ttl",
                Role::Partial,
                new_keys_async!(cached_bounded_async),
            )
            .note("no single flight"),
        ],
    );
    report.comparison("miss and insert, bounded, async", &measurements, &[Limit::of(by_key, 1.0)]);
    Ok(())
}

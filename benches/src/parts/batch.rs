//! Batches whose elements are all found in memory, compared with a call for each.

use std::error::Error;
use std::hint::black_box;

use tokio::runtime::Builder;
use vayu::{MemoryCache, MemoryOptions, cached};

use crate::comparison::{Contender, Role, Schedule, compare};
use crate::report::{Limit, Report};

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn number(cache: &MemoryCache, key: u64) -> u64 {
    key
}

#[cached(cache = cache, ttl = "1h", skip(cache), each = keys)]
fn numbers(cache: &MemoryCache, keys: &[u64]) -> Vec<u64> {
    keys.to_vec()
}

#[cached(cache = cache, ttl = "1h", skip(cache))]
async fn number_async(cache: &MemoryCache, key: u64) -> u64 {
    key
}

#[cached(cache = cache, ttl = "1h", skip(cache), each = keys)]
async fn numbers_async(cache: &MemoryCache, keys: &[u64]) -> Vec<u64> {
    keys.to_vec()
}

const SINGLE: &str = "vayu, a call for each";

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    for (name, count) in [("100", 100), ("10,000", 10_000)] {
        measure_hits(report, name, &(0..count).collect::<Vec<u64>>())?;
    }
    Ok(())
}

fn measure_hits(report: &mut Report, name: &str, keys: &[u64]) -> Result<(), Box<dyn Error>> {
    let cache = MemoryOptions::new().max_entries(100_000).build();
    let schedule = Schedule::SHORT.warm(8);
    let limits = [Limit::of(SINGLE, 1.2)];
    let measurements = compare(
        schedule,
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                (0..times).for_each(|_| drop(black_box(numbers(&cache, black_box(keys)))));
            })
            .note("`each`"),
            Contender::new(SINGLE, Role::Baseline, |times| {
                for _ in 0..times {
                    for &key in keys {
                        black_box(number(&cache, black_box(key)));
                    }
                }
            }),
        ],
    );
    report.comparison(&format!("hits of {name} keys, sync"), &measurements, &limits);

    let runtime = Builder::new_current_thread().build()?;
    let measurements = compare(
        schedule,
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                runtime.block_on(async {
                    for _ in 0..times {
                        drop(black_box(numbers_async(&cache, black_box(keys)).await));
                    }
                });
            })
            .note("`each`"),
            Contender::new(SINGLE, Role::Baseline, |times| {
                runtime.block_on(async {
                    for _ in 0..times {
                        for &key in keys {
                            black_box(number_async(&cache, black_box(key)).await);
                        }
                    }
                });
            }),
        ],
    );
    report.comparison(&format!("hits of {name} keys, async"), &measurements, &limits);
    Ok(())
}

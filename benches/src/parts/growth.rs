//! Hits with 100 to 1,000,000 keys.

use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

use quick_cache::sync::Cache as QuickCache;
use serde_json::json;
use vayu::time::{Clock, MonotonicClock};
use vayu::{MemoryCache, MemoryOptions, cached};

use crate::comparison::{Contender, Measurement, Role, Schedule, compare};
use crate::keys::{Cycle, uniform};
use crate::report::Report;
use crate::{plot, quick};

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn number(cache: &MemoryCache, key: u64) -> u64 {
    key
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let mut text =
        "\n| keys | vayu | quick_cache, deadline | moka, ttl |\n|--:|--:|--:|--:|\n".to_owned();
    let mut series =
        vec![("vayu", vec![]), ("quick_cache, deadline", vec![]), ("moka, ttl", vec![])];
    for power in 2..=quick::or(6, 4) {
        let count = 10_u64.pow(power);
        let medians = medians(count);
        let [vayu, quick, moka] = medians[..] else { return Err("three contenders".into()) };
        text += &format!("| {count} | {vayu:.1} ns | {quick:.1} ns | {moka:.1} ns |\n");
        for ((_, points), median) in series.iter_mut().zip(&medians) {
            points.push((count as f64, *median));
        }
    }
    let growth = |index: usize| {
        let points: &Vec<(f64, f64)> = &series[index].1;
        points[points.len() - 1].1 / points[1].1
    };
    let (vayu, quick) = (growth(0), growth(1));
    let word = if vayu <= quick { "reached" } else { "**not reached**" };
    text += &format!(
        "\n- growth from 1,000 to 1,000,000 keys: factor {vayu:.2}, limit {quick:.2} (quick_cache): {word}\n"
    );
    report.write(&text);
    report.data(json!({ "growth": series }));
    report.plot("growth", plot::lines("Hit by number of keys, uniform", "ns", &series));
    Ok(())
}

fn medians(count: u64) -> Vec<f64> {
    let keys = uniform(count, 1 << 20, count);
    let entries = count + count / 2 + 1000;
    let cache = MemoryOptions::new().max_entries(entries).build();
    let quick = QuickCache::new(entries as usize);
    let moka = moka::sync::Cache::builder()
        .max_capacity(entries)
        .time_to_live(Duration::from_hours(1))
        .build();
    let deadline = MonotonicClock.now().saturating_add(Duration::from_hours(1));
    for key in 0..count {
        number(&cache, key);
        quick.insert(key, (key, deadline));
        moka.insert(key, key);
    }
    moka.run_pending_tasks();
    let mut cycles = [Cycle::new(&keys), Cycle::new(&keys), Cycle::new(&keys)];
    let [first, second, third] = &mut cycles;
    let measurements = compare(
        Schedule::SHORT.warm(1 << 20),
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                (0..times).for_each(|_| drop(black_box(number(&cache, first.next()))));
            }),
            Contender::new("quick_cache, deadline", Role::Baseline, |times| {
                for _ in 0..times {
                    let found: Option<(u64, vayu::time::Timestamp)> = quick.get(&second.next());
                    black_box(found.filter(|found| MonotonicClock.now() < found.1));
                }
            }),
            Contender::new("moka, ttl", Role::Bounded, |times| {
                (0..times).for_each(|_| drop(black_box(moka.get(&third.next()))));
            }),
        ],
    );
    measurements.iter().map(Measurement::median).collect()
}

//! Memory use of a million entries.

use std::error::Error;

use serde_json::json;
use vayu::{MemoryCache, MemoryOptions, cached};

use crate::report::Report;

const ENTRIES: u64 = 1_000_000;
/// The bytes of the two numbers of an entry.
const NUMBERS: f64 = 16.0;

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn number(cache: &MemoryCache, key: u64) -> u64 {
    key
}

/// Returns the bytes per entry, beyond its two numbers, of what `fill` returns.
fn of<T>(fill: impl FnOnce() -> T) -> f64 {
    let mut kept = None;
    let info = allocation_counter::measure(|| kept = Some(fill()));
    drop(kept);
    info.bytes_current as f64 / ENTRIES as f64 - NUMBERS
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let vayu = of(|| {
        let cache = MemoryOptions::new().max_entries(ENTRIES + ENTRIES / 10).build();
        (0..ENTRIES).for_each(|key| drop(number(&cache, key)));
        assert!(cache.stats().usage.entries.is_some_and(|entries| entries > ENTRIES * 99 / 100));
        cache
    });
    let quick = of(|| {
        let cache = quick_cache::sync::Cache::new((ENTRIES + ENTRIES / 10) as usize);
        (0..ENTRIES).for_each(|key| cache.insert(key, (key, key)));
        cache
    });
    let moka = of(|| {
        let cache = moka::sync::Cache::builder()
            .max_capacity(ENTRIES + ENTRIES / 10)
            .time_to_live(std::time::Duration::from_hours(1))
            .build();
        (0..ENTRIES).for_each(|key| cache.insert(key, key));
        cache.run_pending_tasks();
        cache
    });
    let word = if vayu <= 128.0 { "reached" } else { "**not reached**" };
    report.write(&format!(
        "\nBytes for each entry beyond its two numbers of 8 bytes, as requested from the allocator.\n\n\
         | | bytes |\n|---|--:|\n| vayu | {vayu:.0} |\n| quick_cache, deadline | {quick:.0} |\n\
         | moka, ttl | {moka:.0} |\n\n- {vayu:.0}, at most 128: {word}\n"
    ));
    report.data(json!({ "vayu": vayu, "quick_cache": quick, "moka": moka }));
    Ok(())
}

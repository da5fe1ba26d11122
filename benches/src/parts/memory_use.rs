//! Memory use of many entries, and of few.

use std::error::Error;
use std::time::Duration;

use serde_json::json;
use vayu::{MemoryCache, MemoryOptions, cached};

use crate::quick;
use crate::report::Report;

/// The bytes of the two numbers of an entry.
const NUMBERS: f64 = 16.0;

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn number(cache: &MemoryCache, key: u64) -> u64 {
    key
}

/// Functions with a limit of entries. Their caches are never dropped.
macro_rules! of_cached {
    ($name:ident, $entries:tt) => {
        mod $name {
            #[cached::macros::cached(max_size = $entries, ttl_secs = 3600)]
            pub(super) fn bounded(key: u64) -> u64 {
                key
            }

            #[cached::macros::concurrent_cached(ttl_secs = 3600)]
            pub(super) fn concurrent(key: u64) -> u64 {
                key
            }
        }
    };
}

of_cached!(few, 11_000);
of_cached!(many, 1_100_000);

/// Returns the bytes per entry, beyond its two numbers, of what `fill` returns or keeps.
fn bytes<T>(entries: u64, fill: impl FnOnce() -> T) -> f64 {
    let mut kept = None;
    let info = allocation_counter::measure(|| kept = Some(fill()));
    drop(kept);
    info.bytes_current as f64 / entries as f64 - NUMBERS
}

/// Returns the contenders with the bytes per entry, in caches with room for a tenth more.
fn contenders(
    entries: u64,
    bounded: fn(u64) -> u64,
    concurrent: fn(u64) -> u64,
) -> [(&'static str, f64); 5] {
    let room = entries + entries / 10;
    let vayu = bytes(entries, || {
        let cache = MemoryOptions::new().max_entries(room).build();
        (0..entries).for_each(|key| drop(number(&cache, key)));
        assert!(cache.stats().usage.entries.is_some_and(|found| found > entries * 99 / 100));
        cache
    });
    let moka = bytes(entries, || {
        let cache = moka::sync::Cache::builder()
            .max_capacity(room)
            .time_to_live(Duration::from_hours(1))
            .build();
        (0..entries).for_each(|key| cache.insert(key, key));
        cache.run_pending_tasks();
        cache
    });
    let quick = bytes(entries, || {
        let cache = quick_cache::sync::Cache::new(room as usize);
        (0..entries).for_each(|key| cache.insert(key, (key, key)));
        cache
    });
    let call_all = |call: fn(u64) -> u64| {
        bytes(entries, || (0..entries).for_each(|key| drop(std::hint::black_box(call(key)))))
    };
    [
        ("vayu", vayu),
        ("cached, max_size, ttl", call_all(bounded)),
        ("cached, concurrent, ttl", call_all(concurrent)),
        ("moka, ttl", moka),
        ("quick_cache, deadline", quick),
    ]
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let few = contenders(quick::or(10_000, 1000), few::bounded, few::concurrent);
    let many = contenders(quick::or(1_000_000, 10_000), many::bounded, many::concurrent);
    let mut text = "\nBytes for each entry beyond its two numbers of 8 bytes, as requested from the allocator, in caches \
                    with room for a tenth more entries.\n\n\
                    | | 10,000 entries | 1,000,000 entries |\n|---|--:|--:|\n"
        .to_owned();
    for ((name, few), (_, many)) in few.iter().zip(&many) {
        text += &format!("| {name} | {few:.0} | {many:.0} |\n");
        report.data(json!({ "name": name, "10,000 entries": few, "1,000,000 entries": many }));
    }
    // Chunks of memory are coarser in a small cache.
    for (entries, bytes, limit) in [("10,000", few[0].1, 85.0), ("1,000,000", many[0].1, 80.0)] {
        let word = if bytes <= limit { "reached" } else { "**not reached**" };
        text += &format!("\n- {entries} entries: {bytes:.0} bytes, at most {limit}: {word}");
    }
    report.write(&(text + "\n"));
    Ok(())
}

//! Hit ratios of bounded caches.

use std::error::Error;
use std::num::NonZeroUsize;

use serde_json::json;
use vayu::{MemoryCache, MemoryOptions, cached};

use crate::keys::{Random, uniform, zipf};
use crate::report::Report;

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn number(cache: &MemoryCache, key: u64) -> u64 {
    key
}

const LENGTH: usize = 1 << 20;
const KEYS: u64 = 100_000;

/// The h-h rule of Gray and others ("Quickly generating billion-record synthetic databases", SIGMOD
/// 1994): a share of 1 - h of the records gets a share of h of the calls, and so on within it.
fn self_similar(count: u64, h: f64, length: usize, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let power = (1.0 - h).ln() / h.ln();
    (0..length).map(|_| (count as f64 * random.fraction().powf(power)) as u64).collect()
}

/// Returns skewed keys, interrupted by scans over new ones.
fn scan(seed: u64) -> Vec<u64> {
    let mut keys = zipf(KEYS, 0.9, LENGTH, seed);
    for round in 0..10 {
        let begin = round * LENGTH / 10;
        for (index, key) in keys[begin..begin + LENGTH / 40].iter_mut().enumerate() {
            *key = KEYS + (round * LENGTH / 40 + index) as u64;
        }
    }
    keys
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let traces = [
        ("zipf 0.7", zipf(KEYS, 0.7, LENGTH, 11)),
        ("zipf 0.9", zipf(KEYS, 0.9, LENGTH, 12)),
        ("zipf 1.1", zipf(KEYS, 1.1, LENGTH, 13)),
        ("scans over zipf 0.9", scan(14)),
        ("loop over 20,000", (0..LENGTH as u64).map(|n| n % 20_000).collect()),
        ("self-similar 0.8 (Gray and others 1994)", self_similar(KEYS, 0.2, LENGTH, 15)),
        ("uniform", uniform(KEYS, LENGTH, 16)),
    ];
    let mut text = "\nHits in per cent of 1,048,576 calls; 100,000 keys unless stated otherwise.\n\n\
                    | calls | capacity | vayu | moka | LRU | gap to the best |\n|---|--:|--:|--:|--:|--:|\n"
        .to_owned();
    let mut most = 0.0_f64;
    for (name, keys) in &traces {
        for capacity in [1000, 10_000] {
            let ratios = [vayu(keys, capacity), moka(keys, capacity), lru(keys, capacity)];
            let [vayu, moka, lru] = ratios;
            let gap = moka.max(lru) - vayu;
            most = most.max(gap);
            text += &format!(
                "| {name} | {capacity} | {vayu:.2} | {moka:.2} | {lru:.2} | {:.2} |\n",
                gap.max(0.0)
            );
            report.data(
                json!({ "calls": name, "capacity": capacity, "vayu": vayu, "moka": moka, "lru": lru }),
            );
        }
    }
    let word = if most <= 1.0 { "reached" } else { "**not reached**" };
    report.write(&format!(
        "{text}\n- largest gap to the best: {most:.2} points, at most 1.00: {word}\n"
    ));
    Ok(())
}

fn per_cent(hits: u64) -> f64 {
    hits as f64 * 100.0 / LENGTH as f64
}

fn vayu(keys: &[u64], capacity: u64) -> f64 {
    let cache = MemoryOptions::new().max_entries(capacity).build();
    keys.iter().for_each(|&key| drop(number(&cache, key)));
    per_cent(cache.stats().hits)
}

fn moka(keys: &[u64], capacity: u64) -> f64 {
    let cache = moka::sync::Cache::builder().max_capacity(capacity).build();
    let mut hits = 0;
    for &key in keys {
        match cache.get(&key) {
            Some(()) => hits += 1,
            None => cache.insert(key, ()),
        }
        // Otherwise it exceeds its capacity, and has more hits for that.
        cache.run_pending_tasks();
    }
    per_cent(hits)
}

fn lru(keys: &[u64], capacity: u64) -> f64 {
    let capacity = NonZeroUsize::new(capacity as usize).expect("a capacity above zero");
    let mut cache = lru::LruCache::new(capacity);
    let mut hits = 0;
    for &key in keys {
        if cache.get(&key).is_some() {
            hits += 1;
        } else {
            cache.put(key, ());
        }
    }
    per_cent(hits)
}

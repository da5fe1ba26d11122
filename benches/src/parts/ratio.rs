//! Hit ratios of bounded caches.

use std::collections::HashMap;
use std::error::Error;
use std::num::NonZeroUsize;
use std::path::Path;
use std::{fs, io};

use serde_json::json;
use vayu::{MemoryCache, MemoryOptions, cached};

use crate::keys::{Random, uniform, zipf, zipf_by_rank};
use crate::quick;
use crate::report::Report;

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn number(cache: &MemoryCache, key: u64) -> u64 {
    key
}

const KEYS: u64 = 100_000;

/// Returns the number of calls.
fn length() -> usize {
    quick::or(1 << 20, 1 << 13)
}

/// The h-h rule of Gray and others ("Quickly generating billion-record synthetic databases", SIGMOD
/// 1994): a share of 1 - h of the records gets a share of h of the calls, and so on within it.
fn self_similar(count: u64, h: f64, length: usize, seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let power = (1.0 - h).ln() / h.ln();
    (0..length).map(|_| (count as f64 * random.fraction().powf(power)) as u64).collect()
}

/// Returns skewed keys, interrupted by scans over new ones.
fn scan(seed: u64) -> Vec<u64> {
    let mut keys = zipf(KEYS, 0.9, length(), seed);
    for round in 0..10 {
        let begin = round * length() / 10;
        for (index, key) in keys[begin..begin + length() / 40].iter_mut().enumerate() {
            *key = KEYS + (round * length() / 40 + index) as u64;
        }
    }
    keys
}

/// YCSB's distribution "latest" (Cooper and others, "Benchmarking Cloud Serving Systems with YCSB", ACM 2010,
/// workload D): 5 % of the calls have a new key, and the others prefer the newest ones, by zipf 0.99. It stands for
/// feeds and logs, where the frequent keys change all the time.
fn latest(seed: u64) -> Vec<u64> {
    let mut random = Random::new(seed);
    let ages = zipf_by_rank(KEYS, 0.99, length(), seed + 1);
    let mut newest = KEYS;
    let next = |age| {
        if random.fraction() < 0.05 {
            newest += 1;
            return newest;
        }
        newest - age
    };
    ages.into_iter().map(next).collect()
}

/// Returns the words of the sources of this workspace in their order, up to [`length`]: a sequence that was
/// not generated, with the frequencies and the locality of a language.
fn words() -> Result<Vec<u64>, Box<dyn Error>> {
    let mut numbers = HashMap::new();
    let mut keys = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("..")];
    while let Some(directory) = directories.pop() {
        let mut entries: Vec<_> = fs::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_, io::Error>>()?;
        entries.sort();
        for path in entries {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or(".");
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                directories.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs" || ending == "md") {
                let text = fs::read_to_string(path)?;
                let words = text.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
                for word in words.filter(|word| !word.is_empty()) {
                    let next = numbers.len() as u64;
                    keys.push(*numbers.entry(word.to_owned()).or_insert(next));
                }
            }
        }
    }
    keys.truncate(length());
    Ok(keys)
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let traces = [
        ("zipf 0.7", zipf(KEYS, 0.7, length(), 11)),
        ("zipf 0.9", zipf(KEYS, 0.9, length(), 12)),
        ("zipf 1.1", zipf(KEYS, 1.1, length(), 13)),
        ("scans over zipf 0.9", scan(14)),
        ("loop over 20,000", (0..length() as u64).map(|n| n % 20_000).collect()),
        ("self-similar 0.8 (Gray and others 1994)", self_similar(KEYS, 0.2, length(), 15)),
        ("latest (YCSB workload D)", latest(17)),
        ("words of the sources of vayu", words()?),
        ("uniform", uniform(KEYS, length(), 16)),
    ];
    let mut text = format!(
        "\nHits in per cent of {} calls; 100,000 keys unless stated otherwise. All but the words are synthetic: no \
         recorded trace is part of this repository.\n\n\
         | calls | capacity | vayu | moka | quick_cache | LRU | gap to the best |\n\
         |---|--:|--:|--:|--:|--:|--:|\n",
        length()
    );
    let mut most = 0.0_f64;
    for (name, keys) in &traces {
        for capacity in [1000, 10_000] {
            let hits = [vayu, moka, quick_cache, lru].map(|run| run(keys, capacity));
            let [vayu, moka, quick, lru] = hits.map(|hits| hits as f64 * 100.0 / keys.len() as f64);
            let gap = moka.max(quick).max(lru) - vayu;
            most = most.max(gap);
            text += &format!(
                "| {name} | {capacity} | {vayu:.2} | {moka:.2} | {quick:.2} | {lru:.2} | {:.2} |\n",
                gap.max(0.0)
            );
            report.data(json!({
                "calls": name,
                "capacity": capacity,
                "vayu": vayu,
                "moka": moka,
                "quick_cache": quick,
                "lru": lru,
            }));
        }
    }
    let word = if most <= 0.5 { "reached" } else { "**not reached**" };
    report.write(&format!(
        "{text}\n- largest gap to the best: {most:.2} points, at most 0.50: {word}\n"
    ));
    Ok(())
}

fn vayu(keys: &[u64], capacity: u64) -> u64 {
    let cache = MemoryOptions::new().max_entries(capacity).build();
    keys.iter().for_each(|&key| drop(number(&cache, key)));
    cache.stats().hits
}

fn moka(keys: &[u64], capacity: u64) -> u64 {
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
    hits
}

fn quick_cache(keys: &[u64], capacity: u64) -> u64 {
    let cache = quick_cache::sync::Cache::new(capacity as usize);
    let mut hits = 0;
    for &key in keys {
        match cache.get(&key) {
            Some(()) => hits += 1,
            None => cache.insert(key, ()),
        }
    }
    hits
}

fn lru(keys: &[u64], capacity: u64) -> u64 {
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
    hits
}

//! Compares a directory with many entries to one with a thousand, in the same run.
//!
//! ```text
//! cargo run --release -p vayu-file --example scale -- [ENTRIES] [DIRECTORY]
//! ```
//!
//! The directory must not exist. It is not removed, so that `vayu-cache ls` can be tried on it.

use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vayu_core::testing::ManualClock;
use vayu_core::{Backend, BackendExt, Clock, Key, Record, SystemClock};
use vayu_file::{FileCache, FileOptions};

const FEW: usize = 1_000;
const ROUNDS: usize = 201;
const HITS_A_ROUND: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let many = arguments.next().map_or(Ok(1_000_000), |text| text.parse::<usize>())?;
    let place = arguments.next().map_or_else(
        || std::env::temp_dir().join(format!("vayu-scale-{}", std::process::id())),
        PathBuf::from,
    );
    std::fs::create_dir(&place)?;
    let (small, large) = (place.join("few"), place.join("many"));
    let memory = resident();

    let few_cache = open(&small)?;
    fill(&few_cache, FEW)?;
    let large_cache = open(&large)?;
    let started = Instant::now();
    fill(&large_cache, many)?;
    let each = started.elapsed() / u32::try_from(many)?;
    println!("write of {many} entries of 100 bytes     {each:?} each");

    // In turns, so that both run under the same conditions.
    let (mut few_times, mut many_times) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        few_times.push(hits(&few_cache, FEW, round)?);
        many_times.push(hits(&large_cache, many, round)?);
    }
    let (few, of_many) = (median(&mut few_times), median(&mut many_times));
    println!("hit among {FEW}                        {few:?}");
    println!(
        "hit among {many}                     {of_many:?}, {:.2} times as long",
        ratio(of_many, few)
    );

    let before = resident();
    let (usage, elapsed) = timed(|| Ok(open(&large)?.backend().sweep()?))?;
    println!("full sweep                         {elapsed:?}, {:?} entries", usage.entries);
    println!("memory of the sweep                {} KiB", resident().saturating_sub(before));
    let (_, elapsed) = timed(|| Ok(large_cache.backend().usage()))?;
    println!("stats                              {elapsed:?}");

    // Everything has expired by this clock.
    let clock = ManualClock::new();
    clock.set(SystemClock.now().saturating_add(Duration::from_secs(2 * 60 * 60)));
    let late = FileOptions::new().max_bytes(u64::MAX).clock(clock).open(&small)?;
    let (expired, elapsed) = timed(|| Ok(late.backend().sweep()?.expirations))?;
    println!("sweep of {FEW} that have expired     {elapsed:?}, {expired:?} removed");
    println!("memory beyond that at the start    {} KiB", resident().saturating_sub(memory));
    println!("\nthe directory is {}", large.display());
    Ok(())
}

fn open(path: &Path) -> Result<FileCache, Box<dyn Error>> {
    Ok(FileOptions::new().max_bytes(u64::MAX).open(path)?)
}

fn key(n: usize) -> Key {
    Key::from_text("scale", n.to_string())
}

fn fill(cache: &FileCache, entries: usize) -> Result<(), Box<dyn Error>> {
    let value = Bytes::from(vec![7; 100]);
    for n in 0..entries {
        let now = SystemClock.now();
        let end = now.saturating_add(Duration::from_secs(60 * 60));
        cache.backend().write(&key(n), Record::new(value.clone(), now, end))?;
    }
    Ok(())
}

/// Returns the mean time of the hits of a round.
fn hits(cache: &FileCache, entries: usize, round: usize) -> Result<Duration, Box<dyn Error>> {
    let keys: Vec<Key> = (0..HITS_A_ROUND)
        .map(|n| key((round * HITS_A_ROUND + n).wrapping_mul(7_919) % entries))
        .collect();
    let started = Instant::now();
    for key in &keys {
        assert!(black_box(cache.backend().read(key)?).is_some());
    }
    Ok(started.elapsed() / u32::try_from(HITS_A_ROUND)?)
}

fn timed<T>(
    code: impl FnOnce() -> Result<T, Box<dyn Error>>,
) -> Result<(T, Duration), Box<dyn Error>> {
    let started = Instant::now();
    Ok((code()?, started.elapsed()))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ratio(one: Duration, two: Duration) -> f64 {
    one.as_secs_f64() / two.as_secs_f64()
}

/// Returns the memory of this process in KiB, or 0 if it is unknown.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

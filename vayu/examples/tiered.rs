//! Two tiers: memory in front of a directory, described by a URL as in a configuration file.

use vayu::{AnyCache, cached};

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn square(cache: &AnyCache, n: u64) -> u64 {
    println!("computing the square of {n}");
    n * n
}

fn main() -> vayu::Result<()> {
    let directory = std::env::temp_dir().join(format!("vayu-tiered-{}", std::process::id()));
    let url = format!("memory+file:{}", directory.display());

    let cache = vayu::open(&url)?;
    println!("{}, from the function", square(&cache, 12));
    println!("{}, from memory", square(&cache, 12));

    // Another process starts with empty memory.
    let other = vayu::open(&url)?;
    println!("{}, from the directory", square(&other, 12));
    println!("{}, from memory", square(&other, 12));

    other.clear()
}

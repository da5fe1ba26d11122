//! A cache of its own for a function, with another limit than the 10,000 entries of `mem_cache()`.

use std::sync::LazyLock;

use vayu::{MemoryCache, MemoryOptions, cached, mem_cache};

static SQUARES: LazyLock<MemoryCache> =
    LazyLock::new(|| MemoryOptions::new().max_entries(100).build());

#[cached(cache = SQUARES, ttl = "1h")]
fn square(n: u64) -> u64 {
    n * n
}

fn main() {
    let sum: u64 = (0..1_000).map(square).sum();
    println!("the sum of 1,000 squares is {sum}");
    println!("entries in SQUARES: {:?}", SQUARES.stats().usage.entries);
    println!("calls of mem_cache(): {}", mem_cache().stats().calls());
}

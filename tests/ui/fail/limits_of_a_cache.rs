use std::sync::LazyLock;
use vayu::{MemoryCache, cached, mem_cached};

static PAGES: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);

#[cached(ttl = "1m", cache = PAGES, max_entries = 5)]
fn beside_a_cache(n: u8) -> u8 {
    n
}

#[mem_cached(ttl = "1m", max_entries = 5)]
fn of_mem_cached(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", max_entries = 0)]
fn zero(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", max_entries = u64::from(n))]
fn by_argument(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", max_entries = "many")]
fn string(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", max_entries = 5, max_weight = 5, weigh = |_| 1)]
fn two_limits(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", max_weight = 5)]
fn no_weight(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", weigh = |_| 1)]
fn no_limit(n: u8) -> u8 {
    n
}

fn main() {}

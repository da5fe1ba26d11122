use vayu::{MemoryCache, cached};

struct Shop {
    pages: MemoryCache,
}

impl Shop {
    #[cached(cache = pages, ttl = "1m")]
    fn pages(&self, n: u32) -> u32 {
        n
    }
}

#[cached(cache = call, ttl = "1m")]
fn call(n: u32) -> u32 {
    n
}

#[cached(cache = other, ttl = "1m")]
fn another(n: u32) -> u32 {
    n
}

fn other() {}

fn main() {}

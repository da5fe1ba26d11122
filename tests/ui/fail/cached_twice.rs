use vayu::{cached, mem_cached};

#[cached(ttl = "1m")]
#[cached(ttl = "1m")]
fn twice(n: u32) -> u32 {
    n
}

#[cached(ttl = "1m")]
#[inline]
#[mem_cached(ttl = "1m")]
fn by_both(n: u32) -> u32 {
    n
}

fn main() {}

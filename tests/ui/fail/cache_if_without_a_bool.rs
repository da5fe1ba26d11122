use vayu::cached;

#[cached(ttl = 60, cache_if = |value| 5)]
fn call(n: u64) -> u64 {
    n
}

fn main() {}

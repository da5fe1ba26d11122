use vayu::mem_cached;

#[mem_cached(cache = CACHE, ttl = 60)]
fn call(n: u64) -> u64 {
    n
}

fn main() {}

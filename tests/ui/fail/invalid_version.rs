use vayu::cached;

#[cached(ttl = 60, version = 1.5)]
fn call(n: u64) -> u64 {
    n
}

fn main() {}

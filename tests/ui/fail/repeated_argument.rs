use vayu::cached;

#[cached(ttl = 60, ttl = "1m")]
fn call() -> u64 {
    0
}

fn main() {}

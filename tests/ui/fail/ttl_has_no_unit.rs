use vayu::cached;

#[cached(ttl = "5")]
fn call() -> u64 {
    0
}

fn main() {}

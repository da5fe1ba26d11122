use vayu::cached;

#[cached(ttl = |value| 60)]
fn call() -> u64 {
    0
}

fn main() {}

use vayu::cached;

const SECONDS: f64 = 0.5;

#[cached(ttl = SECONDS)]
fn call() -> u64 {
    0
}

fn main() {}

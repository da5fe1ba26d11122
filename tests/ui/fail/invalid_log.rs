use vayu::cached;

#[cached(ttl = 60, log = "debug")]
fn call(n: u64) -> u64 {
    n
}

fn main() {}

use vayu::cached;

#[cached(ttl = 60, prefix = "")]
fn call(n: u64) -> u64 {
    n
}

fn main() {}

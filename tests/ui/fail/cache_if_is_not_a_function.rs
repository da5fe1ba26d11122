use vayu::cached;

#[cached(ttl = "1m", cache_if = true)]
fn call(n: u32) -> u32 {
    n
}

fn main() {}

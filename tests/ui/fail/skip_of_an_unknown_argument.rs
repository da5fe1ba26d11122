use vayu::cached;

#[cached(ttl = 60, skip(pool))]
fn call(client: u8, url: &str) -> u64 {
    0
}

#[cached(ttl = 60, skip(pool))]
fn none() -> u64 {
    0
}

fn main() {}

use vayu::cached;

#[cached(ttl = "1m", serializer = "json")]
fn call(n: u32) -> u32 {
    n
}

fn main() {}

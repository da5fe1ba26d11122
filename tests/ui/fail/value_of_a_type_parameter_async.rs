use serde::Serialize;
use vayu::cached;

#[cached(ttl = "1m")]
async fn call<T: Serialize>(value: T) -> T {
    value
}

fn main() {}

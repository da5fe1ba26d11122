use serde::Serialize;
use vayu::cached;

#[cached(ttl = "1m")]
fn sync<T: Serialize>(value: T) -> T {
    value
}

fn main() {}

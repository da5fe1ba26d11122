use vayu::cached;

#[cached(ttl = 60, serializer = vayu::Json)]
fn call(n: u64) -> u64 {
    n
}

fn main() {}

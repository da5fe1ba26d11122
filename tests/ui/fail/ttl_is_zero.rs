use vayu::cached;

#[cached(ttl = 0)]
fn whole() -> u64 {
    0
}

#[cached(ttl = 0.0)]
fn fraction() -> u64 {
    0
}

#[cached(ttl = "0s")]
fn text() -> u64 {
    0
}

fn main() {}

use vayu::cached;

#[cached(ttl = -5)]
fn whole() -> u64 {
    0
}

#[cached(ttl = -0.5)]
fn fraction() -> u64 {
    0
}

#[cached(ttl = "-5s")]
fn text() -> u64 {
    0
}

fn main() {}

use vayu::cached;

#[cached(ttl = "forever")]
fn forever(n: u32) -> u32 {
    n
}

#[cached(ttl = "1h", stale = "never")]
fn never(n: u32) -> u32 {
    n
}

#[cached(ttl = None)]
fn none(n: u32) -> u32 {
    n
}

fn main() {}

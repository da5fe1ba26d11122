use vayu::cached;

#[cached(ttl = 5m)]
fn minutes(n: u8) -> u8 {
    n
}

#[cached(ttl = 0.5h, stale = 2d)]
fn hours(n: u8) -> u8 {
    n
}

#[cached(ttl = 5M)]
fn minutes_or_months(n: u8) -> u8 {
    n
}

#[cached(ttl = 60u64, version = 2u8)]
fn types(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", jitter = 10percent, version = 2b)]
fn others(n: u8) -> u8 {
    n
}

fn main() {}

use vayu::cached;

#[cached(ttl = "1m", stale = |value: &u8| std::time::Duration::from_secs(1))]
fn closure(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", stale = 0)]
fn zero(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", stale = "tomorrow")]
fn text(n: u8) -> u8 {
    n
}

fn main() {}

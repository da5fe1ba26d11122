use vayu::cached;

#[cached(ttl = "1h", idle = |value: &u8| std::time::Duration::from_secs(1))]
fn closure(n: u8) -> u8 {
    n
}

#[cached(ttl = "1h", idle = 0)]
fn zero(n: u8) -> u8 {
    n
}

#[cached(ttl = "1h", idle = "forever")]
fn endless(n: u8) -> u8 {
    n
}

fn main() {}

use std::time::Duration;
use vayu::cached;

#[cached(ttl = "1m", expires_at = std::time::SystemTime::now())]
fn beside_a_ttl(n: u8) -> u8 {
    n
}

#[cached(expires_at = "12:00")]
fn string(n: u8) -> u8 {
    n
}

#[cached(expires_at = || std::time::SystemTime::now())]
fn without_the_value(n: u8) -> u8 {
    n
}

#[cached(expires_at = Duration::from_secs(60))]
fn duration(n: u8) -> u8 {
    n
}

#[cached(expires_at = |n: &u8| Duration::from_secs(u64::from(*n)))]
fn duration_of_a_value(n: u8) -> u8 {
    n
}

fn main() {}

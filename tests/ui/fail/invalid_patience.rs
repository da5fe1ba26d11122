use vayu::cached;

#[cached(ttl = "1m", patience = "50ms")]
async fn alone(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", spawn = tokio::spawn, patience = "50ms")]
async fn without_stale(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", stale = "1h", patience = "50ms")]
async fn without_spawn(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", stale = "1h", spawn = tokio::spawn, patience = |value: &u8| std::time::Duration::ZERO)]
async fn closure(n: u8) -> u8 {
    n
}

#[cached(ttl = "1m", stale = "1h", spawn = tokio::spawn, patience = 0)]
async fn none(n: u8) -> u8 {
    n
}

fn main() {}

use vayu::cached;

#[cached(ttl = 60, stale = 60, spawn = tokio::spawn)]
fn spawner_of_futures(n: u8) -> u8 {
    n
}

#[cached(ttl = 60, stale = 60, spawn = std::thread::spawn)]
async fn spawner_of_closures(n: u8) -> u8 {
    n
}

#[cached(ttl = 60, spawn = std::thread::spawn)]
fn without_stale(n: u8) -> u8 {
    n
}

#[cached(ttl = 60, stale = 60, spawn = std::thread::spawn)]
fn borrowed(url: &str) -> String {
    url.to_owned()
}

#[cached(ttl = 60, stale = 60, patience = "50ms")]
fn patience_without_spawn(n: u8) -> u8 {
    n
}

fn main() {}

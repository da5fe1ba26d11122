use vayu::cached;

struct Page(String);

#[cached(ttl = 60)]
async fn call(n: u64) -> Page {
    Page(n.to_string())
}

#[cached(ttl = 60, stale = 60, spawn = tokio::spawn)]
async fn call_spawning(n: u64) -> Page {
    Page(n.to_string())
}

fn main() {}

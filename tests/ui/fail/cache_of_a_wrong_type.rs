use vayu::cached;

#[cached(cache = 5, ttl = 60)]
fn number(n: u64) -> u64 {
    n
}

#[cached(cache = "redis://localhost", ttl = 60)]
async fn text(n: u64) -> u64 {
    n
}

fn main() {}

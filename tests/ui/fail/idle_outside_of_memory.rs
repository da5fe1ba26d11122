use vayu::backend::FileBackend;
use vayu::{FileCache, TieredCache, cached};

#[cached(cache = cache, ttl = "1h", idle = "10m", skip(cache))]
fn in_files(cache: &FileCache, n: u8) -> u8 {
    n
}

#[cached(cache = cache, ttl = "1h", idle = "10m", skip(cache))]
async fn in_tiers(cache: &TieredCache<FileBackend>, n: u8) -> u8 {
    n
}

fn main() {}

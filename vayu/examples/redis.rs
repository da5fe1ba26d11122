//! A Redis or Valkey server: results are shared by machines. Run it twice.
//!
//! The URL of the server is in the environment variable `REDIS_URL`.

use std::env;
use std::sync::LazyLock;

use vayu::{RedisCache, cached};

static PRICES: LazyLock<RedisCache> = LazyLock::new(|| {
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1/".to_owned());
    RedisCache::open_or_off(url)
});

#[cached(cache = PRICES, ttl = "1m", prefix = "price")]
async fn price(sku: u32) -> f64 {
    println!("computing the price of {sku}");
    f64::from(sku) * 1.5
}

#[tokio::main]
async fn main() {
    println!("{}", price(7).await);
    let stats = PRICES.stats();
    println!("{} read from the server, {} computed", stats.hits, stats.misses);
    // Without a server calls run their function: the error is counted, and logged with `tracing`.
    println!("{} errors", stats.errors);
}

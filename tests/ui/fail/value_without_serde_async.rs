use std::sync::LazyLock;

use vayu::testing::MapBackend;
use vayu::{Cache, MessagePack, cached};

static CACHE: LazyLock<Cache<MapBackend, MessagePack>> = LazyLock::new(Cache::new);

#[derive(Clone, serde::Serialize)]
struct Page(String);

#[cached(cache = CACHE, ttl = 60)]
async fn call(n: u64) -> Page {
    Page(n.to_string())
}

fn main() {}

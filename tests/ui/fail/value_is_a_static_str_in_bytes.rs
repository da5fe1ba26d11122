use std::sync::LazyLock;

use vayu::testing::MapBackend;
use vayu::{Cache, MessagePack, cached};

static CACHE: LazyLock<Cache<MapBackend, MessagePack>> = LazyLock::new(Cache::new);

#[cached(cache = CACHE, ttl = 60)]
fn call(n: u64) -> &'static str {
    if n == 0 { "none" } else { "some" }
}

fn main() {}

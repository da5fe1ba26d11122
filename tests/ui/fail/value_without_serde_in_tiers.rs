use std::sync::LazyLock;

use vayu::{AnyCache, cached};

static CACHE: LazyLock<AnyCache> = LazyLock::new(|| vayu::open("memory://").unwrap());

#[derive(Clone)]
struct Page(String);

#[cached(cache = CACHE, ttl = 60)]
fn call(n: u64) -> Page {
    Page(n.to_string())
}

fn main() {}

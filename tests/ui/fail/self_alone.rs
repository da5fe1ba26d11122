use std::sync::Arc;

use vayu::{MemoryCache, cached};

static CACHE: std::sync::LazyLock<MemoryCache> = std::sync::LazyLock::new(MemoryCache::new);

#[derive(Clone)]
struct Shop {
    id: u64,
}

impl Shop {
    #[cached(ttl = 60)]
    fn by_reference(&self) -> u64 {
        self.id
    }

    #[cached(ttl = 60, cache = CACHE, tags(format!("{}", self.id)), prefix = "shop")]
    async fn in_another_cache(self: &Self) -> u64 {
        self.id
    }

    #[cached(ttl = 60)]
    fn by_value(mut self) -> u64 {
        self.id += 1;
        self.id
    }

    #[cached(ttl = 60)]
    async fn by_arc(self: Arc<Self>, _: u64) -> u64 {
        self.id
    }
}

trait Named {
    #[cached(ttl = 60)]
    fn name(&self) -> String {
        "name".to_owned()
    }
}

#[async_trait::async_trait]
trait Store {
    #[cached(ttl = 60)]
    async fn load(&self) -> String {
        "name".to_owned()
    }
}

fn main() {}

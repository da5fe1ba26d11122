use std::pin::Pin;

use vayu::{MemoryCache, cached};

struct Counter {
    count: u64,
    cache: MemoryCache,
}

impl Counter {
    #[cached(ttl = 60)]
    fn short(&mut self, n: u64) -> u64 {
        self.count += n;
        self.count
    }

    #[cached(ttl = 60, cache = self.cache)]
    async fn with_lifetime<'a>(&'a mut self) -> u64 {
        self.count
    }

    #[cached(ttl = 60, include(self.count))]
    fn typed(self: &mut Self) -> u64 {
        self.count
    }

    #[cached(ttl = 60)]
    fn mutable(mut self: &mut Self, n: u64) -> u64 {
        self = self;
        self.count + n
    }

    #[cached(ttl = 60)]
    async fn pinned(self: Pin<&mut Self>, n: u64) -> u64 {
        self.count + n
    }
}

fn main() {}

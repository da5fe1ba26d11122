//! In tests: a clock that is moved by hand, and a cache that is paused.

use std::time::Duration;

use vayu::testing::ManualClock;
use vayu::{MemoryCache, MemoryOptions, cached};

struct Bank {
    cache: MemoryCache,
}

impl Bank {
    #[cached(cache = self.cache, ttl = "1h")]
    fn rate(&self, currency: &str) -> usize {
        println!("asking for {currency}");
        currency.len()
    }
}

fn main() {
    // Each test has a cache and a clock of its own.
    let clock = ManualClock::new();
    let bank = Bank { cache: MemoryOptions::new().clock(clock.clone()).build() };
    assert_eq!(bank.rate("EUR"), bank.rate("EUR"));

    println!("an hour later:");
    clock.advance(Duration::from_secs(3600));
    bank.rate("EUR");

    println!("while the cache is paused:");
    let pause = bank.cache.pause();
    assert_eq!(bank.rate("EUR"), bank.rate("EUR"));
    pause.resume();
    println!("{} hit, {} misses", bank.cache.stats().hits, bank.cache.stats().misses);
}

//! The time of a call, where what precedes its lookup takes long.

use std::time::Duration;

use serde::{Serialize, Serializer};
use vayu::testing::ManualClock;
use vayu::{MemoryCache, MemoryOptions, cached, watch_sync};

use crate::Runs;

fn watched() -> (MemoryCache, ManualClock) {
    let clock = ManualClock::new();
    (MemoryOptions::new().clock(clock.clone()).build(), clock)
}

/// Returns a value after a while.
fn slow<T>(clock: &ManualClock, value: T) -> T {
    clock.advance(Duration::from_secs(31));
    value
}

#[test]
fn value_that_expires_while_an_expression_of_the_key_runs_is_not_returned() {
    #[cached(cache = cache, ttl = 60, key = slow(clock, "k"))]
    fn by_key(cache: &MemoryCache, clock: &ManualClock, runs: &Runs) -> usize {
        runs.count()
    }
    #[cached(cache = cache, ttl = 60, key = "k", include(slow(clock, 1)))]
    fn by_part(cache: &MemoryCache, clock: &ManualClock, runs: &Runs) -> usize {
        runs.count()
    }
    #[cached(cache = cache, ttl = 60, key = "k", prefix = slow(clock, "p"))]
    fn by_prefix(cache: &MemoryCache, clock: &ManualClock, runs: &Runs) -> usize {
        runs.count()
    }
    #[cached(cache = cache, ttl = 60, key = slow(clock, "k"))]
    async fn by_key_async(cache: &MemoryCache, clock: &ManualClock, runs: &Runs) -> usize {
        runs.count()
    }
    type Call = fn(&MemoryCache, &ManualClock, &Runs) -> usize;
    let calls: [(&str, Call); 4] = [
        ("key", by_key),
        ("include", by_part),
        ("prefix", by_prefix),
        ("async", |cache, clock, runs| smol::block_on(by_key_async(cache, clock, runs))),
    ];
    for (name, call) in calls {
        let ((cache, clock), runs) = (watched(), Runs::new());
        let found = [(); 3].map(|()| call(&cache, &clock, &runs));
        assert_eq!(found, [1, 1, 2], "{name}: stored after 31 s, found after 62, expired after 93");
    }
}

/// An argument that takes long to encode.
struct Slow<'a>(&'a ManualClock);

impl Serialize for Slow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        slow(self.0, serializer).serialize_unit()
    }
}

#[test]
fn compute_time_is_that_of_the_function_alone() {
    #[cached(cache = cache, ttl = "1h", skip(cache))]
    fn by_argument(cache: &MemoryCache, slow: &Slow<'_>) -> u32 {
        slow.0.advance(Duration::from_secs(2));
        1
    }
    #[cached(cache = cache, ttl = "1h", key = slow(clock, "k"))]
    fn by_key(cache: &MemoryCache, clock: &ManualClock) -> u32 {
        clock.advance(Duration::from_secs(2));
        1
    }
    #[cached(cache = cache, ttl = "1h", skip(cache))]
    async fn by_argument_async(cache: &MemoryCache, slow: &Slow<'_>) -> u32 {
        slow.0.advance(Duration::from_secs(2));
        1
    }
    type Call = fn(&MemoryCache, &ManualClock) -> u32;
    let calls: [(&str, Call); 3] = [
        ("argument", |cache, clock| by_argument(cache, &Slow(clock))),
        ("key", by_key),
        ("async", |cache, clock| smol::block_on(by_argument_async(cache, &Slow(clock)))),
    ];
    for (name, call) in calls {
        let (cache, clock) = watched();
        assert_eq!(call(&cache, &clock), 1);
        let (_, calls) = watch_sync(|| call(&cache, &clock));
        // A record has four digits of it.
        let saved = calls[0].time_saved();
        assert!((1990..=2010).contains(&saved.as_millis()), "{name}: {saved:?}");
    }
}

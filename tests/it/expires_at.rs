//! `expires_at = ..`: the moment at which a value expires.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Cache, MemoryCache, MemoryOptions, cached};

use crate::{HANG, Runs, with_every_backend};

fn after(seconds: u64) -> SystemTime {
    SystemTime::now() + Duration::from_secs(seconds)
}

#[cached(cache = cache, key = "k", expires_at = |seconds: &u64| after(*seconds))]
fn by_value<B, S>(cache: &Cache<B, S>, seconds: u64) -> Result<u64, String>
where
    B: Backend,
    S: Serializer<u64, Stored = B::Stored>,
{
    if seconds == 1 { Err("none".to_owned()) } else { Ok(seconds) }
}

#[cached(cache = cache, key = "k", expires_at = moment, stale = 30)]
async fn by_argument<B, S>(cache: &Cache<B, S>, moment: SystemTime, value: u64) -> u64
where
    B: Backend,
    S: Serializer<u64, Stored = B::Stored>,
{
    value
}

fn follow_a_moment<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<u64, Stored = B::Stored>,
{
    let clock = ManualClock::new();
    let pass = |seconds| clock.advance(Duration::from_secs(seconds));
    let cache = open(clock.clone());
    assert!(by_value(&cache, 1).is_err());
    assert_eq!(by_value(&cache, 0), Ok(0), "it has passed");
    assert_eq!(by_value(&cache, 60), Ok(60));
    pass(50);
    assert_eq!(by_value(&cache, 70), Ok(60));
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.hits, stats.inserts, stats.errors), (3, 1, 1, 0));
    pass(11);
    assert_eq!(by_value(&cache, 5), Ok(5));
    pass(10);
    assert_eq!(by_value(&cache, 80), Ok(80));

    let cache = open(clock.clone());
    let ask = |moment, value| smol::block_on(by_argument(&cache, moment, value));
    assert_eq!(ask(SystemTime::UNIX_EPOCH, 1), 1);
    assert_eq!(ask(after(60), 2), 2);
    pass(50);
    assert_eq!(ask(SystemTime::UNIX_EPOCH, 3), 2, "it is not compared with a later one");
    pass(15);
    assert_eq!(ask(after(60), 4), 4, "the caller that refreshes gets the new value");
    assert_eq!(cache.stats().refreshes, 1);
    pass(100);
    assert_eq!(ask(after(60), 5), 5);
    assert_eq!((cache.stats().misses, cache.stats().errors), (3, 0));
}

#[test]
fn moment_works_on_every_backend() {
    watchdog(HANG, || with_every_backend!(follow_a_moment));
}

#[test]
fn moment_is_evaluated_once_for_each_value_that_is_stored() {
    static EVALUATIONS: Runs = Runs::new();

    fn next_day() -> SystemTime {
        EVALUATIONS.count();
        after(86_400)
    }

    struct Shop(MemoryCache);
    impl Shop {
        #[cached(
            cache = self.0, expires_at = next_day(), cache_if = |n: &u32| *n > 0, jitter = "10%",
            handle = price_entry
        )]
        fn price<T: Copy + Into<u32>>(&self, n: u32, more: Vec<T>) -> u32
        where
            T: serde::Serialize,
        {
            let sum: u32 = more.into_iter().map(Into::into).sum();
            n + sum
        }
    }

    let clock = ManualClock::new();
    let shop = Shop(MemoryOptions::new().clock(clock.clone()).build());
    assert_eq!((shop.price(1, vec![1_u8]), shop.price(1, vec![1_u8])), (2, 2));
    assert_eq!((shop.price::<u8>(0, vec![]), EVALUATIONS.get()), (0, 1));
    let left = shop.price_entry(1, vec![1_u8]).ttl_left().unwrap().unwrap();
    assert!((77_000..=86_400).contains(&left.as_secs()), "{left:?}");
    clock.advance(Duration::from_secs(86_401));
    assert_eq!((shop.price(1, vec![1_u8]), EVALUATIONS.get()), (2, 2));
}

#[test]
fn refresh_in_a_task_evaluates_the_moment_again() {
    #[cached(
        cache = cache, key = "k", expires_at = after(*lifetime), stale = "1h", spawn = tokio::spawn
    )]
    async fn call(cache: MemoryCache, lifetime: Arc<u64>, runs: Arc<Runs>) -> usize {
        runs.count()
    }

    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let runs = Arc::new(Runs::new());
        let ask = || call(cache.clone(), Arc::new(60), Arc::clone(&runs));
        assert_eq!((ask().await, ask().await), (1, 1));
        clock.advance(Duration::from_secs(61));
        assert_eq!(ask().await, 1);
        while runs.0.load(Ordering::SeqCst) < 2 || cache.stats().in_flight > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask().await, 2);
    });
}

/// An argument with the moment at which its prices expire.
#[derive(Debug, Clone, serde::Serialize)]
struct Market {
    name: String,
    seconds: u64,
}

impl Market {
    fn close(&self) -> SystemTime {
        after(self.seconds)
    }
}

#[test]
fn moment_may_use_an_argument_that_an_async_body_moves() {
    #[cached(cache = cache, skip(cache), expires_at = market.close(), tags("{region}"))]
    async fn price(cache: MemoryCache, market: Market, region: String) -> String {
        drop(cache);
        market.name + &region
    }

    #[cached(cache = cache, skip(cache), ttl = |_: &String| Duration::from_secs(market.seconds),
        cache_if = |value: &String| *value != format!("{region}!"))]
    async fn by_value(cache: MemoryCache, market: Market, region: String) -> String {
        drop((cache, market));
        format!("{region}.")
    }

    #[cached(
        cache = cache, skip(cache), expires_at = market.close(), spawn = tokio::spawn,
        cache_if = |_| market.seconds > 0
    )]
    async fn in_task(cache: MemoryCache, market: Market) -> String {
        drop(cache);
        let owned = market;
        owned.name
    }

    #[cached(
        cache = cache, skip(cache), expires_at = market.close(), stale = "1h", spawn = tokio::spawn
    )]
    async fn refreshed_in_task(cache: MemoryCache, market: Market) -> String {
        drop(cache);
        market.name
    }

    #[cached(cache = cache, skip(cache), expires_at = after(seconds.len() as u64))]
    async fn of_a_pattern(cache: MemoryCache, (name, seconds): (String, Vec<u8>)) -> String {
        drop((cache, seconds));
        name
    }

    #[cached(cache = cache, key = "k", ttl = |_| Duration::from_secs(market.seconds))]
    async fn shared(cache: MemoryCache, market: Arc<Market>) -> usize {
        drop(cache);
        market.name.len()
    }

    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let market = || Market { name: "m".to_owned(), seconds: 60 };
        for _ in 0..2 {
            let (cache, region) = (|| cache.clone(), || "r".to_owned());
            assert_eq!(price(cache(), market(), region()).await, "mr");
            assert_eq!(by_value(cache(), market(), region()).await, "r.");
            assert_eq!(in_task(cache(), market()).await, "m");
            assert_eq!(refreshed_in_task(cache(), market()).await, "m");
            assert_eq!(of_a_pattern(cache(), ("n".to_owned(), vec![0; 60])).await, "n");
            assert_eq!(shared(cache(), Arc::new(market())).await, 1);
        }
        assert_eq!((cache.stats().misses, cache.stats().hits), (6, 6));
        clock.advance(Duration::from_secs(61));
        assert_eq!(price(cache.clone(), market(), "r".to_owned()).await, "mr");
        assert_eq!(cache.stats().misses, 7);
    });
}

#[test]
fn moment_clones_no_argument_that_the_body_does_not_move() {
    /// Not `Clone`.
    #[derive(serde::Serialize)]
    struct Unique {
        name: String,
        seconds: u64,
    }

    #[cached(ttl = |_| Duration::from_secs(it.seconds))]
    async fn other_field(it: Unique) -> String {
        it.name
    }

    #[cached(expires_at = after(it.seconds))]
    async fn unused(it: Unique, n: u8) -> u8 {
        n
    }

    #[cached(expires_at = after(it.seconds))]
    fn borrowed(it: Unique) -> usize {
        it.name.len()
    }

    let unique = || Unique { name: "n".to_owned(), seconds: 60 };
    assert_eq!(smol::block_on(other_field(unique())), "n");
    assert_eq!(smol::block_on(unused(unique(), 3)), 3);
    assert_eq!(borrowed(unique()), 1);
}

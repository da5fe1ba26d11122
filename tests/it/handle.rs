//! `handle = ..`: the entry of a call, to read, refresh, set or invalidate it.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use vayu::inspect::{CacheDirectory, Verify};
use vayu::testing::{ManualClock, watchdog};
use vayu::{
    ErrorKind, FileCache, FileOptions, Json, MemoryCache, MemoryOptions, Stats, cached, mem_cached,
};

use crate::{HANG, Runs};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A cache, its clock and a source that can be switched off.
struct Shop {
    cache: MemoryCache,
    clock: ManualClock,
    runs: Runs,
    is_closed: Mutex<bool>,
}

impl Shop {
    fn new() -> Self {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        Self { cache, clock, runs: Runs::new(), is_closed: Mutex::new(false) }
    }

    fn ask(&self) -> Result<usize, String> {
        let run = self.runs.count();
        if *self.is_closed.lock().unwrap() { Err("closed".to_owned()) } else { Ok(run) }
    }

    fn close(&self) {
        *self.is_closed.lock().unwrap() = true;
    }

    #[cached(cache = self.cache, ttl = "1m", stale = "30s", handle = price_entry)]
    fn price(&self, sku: &str) -> Result<usize, String> {
        let _ = sku;
        self.ask()
    }

    #[cached(cache = self.cache, ttl = "1m", stale = "30s", handle = stock_entry)]
    async fn stock(&self, sku: String) -> Result<usize, String> {
        tokio::task::yield_now().await;
        drop(sku);
        self.ask()
    }
}

#[test]
fn entry_of_a_sync_call_shows_the_cached_value() {
    let shop = Shop::new();
    let entry = || shop.price_entry("tea");
    assert_eq!(entry().peek().unwrap(), None);
    assert_eq!((entry().age().unwrap(), entry().ttl_left().unwrap()), (None, None));
    assert_eq!(entry().require().unwrap_err().kind(), ErrorKind::Miss);
    assert_eq!(shop.runs.get(), 0, "no question runs the function");

    assert_eq!(entry().get(), Ok(1));
    assert_eq!(shop.price("tea"), Ok(1), "the function and its handle have one key");
    assert_eq!(shop.price("salt"), Ok(2));
    shop.clock.advance(Duration::from_secs(20));
    let kept = entry();
    assert_eq!(kept.peek().unwrap(), Some(Ok(1)));
    assert_eq!(kept.require().unwrap(), Ok(1));
    assert_eq!(kept.age().unwrap(), Some(Duration::from_secs(20)));
    assert_eq!(kept.ttl_left().unwrap(), Some(Duration::from_secs(40)));

    shop.clock.advance(Duration::from_secs(50));
    assert_eq!(kept.peek().unwrap(), Some(Ok(1)), "stale, but to be served");
    assert_eq!(kept.ttl_left().unwrap(), Some(Duration::ZERO));
    shop.clock.advance(Duration::from_secs(20));
    assert_eq!(kept.peek().unwrap(), None);
    assert_eq!(kept.age().unwrap(), None);
    assert_eq!(shop.runs.get(), 2);
}

#[test]
fn entry_of_an_async_call_shows_the_cached_value() {
    block_on(async {
        let shop = Shop::new();
        let entry = || shop.stock_entry("tea".to_owned());
        assert_eq!(entry().peek_async().await.unwrap(), None);
        assert_eq!(entry().require_async().await.unwrap_err().kind(), ErrorKind::Miss);
        assert_eq!(shop.runs.get(), 0, "no question runs the function");

        assert_eq!(entry().get_async().await, Ok(1));
        assert_eq!(shop.stock("tea".to_owned()).await, Ok(1));
        shop.clock.advance(Duration::from_secs(20));
        let kept = entry();
        assert_eq!(kept.peek_async().await.unwrap(), Some(Ok(1)));
        assert_eq!(kept.peek().unwrap(), Some(Ok(1)), "sync code may ask too");
        assert_eq!(kept.require_async().await.unwrap(), Ok(1));
        assert_eq!(kept.age_async().await.unwrap(), Some(Duration::from_secs(20)));
        assert_eq!(kept.ttl_left_async().await.unwrap(), Some(Duration::from_secs(40)));
        assert!(kept.invalidate_async().await.unwrap());
        assert!(!kept.invalidate_async().await.unwrap());
        assert_eq!(shop.stock("tea".to_owned()).await, Ok(2));
    });
}

#[test]
fn reads_through_an_entry_are_not_counted() {
    let shop = Shop::new();
    shop.price("tea").unwrap();
    let before = shop.cache.stats();
    let entry = shop.price_entry("tea");
    entry.peek().unwrap();
    entry.age().unwrap();
    entry.require().unwrap().unwrap();
    assert_eq!(shop.cache.stats(), before);
}

#[test]
fn refresh_runs_the_function_and_stores_its_output() {
    let shop = Shop::new();
    assert_eq!(shop.price("tea"), Ok(1));
    assert_eq!(shop.price_entry("tea").refresh(), Ok(2));
    assert_eq!(shop.price("tea"), Ok(2));
    assert_eq!(shop.price_entry("salt").refresh(), Ok(3), "what is not there, too");
    assert_eq!(shop.price("salt"), Ok(3));
    let Stats { hits, misses, refreshes, .. } = shop.cache.stats();
    assert_eq!((hits, misses, refreshes), (2, 1, 2));

    block_on(async {
        assert_eq!(shop.stock("tea".to_owned()).await, Ok(4));
        assert_eq!(shop.stock_entry("tea".to_owned()).refresh_async().await, Ok(5));
        assert_eq!(shop.stock("tea".to_owned()).await, Ok(5));
    });
}

#[test]
fn refresh_of_a_number_that_is_read_without_a_lock_runs_the_function_and_is_not_a_hit() {
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    static RUNS: Runs = Runs::new();
    #[cached(cache = CACHE, ttl = "1m", handle = number_entry)]
    fn number(n: u64) -> u64 {
        n + RUNS.count() as u64
    }
    for _ in 0..10 {
        assert_eq!(number(10), 11);
    }
    let before = CACHE.stats();
    assert_eq!(number_entry(10).refresh(), 12);
    let Stats { hits, misses, refreshes, .. } = CACHE.stats();
    assert_eq!((hits, misses, refreshes), (before.hits, before.misses, 1));
    assert_eq!(number(10), 12);
}

#[test]
fn failed_refresh_keeps_the_cached_value() {
    let shop = Shop::new();
    assert_eq!(shop.price("tea"), Ok(1));
    shop.close();
    assert_eq!(shop.price_entry("tea").refresh_strict(), Err("closed".to_owned()));
    assert_eq!(shop.price_entry("tea").refresh(), Ok(1), "it has `stale`");
    assert_eq!(shop.price("tea"), Ok(1));
}

#[test]
fn refresh_in_a_pause_runs_the_function_and_stores_nothing() {
    let shop = Shop::new();
    assert_eq!(shop.price("tea"), Ok(1));
    let pause = shop.cache.pause();
    assert_eq!(shop.price_entry("tea").refresh(), Ok(2));
    assert_eq!(shop.price_entry("tea").peek().unwrap(), None);
    pause.resume();
    assert_eq!(shop.price("tea"), Ok(1));
}

#[test]
fn other_callers_hit_while_a_refresh_runs() {
    #[cached(cache = cache, ttl = "1m", key = "k", handle = call_entry)]
    fn call(cache: &MemoryCache, run: &dyn Fn() -> u32) -> u32 {
        run()
    }
    watchdog(HANG, || {
        let cache = MemoryCache::new();
        call(&cache, &|| 1);
        let refreshed = call_entry(&cache, &|| {
            assert_eq!(call(&cache, &|| panic!("it is cached")), 1);
            2
        })
        .refresh();
        assert_eq!((refreshed, call(&cache, &|| 3)), (2, 2));
    });
}

#[test]
fn refresh_overrides_a_running_computation() {
    #[cached(cache = cache, ttl = "1m", key = "k", handle = call_entry)]
    fn call(cache: &MemoryCache, run: &dyn Fn() -> u32) -> u32 {
        run()
    }
    watchdog(HANG, || {
        let cache = MemoryCache::new();
        let output = call(&cache, &|| {
            // On another thread: on this one it would be recursion.
            std::thread::scope(|scope| {
                let refresh = scope.spawn(|| call_entry(&cache, &|| 2).refresh());
                assert_eq!(refresh.join().unwrap(), 2);
            });
            1
        });
        assert_eq!(output, 1);
        assert_eq!(call(&cache, &|| 3), 2, "the older computation was not stored");
    });
}

#[test]
fn running_computation_does_not_restore_an_invalidated_entry() {
    #[cached(cache = cache, ttl = "1m", key = "k", handle = call_entry)]
    fn call(cache: &MemoryCache, run: &dyn Fn() -> u32) -> u32 {
        run()
    }
    let cache = MemoryCache::new();
    let output = call(&cache, &|| {
        call_entry(&cache, &|| 9).invalidate().unwrap();
        1
    });
    assert_eq!((output, call(&cache, &|| 2)), (1, 2));
}

mod forms {
    use super::*;

    static PAGES: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);

    #[cached(cache = PAGES, ttl = 60, handle = nothing_entry)]
    fn nothing() -> u8 {
        1
    }

    /// Returns twice the value.
    #[mem_cached(ttl = |value: &T| Duration::from_secs(u64::from(*value != T::default())), cache_if = |_| true, handle = twice_entry)]
    pub(super) fn twice<'a, T, const N: usize>(mut value: T, _by: &'a str, (_a, b): (u8, u8)) -> T
    where
        T: std::ops::Add<Output = T>
            + Copy
            + Default
            + PartialEq
            + serde::Serialize
            + Send
            + Sync
            + 'static,
    {
        let _ = (N, b);
        value = value + value;
        value
    }

    struct Maker<T>(std::marker::PhantomData<T>);

    impl<T: 'static> Maker<T> {
        #[cached(cache = PAGES, ttl = 60, handle = Self::make_entry)]
        fn make(n: u8) -> String {
            format!("{n} {}", std::any::type_name::<T>())
        }

        #[cached(cache = PAGES, ttl = 60, handle = shared_entry)]
        async fn shared(self: Arc<Self>, n: u8) -> u8 {
            n
        }

        #[cached(cache = PAGES, ttl = 60, handle = boxed_entry)]
        fn boxed<'a>(&'a self, n: &'a u8) -> Pin<Box<dyn Future<Output = u8> + Send + 'a>> {
            Box::pin(async move { *n })
        }
    }

    trait Tariff {
        fn base(&self) -> u32;

        #[cached(ttl = 60, include(self.base()), handle = fare_entry)]
        fn fare(&self, zones: u32) -> u32 {
            self.base() * zones
        }
    }

    impl Tariff for u32 {
        fn base(&self) -> u32 {
            *self
        }
    }

    #[test]
    fn handle_works_for_every_form_of_function() {
        assert_eq!(nothing(), 1);
        assert_eq!(nothing_entry().peek().unwrap(), Some(1));
        assert_eq!(twice::<u16, 3>(2, "x", (1, 2)), 4);
        let entry = twice_entry::<u16, 3>(2, "x", (1, 2));
        assert_eq!(entry.peek().unwrap(), Some(4));
        assert!(
            twice_entry::<u16, 4>(2, "x", (1, 2)).peek().unwrap().is_none(),
            "another function"
        );
        assert!(entry.invalidate().unwrap());
        assert_eq!(Maker::<u8>::make(1), "1 u8");
        assert_eq!(Maker::<u8>::make_entry(1).require().unwrap(), "1 u8");
        assert!(Maker::<u16>::make_entry(1).peek().unwrap().is_none(), "another type");
        assert_eq!(5_u32.fare(2), 10);
        assert_eq!(5_u32.fare_entry(2).peek().unwrap(), Some(10));
        assert_eq!(6_u32.fare_entry(2).peek().unwrap(), None);
        block_on(async {
            let maker = || Maker::<u8>(std::marker::PhantomData);
            assert_eq!(Arc::new(maker()).shared(1).await, 1);
            assert_eq!(Arc::new(maker()).shared_entry(1).peek_async().await.unwrap(), Some(1));
            assert_eq!(maker().boxed(&7).await, 7);
            assert_eq!(maker().boxed_entry(&7).peek_async().await.unwrap(), Some(7));
            assert_eq!(maker().boxed_entry(&7).refresh_async().await, 7);
        });
    }
}

#[test]
fn handle_does_not_change_the_name_of_the_function() {
    struct Other<T>(T);
    impl<T: Send + 'static> Other<T> {
        #[cached(ttl = 60, handle = name_entry)]
        fn name(&self, n: u8) -> u8 {
            n
        }
    }
    struct Same<T>(T);
    impl<T: Send + 'static> Same<T> {
        #[cached(ttl = 60, cache = cache, skip(cache))]
        fn name(&self, cache: &FileCache, n: u8) -> u8 {
            n
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let cache = FileCache::open(directory.path().join("cache")).unwrap();
    Same("").name(&cache, 1);
    assert_eq!(Other("").name(1), 1);
    let known = Other("").name_entry(1).key().unwrap().to_string();
    let listed = CacheDirectory::open(directory.path().join("cache")).unwrap();
    let plain = listed.entries(Verify::Header).next().unwrap().unwrap();
    let function = |key: &str| key.rsplit_once(':').unwrap().0.to_owned();
    let plain = plain.details().unwrap();
    let path = function(&known).replace("Other", "Same");
    assert_eq!((plain.function(), plain.call()), (Some(&*path), Some(&*format!("{path}(1)"))));
}

#[test]
fn entries_of_async_functions_are_send() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let shop = Shop::new();
    drop(is_send(shop.stock("a".to_owned())));
    drop(is_send(shop.stock_entry("a".to_owned()).get_async()));
    drop(is_send(shop.stock_entry("a".to_owned()).refresh_async()));
    let entry = is_send(shop.stock_entry("a".to_owned()));
    drop(is_send(entry.peek_async()));
    drop(is_send(entry.require_async()));
    drop(is_send(entry.age_async()));
    drop(is_send(entry.ttl_left_async()));
    drop(is_send(entry.invalidate_async()));
}

#[test]
fn entry_reads_the_file_of_the_function() {
    #[cached(cache = cache, ttl = "1h", skip(cache, runs), serializer = Json, handle = page_entry)]
    async fn page(cache: &FileCache, runs: &Runs, url: &str) -> String {
        format!("{url} {}", runs.count())
    }
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let cache =
        FileOptions::new().clock(clock.clone()).open(directory.path().join("pages")).unwrap();
    let runs = Runs::new();
    block_on(async {
        assert_eq!(page(&cache, &runs, "/").await, "/ 1");
        let entry = page_entry(&cache, &runs, "/");
        assert_eq!(entry.require_async().await.unwrap(), "/ 1");
        assert_eq!(entry.peek().unwrap().as_deref(), Some("/ 1"));
        assert_eq!(entry.refresh_async().await, "/ 2");
        assert_eq!(page(&cache, &runs, "/").await, "/ 2");
        assert!(page_entry(&cache, &runs, "/").invalidate_async().await.unwrap());
        assert_eq!(page(&cache, &runs, "/").await, "/ 3");
    });
}

#[test]
fn arguments_that_cannot_be_encoded_have_no_entry() {
    struct Broken;
    impl serde::Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("broken"))
        }
    }
    #[cached(ttl = 60, log = false, handle = call_entry)]
    fn call(_n: Broken) -> u8 {
        1
    }
    let entry = call_entry(Broken);
    assert_eq!(entry.key().unwrap_err().kind(), ErrorKind::Encode);
    assert_eq!(entry.peek().unwrap_err().kind(), ErrorKind::Encode);
    assert_eq!(entry.invalidate().unwrap_err().kind(), ErrorKind::Encode);
    assert_eq!(entry.refresh(), 1);
}

//! Cached functions, as documented by their crates, and the maps below them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::RwLock;
use std::time::{Duration, Instant};

use moka::Expiry;
use quick_cache::sync::Cache as QuickCache;
use vayu::time::{Clock, MonotonicClock, Timestamp};

use super::HOUR;

/// `u64 -> u64`.
pub(crate) mod number {
    use std::sync::LazyLock;
    use std::time::Duration;

    use vayu::{MemoryCache, MemoryOptions};

    #[vayu::cached(ttl = "1h")]
    pub(crate) fn vayu(key: u64) -> u64 {
        key
    }

    static LARGE: LazyLock<MemoryCache> =
        LazyLock::new(|| MemoryOptions::new().max_entries(250_000).build());

    #[vayu::cached(cache = LARGE, ttl = "1h")]
    pub(crate) fn vayu_large(key: u64) -> u64 {
        key
    }

    #[cached::macros::cached]
    pub(crate) fn cached_plain(key: u64) -> u64 {
        key
    }

    #[cached::macros::cached(ttl_secs = 3600)]
    pub(crate) fn cached_ttl(key: u64) -> u64 {
        key
    }

    #[cached::macros::cached(ttl_secs = 3600, sync_writes = "by_key")]
    pub(crate) fn cached_by_key(key: u64) -> u64 {
        key
    }

    #[cached::macros::cached(max_size = 10_000, ttl_secs = 3600)]
    pub(crate) fn cached_bounded(key: u64) -> u64 {
        key
    }

    #[cached::macros::concurrent_cached(ttl_secs = 3600)]
    pub(crate) fn cached_concurrent(key: u64) -> u64 {
        key
    }

    #[cached::macros::cached(ttl_secs = 3600)]
    pub(crate) fn cached_ttl_large(key: u64) -> u64 {
        key
    }

    #[cached::macros::cached(max_size = 250_000, ttl_secs = 3600)]
    pub(crate) fn cached_bounded_large(key: u64) -> u64 {
        key
    }

    #[cached::macros::concurrent_cached(ttl_secs = 3600)]
    pub(crate) fn cached_concurrent_large(key: u64) -> u64 {
        key
    }

    #[memoize::memoize(SharedCache, Capacity: 10_000, TimeToLive: Duration::from_hours(1))]
    pub(crate) fn memoized(key: u64) -> u64 {
        key
    }

    #[cachelito::cache(limit = 10_000, policy = "fifo", ttl = 3600)]
    pub(crate) fn cachelito(key: u64) -> u64 {
        key
    }
}

/// `(&str, u64) -> u64`. The keys of `cached` are owned.
pub(crate) mod pair {
    use std::hint::black_box;

    use crate::keys::Cycle;

    #[vayu::cached(ttl = "1h")]
    pub(crate) fn vayu(word: &str, number: u64) -> u64 {
        number + word.len() as u64
    }

    #[cached::macros::cached(
        ttl_secs = 3600,
        key = "(String, u64)",
        convert = r#"{ (word.to_owned(), number) }"#
    )]
    pub(crate) fn cached_ttl(word: &str, number: u64) -> u64 {
        number + word.len() as u64
    }

    #[cached::macros::cached(
        max_size = 10_000,
        ttl_secs = 3600,
        key = "(String, u64)",
        convert = r#"{ (word.to_owned(), number) }"#
    )]
    pub(crate) fn cached_bounded(word: &str, number: u64) -> u64 {
        number + word.len() as u64
    }

    #[cached::macros::concurrent_cached(
        ttl_secs = 3600,
        key = "(String, u64)",
        convert = r#"{ (word.to_owned(), number) }"#
    )]
    pub(crate) fn cached_concurrent(word: &str, number: u64) -> u64 {
        number + word.len() as u64
    }

    pub(crate) fn moka<'a>(keys: &'a [u64], words: &'a [String]) -> impl FnMut(u64) + 'a {
        let cache = super::moka_of::<(String, u64), u64>();
        for (number, word) in (0..).zip(words) {
            cache.insert((word.clone(), number), number);
        }
        let mut cycle = Cycle::new(keys);
        move |times| {
            for _ in 0..times {
                let key = cycle.next();
                black_box(cache.get(&(words[key as usize].clone(), key)));
            }
        }
    }
}

/// `u64 -> String`.
pub(crate) mod text {
    use std::hint::black_box;

    use crate::keys::Cycle;

    fn value(key: u64) -> String {
        format!("{key:064}")
    }

    #[vayu::cached(ttl = "1h")]
    pub(crate) fn vayu(key: u64) -> String {
        value(key)
    }

    #[cached::macros::cached(ttl_secs = 3600)]
    pub(crate) fn cached_ttl(key: u64) -> String {
        value(key)
    }

    #[cached::macros::cached(max_size = 10_000, ttl_secs = 3600)]
    pub(crate) fn cached_bounded(key: u64) -> String {
        value(key)
    }

    #[cached::macros::concurrent_cached(ttl_secs = 3600)]
    pub(crate) fn cached_concurrent(key: u64) -> String {
        value(key)
    }

    pub(crate) fn moka(keys: &[u64]) -> impl FnMut(u64) {
        let cache = super::moka_of::<u64, String>();
        (0..1000).for_each(|key| cache.insert(key, value(key)));
        let mut cycle = Cycle::new(keys);
        move |times| (0..times).for_each(|_| drop(black_box(cache.get(&cycle.next()))))
    }
}

/// `u64 -> Arc<[u8]>`.
pub(crate) mod bytes {
    use std::hint::black_box;
    use std::sync::Arc;

    use crate::keys::Cycle;

    fn value(key: u64) -> Arc<[u8]> {
        vec![key as u8; 1024].into()
    }

    #[vayu::cached(ttl = "1h")]
    pub(crate) fn vayu(key: u64) -> Arc<[u8]> {
        value(key)
    }

    #[cached::macros::cached(ttl_secs = 3600)]
    pub(crate) fn cached_ttl(key: u64) -> Arc<[u8]> {
        value(key)
    }

    #[cached::macros::cached(max_size = 10_000, ttl_secs = 3600)]
    pub(crate) fn cached_bounded(key: u64) -> Arc<[u8]> {
        value(key)
    }

    #[cached::macros::concurrent_cached(ttl_secs = 3600)]
    pub(crate) fn cached_concurrent(key: u64) -> Arc<[u8]> {
        value(key)
    }

    pub(crate) fn moka(keys: &[u64]) -> impl FnMut(u64) {
        let cache = super::moka_of::<u64, Arc<[u8]>>();
        (0..1000).for_each(|key| cache.insert(key, value(key)));
        let mut cycle = Cycle::new(keys);
        move |times| (0..times).for_each(|_| drop(black_box(cache.get(&cycle.next()))))
    }
}

pub(crate) fn moka_of<K, V>() -> moka::sync::Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    moka::sync::Cache::builder()
        .max_capacity(250_000)
        .time_to_live(Duration::from_secs(HOUR))
        .build()
}

/// Maps without a function around them.
pub(crate) struct Limits {
    pub(crate) moka: moka::sync::Cache<u64, u64>,
    pub(crate) moka_expiry: moka::sync::Cache<u64, u64>,
    pub(crate) foyer: foyer::Cache<u64, u64>,
    quick: QuickCache<u64, (u64, Timestamp)>,
    maps: Vec<RwLock<HashMap<u64, (u64, Timestamp)>>>,
    state: RandomState,
}

struct InAnHour;

impl Expiry<u64, u64> for InAnHour {
    fn expire_after_create(&self, _: &u64, _: &u64, _: Instant) -> Option<Duration> {
        Some(Duration::from_secs(HOUR))
    }
}

impl Limits {
    /// Creates maps with the keys below `count`.
    pub(crate) fn of(count: u64) -> Self {
        let limits = Self {
            moka: moka_of(),
            moka_expiry: moka::sync::Cache::builder()
                .max_capacity(250_000)
                .expire_after(InAnHour)
                .build(),
            foyer: foyer::CacheBuilder::new(250_000).build(),
            quick: QuickCache::new(250_000),
            maps: (0..16).map(|_| RwLock::default()).collect(),
            state: RandomState::new(),
        };
        let deadline = MonotonicClock.now().saturating_add(Duration::from_secs(HOUR));
        for key in 0..count {
            limits.moka.insert(key, key);
            limits.moka_expiry.insert(key, key);
            limits.foyer.insert(key, key);
            limits.quick.insert(key, (key, deadline));
            limits.shard(key).write().expect("no panic").insert(key, (key, deadline));
        }
        limits
    }

    #[inline]
    pub(crate) fn quick(&self, key: u64) -> Option<u64> {
        let (value, deadline) = self.quick.get(&key)?;
        (MonotonicClock.now() < deadline).then_some(value)
    }

    #[inline]
    pub(crate) fn map(&self, key: u64) -> Option<u64> {
        let (value, deadline) = *self.shard(key).read().expect("no panic").get(&key)?;
        (MonotonicClock.now() < deadline).then_some(value)
    }

    #[inline]
    fn shard(&self, key: u64) -> &RwLock<HashMap<u64, (u64, Timestamp)>> {
        &self.maps[self.state.hash_one(key) as usize % 16]
    }
}

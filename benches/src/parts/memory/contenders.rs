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
    use std::time::Duration;

    #[vayu::cached(ttl = "1h")]
    pub(crate) fn vayu(key: u64) -> u64 {
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

    #[memoize::memoize(SharedCache, Capacity: 10_000, TimeToLive: Duration::from_hours(1))]
    pub(crate) fn memoized(key: u64) -> u64 {
        key
    }

    #[cachelito::cache(limit = 10_000, policy = "fifo", ttl = 3600)]
    pub(crate) fn cachelito(key: u64) -> u64 {
        key
    }
}

/// `u64 -> u64` for many keys, all in a cache of their own.
macro_rules! many {
    ($name:ident, $entries:tt) => {
        pub(crate) mod $name {
            use std::sync::LazyLock;

            use vayu::{MemoryCache, MemoryOptions};

            use super::Many;

            static CACHE: LazyLock<MemoryCache> =
                LazyLock::new(|| MemoryOptions::new().max_entries($entries).build());

            #[vayu::cached(cache = CACHE, ttl = "1h")]
            fn vayu(key: u64) -> u64 {
                key
            }

            #[cached::macros::cached(ttl_secs = 3600)]
            fn cached_ttl(key: u64) -> u64 {
                key
            }

            #[cached::macros::cached(max_size = $entries, ttl_secs = 3600)]
            fn cached_bounded(key: u64) -> u64 {
                key
            }

            #[cached::macros::concurrent_cached(ttl_secs = 3600)]
            fn cached_concurrent(key: u64) -> u64 {
                key
            }

            pub(crate) const MANY: Many =
                Many { vayu, cached_ttl, cached_bounded, cached_concurrent };
        }
    };
}

/// Cached functions for many keys.
#[derive(Clone, Copy)]
pub(crate) struct Many {
    pub(crate) vayu: fn(u64) -> u64,
    pub(crate) cached_ttl: fn(u64) -> u64,
    pub(crate) cached_bounded: fn(u64) -> u64,
    pub(crate) cached_concurrent: fn(u64) -> u64,
}

many!(hundred_thousand, 250_000);
many!(million, 1_500_000);

/// `(&str, u64) -> u64`. The keys of `cached` are owned.
pub(crate) mod pair {
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

    pub(crate) fn moka(words: &[String]) -> impl Fn(u64) -> Option<u64> {
        let cache = super::moka_of::<(String, u64), u64>(10_000);
        for (number, word) in (0..).zip(words) {
            cache.insert((word.clone(), number), number);
        }
        move |key| cache.get(&(words[key as usize].clone(), key))
    }
}

/// `u64 -> String`.
pub(crate) mod text {
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

    pub(crate) fn moka() -> impl Fn(u64) -> Option<String> {
        let cache = super::moka_of::<u64, String>(10_000);
        (0..1000).for_each(|key| cache.insert(key, value(key)));
        move |key| cache.get(&key)
    }
}

/// `u64 -> Arc<[u8]>`.
pub(crate) mod bytes {
    use std::sync::Arc;

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

    pub(crate) fn moka() -> impl Fn(u64) -> Option<Arc<[u8]>> {
        let cache = super::moka_of::<u64, Arc<[u8]>>(10_000);
        (0..1000).for_each(|key| cache.insert(key, value(key)));
        move |key| cache.get(&key)
    }
}

/// A function with an argument of many bytes.
pub(crate) mod long {
    #[vayu::cached(ttl = "1h")]
    pub(crate) fn vayu(bytes: Vec<u8>) -> u64 {
        bytes.len() as u64
    }

    #[vayu::cached(ttl = "1h")]
    pub(crate) fn vayu_slice(bytes: &[u8]) -> u64 {
        bytes.len() as u64
    }

    #[vayu::cached(ttl = "1h")]
    pub(crate) fn vayu_str(text: &str) -> u64 {
        text.len() as u64
    }

    #[cached::macros::cached(max_size = 10_000, ttl_secs = 3600)]
    pub(crate) fn cached_bounded(bytes: Vec<u8>) -> u64 {
        bytes.len() as u64
    }

    #[cached::macros::concurrent_cached(ttl_secs = 3600)]
    pub(crate) fn cached_concurrent(bytes: Vec<u8>) -> u64 {
        bytes.len() as u64
    }
}

pub(crate) fn moka_of<K, V>(entries: u64) -> moka::sync::Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    moka::sync::Cache::builder()
        .max_capacity(entries)
        .time_to_live(Duration::from_secs(HOUR))
        .build()
}

/// Maps without a function around them.
pub(crate) struct Maps {
    pub(crate) moka: moka::sync::Cache<u64, u64>,
    quick: QuickCache<u64, (u64, Timestamp)>,
    shards: Vec<RwLock<HashMap<u64, (u64, Timestamp)>>>,
    state: RandomState,
}

impl Maps {
    /// Creates maps with the keys below `count`, and with room for some more.
    pub(crate) fn of(count: u64) -> Self {
        let entries = count + count / 2;
        let maps = Self {
            moka: moka_of(entries),
            quick: QuickCache::new(entries as usize),
            shards: (0..16).map(|_| RwLock::default()).collect(),
            state: RandomState::new(),
        };
        let deadline = MonotonicClock.now().saturating_add(Duration::from_secs(HOUR));
        for key in 0..count {
            maps.moka.insert(key, key);
            maps.quick.insert(key, (key, deadline));
            maps.shard(key).write().expect("no panic").insert(key, (key, deadline));
        }
        maps.moka.run_pending_tasks();
        maps
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
        &self.shards[self.state.hash_one(key) as usize % 16]
    }
}

/// Maps with few keys.
pub(crate) struct MoreMaps {
    pub(crate) moka_expiry: moka::sync::Cache<u64, u64>,
    pub(crate) foyer: foyer::Cache<u64, u64>,
}

struct InAnHour;

impl Expiry<u64, u64> for InAnHour {
    fn expire_after_create(&self, _: &u64, _: &u64, _: Instant) -> Option<Duration> {
        Some(Duration::from_secs(HOUR))
    }
}

impl MoreMaps {
    /// Creates maps with the keys below `count`.
    pub(crate) fn of(count: u64) -> Self {
        let maps = Self {
            moka_expiry: moka::sync::Cache::builder()
                .max_capacity(10_000)
                .expire_after(InAnHour)
                .build(),
            foyer: foyer::CacheBuilder::new(10_000).build(),
        };
        for key in 0..count {
            maps.moka_expiry.insert(key, key);
            maps.foyer.insert(key, key);
        }
        maps
    }
}

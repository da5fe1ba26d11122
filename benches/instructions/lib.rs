//! Cached functions, for the benchmarks.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use vayu::backend::FileBackend;
use vayu::{Cache, Compressed, FileCache, MemoryCache, MemoryOptions, MessagePack, cached};

/// A cache that holds all keys of the benchmarks.
pub static LARGE: LazyLock<MemoryCache> =
    LazyLock::new(|| MemoryOptions::new().max_entries(200_000).build());

/// Returns its argument.
#[cached(cache = LARGE, ttl = "1h")]
pub fn number(key: u64) -> u64 {
    key
}

/// Returns its arguments.
#[cached(cache = LARGE, ttl = "1h", each = keys)]
pub fn numbers(keys: &[u64]) -> Vec<u64> {
    keys.to_vec()
}

/// Returns its argument, under a string of its own.
#[cached(cache = LARGE, ttl = "1h", prefix = "number")]
pub fn number_with_prefix(key: u64) -> u64 {
    key
}

/// Returns its argument, from an entry that expires when it is not used.
#[cached(cache = LARGE, ttl = "1h", idle = "10m")]
pub fn number_with_idle(key: u64) -> u64 {
    key
}

/// A cache after an invalidation.
pub static INVALIDATED: LazyLock<MemoryCache> = LazyLock::new(|| {
    let cache = MemoryCache::new();
    cache.invalidate_tag("something").expect("it is invalidated");
    cache
});

/// Returns its argument, with a cache after an invalidation.
#[cached(cache = INVALIDATED, ttl = "1h")]
pub fn number_after_invalidation(key: u64) -> u64 {
    key
}

/// Returns a number for a string and a number.
#[cached(cache = LARGE, ttl = "1h")]
pub fn pair(word: &str, number: u64) -> u64 {
    number + word.len() as u64
}

/// Returns a string for a number.
#[cached(cache = LARGE, ttl = "1h")]
pub fn string(key: u64) -> String {
    format!("{key:064}")
}

/// Returns shared bytes for a number.
#[cached(cache = LARGE, ttl = "1h")]
pub fn shared(key: u64) -> Arc<[u8]> {
    vec![7; usize::try_from(key).unwrap_or(0)].into()
}

/// Returns its argument, in the cache that all functions share, which is full.
#[cached(ttl = "1h")]
pub fn number_of_many(key: u64) -> u64 {
    key
}

/// Returns its argument, for async callers.
#[cached(cache = LARGE, ttl = "1h")]
pub async fn number_async(key: u64) -> u64 {
    key
}

/// Returns its argument, for async callers, in the cache that all functions share.
#[cached(ttl = "1h")]
pub async fn number_of_many_async(key: u64) -> u64 {
    key
}

/// Returns bytes, from a file.
#[cached(cache = cache, ttl = "1h", skip(cache))]
pub fn file(cache: &FileCache, key: u64) -> Bytes {
    vec![7; usize::try_from(key).unwrap_or(0)].into()
}

/// Returns text that is compressed, from a file.
#[cached(cache = cache, ttl = "1h", skip(cache))]
pub fn compressed(cache: &Cache<FileBackend, Compressed<MessagePack>>, rows: u64) -> Bytes {
    (0..rows)
        .map(|row| format!("{{\"id\":{row},\"name\":\"customer {row}\"}},\n"))
        .collect::<Vec<_>>()
        .concat()
        .into()
}

/// Returns the output of a future that is ready at the first poll.
///
/// # Panics
///
/// If it is not ready.
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

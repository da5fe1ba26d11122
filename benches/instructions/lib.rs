//! Functions that are cached, for the benchmarks beside this file.

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use vayu::{FileCache, MemoryCache, MemoryOptions, cached};

/// A cache that holds all keys of the benchmarks.
pub static LARGE: LazyLock<MemoryCache> =
    LazyLock::new(|| MemoryOptions::new().max_entries(200_000).build());

/// A number of a number.
#[cached(cache = LARGE, ttl = "1h")]
pub fn number(key: u64) -> u64 {
    key
}

/// A cache in which something was once invalidated.
pub static RENEWED: LazyLock<MemoryCache> = LazyLock::new(|| {
    let cache = MemoryCache::new();
    cache.invalidate_tag("something").expect("it is invalidated");
    cache
});

/// A number of a number, where something was once invalidated.
#[cached(cache = RENEWED, ttl = "1h")]
pub fn number_renewed(key: u64) -> u64 {
    key
}

/// A number of a text and a number.
#[cached(cache = LARGE, ttl = "1h")]
pub fn pair(word: &str, number: u64) -> u64 {
    number + word.len() as u64
}

/// A text of a number.
#[cached(cache = LARGE, ttl = "1h")]
pub fn text(key: u64) -> String {
    format!("{key:064}")
}

/// A reference of a number.
#[cached(cache = LARGE, ttl = "1h")]
pub fn shared(key: u64) -> Arc<[u8]> {
    vec![7; usize::try_from(key).unwrap_or(0)].into()
}

/// A number of a number, in the cache that all functions share, which is full.
#[cached(ttl = "1h")]
pub fn number_of_many(key: u64) -> u64 {
    key
}

/// A number of a number, for async callers.
#[cached(cache = LARGE, ttl = "1h")]
pub async fn number_async(key: u64) -> u64 {
    key
}

/// Bytes in a file.
#[cached(cache = cache, ttl = "1h", skip(cache))]
pub fn file(cache: &FileCache, key: u64) -> Bytes {
    vec![7; usize::try_from(key).unwrap_or(0)].into()
}

/// The answer of a future that does not wait.
///
/// # Panics
///
/// When it waits.
pub fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("it waits"),
    }
}

//! Functions of all forms in a crate that forbids every group of lints: a forbidden lint cannot be lifted, so
//! code that the attribute generates must not cause it. Clippy checks this crate with the others.
#![forbid(
    warnings,
    unused,
    nonstandard_style,
    future_incompatible,
    let_underscore,
    refining_impl_trait,
    rust_2018_idioms,
    rust_2021_compatibility,
    missing_docs,
    missing_debug_implementations,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    unreachable_code,
    unreachable_pub,
    unused_imports,
    unused_lifetimes,
    unused_qualifications,
    unused_results,
    clippy::all,
    clippy::pedantic,
    clippy::nursery,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::same_name_method,
    clippy::unreachable,
    clippy::unwrap_used,
    clippy::used_underscore_binding
)]

use std::future::{Future, ready};
use std::num::ParseIntError;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use vayu::{MemoryCache, cached, mem_cached};

/// Sync, with returns in the middle.
///
/// # Errors
///
/// Of a string that is not a number.
#[cached(ttl = "5m")]
pub fn sync(n: u64, mut text: String) -> Result<String, ParseIntError> {
    if n == 0 {
        return Ok(text);
    }
    let parsed: u64 = text.parse()?;
    text.push_str(&parsed.to_string());
    Ok(text)
}

/// Async, with most arguments.
///
/// # Errors
///
/// Of a string that is not a number.
#[mem_cached(
    ttl = 0.5,
    stale = "1h",
    jitter = "10%",
    cache_if = Result::is_ok,
    log = false,
    version = "2",
    tags("n:{n}"),
    include(n),
    prefix = "nested",
    handle = nested_entry
)]
pub async fn nested(n: u64) -> Result<Result<u64, ()>, ParseIntError> {
    if n == 0 {
        return Ok(Err(()));
    }
    let parsed: u64 = n.to_string().parse()?;
    ready(()).await;
    Ok(Ok(parsed))
}

/// Returns nothing, once a minute. Its arguments are in the key and nowhere else.
#[cached(ttl = 60)]
pub fn nothing(_ignored: u8, (_one, _): (u8, u8)) -> () {}

/// Ends with `return`.
#[cached(ttl = 60, handle = returns_entry)]
pub async fn returns(_ignored: u8, mut _changed: u8, (_one, two): (u8, u8), _: u8) -> u8 {
    if two > 1 {
        return two;
    }
    ready(()).await;
    return 1;
}

/// Never comes to its end.
#[cached(ttl = 60)]
pub async fn diverges(n: u64) -> u64 {
    loop {
        ready(()).await;
        if n > 1 {
            return n;
        }
    }
}

/// Refreshed by a task.
#[cached(ttl = 60, stale = 60, spawn = Box::pin, handle = spawns_entry)]
pub async fn spawns(n: u64, _ignored: u8) -> u64 {
    ready(n).await
}

/// With a key of its own.
#[cached(ttl = |value: &u64| Duration::from_secs(*value), key = |n, _| format!("{n}"), cache_if = |value| *value > 1)]
pub fn by_closure(n: u64, _ignored: u8) -> u64 {
    n
}

/// A future by hand.
#[cached(ttl = 60)]
pub fn boxed(n: u64) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(ready(n))
}

/// A shop.
#[derive(Debug)]
pub struct Shop<T> {
    cache: MemoryCache,
    item: T,
}

impl<T: Clone + Send + Sync + 'static> Shop<T> {
    /// By reference.
    #[cached(cache = self.cache, ttl = 60, handle = item_entry)]
    pub fn item(&self) -> T {
        self.item.clone()
    }

    /// By `Arc`.
    #[cached(cache = self.cache, ttl = |_: &T| Duration::MAX, key = format!("{n}"))]
    pub async fn shared(self: Arc<Self>, n: u64) -> T {
        ready(()).await;
        self.item.clone()
    }

    /// Without `self`.
    #[cached(ttl = 60, handle = Self::associated_entry)]
    pub fn associated<const N: usize>(_n: u8) -> [u8; N] {
        [0; N]
    }
}

//! Functions of all forms in a crate that denies warnings.
#![deny(
    warnings,
    missing_docs,
    unused,
    unreachable_code,
    unused_qualifications,
    single_use_lifetimes
)]

use std::sync::Arc;

use vayu::{MemoryCache, cached, invalidates, mem_cached};

/// Sync.
#[cached(ttl = "5m")]
pub fn sync(n: u64, mut text: String) -> Result<String, std::num::ParseIntError> {
    if n == 0 {
        return Ok(text);
    }
    let parsed: u64 = text.parse()?;
    text.push_str(&parsed.to_string());
    Ok(text)
}

/// Async.
#[mem_cached(ttl = 0.5, cache_if = Result::is_ok, log = false, version = "2")]
pub async fn nested(n: u64) -> Result<Result<u64, ()>, std::num::ParseIntError> {
    if n == 0 {
        return Ok(Err(()));
    }
    let parsed: u64 = n.to_string().parse()?;
    std::future::ready(()).await;
    Ok(Ok(parsed))
}

/// Ends with `return`, and returns `()`.
#[cached(ttl = 60)]
pub async fn nothing(_ignored: u8, (_one, _): (u8, u8)) -> () {
    return;
}

/// Writes.
#[invalidates(tags("user:{n}"), functions(sync), before, after)]
pub fn write(n: u64, mut text: String) -> Result<String, std::num::ParseIntError> {
    if n == 0 {
        return Ok(text);
    }
    let parsed: u64 = text.parse()?;
    text.push_str(&parsed.to_string());
    Ok(text)
}

/// Writes, and ends with `return`.
#[invalidates(all)]
pub async fn write_async(_ignored: u8, (_one, _): (u8, u8)) -> () {
    return;
}

/// Invalidates before.
#[invalidates(functions(sync), before)]
pub fn write_nothing(_ignored: u8) {}

/// A shop.
#[derive(Debug)]
pub struct Shop<T> {
    cache: MemoryCache,
    item: T,
}

impl<T: Clone + Send + Sync + 'static> Shop<T> {
    /// By reference.
    #[cached(cache = self.cache, ttl = 60)]
    pub fn item(&self) -> T {
        self.item.clone()
    }

    /// By `Arc`.
    #[cached(cache = self.cache, ttl = |_item: &T| std::time::Duration::MAX, key = format!("{n}"))]
    pub async fn shared(self: Arc<Self>, n: u64) -> T {
        let _ = n;
        self.item.clone()
    }
}

/// All forms again, with a handle.
pub mod handles {
    use super::*;

    /// Sync.
    #[cached(ttl = "5m", handle = sync_entry)]
    #[expect(unused_assignments)]
    pub fn sync(
        n: u64,
        mut text: String,
        (_one, two): (u8, u8),
    ) -> Result<String, std::num::ParseIntError> {
        if n == 0 {
            return Ok(text);
        }
        let mut parsed: u64 = 0;
        parsed = text.parse()?;
        text.push_str(&(parsed + u64::from(two)).to_string());
        Ok(text)
    }

    /// Unsafe.
    ///
    /// # Safety
    ///
    /// There are no preconditions.
    #[cached(ttl = 60, version = 2, serializer = vayu::backend::ByReference, handle = risky_entry)]
    pub unsafe fn risky<T: Clone + Send + Sync + 'static, const N: usize>(_n: u8) -> [u8; N] {
        [0; N]
    }

    impl<T: Clone + Send + Sync + 'static> Shop<T> {
        /// By reference.
        #[cached(cache = self.cache, ttl = |_: &T| std::time::Duration::MAX, handle = kept_entry)]
        pub fn kept(&self) -> T {
            self.item.clone()
        }

        /// By `Arc`.
        #[cached(cache = self.cache, ttl = 60, cache_if = |_| true, handle = sent_entry)]
        pub async fn sent(self: Arc<Self>, _n: u64) -> T {
            self.item.clone()
        }
    }
}

fn main() {
    // SAFETY: there are no preconditions.
    unsafe {
        assert_eq!(handles::risky::<u8, 2>(1), [0, 0]);
        assert_eq!(handles::risky_entry::<u8, 2>(1).refresh(), [0, 0]);
        assert!(handles::risky_entry::<u16, 2>(1).peek().unwrap().is_none());
    }
    assert!(sync(1, "x".to_owned()).is_err());
    let shop = Shop { cache: MemoryCache::new(), item: 7_u8 };
    assert_eq!((shop.item(), shop.item()), (7, 7));
    drop((nested(1), nothing(1, (1, 1)), Arc::new(shop).shared(1)));
}

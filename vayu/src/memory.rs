//! The memory cache of the process.

use std::sync::LazyLock;

use vayu_memory::MemoryCache;

/// Returns the in-memory cache that all functions under `#[mem_cached]`, and under `#[cached]` without a
/// `cache`, share.
///
/// The first call creates it, and it lives as long as the process. It holds at most
/// [`MemoryOptions::DEFAULT_MAX_ENTRIES`](crate::MemoryOptions::DEFAULT_MAX_ENTRIES) entries, of
/// all functions together. A function that needs more, or whose entries others must not evict, gets
/// its own cache:
///
/// ```
/// use std::sync::LazyLock;
/// use vayu::{MemoryCache, MemoryOptions, cached};
///
/// static SQUARES: LazyLock<MemoryCache> =
///     LazyLock::new(|| MemoryOptions::new().max_entries(100_000).build());
///
/// #[cached(cache = SQUARES, ttl = "1h")]
/// fn square(n: u64) -> u64 {
///     n * n
/// }
/// # assert_eq!(square(12), 144);
/// # assert_eq!(SQUARES.stats().misses, 1);
/// ```
pub fn mem_cache() -> &'static MemoryCache {
    static CACHE: LazyLock<MemoryCache> =
        LazyLock::new(|| MemoryCache::new().with_name("mem_cache"));
    &CACHE
}

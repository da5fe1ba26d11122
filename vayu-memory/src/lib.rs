//! The memory backend of [vayu](https://docs.rs/vayu-cache): values are stored once, by reference, and a
//! hit clones the value.
//!
//! ```
//! use std::time::Duration;
//! use vayu_core::Key;
//! use vayu_memory::MemoryCache;
//!
//! let cache = MemoryCache::new();
//! let key = Key::from_text("greeting", "world");
//! let text = cache.get_or_insert_with(&key, Duration::from_secs(60), || "hello, world".to_owned());
//! assert_eq!(text, "hello, world");
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(all(target_family = "wasm", target_os = "unknown", feature = "moka"))]
compile_error!(
    "the feature `moka` of vayu needs the clock of the standard library, which wasm32-unknown-unknown does not have: use \
     `MemoryCache`, or build for wasm32-wasip1"
);

mod backend;
#[cfg(all(feature = "moka", not(all(target_family = "wasm", target_os = "unknown"))))]
mod moka;
mod options;
mod pacer;
mod sync;
mod table;
mod value;

use vayu_core::{ByReference, Cache};

pub use crate::backend::MemoryBackend;
#[cfg(all(feature = "moka", not(all(target_family = "wasm", target_os = "unknown"))))]
pub use crate::moka::{MokaBackend, MokaCache};
pub use crate::options::MemoryOptions;
pub use crate::value::MemoryValue;

/// A cache in the memory of this process.
///
/// `MemoryCache::new()` holds up to [`MemoryOptions::DEFAULT_MAX_ENTRIES`] entries; other limits
/// are set with [`MemoryOptions`]. Values need `Clone + Send + Sync + 'static` and nothing else.
///
/// The ttl is measured on a monotonic clock, which on Linux advances in steps of a few milliseconds
/// and stops while the machine is suspended ([`MonotonicClock`](vayu_core::MonotonicClock)). The
/// memory of expired entries is freed by a later write or miss of any key, or when statistics are
/// read.
pub type MemoryCache = Cache<MemoryBackend, ByReference>;

impl MemoryOptions {
    /// Creates a cache with these options.
    pub fn build(self) -> MemoryCache {
        Cache::with_backend(MemoryBackend::with_options(self))
    }
}

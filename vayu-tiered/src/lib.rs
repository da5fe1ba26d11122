//! Two tiers for [vayu](https://docs.rs/vayu-cache): memory (L1) in front of a backing cache (L2) that stores
//! bytes, such as a directory, a Redis server or a backend of your own.
//!
//! ```
//! use std::time::Duration;
//! use vayu_core::testing::MapBackend;
//! use vayu_core::{Cache, Key, MessagePack};
//! use vayu_tiered::{TieredCache, TieredOptions};
//!
//! let backing: Cache<MapBackend, MessagePack> = Cache::new(); // or a FileCache, or a RedisCache
//! let cache: TieredCache<MapBackend> = TieredOptions::new().over(&backing);
//!
//! let key = Key::from_text("greeting", "world");
//! let text = cache.get_or_insert_with(&key, Duration::from_secs(60), || "hello".to_owned());
//! assert_eq!(text, "hello");
//! assert_eq!(backing.get::<String>(&key).unwrap(), Some(text));
//! ```

mod backend;
mod batch;
mod offline;
mod options;
mod serializer;
mod slot_versions;
mod tiers;
mod untiered;
mod value;

use bytes::Bytes;
use vayu_core::{AnyBackend, Backend, Cache, MessagePack};

pub use crate::backend::TieredBackend;
pub use crate::options::TieredOptions;
pub use crate::serializer::TieredSerializer;
pub use crate::tiers::TierStats;
#[doc(hidden)]
pub use crate::untiered::Untiered;
#[doc(hidden)]
pub use crate::value::TieredValue;

/// A cache whose backend is chosen at run time: memory, a backend of bytes, or both.
pub type AnyCache<S = MessagePack> = Cache<AnyBackend<TieredValue>, TieredSerializer<S>>;

/// Memory in front of a cache of bytes.
///
/// A memory hit costs what it costs in a [`MemoryCache`](vayu_memory::MemoryCache). A miss in memory
/// reads the backing cache, and memory keeps a copy for the rest of its ttl. Values are written to both
/// tiers, and a call has one flight for both. Values need `Clone + Send + Sync + 'static` and what the
/// serializer `S` needs.
///
/// [`TieredOptions`] creates one.
pub type TieredCache<F, S = MessagePack> = Cache<TieredBackend<F>, TieredSerializer<S>>;

impl TieredOptions {
    /// Creates a backend with memory in front of this backend.
    pub fn backend<F: Backend<Stored = Bytes>>(self, backing: F) -> TieredBackend<F> {
        TieredBackend::with_near_ttl(self.memory, backing, self.near_ttl)
    }

    /// Creates a cache with memory in front of this cache.
    pub fn over<F, S>(self, backing: &Cache<F, S>) -> TieredCache<F, S>
    where
        F: Backend<Stored = Bytes> + Clone,
        S: Clone,
    {
        let backend = self.backend(backing.backend().clone());
        let cache: Cache<_, ()> = Cache::with_backend(backend);
        cache.with_serializer(TieredSerializer::new(backing.serializer().clone()))
    }
}

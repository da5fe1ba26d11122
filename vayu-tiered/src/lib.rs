//! Tiers for [vayu](https://docs.rs/vayu): memory in front of a cache whose entries are bytes, in a
//! directory, on a Redis server, or in a place of your own.
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
mod generations;
mod key_versions;
mod options;
mod serializer;
mod untiered;
mod value;

use std::sync::Arc;

use vayu_core::{Backend, Cache, MessagePack};

pub use crate::backend::{TierStats, TieredBackend};
pub use crate::options::TieredOptions;
pub use crate::serializer::TieredSerializer;
pub use crate::untiered::Untiered;
pub use crate::value::TieredValue;

/// A cache that a program chooses at run time: memory, a backend of bytes, or both.
pub type AnyCache<S = MessagePack> =
    Cache<Arc<dyn Backend<Stored = TieredValue>>, TieredSerializer<S>>;

/// Memory in front of a cache of bytes.
///
/// A hit in memory costs what it costs in a [`MemoryCache`](vayu_memory::MemoryCache). What is not
/// there is looked for below, and kept in memory for the rest of its time. Values go to both tiers,
/// and a call has one flight for both. Values need `Clone + Send + Sync + 'static` and what the
/// serializer `S` needs.
///
/// [`TieredOptions`] makes one.
pub type TieredCache<F, S = MessagePack> = Cache<TieredBackend<F>, TieredSerializer<S>>;

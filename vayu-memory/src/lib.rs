//! The memory backend of [vayu](https://docs.rs/vayu): values are held once, by reference, and a
//! hit is a clone of the value.
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

mod backend;
#[cfg(feature = "moka")]
mod moka;
mod options;
mod pacer;
mod seqlock;
mod sync;
mod value;

use vayu_core::{ByReference, Cache};

pub use crate::backend::MemoryBackend;
#[cfg(feature = "moka")]
pub use crate::moka::MokaBackend;
pub use crate::options::MemoryOptions;
pub use crate::value::MemoryValue;

/// A cache in the memory of this process.
///
/// `MemoryCache::new()` holds at most [`MemoryOptions::DEFAULT_MAX_ENTRIES`] entries; other limits
/// are set with [`MemoryOptions`]. Values need `Clone + Send + Sync + 'static` and nothing else.
///
/// The ttl counts on a clock that does not see changes of the time of day, and on Linux moves in
/// steps of a few milliseconds and stands still while the machine is suspended
/// ([`MonotonicClock`](vayu_core::MonotonicClock)). Expired entries give back their memory with a
/// later write or miss of any key, or a look at the stats, without being asked for themselves.
pub type MemoryCache = Cache<MemoryBackend, ByReference>;

/// A [`MemoryCache`] on moka's map.
#[cfg(feature = "moka")]
pub type MokaCache = Cache<MokaBackend, ByReference>;

//! The Redis backend of [vayu](https://docs.rs/vayu): results that machines share, on a Redis or
//! Valkey server.
//!
//! ```no_run
//! use std::time::Duration;
//! use vayu_core::Key;
//! use vayu_redis::RedisCache;
//!
//! # fn main() -> vayu_core::Result<()> {
//! let cache = RedisCache::open("redis://127.0.0.1/")?;
//! let key = Key::from_text("greeting", "world");
//! let text = cache.get_or_insert_with(&key, Duration::from_secs(60), || "hello, world".to_owned());
//! assert_eq!(text, "hello, world");
//! # Ok(())
//! # }
//! ```
//!
//! | feature | adds |
//! |---|---|
//! | `tls` | addresses that begin with `rediss://`, by rustls |
//! | `cluster` | [`RedisOptions`]`::connect_cluster` |
//! | `sentinel` | [`RedisOptions`]`::connect_sentinel` |

mod async_connection;
mod backend;
mod breaker;
mod diagnostics;
mod error;
mod error_reply;
mod fork;
mod generations;
mod lease;
mod mutation;
mod options;
mod pipeline;
mod pool;
mod pubsub;
mod random;
mod request;
mod resp;
mod runtime;
mod scan;
#[cfg(feature = "sentinel")]
mod sentinel;
mod server;
mod shared_connection;
mod subscription;
mod sync_connection;
#[cfg(feature = "tls")]
mod tls;
mod url;

use vayu_core::{Cache, MessagePack};

pub use crate::backend::RedisBackend;
pub use crate::options::RedisOptions;

/// A cache on a Redis server.
///
/// [`RedisCache::open`](Cache::open) and [`RedisOptions::connect`] take the address of the
/// server; values need serde's `Serialize` and `DeserializeOwned`, and are written as [`MessagePack`] unless
/// [`with_serializer`](Cache::with_serializer) says otherwise.
///
/// No server is asked before the first call. While it cannot be reached the functions run as if
/// there were no cache, and after a few attempts it is left alone for a while, so that a server
/// that is down costs almost nothing.
pub type RedisCache = Cache<RedisBackend, MessagePack>;

//! The Redis backend of [vayu](https://docs.rs/vayu-cache): a cache that machines share, on a Redis or
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
//! let greeting = cache.get_or_insert_with(&key, Duration::from_secs(60), || "hello, world".to_owned());
//! assert_eq!(greeting, "hello, world");
//! # Ok(())
//! # }
//! ```
//!
//! | feature | adds |
//! |---|---|
//! | `tls` | `rediss://` URLs, by rustls |
//! | `cluster` | [`RedisOptions`]`::connect_cluster` |
//! | `sentinel` | [`RedisOptions`]`::connect_sentinel` |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod async_connection;
mod backend;
mod client;
mod commands;
mod connect;
mod deadline;
mod diagnostics;
mod error;
mod error_reply;
mod generations;
mod inspect;
mod key_names;
mod lease;
mod mutation;
mod options;
mod pipeline;
mod pool;
mod pubsub;
mod request;
mod resp;
mod runtime;
mod scan;
#[cfg(feature = "sentinel")]
mod sentinel;
mod server;
mod shared_connection;
mod subscription;
mod sync;
mod sync_connection;
mod tcp;
#[cfg(feature = "tls")]
mod tls;
mod url;
mod watches;

use vayu_core::{Cache, MessagePack};

pub use crate::backend::RedisBackend;
pub use crate::inspect::{CacheNamespace, StoredEntry, StoredEntryError};
pub use crate::options::RedisOptions;

/// A cache on a Redis server.
///
/// [`RedisCache::open`](Cache::open) and [`RedisOptions::connect`] take the URL of the server.
/// Values need serde's `Serialize` and `DeserializeOwned`, and are encoded as [`MessagePack`]
/// unless [`with_serializer`](Cache::with_serializer) sets another serializer.
///
/// The first call connects. While the server is unreachable, calls run their function; after a few
/// failures a circuit breaker opens, so that an unreachable server costs almost nothing.
pub type RedisCache = Cache<RedisBackend, MessagePack>;

//! The object store backend of [vayu](https://docs.rs/vayu-cache): a cache of large and expensive values that
//! machines share, on S3, Google Cloud Storage or Azure, or in any store of the crate [`object_store`].
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use vayu_core::Key;
//! use vayu_object::ObjectOptions;
//! use vayu_object::object_store::memory::InMemory;
//!
//! # fn main() -> vayu_core::Result<()> {
//! let cache = ObjectOptions::new().prefix("reports").open(Arc::new(InMemory::new()))?;
//! let key = Key::from_text("greeting", "world");
//! let greeting = cache.get_or_insert_with(&key, Duration::from_secs(60), || "hello, world".to_owned());
//! assert_eq!(greeting, "hello, world");
//! # Ok(())
//! # }
//! ```
//!
//! | feature | adds |
//! |---|---|
//! | `aws` | `s3://` URLs |
//! | `gcp` | `gs://` URLs |
//! | `azure` | `az://` URLs |
//!
//! The features bring reqwest, and rustls with aws-lc-rs, which is written in C. Without them, a program that depends on [`object_store`]
//! itself passes the store that it has built to [`ObjectOptions::open`].

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod client;
mod error;
mod generations;
mod lease;
mod object_names;
mod objects;
mod open;
mod options;
mod url;
mod write_order;

pub use object_store;
use vayu_core::{Cache, MessagePack};

pub use crate::backend::ObjectBackend;
pub use crate::options::ObjectOptions;

/// A cache in an object store.
///
/// [`ObjectOptions::open`] takes a store, [`ObjectCache::open`](Cache::open) and [`ObjectOptions::connect`] the URL of
/// one. Values need serde's `Serialize` and `DeserializeOwned`, and are encoded as [`MessagePack`] unless
/// [`with_serializer`](Cache::with_serializer) sets another serializer.
///
/// While the store does not respond, calls run their function; after a few failures a circuit breaker opens, so that an
/// unreachable store costs almost nothing.
pub type ObjectCache = Cache<ObjectBackend, MessagePack>;

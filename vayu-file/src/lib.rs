//! The file backend of [vayu](https://docs.rs/vayu): results that outlive the process, in a
//! directory that processes share.
//!
//! ```
//! use std::time::Duration;
//! use vayu_core::Key;
//! use vayu_file::FileCache;
//!
//! # fn main() -> vayu_core::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path();
//! let cache = FileCache::open(path)?;
//! let key = Key::from_text("greeting", "world");
//! let text = cache.get_or_insert_with(&key, Duration::from_secs(60), || "hello, world".to_owned());
//! assert_eq!(text, "hello, world");
//! # Ok(())
//! # }
//! ```
//!
//! It works on Unix. Network file systems are right by verification only: an entry that comes back
//! damaged is a miss, and [`SingleFlight::Everywhere`](vayu_core::SingleFlight::Everywhere) needs locks that work.

#[cfg(not(unix))]
compile_error!("vayu-file needs a Unix file system; leave its feature out on other systems");

mod backend;
mod counts;
mod directory;
mod feed;
mod fs;
mod generations;
mod inspect;
mod layout;
mod located_key;
mod lock;
mod offload;
mod open_files;
mod options;
mod shard_usage;
mod store;
mod sweep;
#[cfg(test)]
mod tests;

use vayu_core::{Cache, MessagePack};

pub use crate::backend::FileBackend;
pub use crate::inspect::{CacheDirectory, EntryError, EntryInfo, Verify};
pub use crate::options::{AsyncIo, Durability, FileOptions};

/// A cache in a directory.
///
/// `FileCache::open(path)?` makes the directory if it does not exist, for its owner alone, and
/// takes at most [`FileOptions::DEFAULT_MAX_BYTES`] (1 GiB) of disk; other limits are set with
/// [`FileOptions`]. Values need serde's `Serialize` and `DeserializeOwned`, and are written as
/// [`MessagePack`] unless [`with_serializer`](Cache::with_serializer) says otherwise.
///
/// Entries that have expired are removed by later writes, a folder of the directory at a time; no
/// thread is started.
pub type FileCache = Cache<FileBackend, MessagePack>;

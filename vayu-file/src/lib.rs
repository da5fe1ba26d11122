//! The file backend of [vayu](https://docs.rs/vayu-cache): results that outlive the process, in a
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
//! The crate needs Unix or Windows. On network file systems of Unix (NFS, SMB) a corrupt entry is detected and is a
//! miss, but changes by other machines, invalidations included, may be seen late, since the system caches the status of
//! files, and [`SingleFlight::Everywhere`](vayu_core::SingleFlight::Everywhere) needs working `flock` locks. Opening
//! a directory there logs a warning.
//!
//! # Windows
//!
//! - The directory has the access control list of its parent. It is neither restricted nor examined: choose a
//!   place that only the user may write to, such as one in `%LOCALAPPDATA%`.
//! - Symbolic links and junctions in the directory are not followed. Paths may be longer than 260 characters.
//! - The directory must be on a local drive, and cannot be renamed or removed while a process uses it.
//! - Each access to a file waits up to a sixteenth of a second for a program that has it open without sharing it,
//!   such as a virus scanner, and fails after that. A write, a deletion or an invalidation consists of several.
//! - Where the system cannot replace an open file (before Windows 10 1809, or on a drive with FAT), an entry
//!   that is replaced while it is read constantly may be a miss for a moment.
//! - No files are kept open between reads.

#[cfg(not(any(unix, windows)))]
compile_error!(
    "vayu-file needs the file system of Unix or Windows; disable its feature on other systems"
);

mod backend;
mod counts;
mod directory;
mod ends;
mod errno;
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
mod outages;
mod prefix;
mod random;
mod shard_usage;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod url;

use std::path::Path;

use cap_std::fs::Dir;
use vayu_core::{Cache, MessagePack, Result};

pub use crate::backend::FileBackend;
pub use crate::inspect::{CacheDirectory, EntryError, EntryInfo, Verify};
pub use crate::options::{AsyncIo, Durability, FileOptions};

/// A cache in a directory.
///
/// `FileCache::open(path)?` creates the directory if it does not exist, on Unix accessible to its owner only. It
/// uses up to [`FileOptions::DEFAULT_MAX_BYTES`] (1 GiB) of disk; other limits are set with
/// [`FileOptions`]. Values need serde's `Serialize` and `DeserializeOwned`, and are written as
/// [`MessagePack`] unless [`with_serializer`](Cache::with_serializer) sets another serializer.
///
/// Later writes remove expired entries, one subdirectory at a time; no thread is started.
pub type FileCache = Cache<FileBackend, MessagePack>;

impl FileOptions {
    /// Opens the cache in this directory. Creates the directory and its parents if they do not exist,
    /// accessible to their owner only (on Windows, with the access control list of their parent).
    ///
    /// On Linux, macOS and FreeBSD a warning is logged if it is on a network file system.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](vayu_core::ErrorKind::Configuration)
    ///
    /// - when the directory cannot be created or opened,
    /// - when it belongs to another user, or other users may write to it, without
    ///   [`allow_shared`](Self::allow_shared) (on Unix),
    /// - when it is on a network share (on Windows),
    /// - when it contains other files and is not a cache: use a directory of its own.
    pub fn open(self, path: impl AsRef<Path>) -> Result<FileCache> {
        Ok(FileCache::with_backend(FileBackend::open(path.as_ref(), &self)?))
    }

    /// Opens the cache in a directory that is open already. On Windows it must not be on a network share, which is not
    /// examined here.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_dir(self, dir: Dir) -> Result<FileCache> {
        Ok(FileCache::with_backend(FileBackend::open_dir(dir, &self)?))
    }
}

#[doc(hidden)]
pub mod __internal {
    //! Items for the other crates of vayu, without any promise of stability.

    pub use crate::url::path_of_url;
}

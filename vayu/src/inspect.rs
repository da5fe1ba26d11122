//! Inspection of a cache directory or a Redis server: the entries, and whether they are intact.

pub use vayu_core::wire::EntryDetails;
#[cfg(feature = "file")]
pub use vayu_file::{CacheDirectory, EntryError, EntryInfo, Verify};
#[cfg(feature = "redis")]
pub use vayu_redis::{CacheNamespace, StoredEntry, StoredEntryError};

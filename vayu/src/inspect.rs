//! Inspection of a cache directory: its entries, and whether they are intact.

pub use vayu_file::{CacheDirectory, EntryError, EntryInfo, Verify};

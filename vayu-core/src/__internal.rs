//! Items for the other crates of this workspace. Not part of the public interface: those crates require
//! exactly this version.

pub use crate::backend::{BatchResults, fail_batch, read_of_kind};
pub use crate::error::with_causes;
use crate::key::{self, Key, Prefix};
pub use crate::key::{LongKey, RecentKeys};
pub use crate::outage::{Outage, display_time};
pub use crate::outlined::Outlined;
pub use crate::panic::{
    BatchFuture, BoxFuture as BackendFuture, QuietDrop, catch_panic, drop_quietly,
};
pub use crate::per_process::{PerProcess, ProcessId};
pub use crate::platform::{Instant, process_id};
use crate::record::Record;
#[cfg(feature = "remote")]
pub use crate::remote;
#[cfg(any(feature = "lz4", feature = "seal", feature = "zstd"))]
pub use crate::serializer::layers::{Layer, Layers, unwrap_value};
pub use crate::sync::{IgnorePoison, block_on};

/// Returns a short key as `N` words (2 to 7). Two keys are equal if and only if their words are.
///
/// `None` where it does not fit: the encoded arguments and a string as the prefix, each in whole words,
/// may have one word less. The words are valid in this process.
#[inline(always)]
pub fn key_words<const N: usize>(key: &Key) -> Option<[u64; N]> {
    key.inline_words()
}

/// Returns the prefix of the key of these words, which has been a key of this process.
#[cold]
pub fn prefix_of_words(words: &[u64]) -> Option<Prefix> {
    key::prefix_of_words(words)
}

/// Returns a record without its value as words.
#[inline]
pub fn record_words<V>(record: &Record<V>) -> [u64; 5] {
    record.to_words()
}

/// Returns the record of words and a value.
#[inline(always)]
pub fn record_from_words<V>(words: [u64; 5], value: V) -> Record<V> {
    Record::from_words(words, value)
}

/// Returns a record without its value as three words and two bytes, where that is possible.
#[inline]
pub fn small_record_words<V>(record: &Record<V>) -> Option<([u64; 3], u16)> {
    record.pack_small()
}

/// Returns the record of what [`small_record_words`] returned, and a value.
#[inline(always)]
pub fn record_from_small_words<V>(words: ([u64; 3], u16), value: V) -> Record<V> {
    Record::unpack_small(words, value)
}

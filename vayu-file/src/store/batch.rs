//! Batches: entries in the order of their shards, so that each directory is used once.

use std::borrow::Borrow;

use bytes::Bytes;
use vayu_core::__internal::BatchResults;
use vayu_core::{Key, Record, Result};

use super::Store;
use crate::located_key::LocatedKey;
use crate::offload::{CancelFlag, cancelled};

impl Store {
    /// Reads the records of several keys, until the operation is cancelled.
    pub(crate) fn read_many(
        &self,
        keys: &[&Key],
        cancel: &CancelFlag,
    ) -> Vec<Result<Option<Record<Bytes>>>> {
        in_order_of_shards(keys.len(), |index| keys[index], cancel, |index| self.read(keys[index]))
    }

    /// Writes several entries, until the operation is cancelled. Those of one key are written in their
    /// order.
    pub(crate) fn write_many<K: Borrow<Key>>(
        &self,
        entries: &[(K, Record<Bytes>)],
        cancel: &CancelFlag,
    ) -> Vec<Result<()>> {
        let write = |index: usize| {
            let (key, record) = &entries[index];
            self.write(key.borrow(), record, cancel)
        };
        in_order_of_shards(entries.len(), |index| entries[index].0.borrow(), cancel, write)
    }
}

/// Runs an operation for each index, in the order of the shards of the keys. Returns the results in the
/// order of the indices.
fn in_order_of_shards<'k, T>(
    count: usize,
    key: impl Fn(usize) -> &'k Key,
    cancel: &CancelFlag,
    operation: impl Fn(usize) -> Result<T>,
) -> Vec<Result<T>> {
    let mut indices: Vec<usize> = (0..count).collect();
    // Stable, so that entries of one key stay in their order.
    indices.sort_by_cached_key(|&index| LocatedKey::of(key(index)).path().shard());
    let mut results = BatchResults::new(count);
    for index in indices {
        let result = if cancel.is_set() { Err(cancelled()) } else { operation(index) };
        results.set(index, result);
    }
    results.into_results()
}

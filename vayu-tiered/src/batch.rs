//! Batches: what each has in memory, what is read or written in the backing tier, and the results.

use std::collections::HashMap;

use bytes::Bytes;
use vayu_core::__internal::BatchResults;
use vayu_core::{Backend, Key, Record, Result, ValueClass};

use crate::slot_versions::{KeyChange, SlotVersion};
use crate::tiers::{Tiers, encode, key_slot};
use crate::value::TieredValue;

/// A batch of writes whose records were encoded for the backing tier.
pub(crate) struct EncodedBatch {
    /// The results of the records that are not written to the backing tier.
    results: BatchResults<()>,
    /// The indices of the records that are.
    indices: Vec<usize>,
}

impl EncodedBatch {
    /// Encodes records for the backing tier, which has this limit on entries. Also returns them.
    pub(crate) fn new<'k>(
        entries: &[(&'k Key, Record<TieredValue>)],
        max_entry_bytes: Option<u64>,
    ) -> (Self, Vec<(&'k Key, Record<Bytes>)>) {
        let mut results = BatchResults::new(entries.len());
        let (mut indices, mut records) = (Vec::new(), Vec::with_capacity(entries.len()));
        for (index, (key, record)) in entries.iter().enumerate() {
            match encode(key, record, max_entry_bytes) {
                Ok(record) => {
                    records.push((*key, record));
                    indices.push(index);
                }
                Err(error) => results.set(index, Err(error)),
            }
        }
        (Self { results, indices }, records)
    }

    /// Returns the results of the batch, with those of the backing tier.
    pub(crate) fn finish(mut self, written: Vec<Result<()>>) -> Vec<Result<()>> {
        for (index, result) in self.indices.into_iter().zip(written) {
            self.results.set(index, result);
        }
        self.results.into_results()
    }
}

/// A batch of reads that is in progress.
pub(crate) struct ReadBatch<'k> {
    results: BatchResults<Option<Record<TieredValue>>>,
    /// The keys that memory lacks, their indices, and the versions of their slots before they are read.
    missing: Vec<(usize, &'k Key, SlotVersion)>,
}

/// A batch of writes that is in progress.
pub(crate) struct WriteBatch<'a, 'k> {
    /// One change for each key slot: two would invalidate each other's copies.
    changes: HashMap<[u8; 2], KeyChange<'a>>,
    entries: Vec<(&'k Key, Record<TieredValue>)>,
    encoded: EncodedBatch,
}

impl<F: Backend<Stored = Bytes>> Tiers<F> {
    /// Begins a batch of reads: reads memory. Also returns the keys that the backing tier is to be read
    /// for.
    pub(crate) fn begin_read_many<'k>(&self, keys: &[&'k Key]) -> (ReadBatch<'k>, Vec<&'k Key>) {
        let now = self.now();
        let mut results = BatchResults::new(keys.len());
        let mut missing = Vec::new();
        for (index, &key) in keys.iter().enumerate() {
            let mut copy = None;
            let visit = &mut |record: Record<&TieredValue>| copy = Some(record.map(Clone::clone));
            if self.read_memory(key, ValueClass::Opaque, now, visit) {
                results.set(index, Ok(copy));
            } else {
                missing.push((index, key, self.versions.current(key_slot(key))));
            }
        }
        let keys = missing.iter().map(|&(_, key, _)| key).collect();
        (ReadBatch { results, missing }, keys)
    }

    /// Ends a batch of reads with what the backing tier returned for the keys that memory lacks.
    pub(crate) fn finish_read_many(
        &self,
        batch: ReadBatch<'_>,
        found: Vec<Result<Option<Record<Bytes>>>>,
    ) -> Vec<Result<Option<Record<TieredValue>>>> {
        let mut results = batch.results;
        for ((index, key, version), found) in batch.missing.into_iter().zip(found) {
            results.set(index, self.finish_read(key, version, found));
        }
        results.into_results()
    }

    /// Begins a batch of writes. Also returns the records for the backing tier.
    pub(crate) fn begin_write_many<'k>(
        &self,
        entries: Vec<(&'k Key, Record<TieredValue>)>,
    ) -> (WriteBatch<'_, 'k>, Vec<(&'k Key, Record<Bytes>)>) {
        let mut changes = HashMap::new();
        for (key, _) in &entries {
            let slot = key_slot(key);
            changes.entry(slot).or_insert_with(|| self.versions.begin_change(slot));
        }
        let (encoded, records) = EncodedBatch::new(&entries, self.max_entry_bytes);
        (WriteBatch { changes, entries, encoded }, records)
    }

    /// Ends a batch of writes with the results of the backing tier. Memory stores the values as after
    /// single writes.
    pub(crate) fn finish_write_many(
        &self,
        batch: WriteBatch<'_, '_>,
        written: Vec<Result<()>>,
    ) -> Vec<Result<()>> {
        let versions: HashMap<_, _> =
            batch.changes.into_iter().map(|(slot, change)| (slot, change.finish())).collect();
        let mut results = batch.encoded.finish(written);
        for ((key, record), result) in batch.entries.iter().zip(&mut results) {
            if let Some(&Some(version)) = versions.get(&key_slot(key))
                && let Err(error) = self.store_copy(key, record, version)
                && result.is_ok()
            {
                *result = Err(error);
            }
        }
        results
    }
}

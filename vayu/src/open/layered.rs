//! A backend whose values are compressed or sealed, whatever serializer has encoded them.

use async_trait::async_trait;
use bytes::Bytes;
use vayu_core::__internal::{BatchResults, Layers, catch_panic};
use vayu_core::{
    Backend, BackendExt, Batches, Capabilities, Key, Record, ReportUsage, Result, Usage,
    ValueClass, forward_backend,
};

/// Wraps the values of a backend of bytes: those of the option `compress` and `seal` of a URL.
///
/// The records that the engine reads and writes are those without wrappers. A stored record that has others is
/// absent.
#[derive(Debug, Clone)]
pub(super) struct LayeredBackend<F> {
    backend: F,
    layers: Layers,
    max_entry_bytes: Option<u64>,
}

impl<F: Backend<Stored = Bytes>> LayeredBackend<F> {
    pub(super) fn new(backend: F, layers: Layers) -> Self {
        let usage = catch_panic("read usage", || Ok(backend.usage())).unwrap_or_default();
        Self { backend, layers, max_entry_bytes: usage.max_entry_bytes }
    }

    fn wrap(&self, key: &Key, record: Record<Bytes>) -> Result<Record<Bytes>> {
        self.layers.wrap(key, record, self.max_entry_bytes)
    }

    fn unwrap(
        &self,
        key: &Key,
        found: Result<Option<Record<Bytes>>>,
    ) -> Result<Option<Record<Bytes>>> {
        match found? {
            Some(record) => self.layers.unwrap(key, record, self.max_entry_bytes),
            None => Ok(None),
        }
    }

    fn unwrap_many(
        &self,
        keys: &[&Key],
        found: Vec<Result<Option<Record<Bytes>>>>,
    ) -> Vec<Result<Option<Record<Bytes>>>> {
        keys.iter().zip(found).map(|(key, found)| self.unwrap(key, found)).collect()
    }

    /// Wraps the records of a batch. Also returns the errors, and the indices of the records.
    fn wrap_many<'k>(&self, entries: Vec<(&'k Key, Record<Bytes>)>) -> WrappedBatch<'k> {
        let mut batch = WrappedBatch {
            results: BatchResults::new(entries.len()),
            indices: Vec::new(),
            records: Vec::with_capacity(entries.len()),
        };
        for (index, (key, record)) in entries.into_iter().enumerate() {
            match self.wrap(key, record) {
                Ok(record) => {
                    batch.indices.push(index);
                    batch.records.push((key, record));
                }
                Err(error) => batch.results.set(index, Err(error)),
            }
        }
        batch
    }
}

/// The wrapped records of a batch.
struct WrappedBatch<'k> {
    results: BatchResults<()>,
    indices: Vec<usize>,
    records: Vec<(&'k Key, Record<Bytes>)>,
}

fn finish(
    mut results: BatchResults<()>,
    indices: Vec<usize>,
    written: Vec<Result<()>>,
) -> Vec<Result<()>> {
    for (index, result) in indices.into_iter().zip(written) {
        results.set(index, result);
    }
    results.into_results()
}

#[async_trait]
impl<F: Backend<Stored = Bytes>> Backend for LayeredBackend<F> {
    type Stored = Bytes;

    fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        self.unwrap(key, self.backend.read(key))
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        self.backend.write(key, self.wrap(key, record)?)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        self.unwrap(key, self.backend.read_async(key).await)
    }

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        self.backend.write_async(key, self.wrap(key, record)?).await
    }

    fn read_now(
        &self,
        key: &Key,
        class: ValueClass,
        visit: &mut dyn FnMut(Record<&Bytes>),
    ) -> Option<Result<()>> {
        let mut found = None;
        let read = self.backend.read_now(key, class, &mut |record| {
            found = Some(record.map(Clone::clone));
        })?;
        let unwrapped = self.unwrap(key, read.map(|()| found));
        Some(unwrapped.map(|record| {
            if let Some(record) = &record {
                visit(record.as_ref());
            }
        }))
    }

    /// Returns the parts of the backend, with wrapped values, and none for offline use.
    fn capabilities(&self) -> Capabilities<'_, Bytes> {
        let inner = self.backend.capabilities();
        Capabilities {
            generations: inner.generations,
            invalidation_feed: inner.invalidation_feed,
            leases: inner.leases,
            offline: None,
            batches: Some(self),
            // The whole record is wrapped again and written.
            times: None,
            clear: inner.clear,
            usage: Some(self),
            ends: inner.ends,
        }
    }

    forward_backend! { |this| this.backend => delete delete_async is_in_process description clock }
}

#[async_trait]
impl<F: Backend<Stored = Bytes>> Batches for LayeredBackend<F> {
    type Stored = Bytes;

    fn read_many(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Bytes>>>> {
        self.unwrap_many(keys, self.backend.read_many(keys))
    }

    async fn read_many_async(&self, keys: &[&Key]) -> Vec<Result<Option<Record<Bytes>>>> {
        self.unwrap_many(keys, self.backend.read_many_async(keys).await)
    }

    fn write_many(&self, entries: Vec<(&Key, Record<Bytes>)>) -> Vec<Result<()>> {
        let WrappedBatch { results, indices, records } = self.wrap_many(entries);
        finish(results, indices, self.backend.write_many(records))
    }

    async fn write_many_async(&self, entries: Vec<(&Key, Record<Bytes>)>) -> Vec<Result<()>> {
        let WrappedBatch { results, indices, records } = self.wrap_many(entries);
        finish(results, indices, self.backend.write_many_async(records).await)
    }
}

impl<F: Backend<Stored = Bytes>> ReportUsage for LayeredBackend<F> {
    fn usage(&self) -> Usage {
        let mut usage = self.backend.usage();
        usage.opened_with_old_keys = self.layers.opened_with_old_keys();
        usage
    }
}

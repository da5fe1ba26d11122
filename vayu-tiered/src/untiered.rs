//! A single tier with the stored form of two.

use async_trait::async_trait;
use bytes::Bytes;
use vayu_core::{
    Backend, BackendExt, Batches, Capabilities, EntryTimes, Key, Record, Result, Timestamp,
    ValueClass, forward_backend,
};

use crate::batch::EncodedBatch;
use crate::tiers::{encode, max_entry_bytes};
use crate::value::TieredValue;

/// A backend of bytes without memory in front of it, with the stored form of a tiered backend: for
/// [`AnyCache`](crate::AnyCache).
///
/// For memory alone, [`MemoryBackend`](vayu_memory::MemoryBackend) stores a [`TieredValue`] as it is.
#[derive(Debug, Clone)]
pub struct Untiered<F> {
    backend: F,
    /// The limit of the size of an entry.
    max_entry_bytes: Option<u64>,
}

impl<F: Backend<Stored = Bytes>> Untiered<F> {
    /// Wraps a backend.
    pub fn new(backend: F) -> Self {
        Self { max_entry_bytes: max_entry_bytes(&backend), backend }
    }

    fn encode(&self, key: &Key, record: &Record<TieredValue>) -> Result<Record<Bytes>> {
        encode(key, record, self.max_entry_bytes)
    }
}

fn to_tiered(record: Option<Record<Bytes>>) -> Option<Record<TieredValue>> {
    record.map(TieredValue::of_record)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<F: Backend<Stored = Bytes>> Backend for Untiered<F> {
    type Stored = TieredValue;

    fn read(&self, key: &Key) -> Result<Option<Record<TieredValue>>> {
        self.backend.read(key).map(to_tiered)
    }

    fn write(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        self.backend.write(key, self.encode(key, &record)?)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<TieredValue>>> {
        self.backend.read_async(key).await.map(to_tiered)
    }

    async fn write_async(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        self.backend.write_async(key, self.encode(key, &record)?).await
    }

    fn read_now(
        &self,
        key: &Key,
        _: ValueClass,
        visit: &mut dyn FnMut(Record<&TieredValue>),
    ) -> Option<Result<()>> {
        // Whatever the class of the value is: its bytes are decoded by code of users.
        self.backend.read_now(key, ValueClass::Opaque, &mut |record| {
            visit(TieredValue::of_record(record.map(Clone::clone)).as_ref());
        })
    }

    /// Returns `None`: the record is not in this form.
    fn read_with<R>(&self, _: &Key, _: impl FnOnce(Record<&TieredValue>) -> R) -> Option<R> {
        None
    }

    /// Returns the parts of the backend, those with records in this form, and none for offline use.
    fn capabilities(&self) -> Capabilities<'_, TieredValue> {
        let inner = self.backend.capabilities();
        Capabilities {
            generations: inner.generations,
            invalidation_feed: inner.invalidation_feed,
            leases: inner.leases,
            offline: None,
            batches: Some(self),
            times: Some(self),
            clear: inner.clear,
            usage: inner.usage,
            ends: inner.ends,
        }
    }

    forward_backend! { |this| this.backend =>
        delete delete_async read_optimistic is_in_process description clock
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<F: Backend<Stored = Bytes>> Batches for Untiered<F> {
    type Stored = TieredValue;

    fn read_many(&self, keys: &[&Key]) -> Vec<Result<Option<Record<TieredValue>>>> {
        let found = self.backend.read_many(keys);
        found.into_iter().map(|record| record.map(to_tiered)).collect()
    }

    fn write_many(&self, entries: Vec<(&Key, Record<TieredValue>)>) -> Vec<Result<()>> {
        let (batch, records) = EncodedBatch::new(&entries, self.max_entry_bytes);
        batch.finish(self.backend.write_many(records))
    }

    async fn read_many_async(&self, keys: &[&Key]) -> Vec<Result<Option<Record<TieredValue>>>> {
        let found = self.backend.read_many_async(keys).await;
        found.into_iter().map(|record| record.map(to_tiered)).collect()
    }

    async fn write_many_async(&self, entries: Vec<(&Key, Record<TieredValue>)>) -> Vec<Result<()>> {
        let (batch, records) = EncodedBatch::new(&entries, self.max_entry_bytes);
        batch.finish(self.backend.write_many_async(records).await)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<F: Backend<Stored = Bytes>> EntryTimes for Untiered<F> {
    type Stored = TieredValue;

    fn write_times(&self, key: &Key, old: &Record<()>, record: Record<TieredValue>) -> Result<()> {
        self.backend.write_times(key, old, self.encode(key, &record)?)
    }

    async fn write_times_async(
        &self,
        key: &Key,
        old: &Record<()>,
        record: Record<TieredValue>,
    ) -> Result<()> {
        self.backend.write_times_async(key, old, self.encode(key, &record)?).await
    }

    fn renew(&self, key: &Key, record: &Record<()>, end: Timestamp) {
        self.backend.renew(key, record, end);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vayu_core::testing::MapBackend;
    use vayu_core::{Cache, ErrorKind, MessagePack, Serializer, SerializerId};

    use super::*;
    use crate::TieredSerializer;

    /// Bytes in the memory of this process.
    #[derive(Default, Clone)]
    struct InProcess(MapBackend);

    #[async_trait]
    impl Backend for InProcess {
        type Stored = Bytes;

        fn read_now(
            &self,
            key: &Key,
            _: ValueClass,
            visit: &mut dyn FnMut(Record<&Bytes>),
        ) -> Option<Result<()>> {
            let record = self.0.read(key).map(|record| record.map(|record| visit(record.as_ref())));
            Some(record.map(drop))
        }

        fn is_in_process(&self) -> bool {
            true
        }

        forward_backend! { |this| this.0 => read write delete read_async write_async delete_async }
    }

    #[derive(Default, Clone)]
    struct Panics;

    impl Serializer<u64> for Panics {
        type Stored = Bytes;

        fn id(&self) -> SerializerId {
            SerializerId::user(1)
        }

        fn serialize(&self, value: &u64) -> Result<Bytes> {
            Ok(Bytes::copy_from_slice(&value.to_le_bytes()))
        }

        fn deserialize(&self, _: &Bytes) -> Result<u64> {
            panic!("planned");
        }
    }

    #[test]
    fn record_without_bytes_is_not_reported_as_stored() {
        let backend = Untiered::new(InProcess::default());
        let cache: Cache<_, TieredSerializer<MessagePack>> = Cache::with_backend(backend.clone());
        let key = Key::from_text("number", "one");
        cache.set(&key, &1_u64, Duration::from_secs(60)).unwrap();
        let record = backend.read(&key).unwrap().unwrap();
        let times = record.clone().map(|_| ());
        backend.write(&key, record.clone()).unwrap();
        let serializer = TieredSerializer::new(MessagePack);
        let decoded: u64 = serializer.deserialize(record.value()).unwrap();
        assert_eq!(decoded, 1);
        let results = [
            backend.write(&key, record.clone()),
            EntryTimes::write_times(&backend, &key, &times, record.clone()),
            Batches::write_many(&backend, vec![(&key, record)]).remove(0),
        ];
        for result in results {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Encode);
        }
    }

    #[test]
    fn number_whose_serializer_panics_is_a_miss_in_memory_too() {
        let backend = Untiered::new(InProcess::default());
        let cache: Cache<_, TieredSerializer<Panics>> = Cache::with_backend(backend);
        let key = Key::from_text("number", "one");
        for n in 1..=2 {
            assert_eq!(cache.get_or_insert_with(&key, Duration::from_secs(60), || n), n);
        }
        assert_eq!(cache.stats().errors_of(ErrorKind::Panic), 1);
    }
}

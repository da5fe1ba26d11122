//! One tier that looks like two.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use vayu_core::{Backend, Clock, Generations, InvalidationFeed, Key, Lease, Record, Result, Usage};

use crate::backend::encoded;
use crate::value::TieredValue;

/// A backend of bytes without memory in front of it, for a program that chooses at run time.
///
/// Only in memory: see [`MemoryBackend`](vayu_memory::MemoryBackend), which takes a [`TieredValue`] as
/// it is.
#[derive(Debug, Clone)]
pub struct Untiered<F>(F);

impl<F> Untiered<F> {
    /// This backend alone.
    pub fn new(backend: F) -> Self {
        Self(backend)
    }
}

fn found(record: Option<Record<Bytes>>) -> Option<Record<TieredValue>> {
    record.map(|record| record.map(TieredValue::from_bytes))
}

#[async_trait]
impl<F: Backend<Stored = Bytes>> Backend for Untiered<F> {
    type Stored = TieredValue;

    fn read(&self, key: &Key) -> Result<Option<Record<TieredValue>>> {
        self.0.read(key).map(found)
    }

    fn write(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        match encoded(&record)? {
            Some(record) => self.0.write(key, record),
            None => Ok(()),
        }
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        self.0.delete(key)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<TieredValue>>> {
        self.0.read_async(key).await.map(found)
    }

    async fn write_async(&self, key: &Key, record: Record<TieredValue>) -> Result<()> {
        match encoded(&record)? {
            Some(record) => self.0.write_async(key, record).await,
            None => Ok(()),
        }
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.0.delete_async(key).await
    }

    fn read_now(&self, key: &Key) -> Option<Result<Option<Record<TieredValue>>>> {
        self.0.read_now(key).map(|answer| answer.map(found))
    }

    fn try_acquire_lease(&self, key: &Key) -> Result<Lease> {
        self.0.try_acquire_lease(key)
    }

    async fn try_acquire_lease_async(&self, key: &Key) -> Result<Lease> {
        self.0.try_acquire_lease_async(key).await
    }

    fn clear(&self) -> Result<()> {
        self.0.clear()
    }

    async fn clear_async(&self) -> Result<()> {
        self.0.clear_async().await
    }

    fn generations(&self) -> Option<&dyn Generations> {
        self.0.generations()
    }

    fn invalidation_feed(&self) -> Option<&dyn InvalidationFeed> {
        self.0.invalidation_feed()
    }

    fn usage(&self) -> Usage {
        self.0.usage()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock()
    }
}

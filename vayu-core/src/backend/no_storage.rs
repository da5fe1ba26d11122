//! A backend that stores nothing.

use std::marker::PhantomData;

use async_trait::async_trait;

use crate::backend::{Backend, Capabilities, Clear};
use crate::error::Result;
use crate::key::Key;
use crate::record::Record;
use crate::serializer::ValueClass;

/// A backend that stores nothing. Concurrent callers of a key still share one computation.
#[derive(Debug)]
pub struct NoStorage<V> {
    description: &'static str,
    values: PhantomData<fn() -> V>,
}

impl<V> NoStorage<V> {
    pub(crate) fn new(description: &'static str) -> Self {
        Self { description, values: PhantomData }
    }
}

#[async_trait]
impl<V: Clone + Send + Sync + 'static> Backend for NoStorage<V> {
    type Stored = V;

    fn read(&self, _: &Key) -> Result<Option<Record<V>>> {
        Ok(None)
    }

    fn write(&self, _: &Key, _: Record<V>) -> Result<()> {
        Ok(())
    }

    fn delete(&self, _: &Key) -> Result<bool> {
        Ok(false)
    }

    async fn read_async(&self, _: &Key) -> Result<Option<Record<V>>> {
        Ok(None)
    }

    async fn write_async(&self, _: &Key, _: Record<V>) -> Result<()> {
        Ok(())
    }

    async fn delete_async(&self, _: &Key) -> Result<bool> {
        Ok(false)
    }

    fn read_now(
        &self,
        _: &Key,
        _: ValueClass,
        _: &mut dyn FnMut(Record<&V>),
    ) -> Option<Result<()>> {
        Some(Ok(()))
    }

    fn is_in_process(&self) -> bool {
        true
    }

    fn capabilities(&self) -> Capabilities<'_, V> {
        Capabilities::none().with_clear(self)
    }

    fn description(&self) -> String {
        self.description.to_owned()
    }
}

impl<V> Clear for NoStorage<V> {
    fn clear(&self) -> Result<()> {
        Ok(())
    }
}

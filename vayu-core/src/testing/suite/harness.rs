//! A backend under test.

use std::sync::Arc;
use std::time::Duration;

use super::{MINUTE, SCHEMA};
use crate::backend::Backend;
use crate::clock::Clock;
use crate::key::Key;
use crate::record::Record;
use crate::serializer::Serializer;
use crate::sync::block_on;
use crate::testing::ManualClock;

/// The methods through which a property is checked: sync or async.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Through `read`, `write`, `delete` and `clear`.
    Sync,
    /// Through the async versions of these.
    Async,
}

/// A backend under test.
#[derive(Debug)]
pub struct Harness<B, S> {
    pub(super) backend: Arc<B>,
    pub(super) clock: ManualClock,
    pub(super) serializer: S,
    pub(super) mode: Mode,
}

/// Opens a backend.
pub fn open<G, B>(clock: &ManualClock, open: impl FnOnce(ManualClock) -> (G, B)) -> (G, B) {
    open(clock.clone())
}

/// Returns the backend itself.
pub fn plain<B: Backend>(backend: B) -> B {
    backend
}

/// Returns the backend as a trait object.
pub fn erased<B: Backend>(backend: B) -> Arc<dyn Backend<Stored = B::Stored>> {
    Arc::new(backend)
}

impl<B, S> Harness<B, S>
where
    B: Backend,
    S: Serializer<Vec<u8>, Stored = B::Stored> + Clone,
{
    /// Creates a harness for a backend that uses this clock.
    pub fn new(backend: B, clock: ManualClock, serializer: S, mode: Mode) -> Self {
        Self { backend: Arc::new(backend), clock, serializer, mode }
    }

    pub(super) fn record(&self, value: &[u8]) -> Record<B::Stored> {
        let stored = self.serializer.serialize(&value.to_vec()).expect("bytes can be encoded");
        let created = self.clock.now();
        Record::new(stored, created, created.saturating_add(MINUTE))
            .with_schema(SCHEMA)
            .with_compute_time(Duration::from_secs(2))
            .with_serializer(self.serializer.id())
    }

    pub(super) fn write(&self, key: &Key, value: &[u8]) {
        self.write_record(key, self.record(value));
    }

    pub(super) fn write_record(&self, key: &Key, record: Record<B::Stored>) {
        match self.mode {
            Mode::Sync => self.backend.write(key, record),
            Mode::Async => block_on(self.backend.write_async(key, record)),
        }
        .expect("write");
    }

    pub(super) fn read_record(&self, key: &Key) -> Option<Record<B::Stored>> {
        match self.mode {
            Mode::Sync => self.backend.read(key),
            Mode::Async => block_on(self.backend.read_async(key)),
        }
        .expect("read")
    }

    pub(super) fn read(&self, key: &Key) -> Option<Vec<u8>> {
        let record = self.read_record(key)?;
        Some(self.serializer.deserialize(record.value()).expect("what was written can be decoded"))
    }

    pub(super) fn delete(&self, key: &Key) -> bool {
        match self.mode {
            Mode::Sync => self.backend.delete(key),
            Mode::Async => block_on(self.backend.delete_async(key)),
        }
        .expect("delete")
    }
}

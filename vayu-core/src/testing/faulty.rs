//! A backend that is wrong on request.

use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::backend::{Backend, Claim, Claimed, Offline, ReleaseLease, Usage};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::group::Generations;
use crate::key::Key;
use crate::record::Record;

/// A way in which a backend can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Reads answer an error.
    ReadFails,
    /// Reads panic.
    ReadPanics,
    /// Writes answer an error.
    WriteFails,
    /// Writes panic.
    WritePanics,
    /// Deletes answer an error.
    DeleteFails,
    /// Writes are acknowledged and forgotten.
    WriteIsLost,
    /// The first write of a key stays for ever.
    FirstWriteStays,
    /// Deletes are acknowledged and nothing happens.
    DeleteIsLost,
    /// Deletes always say that there was something.
    DeleteLies,
    /// Keys are cut after 200 bytes, as a file name would be.
    KeysAreCut,
    /// Keys end at the first NUL, as a C string would.
    KeysEndAtNul,
    /// Keys of different case are one, as on some file systems.
    KeysFoldCase,
    /// The prefix and the rest of a key are joined with a colon.
    KeysAreJoined,
    /// The times of a record are lost.
    TimesAreLost,
    /// The schema and the serializer of a record are lost.
    StampsAreLost,
    /// Records are gone as soon as they have expired, even if they may be served stale.
    StaleIsDropped,
    /// Async reads find nothing.
    AsyncReadIsBlind,
    /// Clearing does nothing.
    ClearIsLost,
    /// Leases cannot be given back, and say so.
    LeaseStays,
}

/// A backend with a [`Fault`] that can be switched on and off.
#[derive(Debug, Clone)]
pub struct FaultyBackend<B> {
    inner: B,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl<B: Backend> FaultyBackend<B> {
    /// A backend without fault, for now.
    pub fn new(inner: B) -> Self {
        Self { inner, fault: Arc::default() }
    }

    /// Has this fault from now on, or none.
    pub fn set_fault(&self, fault: impl Into<Option<Fault>>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault.into();
    }

    fn has(&self, fault: Fault) -> bool {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) == Some(fault)
    }

    fn key(&self, key: &Key) -> Key {
        let (prefix, material) = (key.prefix().to_string(), key.material());
        let mut text = String::from_utf8_lossy(material).into_owned();
        if self.has(Fault::KeysAreCut) {
            text = text.chars().take(200).collect();
        } else if self.has(Fault::KeysEndAtNul) {
            text.truncate(text.find('\0').unwrap_or(text.len()));
        } else if self.has(Fault::KeysFoldCase) {
            text = text.to_lowercase();
        } else if self.has(Fault::KeysAreJoined) {
            // The first byte of the material says that a text follows.
            return Key::from_text("", format!("{prefix}:{}", text.get(1..).unwrap_or_default()));
        } else {
            return key.clone();
        }
        Key::from_text(prefix, text)
    }

    fn after_read(&self, found: Option<Record<B::Stored>>) -> Option<Record<B::Stored>> {
        let record = found?;
        if self.has(Fault::StaleIsDropped) && self.clock().now() >= record.expires() {
            return None;
        }
        Some(record)
    }

    fn before_write(&self, record: Record<B::Stored>) -> Record<B::Stored> {
        if self.has(Fault::TimesAreLost) {
            let (schema, serializer) = (record.schema(), record.serializer());
            return Record::new(record.into_value(), self.clock().now(), crate::Timestamp::NEVER)
                .with_schema(schema)
                .with_serializer(serializer);
        }
        if self.has(Fault::StampsAreLost) {
            return record.with_schema(0).with_serializer(crate::SerializerId::default());
        }
        record
    }

    fn after_claim(&self, claim: Claim) -> Claim {
        match claim {
            Claim::Granted(lease) if self.has(Fault::LeaseStays) => {
                Claim::Granted(Claimed::with_release(Stays { _lease: ManuallyDrop::new(lease) }))
            }
            claim => claim,
        }
    }

    fn fails(operation: &'static str) -> Error {
        Error::new(ErrorKind::Backend, operation)
    }
}

/// A lease that cannot be given back.
struct Stays {
    _lease: ManuallyDrop<Claimed>,
}

impl ReleaseLease for Stays {
    fn release(self: Box<Self>) -> Result<()> {
        Err(Error::new(ErrorKind::Backend, "planned failure of a release"))
    }
}

#[async_trait]
impl<B: Backend> Backend for FaultyBackend<B> {
    type Stored = B::Stored;

    fn read(&self, key: &Key) -> Result<Option<Record<B::Stored>>> {
        assert!(!self.has(Fault::ReadPanics), "planned panic of a read");
        if self.has(Fault::ReadFails) {
            return Err(Self::fails("planned failure of a read"));
        }
        Ok(self.after_read(self.inner.read(&self.key(key))?))
    }

    fn write(&self, key: &Key, record: Record<B::Stored>) -> Result<()> {
        assert!(!self.has(Fault::WritePanics), "planned panic of a write");
        if self.has(Fault::WriteFails) {
            return Err(Self::fails("planned failure of a write"));
        }
        let key = self.key(key);
        let is_lost = self.has(Fault::WriteIsLost)
            || (self.has(Fault::FirstWriteStays) && self.inner.read(&key)?.is_some());
        if is_lost { Ok(()) } else { self.inner.write(&key, self.before_write(record)) }
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        if self.has(Fault::DeleteFails) {
            return Err(Self::fails("planned failure of a delete"));
        }
        if self.has(Fault::DeleteIsLost) {
            return Ok(self.inner.read(&self.key(key))?.is_some());
        }
        Ok(self.inner.delete(&self.key(key))? || self.has(Fault::DeleteLies))
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<B::Stored>>> {
        if self.has(Fault::AsyncReadIsBlind) { Ok(None) } else { self.read(key) }
    }

    async fn write_async(&self, key: &Key, record: Record<B::Stored>) -> Result<()> {
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }

    fn try_claim(&self, key: &Key) -> Result<Claim> {
        Ok(self.after_claim(self.inner.try_claim(&self.key(key))?))
    }

    async fn try_claim_async(&self, key: &Key) -> Result<Claim> {
        let claim = self.inner.try_claim_async(&self.key(key)).await?;
        Ok(self.after_claim(claim))
    }

    fn clear(&self) -> Result<()> {
        if self.has(Fault::ClearIsLost) { Ok(()) } else { self.inner.clear() }
    }

    fn generations(&self) -> Option<&dyn Generations> {
        self.inner.generations()
    }

    fn offline(&self) -> Option<&dyn Offline<Stored = B::Stored>> {
        self.inner.offline()
    }

    fn usage(&self) -> Usage {
        self.inner.usage()
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }
}

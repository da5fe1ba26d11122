//! Descriptions of entries.

use std::time::Duration;

use super::EncodedEntry;
use crate::clock::Timestamp;
use crate::record::Record;
use crate::serializer::SerializerId;

/// The maximum length of a rendered call in bytes.
const CALL_LENGTH: usize = 1024;

/// A description of an entry, without its value, for listings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryDetails {
    function: Option<String>,
    key: Option<String>,
    digest: Option<[u8; 32]>,
    call: Option<String>,
    label: Option<String>,
    created: Timestamp,
    expires: Timestamp,
    stale_until: Timestamp,
    schema: u64,
    serializer: SerializerId,
    compute_time: Duration,
}

impl EntryDetails {
    /// Describes an entry.
    pub fn of(entry: &EncodedEntry<'_>) -> Self {
        let header = entry.header();
        Self {
            function: entry.function().map(str::to_owned),
            key: entry.key_text(),
            digest: entry.key_digest(),
            call: entry.call(CALL_LENGTH),
            label: entry.label().map(str::to_owned),
            created: header.created(),
            expires: header.expires(),
            stale_until: header.stale_until(),
            schema: header.schema(),
            serializer: header.serializer(),
            compute_time: header.compute_time(),
        }
    }

    /// Returns the path of its function, or the prefix that replaces it. `None` if that is longer than
    /// 64 KiB.
    pub fn function(&self) -> Option<&str> {
        self.function.as_deref()
    }

    /// Returns its key as [`Key`](crate::Key) displays it: the function, and the string key or the SHA-256
    /// of the key.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the SHA-256 of its key, which is the name of the entry.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.digest
    }

    /// Returns its call for people, up to 1 KiB: see [`EncodedEntry::call`].
    pub fn call(&self) -> Option<&str> {
        self.call.as_deref()
    }

    /// Returns the label that its call was given.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Returns when its value was computed.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Returns the first instant at which its value is not fresh.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Returns the first instant at which its value is not served stale either.
    pub fn stale_until(&self) -> Timestamp {
        self.stale_until
    }

    /// Returns the record of the entry, without its value.
    pub fn record(&self) -> Record<()> {
        Record::new((), self.created, self.expires)
            .with_stale_until(self.stale_until)
            .with_schema(self.schema)
            .with_serializer(self.serializer)
            .with_compute_time(self.compute_time)
    }

    /// Returns the identifier of the serializer that wrote its value.
    pub fn serializer(&self) -> SerializerId {
        self.serializer
    }

    /// Returns the time that its function took to compute the value; zero if unknown.
    pub fn compute_time(&self) -> Duration {
        self.compute_time
    }
}

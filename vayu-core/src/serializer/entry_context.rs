//! The entry that a value is stored in, for serializers whose stored form depends on it.

use std::fmt;

use crate::clock::Timestamp;
use crate::key::{Key, RecentKeys};
use crate::record::Record;
use crate::serializer::SerializerId;

/// The entry that a value is encoded for or decoded from: its key, its schema stamp, its times and the limit
/// of its size.
///
/// [`Serializer::serialize_for`](crate::Serializer::serialize_for) and its counterparts receive one. The
/// stamp and the times are those that the backend stores, as far as these do not change.
#[derive(Clone, Copy)]
pub struct EntryContext<'a> {
    key: EntryKey<'a>,
    schema: u64,
    serializer: SerializerId,
    created: Timestamp,
    expires: Timestamp,
    stale_until: Timestamp,
    limit: Limit<'a>,
}

/// The key of an entry, or its SHA-256.
#[derive(Clone, Copy)]
enum EntryKey<'a> {
    Key(&'a Key),
    #[cfg(feature = "wire")]
    Digest(&'a [u8; 32]),
}

/// The limit of the size of an entry, or its source.
#[derive(Clone, Copy)]
enum Limit<'a> {
    Known(Option<u64>),
    Lazy(&'a dyn EntryLimit),
}

/// A source of the limit of the size of entries, which is read only by the serializers that need it.
pub(crate) trait EntryLimit {
    /// Returns the limit in bytes, if there is one.
    fn max_entry_bytes(&self) -> Option<u64>;
}

impl<'a> EntryContext<'a> {
    /// Creates the context of a record that is stored for this key.
    #[inline]
    pub fn new<V>(key: &'a Key, record: &Record<V>) -> Self {
        Self::of(EntryKey::Key(key), record)
    }

    /// Creates the context of a record that is stored for the key with this [digest](Key::digest).
    #[cfg(feature = "wire")]
    pub fn of_digest<V>(digest: &'a [u8; 32], record: &Record<V>) -> Self {
        Self::of(EntryKey::Digest(digest), record)
    }

    #[inline]
    fn of<V>(key: EntryKey<'a>, record: &Record<V>) -> Self {
        Self {
            key,
            schema: record.schema(),
            serializer: record.serializer(),
            created: record.created(),
            expires: record.expires(),
            stale_until: record.stale_until(),
            limit: Limit::Known(None),
        }
    }

    /// Sets the limit of the size of an entry in bytes.
    #[must_use]
    pub fn with_max_entry_bytes(mut self, bytes: Option<u64>) -> Self {
        self.limit = Limit::Known(bytes);
        self
    }

    /// Sets the times: of the creation of the record, of the end of its freshness, and of its end.
    #[must_use]
    pub fn with_times(
        self,
        created: Timestamp,
        expires: Timestamp,
        stale_until: Timestamp,
    ) -> Self {
        Self { created, expires, stale_until, ..self }
    }

    #[inline]
    pub(crate) fn with_lazy_limit(mut self, limit: &'a dyn EntryLimit) -> Self {
        self.limit = Limit::Lazy(limit);
        self
    }

    #[inline]
    pub(crate) fn with_schema(mut self, schema: u64) -> Self {
        self.schema = schema;
        self
    }

    /// Returns the [digest](Key::digest) of the key.
    pub fn key_digest(&self) -> [u8; 32] {
        match self.key {
            EntryKey::Key(key) => digest_of(key),
            #[cfg(feature = "wire")]
            EntryKey::Digest(digest) => *digest,
        }
    }

    /// Returns the schema stamp: of the value's type, and of what its validity depends on.
    pub fn schema(&self) -> u64 {
        self.schema
    }

    /// Returns the serializer of the record.
    pub fn serializer(&self) -> SerializerId {
        self.serializer
    }

    /// Returns when the value was computed.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Returns the first instant at which the value is no longer fresh.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Returns the first instant at which the record may not be served stale. For a function with `idle`, whose entries
    /// have an end that moves, [`expires`](Self::expires).
    pub fn stale_until(&self) -> Timestamp {
        self.stale_until
    }

    /// Returns the limit of the size of an entry in bytes, if the backend has one
    /// ([`Usage::max_entry_bytes`](crate::Usage::max_entry_bytes)).
    pub fn max_entry_bytes(&self) -> Option<u64> {
        match self.limit {
            Limit::Known(bytes) => bytes,
            Limit::Lazy(limit) => limit.max_entry_bytes(),
        }
    }
}

impl fmt::Debug for EntryContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryContext")
            .field("schema", &self.schema)
            .field("serializer", &self.serializer)
            .field("created", &self.created)
            .field("expires", &self.expires)
            .field("stale_until", &self.stale_until)
            .finish_non_exhaustive()
    }
}

/// Returns the digest of a key. To compute it takes a part of the time to open a sealed value.
fn digest_of(key: &Key) -> [u8; 32] {
    thread_local! {
        static DIGESTS: RecentKeys<[u8; 32]> = const { RecentKeys::new() };
    }
    RecentKeys::of(&DIGESTS, key, Key::digest)
}

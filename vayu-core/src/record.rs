//! What is stored for a key.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::serializer::SerializerId;
use crate::took::Took;

/// What a backend keeps for one key: the value in its stored form, and what the engine must know
/// to decide whether that value may be served.
///
/// A backend stores a record whole and gives it back unchanged. It may drop one at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record<V> {
    value: V,
    created: Timestamp,
    expires: Timestamp,
    stale_until: Timestamp,
    schema: u64,
    serializer: SerializerId,
    took: Took,
    weight: u32,
}

impl<V> Record<V> {
    /// A record of `value` that was created at `created` and is fresh until just before `expires`.
    ///
    /// It is not served stale, and its schema stamp and serializer are zero.
    pub fn new(value: V, created: Timestamp, expires: Timestamp) -> Self {
        let serializer = SerializerId::default();
        let took = Took::default();
        let (stale_until, schema, weight) = (expires, 0, 0);
        Self { value, created, expires, stale_until, schema, serializer, took, weight }
    }

    /// The same record with the instant until which it may be served after it has expired.
    #[must_use]
    pub fn with_stale_until(mut self, stale_until: Timestamp) -> Self {
        self.stale_until = stale_until.max(self.expires);
        self
    }

    /// The same record with the stamp of the value's type and of the `version` of its meaning.
    #[must_use]
    pub fn with_schema(mut self, schema: u64) -> Self {
        self.schema = schema;
        self
    }

    /// The same record with the number of the serializer that made the value's stored form.
    #[must_use]
    pub fn with_serializer(mut self, serializer: SerializerId) -> Self {
        self.serializer = serializer;
        self
    }

    /// The same record with the time that the function ran for the value, of which about four
    /// digits are kept.
    #[must_use]
    pub fn with_took(mut self, took: Duration) -> Self {
        self.took = Took::new(took);
        self
    }

    /// The same record with what it weighs in a backend that has a limit by weight.
    #[inline]
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// The value in its stored form.
    pub fn value(&self) -> &V {
        &self.value
    }

    #[inline]
    pub(crate) fn value_mut(&mut self) -> &mut V {
        &mut self.value
    }

    /// When the value was computed, by the clock of the backend.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// The first instant at which the value is no longer fresh.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The first instant at which a backend may forget the record. Never before [`expires`].
    ///
    /// [`expires`]: Self::expires
    pub fn stale_until(&self) -> Timestamp {
        self.stale_until
    }

    /// The time for which the value may be served after it has expired.
    pub fn stale_for(&self) -> Duration {
        self.stale_until.saturating_since(self.expires)
    }

    /// The stamp of the value's type and of the `version` of its meaning.
    pub fn schema(&self) -> u64 {
        self.schema
    }

    /// The number of the serializer that made the value's stored form.
    pub fn serializer(&self) -> SerializerId {
        self.serializer
    }

    /// How long the function ran for the value; zero where nobody knows.
    pub fn took(&self) -> Duration {
        self.took.time()
    }

    /// What the record weighs; zero where nobody has said so.
    #[inline]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    #[inline]
    pub(crate) fn brief_took(&self) -> Took {
        self.took
    }

    /// The same record with another form of its value.
    #[inline]
    pub fn map<W>(self, form: impl FnOnce(V) -> W) -> Record<W> {
        Record {
            value: form(self.value),
            created: self.created,
            expires: self.expires,
            stale_until: self.stale_until,
            schema: self.schema,
            serializer: self.serializer,
            took: self.took,
            weight: self.weight,
        }
    }

    /// The record taken apart: only the value is left.
    pub fn into_value(self) -> V {
        self.value
    }
}

//! Records: what a backend stores for a key.

mod packed;

use std::time::Duration;

use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::freshness::CLOCK_SKEW;
use crate::serializer::SerializerId;

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
    compute_time: CompactDuration,
    weight: u32,
}

impl<V> Record<V> {
    /// A record of `value` that was created at `created` and is fresh until just before `expires`.
    ///
    /// It is not served stale, and its schema stamp and serializer are zero.
    pub fn new(value: V, created: Timestamp, expires: Timestamp) -> Self {
        let serializer = SerializerId::default();
        let compute_time = CompactDuration::default();
        let (stale_until, schema, weight) = (expires, 0, 0);
        Self { value, created, expires, stale_until, schema, serializer, compute_time, weight }
    }

    /// The same record with the instant until which it may be served after it has expired.
    #[must_use]
    pub fn with_stale_until(mut self, stale_until: Timestamp) -> Self {
        self.stale_until = stale_until.max(self.expires);
        self
    }

    /// Returns the same record with other times: of its creation, of the end of its freshness, and of
    /// its end.
    #[must_use]
    pub fn with_times(
        mut self,
        created: Timestamp,
        expires: Timestamp,
        stale_until: Timestamp,
    ) -> Self {
        (self.created, self.expires) = (created, expires);
        self.stale_until = stale_until.max(expires);
        self
    }

    /// Returns the record as a machine takes it that has read it at `now`, by its own clock. Where the
    /// clock of the machine that wrote it is ahead, the record was created in the future: it is taken
    /// as created now, and lives for its ttl from now on. One that no caller would be served, as it is
    /// too far in the future, stays as it is.
    #[must_use]
    pub fn as_read_at(self, now: Timestamp) -> Self {
        let created = self.created;
        if created <= now || created > now.saturating_add(CLOCK_SKEW) {
            return self;
        }
        let from_now = |end: Timestamp| match end {
            Timestamp::NEVER => end,
            end => now.saturating_add(end.saturating_since(created)),
        };
        let (expires, stale_until) = (from_now(self.expires), from_now(self.stale_until));
        self.with_times(now, expires, stale_until)
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
    pub fn with_compute_time(mut self, compute_time: Duration) -> Self {
        self.compute_time = CompactDuration::new(compute_time);
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
    pub fn compute_time(&self) -> Duration {
        self.compute_time.time()
    }

    /// What the record weighs; zero where nobody has said so.
    #[inline]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    #[inline]
    pub(crate) fn compact_compute_time(&self) -> CompactDuration {
        self.compute_time
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
            compute_time: self.compute_time,
            weight: self.weight,
        }
    }

    /// The record taken apart: only the value is left.
    pub fn into_value(self) -> V {
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_a_clock_that_is_ahead_lives_for_its_ttl_from_when_it_was_read() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let record = |created, expires, end| {
            Record::new('v', at(created), at(expires)).with_stale_until(at(end)).with_schema(7)
        };
        assert_eq!(record(240, 300, 330).as_read_at(at(0)), record(0, 60, 90));
        assert_eq!(record(300, 360, 360).as_read_at(at(0)), record(0, 60, 60));
        for now in [240, 250, 1000] {
            assert_eq!(record(240, 300, 330).as_read_at(at(now)), record(240, 300, 330));
        }
        let backing = record(301, 361, 361);
        assert_eq!(backing.clone().as_read_at(at(0)), backing, "it is not served at all");
        let endless = Record::new('v', at(9), Timestamp::NEVER).as_read_at(at(0));
        assert_eq!(endless, Record::new('v', at(0), Timestamp::NEVER));
    }
}

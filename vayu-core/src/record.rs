//! Records: what a backend stores for a key.

mod packed;

use std::time::Duration;

use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::freshness::CLOCK_SKEW;
use crate::serializer::SerializerId;

/// The record of one key: the value in its stored form, and the data from which the engine decides
/// whether that value may be served.
///
/// A backend stores a record whole and returns it unchanged. It may drop one at any time.
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
    /// Creates a record of `value` that was created at `created` and is fresh until just before
    /// `expires`.
    ///
    /// It is not served stale, and its schema stamp and serializer are zero.
    pub fn new(value: V, created: Timestamp, expires: Timestamp) -> Self {
        let serializer = SerializerId::default();
        let compute_time = CompactDuration::default();
        let (stale_until, schema, weight) = (expires, 0, 0);
        Self { value, created, expires, stale_until, schema, serializer, compute_time, weight }
    }

    /// Sets the instant until which the record may be served after it has expired.
    #[must_use]
    pub fn with_stale_until(mut self, stale_until: Timestamp) -> Self {
        self.stale_until = stale_until.max(self.expires);
        self
    }

    /// Sets the end of the record. In a function with an idle time it may be before the end of the freshness.
    #[must_use]
    pub(crate) fn with_end(mut self, end: Timestamp) -> Self {
        self.stale_until = end;
        self
    }

    /// Sets the times of the record: of its creation, of the end of its freshness, and of its end.
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

    /// Corrects the times of a record that was read at `now`, by the clock of the reading machine. If the
    /// clock of the machine that wrote it is ahead, the record was created in the future: it counts as
    /// created now, and lives for its ttl from now on. A record too far in the future is not served and
    /// stays unchanged.
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

    /// Sets the schema stamp: of the value's type, and of what its validity depends on.
    #[must_use]
    pub fn with_schema(mut self, schema: u64) -> Self {
        self.schema = schema;
        self
    }

    /// Sets the serializer of the value's stored form.
    #[must_use]
    pub fn with_serializer(mut self, serializer: SerializerId) -> Self {
        self.serializer = serializer;
        self
    }

    /// Sets the time that the function took to compute the value, with about four digits.
    #[must_use]
    pub fn with_compute_time(mut self, compute_time: Duration) -> Self {
        self.compute_time = CompactDuration::new(compute_time);
        self
    }

    /// Sets the time that the function took to compute the value.
    #[inline]
    #[must_use]
    pub(crate) fn with_compact_compute_time(mut self, compute_time: CompactDuration) -> Self {
        self.compute_time = compute_time;
        self
    }

    /// Sets the weight in a backend that has a limit by weight.
    #[inline]
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Returns a record of a reference to the value.
    #[inline]
    pub fn as_ref(&self) -> Record<&V> {
        Record {
            value: &self.value,
            created: self.created,
            expires: self.expires,
            stale_until: self.stale_until,
            schema: self.schema,
            serializer: self.serializer,
            compute_time: self.compute_time,
            weight: self.weight,
        }
    }

    /// Returns the value in its stored form.
    #[inline]
    pub fn value(&self) -> &V {
        &self.value
    }

    #[inline]
    pub(crate) fn value_mut(&mut self) -> &mut V {
        &mut self.value
    }

    /// Returns when the value was computed, by the clock of the backend.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Returns the first instant at which the value is no longer fresh.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Returns the first instant at which a backend may remove the record. Never before [`expires`], except for an entry
    /// in memory with an idle time: it ends when it was not used for that time.
    ///
    /// [`expires`]: Self::expires
    pub fn stale_until(&self) -> Timestamp {
        self.stale_until
    }

    /// Returns the first instant at which the value is no longer fresh, or was not used for its idle time.
    #[inline]
    pub(crate) fn fresh_until(&self) -> Timestamp {
        self.expires.min(self.stale_until)
    }

    /// Returns the time for which the value may be served after it has expired.
    pub fn stale_for(&self) -> Duration {
        self.stale_until.saturating_since(self.expires)
    }

    /// Returns the schema stamp.
    pub fn schema(&self) -> u64 {
        self.schema
    }

    /// Returns the serializer of the value's stored form.
    pub fn serializer(&self) -> SerializerId {
        self.serializer
    }

    /// Returns the time that the function took to compute the value; zero if unknown.
    pub fn compute_time(&self) -> Duration {
        self.compute_time.time()
    }

    /// Returns the weight; zero if it was not set.
    #[inline]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    #[inline]
    pub(crate) fn compact_compute_time(&self) -> CompactDuration {
        self.compute_time
    }

    /// Converts the value to another form.
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

    /// Returns the value alone.
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

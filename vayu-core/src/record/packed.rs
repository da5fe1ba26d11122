//! Records as words.

use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::record::Record;
use crate::serializer::SerializerId;

impl<V> Record<V> {
    /// Returns everything but the value as words.
    #[inline]
    pub(crate) fn to_words(&self) -> [u64; 5] {
        let small = u64::from(self.serializer.0)
            | u64::from(self.compute_time.to_bits()) << 16
            | u64::from(self.weight) << 32;
        let [created, expires, stale_until] = [self.created, self.expires, self.stale_until]
            .map(|time| time.as_micros().cast_unsigned());
        [created, expires, stale_until, self.schema, small]
    }

    /// Creates the record of a value from the words of [`to_words`](Self::to_words).
    #[inline(always)]
    pub(crate) fn from_words(words: [u64; 5], value: V) -> Self {
        let [created, expires, stale_until, schema, small] = words;
        let [created, expires, stale_until] =
            [created, expires, stale_until].map(|time| Timestamp::from_micros(time.cast_signed()));
        #[expect(clippy::cast_possible_truncation, reason = "each is a part of the word")]
        let (serializer, compute_time, weight) =
            (small as u16, (small >> 16) as u16, (small >> 32) as u32);
        let (serializer, compute_time) =
            (SerializerId(serializer), CompactDuration::from_bits(compute_time));
        Self { value, created, expires, stale_until, schema, serializer, compute_time, weight }
    }

    /// Returns everything but the value as three words and two bytes, where that is possible: the value
    /// is stored by reference, is not served stale and has no weight.
    #[inline]
    pub(crate) fn pack_small(&self) -> Option<([u64; 3], u16)> {
        let is_simple = self.stale_until == self.expires
            && self.serializer == SerializerId::BY_REFERENCE
            && self.weight == 0;
        let [created, expires] =
            [self.created, self.expires].map(|time| time.as_micros().cast_unsigned());
        is_simple.then_some(([created, expires, self.schema], self.compute_time.to_bits()))
    }

    /// Creates the record of a value from what [`pack_small`](Self::pack_small) returned.
    #[inline(always)]
    pub(crate) fn unpack_small(
        ([created, expires, schema], compute_time): ([u64; 3], u16),
        value: V,
    ) -> Self {
        let [created, expires] =
            [created, expires].map(|time| Timestamp::from_micros(time.cast_signed()));
        Self {
            value,
            created,
            expires,
            stale_until: expires,
            schema,
            serializer: SerializerId::BY_REFERENCE,
            compute_time: CompactDuration::from_bits(compute_time),
            weight: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn record_comes_back_from_its_words() {
        let [created, expires, later] = [-1, 2, i64::MAX].map(Timestamp::from_micros);
        let plain = Record::new('v', created, expires).with_schema(u64::MAX);
        let records = [
            plain.clone(),
            plain.clone().with_compute_time(Duration::from_millis(77)),
            plain.clone().with_stale_until(later),
            plain.clone().with_serializer(SerializerId::user(5)),
            plain.clone().with_weight(u32::MAX),
        ];
        for (n, record) in records.into_iter().enumerate() {
            assert_eq!(Record::from_words(record.to_words(), 'v'), record);
            let few = record.pack_small();
            assert_eq!(few.is_some(), n < 2, "{record:?}");
            if let Some(words) = few {
                assert_eq!(Record::unpack_small(words, 'v'), record);
            }
        }
    }
}

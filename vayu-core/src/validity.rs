//! Validity of records: flags in the schema stamp for what it depends on besides the type.
//!
//! The schema stamp of a record is the sum of three numbers: a stamp of the type, the generations of its
//! groups (whose lowest 16 bits are zero) and the flags. A reader that knows the type finds the flags in
//! the lowest 16 bits of the difference, whatever the generations are. So a record carries the rules of
//! its validity through every backend, and a hit compares one number.

use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::record::Record;
use crate::serializer::SerializerId;

/// Flags of what the validity of a record depends on. The default is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct SchemaFlags(u16);

/// The number of bits of the flags.
pub(crate) const BITS: u32 = u16::BITS;

impl SchemaFlags {
    const NONE: Self = Self(0);
    /// The record has tags.
    pub(crate) const TAGS: Self = Self(SIGNATURE | 1);
    /// The function names a serializer of its own.
    pub(crate) const SERIALIZER: Self = Self(SIGNATURE | 2);
    /// The function has an idle time, by which the end of the record changes.
    pub(crate) const IDLE: Self = Self(SIGNATURE | 4);

    /// Returns the flags of an entry that is stored by this key, without a function.
    #[inline]
    pub(crate) fn of_key(key: &Key) -> Self {
        if key.tags().is_empty() { Self::NONE } else { Self::TAGS }
    }

    #[inline(always)]
    pub(crate) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn has_tags(self) -> bool {
        self.has(Self::TAGS)
    }

    pub(crate) fn has_idle_time(self) -> bool {
        self.has(Self::IDLE)
    }

    /// Returns the flags of a record of a type with this stamp, or `None` for one of another type.
    #[inline]
    pub(crate) fn of_record<V>(record: &Record<V>, type_stamp: u64) -> Option<Self> {
        Self::from_difference(record.schema().wrapping_sub(type_stamp))
    }

    fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[inline(always)]
    pub(crate) const fn to_bits(self) -> u64 {
        self.0 as u64
    }

    /// Returns the flags if the number consists of valid flags and nothing else.
    #[inline]
    fn from_bits(number: u64) -> Option<Self> {
        let flags = Self(u16::try_from(number).ok()?);
        (flags == Self::NONE || flags.0 & SIGNATURE == SIGNATURE && flags.0 & !SIGNATURE < 8)
            .then_some(flags)
    }

    /// Returns the flags of a record from the difference of its schema stamp and the stamp of its type, or
    /// `None` for a record of another type.
    #[inline]
    fn from_difference(difference: u64) -> Option<Self> {
        Self::from_bits(difference & ((1 << BITS) - 1))
    }
}

/// The bits that distinguish flags from the low bits of stamps of other types.
const SIGNATURE: u16 = 0b1011_0110_0101_1000;

/// Returns the stamp of a call whose generations could not be read, one for each number of invalidations up to 2^48. Not
/// zero, the stamp of a call of which nothing was ever invalidated. Its lowest bits make up no flags, so no record is valid
/// for it: the sum of a stamp and of flags is never that of this stamp and of other flags.
pub(crate) fn unknown_stamp(invalidations: u64) -> u64 {
    invalidations << BITS | UNKNOWN
}

/// Returns whether a stamp is that of a call whose generations could not be read.
#[inline]
pub(crate) fn is_unknown(stamp: u64) -> bool {
    stamp & UNKNOWN != 0
}

/// The lowest bits of the stamps of such calls. Those of other stamps are zero.
const UNKNOWN: u64 = 1 << 15;

/// The validity of a record for a reader.
pub(crate) enum Validity {
    /// It is valid by the rules of the reader.
    Valid,
    /// It is outdated, or of another type.
    Invalid,
    /// Its validity depends on rules that the reader does not know.
    Incompatible(Error),
}

/// The difference between a record that is not valid and the rules of a reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// It was encoded by another serializer.
    Serializer,
    /// Its value is of another type.
    Type,
    /// It was stored under this stamp of the generations.
    Stamp(u64),
}

/// The rules of a reader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validator {
    pub(crate) serializer: SerializerId,
    /// The stamp of the type.
    pub(crate) type_stamp: u64,
    /// The stamp of the generations.
    pub(crate) stamp: u64,
    pub(crate) flags: SchemaFlags,
}

impl Validator {
    /// Returns the schema stamp of records that are stored by these rules.
    #[inline]
    pub(crate) fn schema(&self) -> u64 {
        self.type_stamp.wrapping_add(self.flags.to_bits()).wrapping_add(self.stamp)
    }

    /// Returns the validity of a record. A record without tags is valid for a reader with tags while none
    /// of these was ever invalidated: then the generations are the same.
    #[cold]
    pub(crate) fn validate<V>(&self, record: &Record<V>) -> Validity {
        let difference = record.schema().wrapping_sub(self.type_stamp);
        if record.serializer() != self.serializer {
            return match SchemaFlags::from_difference(difference) {
                Some(flags) if flags.has_tags() && !self.flags.has_tags() => {
                    Validity::Incompatible(needs_tags())
                }
                Some(flags) if flags.has(SchemaFlags::SERIALIZER) => {
                    Validity::Incompatible(needs_serializer())
                }
                _ => Validity::Invalid,
            };
        }
        let accepts = |flags: SchemaFlags| self.flags.has_tags() || !flags.has_tags();
        if SchemaFlags::from_bits(difference.wrapping_sub(self.stamp)).is_some_and(accepts) {
            return Validity::Valid;
        }
        match SchemaFlags::from_difference(difference) {
            Some(flags) if !accepts(flags) => Validity::Incompatible(needs_tags()),
            _ => Validity::Invalid,
        }
    }

    /// Returns whether a record was stored by a function with an idle time.
    #[cold]
    pub(crate) fn has_idle_time<V>(&self, record: &Record<V>) -> bool {
        SchemaFlags::of_record(record, self.type_stamp).is_some_and(SchemaFlags::has_idle_time)
    }

    /// Returns the difference to a record, or `None` if it is valid.
    #[cold]
    pub(crate) fn mismatch<V>(&self, record: &Record<V>) -> Option<Mismatch> {
        if let Validity::Valid = self.validate(record) {
            return None;
        }
        if record.serializer() != self.serializer {
            return Some(Mismatch::Serializer);
        }
        let difference = record.schema().wrapping_sub(self.type_stamp);
        Some(match SchemaFlags::from_difference(difference) {
            Some(flags) => Mismatch::Stamp(difference.wrapping_sub(flags.to_bits())),
            None => Mismatch::Type,
        })
    }

    /// Returns the error of replacing a record by one with these rules, if the function that stored it
    /// would then ignore the new one.
    pub(crate) fn replacement_error<V>(&self, record: &Record<V>) -> Option<Error> {
        let flags = SchemaFlags::from_difference(record.schema().wrapping_sub(self.type_stamp))?;
        if flags.has_tags() && !self.flags.has_tags() {
            return Some(needs_tags());
        }
        (flags.has(SchemaFlags::SERIALIZER) && record.serializer() != self.serializer)
            .then(needs_serializer)
    }
}

pub(crate) fn needs_tags() -> Error {
    refusal(
        "the entries of this function have tags: give them to the key with `Key::with_tags`, or take the \
             key from the handle of the function",
    )
}

pub(crate) fn needs_no_tags() -> Error {
    refusal("the entries of this function have no tags: use a key without them")
}

pub(crate) fn needs_version() -> Error {
    refusal(
        "the entries of this function have a version: give it to the key with `Key::with_version`, or \
             take the key from the handle of the function",
    )
}

pub(crate) fn needs_no_version() -> Error {
    refusal("the entries of this function have no version: use a key without one")
}

pub(crate) fn needs_serializer() -> Error {
    refusal(
        "the entry was stored with another serializer: choose that with `Cache::with_serializer`",
    )
}

pub(crate) fn needs_type() -> Error {
    refusal("the entries of this function hold values of another type")
}

fn refusal(message: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn no_record_is_valid_for_a_call_whose_generations_are_unknown() {
        let all_flags = || {
            let bits = (0..8).map(|bits| SchemaFlags(SIGNATURE | bits));
            std::iter::once(SchemaFlags::NONE).chain(bits)
        };
        let serializer = SerializerId::default();
        for (flags, of_record) in all_flags().flat_map(|one| all_flags().map(move |two| (one, two)))
        {
            for stamp in [0, 1 << BITS, 7 << BITS, u64::MAX << BITS] {
                let writer = Validator { serializer, type_stamp: 99, stamp, flags: of_record };
                let record = Record::new((), Timestamp::from_micros(0), Timestamp::NEVER);
                let record = record.with_schema(writer.schema());
                let unknown = unknown_stamp(7);
                let reader = Validator { serializer, type_stamp: 99, stamp: unknown, flags };
                assert_ne!(reader.schema(), record.schema());
                assert!(
                    !matches!(reader.validate(&record), Validity::Valid),
                    "{flags:?} {of_record:?}"
                );
            }
        }
    }
}

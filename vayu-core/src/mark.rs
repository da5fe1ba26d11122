//! What the validity of a record depends on besides its type, written into its schema stamp.
//!
//! The schema stamp of a record is the sum of three numbers: a stamp of the type, the generations of its
//! groups (whose lowest 16 bits are zero) and a mark. A reader that knows the type finds the mark in the
//! lowest 16 bits of the difference, whatever the generations are. So a record says through every
//! backend by which rules it is to be judged, and a hit compares one number.

use crate::error::{Error, ErrorKind};
use crate::key::Key;
use crate::record::Record;
use crate::serializer::SerializerId;

/// What the validity of a record depends on. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Mark(u16);

/// How many bits a mark has.
pub(crate) const BITS: u32 = u16::BITS;

impl Mark {
    const NONE: Self = Self(0);
    /// The record has tags.
    pub(crate) const TAGS: Self = Self(PATTERN | 1);
    /// The function names a serializer of its own.
    pub(crate) const SERIALIZER: Self = Self(PATTERN | 2);

    /// Returns the mark of what is stored by a key made by hand.
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

    fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[inline(always)]
    pub(crate) const fn to_stamp(self) -> u64 {
        self.0 as u64
    }

    /// Returns the mark that this number is, and is alone.
    fn exact(number: u64) -> Option<Self> {
        let mark = Self(u16::try_from(number).ok()?);
        (mark == Self::NONE || mark.0 & PATTERN == PATTERN && mark.0 & !PATTERN < 4).then_some(mark)
    }

    /// Returns the mark of a record by the difference of its schema stamp and the stamp of its type. There
    /// is none where the record is of another type.
    fn of_difference(difference: u64) -> Option<Self> {
        Self::exact(difference & ((1 << BITS) - 1))
    }
}

/// By this a mark is told from the stamps of other types.
const PATTERN: u16 = 0b1011_0110_0101_1000;

/// How a reader is to judge a record.
pub(crate) enum Judgement {
    /// It is valid by the rules of the reader.
    Valid,
    /// It is outdated, or of another type.
    Invalid,
    /// It is judged by rules that the reader does not know.
    Foreign(Error),
}

/// The rules of a reader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) serializer: SerializerId,
    /// The stamp of the type.
    pub(crate) base: u64,
    /// Made of the generations.
    pub(crate) stamp: u64,
    pub(crate) mark: Mark,
}

impl Rules {
    /// Returns the schema stamp of what is stored by these rules.
    #[inline]
    pub(crate) fn schema(&self) -> u64 {
        self.base.wrapping_add(self.mark.to_stamp()).wrapping_add(self.stamp)
    }

    /// Judges a record. A record without tags is valid for a reader with tags while none of these was
    /// ever invalidated: then the generations are the same.
    #[cold]
    pub(crate) fn judge<V>(&self, record: &Record<V>) -> Judgement {
        let difference = record.schema().wrapping_sub(self.base);
        if record.serializer() != self.serializer {
            return match Mark::of_difference(difference) {
                Some(mark) if mark.has_tags() && !self.mark.has_tags() => {
                    Judgement::Foreign(needs_tags())
                }
                Some(mark) if mark.has(Mark::SERIALIZER) => Judgement::Foreign(needs_serializer()),
                _ => Judgement::Invalid,
            };
        }
        let accepts = |mark: Mark| self.mark.has_tags() || !mark.has_tags();
        if Mark::exact(difference.wrapping_sub(self.stamp)).is_some_and(accepts) {
            return Judgement::Valid;
        }
        match Mark::of_difference(difference) {
            Some(mark) if !accepts(mark) => Judgement::Foreign(needs_tags()),
            _ => Judgement::Invalid,
        }
    }

    /// Returns why a record must not be replaced by one with these rules: the function that stored it would
    /// not see that.
    pub(crate) fn forbids_to_replace<V>(&self, record: &Record<V>) -> Option<Error> {
        let mark = Mark::of_difference(record.schema().wrapping_sub(self.base))?;
        if mark.has_tags() && !self.mark.has_tags() {
            return Some(needs_tags());
        }
        (mark.has(Mark::SERIALIZER) && record.serializer() != self.serializer)
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

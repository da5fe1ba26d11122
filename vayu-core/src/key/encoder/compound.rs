//! Values with parts: sequences, maps, tuples and structs.

use serde::ser::{self, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::{END, ENTRY, EncodeError, Encoder, FIELD};
use crate::key::KeyBytes;

/// Parts that are written in the order of their encoding, not in the order in which they are pushed.
pub(crate) struct SortedParts<'e, 'a> {
    encoder: &'e mut Encoder<'a>,
    tag: u8,
    encoded: Vec<Part>,
    is_recorded: bool,
}

/// An element, or an entry of a map.
struct Part {
    bytes: KeyBytes,
    /// The number of leading bytes to sort by: all of an element, or the key of an entry.
    key: usize,
}

impl Part {
    fn key(&self) -> &[u8] {
        &self.bytes[..self.key]
    }
}

impl<'e, 'a> SortedParts<'e, 'a> {
    /// Creates a list of parts whose order has no meaning.
    pub(super) fn new(tag: u8, encoder: &'e mut Encoder<'a>) -> Self {
        Self { encoder, tag, encoded: Vec::new(), is_recorded: false }
    }

    /// Creates a list of parts whose order is recorded, unless they are those of a hash table.
    pub(super) fn of_unknown_order(tag: u8, encoder: &'e mut Encoder<'a>, is_table: bool) -> Self {
        Self { is_recorded: !is_table, ..Self::new(tag, encoder) }
    }

    pub(super) fn push(
        &mut self,
        encode: impl FnOnce(&mut Encoder<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let mut bytes = KeyBytes::new();
        encode(&mut self.encoder.sub_encoder(&mut bytes))?;
        self.encoded.push(Part { key: bytes.len(), bytes });
        Ok(())
    }

    /// Appends to the part that was pushed last.
    fn extend_last(
        &mut self,
        encode: impl FnOnce(&mut Encoder<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let Some(part) = self.encoded.last_mut() else {
            return Err(ser::Error::custom("a map value came before its key"));
        };
        encode(&mut self.encoder.sub_encoder(&mut part.bytes))
    }

    /// Writes the parts, sorted by key. Parts with equal keys stay in the order in which they were pushed:
    /// a map that has a key twice is a list that is written as a map.
    pub(super) fn finish(mut self) {
        let written = self.order();
        self.encoded.sort_by(|one, other| one.key().cmp(other.key()));
        if let Some(written) = written {
            let sorted = self.order();
            self.encoder.order.record(sorted.unwrap_or_default(), written);
        }
        self.encoder.tag(self.tag);
        for part in &self.encoded {
            self.encoder.tag(ENTRY);
            self.encoder.out.extend_from_slice(&part.bytes);
        }
        self.encoder.tag(END);
    }

    /// Returns a digest of the parts in their current order, if orders are recorded.
    fn order(&self) -> Option<u128> {
        let is_wanted = self.is_recorded && self.encoder.order.is_recorded();
        is_wanted.then(|| {
            let mut digest = Xxh3::new();
            for part in &self.encoded {
                digest.update(&part.bytes.len().to_le_bytes());
                digest.update(&part.bytes);
            }
            digest.digest128()
        })
    }
}

/// Elements of a sequence.
pub(crate) enum Sequence<'e, 'a> {
    Ordered(&'e mut Encoder<'a>),
    Unordered(SortedParts<'e, 'a>),
}

impl ser::SerializeSeq for Sequence<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        match self {
            Self::Ordered(encoder) => encoder.element(value),
            Self::Unordered(parts) => parts.push(|encoder| encoder.nested(value)),
        }
    }

    fn end(self) -> Result<(), EncodeError> {
        match self {
            Self::Ordered(encoder) => encoder.end(),
            Self::Unordered(parts) => parts.finish(),
        }
        Ok(())
    }
}

/// Entries of a map. In keys, equal maps have equal encodings, whatever their order.
pub(crate) enum Map<'e, 'a> {
    Ordered(&'e mut Encoder<'a>),
    Unordered(SortedParts<'e, 'a>),
}

impl ser::SerializeMap for Map<'_, '_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        match self {
            Self::Ordered(encoder) => {
                encoder.tag(ENTRY);
                encoder.nested(key)
            }
            Self::Unordered(parts) => parts.push(|encoder| encoder.nested(key)),
        }
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        match self {
            Self::Ordered(encoder) => encoder.nested(value),
            Self::Unordered(parts) => parts.extend_last(|encoder| encoder.nested(value)),
        }
    }

    fn end(self) -> Result<(), EncodeError> {
        match self {
            Self::Ordered(encoder) => encoder.tag(END),
            Self::Unordered(parts) => parts.finish(),
        }
        Ok(())
    }
}

macro_rules! encode_parts {
    ($($trait:ident::$method:ident($($name:ident: $type:ty)?);)*) => {$(
        impl ser::$trait for &mut Encoder<'_> {
            type Ok = ();
            type Error = EncodeError;

            fn $method<T: Serialize + ?Sized>(
                &mut self,
                $($name: $type,)?
                value: &T,
            ) -> Result<(), EncodeError> {
                $(self.tag_with_name(FIELD, $name);)?
                self.nested(value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.tag(END);
                Ok(())
            }
        }
    )*};
}

encode_parts! {
    SerializeTuple::serialize_element();
    SerializeTupleStruct::serialize_field();
    SerializeTupleVariant::serialize_field();
    SerializeStruct::serialize_field(name: &'static str);
    SerializeStructVariant::serialize_field(name: &'static str);
}

//! The canonical encoding: a serde serializer that never gives two values one form.
//!
//! Every value starts with a tag of its type. What has no fixed length is preceded by its length
//! or, where that is not known in front, ended by [`END`], which is no tag of a value. So no
//! encoding is the beginning of another one, and encodings can be put one after the other.

mod compound;
mod simple;

use std::fmt;

use serde::ser::{self, Serialize};

use self::compound::{Map, Parts, Sequence};
pub(crate) use self::simple::Simple;
use crate::key::Material;

pub(super) const END: u8 = 0;
pub(super) const UNIT: u8 = 1;
pub(super) const TUPLE: u8 = 2;
const BOOL: u8 = 3;
const I8: u8 = 4;
const I16: u8 = 5;
const I32: u8 = 6;
const I64: u8 = 7;
const I128: u8 = 8;
const U8: u8 = 9;
const U16: u8 = 10;
const U32: u8 = 11;
const U64: u8 = 12;
const U128: u8 = 13;
const F32: u8 = 14;
const F64: u8 = 15;
const CHAR: u8 = 16;
const STR: u8 = 17;
const BYTES: u8 = 18;
const NONE: u8 = 19;
const SOME: u8 = 20;
const UNIT_STRUCT: u8 = 21;
const UNIT_VARIANT: u8 = 22;
const NEWTYPE_STRUCT: u8 = 23;
const NEWTYPE_VARIANT: u8 = 24;
const SEQ: u8 = 25;
const TUPLE_STRUCT: u8 = 26;
const TUPLE_VARIANT: u8 = 27;
const MAP: u8 = 28;
const STRUCT: u8 = 29;
const STRUCT_VARIANT: u8 = 30;
const FIELD: u8 = 31;
const ENTRY: u8 = 32;
const SET: u8 = 33;

/// Writes the canonical encoding of values.
pub(crate) struct Encoder<'a> {
    out: &'a mut Material,
    sequences: Sequences,
    depth: usize,
}

/// Values nested deeper than this have no encoding: a stack has an end.
const DEPTH: usize = 128;

/// Whether the order of a sequence has a meaning.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Sequences {
    Ordered,
    /// As in a set: sequences with the same elements have one encoding.
    Unordered,
}

impl<'a> Encoder<'a> {
    #[inline]
    pub(crate) fn new(out: &'a mut Material) -> Self {
        Self::with_sequences(out, Sequences::Ordered)
    }

    pub(crate) fn with_sequences(out: &'a mut Material, sequences: Sequences) -> Self {
        Self { out, sequences, depth: 0 }
    }

    /// Encodes a set: its elements, sorted by their encoding.
    pub(super) fn unordered<'b, T: Serialize + 'b>(
        &mut self,
        elements: impl IntoIterator<Item = &'b T>,
    ) -> Result<(), EncodeError> {
        let mut parts = Parts::new(SET, self);
        for element in elements {
            parts.push(|encoder| encoder.nested(element))?;
        }
        parts.finish();
        Ok(())
    }

    /// Encodes a part of a value.
    fn nested<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), EncodeError> {
        if self.depth == DEPTH {
            return Err(ser::Error::custom("the value is nested too deep"));
        }
        self.depth += 1;
        let result = part.serialize(&mut *self);
        self.depth -= 1;
        result
    }

    #[inline]
    fn tag(&mut self, tag: u8) {
        self.out.push(tag);
    }

    fn named(&mut self, tag: u8, name: &str) {
        self.tag(tag);
        simple::counted(self.out, name.as_bytes());
    }

    fn variant(&mut self, tag: u8, name: &str, variant: &str) {
        self.named(tag, name);
        simple::counted(self.out, variant.as_bytes());
    }
}

/// A value that has no canonical form, in the words of its own `Serialize`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct EncodeError(String);

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl<'e, 'a> ser::Serializer for &'e mut Encoder<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Sequence<'e, 'a>;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Map<'e, 'a>;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, v: bool) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_i8(self, v: i8) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_i16(self, v: i16) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_i32(self, v: i32) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_i64(self, v: i64) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_i128(self, v: i128) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_u8(self, v: u8) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_u16(self, v: u16) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_u32(self, v: u32) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_u64(self, v: u64) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_u128(self, v: u128) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_f32(self, v: f32) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_f64(self, v: f64) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_char(self, v: char) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_str(self, v: &str) -> Result<(), EncodeError> {
        v.encode(self.out);
        Ok(())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<(), EncodeError> {
        self.tag(BYTES);
        simple::counted(self.out, v);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        self.tag(NONE);
        Ok(())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        self.tag(SOME);
        self.nested(value)
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        self.tag(UNIT);
        Ok(())
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), EncodeError> {
        self.named(UNIT_STRUCT, name);
        Ok(())
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.variant(UNIT_VARIANT, name, variant);
        Ok(())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.named(NEWTYPE_STRUCT, name);
        self.nested(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        self.variant(NEWTYPE_VARIANT, name, variant);
        self.nested(value)
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<Self::SerializeSeq, EncodeError> {
        Ok(match self.sequences {
            Sequences::Ordered => {
                self.tag(SEQ);
                Sequence::Ordered(self)
            }
            Sequences::Unordered => Sequence::Unordered(Parts::new(SEQ, self)),
        })
    }

    fn serialize_tuple(self, _length: usize) -> Result<Self, EncodeError> {
        self.tag(TUPLE);
        Ok(self)
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        _length: usize,
    ) -> Result<Self, EncodeError> {
        self.named(TUPLE_STRUCT, name);
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Self, EncodeError> {
        self.variant(TUPLE_VARIANT, name, variant);
        Ok(self)
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Self::SerializeMap, EncodeError> {
        Ok(Map(Parts::new(MAP, self)))
    }

    fn serialize_struct(self, name: &'static str, _length: usize) -> Result<Self, EncodeError> {
        self.named(STRUCT, name);
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Self, EncodeError> {
        self.variant(STRUCT_VARIANT, name, variant);
        Ok(self)
    }
}

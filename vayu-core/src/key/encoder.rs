//! The canonical encoding: a serde serializer that is injective and deterministic.
//!
//! Two values have the same encoding if and only if they serialize to the same serde data model, so the
//! encoding can be compared and hashed in place of the arguments. It is written to a buffer once, and
//! decoded only to show it.
//!
//! Every value starts with a tag of its type. A value without a fixed length is preceded by its length
//! or, where that is not known in advance, ended by [`END`], which is not a tag of a value. So the code
//! is prefix-free, and encodings can be concatenated. The entries of maps and the elements of sets are
//! sorted by their encoding.
//!
//! A value whose `Serialize` asks `is_human_readable` may write less in either of serde's two forms.
//! It is written in both: the compact form, [`READABLE`], which is not a tag of a value either, and the
//! readable form. Nested values are then written in the form of the outer one alone, so that a value
//! takes up to twice the space, however deep such values are nested.
//!
//! Numbers, `bool`s and `char`s that follow each other in a sequence are a run: their tag with the
//! bit [`RUN`], their count in four bytes, and then their bytes without tags.

mod compound;
mod order;
mod primitive;
mod run;

use std::cell::Cell;
use std::{fmt, mem};

use serde::ser::{self, Serialize, SerializeMap, SerializeSeq};

use self::compound::{Map, Sequence, SortedParts};
pub(crate) use self::order::{OrderMode, RecordedOrders};
pub(crate) use self::primitive::DirectEncode;
use self::primitive::Primitive;
use self::run::{ElementType, Run};
use crate::key::KeyBytes;

pub(super) const END: u8 = 0;
pub(super) const UNIT: u8 = 1;
pub(super) const TUPLE: u8 = 2;
pub(super) const BOOL: u8 = 3;
pub(super) const I8: u8 = 4;
pub(super) const I16: u8 = 5;
pub(super) const I32: u8 = 6;
pub(super) const I64: u8 = 7;
pub(super) const I128: u8 = 8;
pub(super) const U8: u8 = 9;
pub(super) const U16: u8 = 10;
pub(super) const U32: u8 = 11;
pub(super) const U64: u8 = 12;
pub(super) const U128: u8 = 13;
pub(super) const F32: u8 = 14;
pub(super) const F64: u8 = 15;
pub(super) const CHAR: u8 = 16;
pub(super) const STR: u8 = 17;
pub(super) const BYTES: u8 = 18;
pub(super) const NONE: u8 = 19;
pub(super) const SOME: u8 = 20;
pub(super) const UNIT_STRUCT: u8 = 21;
pub(super) const UNIT_VARIANT: u8 = 22;
pub(super) const NEWTYPE_STRUCT: u8 = 23;
pub(super) const NEWTYPE_VARIANT: u8 = 24;
pub(super) const SEQ: u8 = 25;
pub(super) const TUPLE_STRUCT: u8 = 26;
pub(super) const TUPLE_VARIANT: u8 = 27;
pub(super) const MAP: u8 = 28;
pub(super) const STRUCT: u8 = 29;
pub(super) const STRUCT_VARIANT: u8 = 30;
pub(super) const FIELD: u8 = 31;
pub(super) const ENTRY: u8 = 32;
pub(super) const SET: u8 = 33;
pub(super) const READABLE: u8 = 34;
/// The bit of a tag whose values are a run.
pub(super) const RUN: u8 = 0x80;

/// A serializer to the canonical encoding.
pub(crate) struct Encoder<'a> {
    out: &'a mut KeyBytes,
    order: OrderMode<'a>,
    depth: usize,
    /// The form that `is_human_readable` returns.
    is_readable: bool,
    /// Set when the value that is being written, or an outer one, has called `is_human_readable`.
    has_queried_form: Cell<bool>,
    /// Set if the next value is an element of a sequence.
    is_element: bool,
    run: Run,
}

/// The maximum depth of nesting, since the stack is limited.
pub(super) const DEPTH: usize = 128;

impl<'a> Encoder<'a> {
    #[inline]
    pub(crate) fn new(out: &'a mut KeyBytes) -> Self {
        Self::with_order(out, OrderMode::Key)
    }

    #[inline]
    pub(crate) fn with_order(out: &'a mut KeyBytes, order: OrderMode<'a>) -> Self {
        Self {
            out,
            order,
            depth: 0,
            is_readable: false,
            has_queried_form: Cell::new(false),
            is_element: false,
            run: Run::default(),
        }
    }

    /// Encodes a whole value.
    #[inline]
    pub(crate) fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        if self.has_queried_form.get() {
            // The value around this one is written in both forms.
            return value.serialize(&mut *self);
        }
        let result = value.serialize(&mut *self);
        if self.has_queried_form.replace(false) {
            result.and_then(|()| self.encode_readable(value))
        } else {
            result
        }
    }

    /// Appends the readable form of a value whose compact form was just written.
    fn encode_readable<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        self.run.end(self.out);
        self.tag(READABLE);
        self.is_readable = true;
        self.has_queried_form.set(true);
        let result = value.serialize(&mut *self);
        self.is_readable = false;
        self.has_queried_form.set(false);
        result
    }

    /// Encodes a set: its elements, sorted by their encoding.
    pub(super) fn unordered<'b, T: Serialize + 'b>(
        &mut self,
        elements: impl IntoIterator<Item = &'b T>,
    ) -> Result<(), EncodeError> {
        let mut parts = SortedParts::new(SET, self);
        for element in elements {
            parts.push(|encoder| encoder.nested(element))?;
        }
        parts.finish();
        Ok(())
    }

    /// Encodes a part of a value.
    #[inline]
    fn nested<T: Serialize + ?Sized>(&mut self, part: &T) -> Result<(), EncodeError> {
        self.part(part, false)
    }

    /// Encodes an element of a sequence.
    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, element: &T) -> Result<(), EncodeError> {
        match ElementType::of::<T>() {
            Some(primitive) if self.depth < DEPTH => {
                primitive.encode_one(element, &mut self.run, self.out)
            }
            _ => self.part(element, true),
        }
    }

    #[inline]
    fn part<T: Serialize + ?Sized>(
        &mut self,
        part: &T,
        is_element: bool,
    ) -> Result<(), EncodeError> {
        if self.depth == DEPTH {
            return Err(ser::Error::custom("the value is nested too deep"));
        }
        self.is_element = is_element;
        self.depth += 1;
        let result = self.value(part);
        self.depth -= 1;
        result
    }

    /// Returns an encoder that writes a part to another buffer.
    fn sub_encoder<'b>(&'b mut self, out: &'b mut KeyBytes) -> Encoder<'b> {
        Encoder {
            depth: self.depth,
            is_readable: self.is_readable,
            has_queried_form: self.has_queried_form.clone(),
            ..Encoder::with_order(out, self.order.reborrow())
        }
    }

    #[inline]
    fn primitive<T: Primitive>(&mut self, value: T) {
        if mem::take(&mut self.is_element) {
            self.run.push(value, self.out);
        } else {
            value.encode(self.out);
        }
    }

    #[inline]
    fn tag(&mut self, tag: u8) {
        if mem::take(&mut self.is_element) {
            self.run.end(self.out);
        }
        self.out.push(tag);
    }

    fn end(&mut self) {
        self.run.end(self.out);
        self.tag(END);
    }

    fn tag_with_name(&mut self, tag: u8, name: &str) {
        self.tag(tag);
        primitive::write_len_prefixed(self.out, name.as_bytes());
    }

    fn variant(&mut self, tag: u8, name: &str, variant: &str) {
        self.tag_with_name(tag, name);
        primitive::write_len_prefixed(self.out, variant.as_bytes());
    }

    fn sequence<'e>(&'e mut self, is_table: bool) -> Sequence<'e, 'a> {
        if self.order.is_significant_in_sequence(is_table) {
            self.tag(SEQ);
            Sequence::Ordered(self)
        } else {
            Sequence::Unordered(SortedParts::of_unknown_order(SEQ, self, is_table))
        }
    }

    fn map<'e>(&'e mut self, is_table: bool) -> Map<'e, 'a> {
        if self.order.is_significant_in_map(is_table) {
            self.tag(MAP);
            Map::Ordered(self)
        } else {
            Map::Unordered(SortedParts::of_unknown_order(MAP, self, is_table))
        }
    }
}

/// The error of a value that cannot be encoded, with the message of its `Serialize`.
#[derive(Debug)]
pub(crate) struct EncodeError(String);

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EncodeError {}

impl ser::Error for EncodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

macro_rules! encode_primitives {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<(), EncodeError> {
            self.primitive(value);
            Ok(())
        }
    )*};
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
        self.has_queried_form.set(true);
        self.is_readable
    }

    encode_primitives! {
        serialize_bool: bool, serialize_char: char, serialize_f32: f32, serialize_f64: f64,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64, serialize_i128: i128,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_u128: u128,
    }

    fn serialize_str(self, v: &str) -> Result<(), EncodeError> {
        self.tag(STR);
        primitive::write_len_prefixed(self.out, v.as_bytes());
        Ok(())
    }

    fn serialize_bytes(self, v: &[u8]) -> Result<(), EncodeError> {
        self.tag(BYTES);
        primitive::write_len_prefixed(self.out, v);
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
        self.tag_with_name(UNIT_STRUCT, name);
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
        self.tag_with_name(NEWTYPE_STRUCT, name);
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
        Ok(self.sequence(false))
    }

    /// Encodes a sequence whose type is known; one of numbers as a single run.
    fn collect_seq<I>(self, iter: I) -> Result<(), EncodeError>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        let is_table = self.order.is_table::<I>();
        if self.depth < DEPTH
            && self.order.is_significant_in_sequence(is_table)
            && let Some(items) = ElementType::of::<I::Item>()
        {
            self.tag(SEQ);
            items.encode(iter.into_iter(), &mut self.run, self.out)?;
            self.end();
            return Ok(());
        }
        let mut sequence = self.sequence(is_table);
        iter.into_iter().try_for_each(|item| sequence.serialize_element(&item))?;
        sequence.end()
    }

    /// Encodes a map whose type is known.
    fn collect_map<K, V, I>(self, iter: I) -> Result<(), EncodeError>
    where
        K: Serialize,
        V: Serialize,
        I: IntoIterator<Item = (K, V)>,
    {
        let is_table = self.order.is_table::<I>();
        let mut map = self.map(is_table);
        iter.into_iter().try_for_each(|(key, value)| map.serialize_entry(&key, &value))?;
        map.end()
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
        self.tag_with_name(TUPLE_STRUCT, name);
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
        Ok(self.map(false))
    }

    fn serialize_struct(self, name: &'static str, _length: usize) -> Result<Self, EncodeError> {
        self.tag_with_name(STRUCT, name);
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

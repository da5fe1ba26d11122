//! Runs: numbers of one type that follow each other in a sequence.

use serde::ser::{Impossible, Serialize, Serializer};

use super::primitive::Primitive;
use super::{EncodeError, RUN};
use crate::key::KeyBytes;

/// The run that is being written, if any.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// The tag of its values. It is 0, which is not the tag of a value, while there is no run.
    tag: u8,
    /// The number of its values.
    count: u32,
    /// The position of the count in the output.
    place: usize,
}

impl Run {
    /// Appends a value to a run of its type, or to a new one.
    #[inline]
    pub(super) fn push<T: Primitive>(&mut self, value: T, out: &mut KeyBytes) {
        self.push_bits(ElementType::of_primitive::<T>(), value.to_bits_128(), out);
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn push_bits(&mut self, element: ElementType, bits: u128, out: &mut KeyBytes) {
        if self.tag != element.tag || self.count == u32::MAX {
            self.replace(element.tag, out);
        }
        if element.size > size_of::<u64>() {
            out.extend_from_slice(&bits.to_le_bytes());
        } else {
            #[expect(clippy::cast_possible_truncation, reason = "the upper half is zero")]
            out.push_word_of_many(bits as u64, element.size);
        }
        self.count += 1;
    }

    #[cold]
    fn replace(&mut self, tag: u8, out: &mut KeyBytes) {
        self.end(out);
        self.begin(tag, out);
    }

    fn begin(&mut self, tag: u8, out: &mut KeyBytes) {
        out.push(tag | RUN);
        *self = Self { tag, count: 0, place: out.len() };
        out.push_word(0, size_of::<u32>());
    }

    /// Ends the run, if there is one.
    #[inline]
    pub(super) fn end(&mut self, out: &mut KeyBytes) {
        if self.tag != 0 {
            out.set(self.place, self.count);
            self.tag = 0;
        }
    }
}

/// The maximum number of bytes that are reserved for elements before they are read: the length that an
/// iterator returns may be wrong.
const MAX_RESERVED: usize = 16 << 20;

/// The primitive type of an element, or of all elements of a sequence.
#[derive(Clone, Copy)]
pub(super) struct ElementType {
    tag: u8,
    size: usize,
}

impl ElementType {
    /// Returns the type of elements `T`: `None` if it is not a primitive or a reference to one.
    #[inline]
    pub(super) fn of<T: ?Sized>() -> Option<Self> {
        macro_rules! is_one_of {
            ($($primitive:ty),*) => {
                $(if typeid::of::<T>() == typeid::of::<&$primitive>()
                    || typeid::of::<T>() == typeid::of::<$primitive>()
                {
                    return Some(Self::of_primitive::<$primitive>());
                })*
            };
        }
        is_one_of!(
            u8, i8, u16, i16, u32, i32, u64, i64, u128, i128, usize, isize, f32, f64, bool, char
        );
        None
    }

    #[inline]
    fn of_primitive<T: Primitive>() -> Self {
        Self { tag: T::TAG, size: T::SIZE }
    }

    /// Appends one element, as [`Run::push`] does.
    #[inline]
    pub(super) fn encode_one<T: Serialize + ?Sized>(
        self,
        element: &T,
        run: &mut Run,
        out: &mut KeyBytes,
    ) -> Result<(), EncodeError> {
        run.push_bits(self, element.serialize(Bits)?, out);
        Ok(())
    }

    /// Appends a run of these items, as [`Run::push`] does one by one.
    #[inline]
    pub(super) fn encode<T: Serialize>(
        &self,
        mut items: impl Iterator<Item = T>,
        run: &mut Run,
        out: &mut KeyBytes,
    ) -> Result<(), EncodeError> {
        let Some(first) = items.next() else { return Ok(()) };
        run.begin(self.tag, out);
        let first = first.serialize(Bits)?;
        out.extend_from_slice(&first.to_le_bytes()[..self.size]);
        // The type is a primitive, so serializing it does not fail.
        let bits = items.map(|item| item.serialize(Bits).unwrap_or_default());
        let start = out.len() - self.size;
        out.reserve(bits.size_hint().0.saturating_mul(self.size).min(MAX_RESERVED));
        match self.size {
            1 => out.extend(bits.map(|bits| bits.to_le_bytes()[0])),
            2 => extend::<2>(bits, out),
            4 => extend::<4>(bits, out),
            8 => extend::<8>(bits, out),
            _ => extend::<16>(bits, out),
        }
        let count = u32::try_from((out.len() - start) / self.size);
        run.count = count.map_err(|_| serde::ser::Error::custom("the sequence is too long"))?;
        Ok(())
    }
}

/// Appends the lowest bytes of each number, through a small buffer.
fn extend<const SIZE: usize>(mut bits: impl Iterator<Item = u128>, out: &mut KeyBytes) {
    let mut buffer = [0; 256];
    loop {
        let (places, _) = buffer.as_chunks_mut::<SIZE>();
        let room = places.len();
        let mut filled = 0;
        for (place, bits) in places.iter_mut().zip(bits.by_ref()) {
            place.copy_from_slice(&bits.to_le_bytes()[..SIZE]);
            filled += 1;
        }
        out.extend_from_slice(&buffer[..filled * SIZE]);
        if filled < room {
            return;
        }
    }
}

/// A serializer that returns the bits of a number, a `bool` or a `char`.
struct Bits;

macro_rules! take_bits {
    ($($method:ident: $type:ty,)*) => {$(
        #[inline]
        fn $method(self, value: $type) -> Result<u128, EncodeError> {
            Ok(value.to_bits_128())
        }
    )*};
}

macro_rules! refuse {
    ($($method:ident$(<$T:ident>)?($($type:ty),*) -> $result:ty;)*) => {$(
        fn $method$(<$T: Serialize + ?Sized>)?(self, $(_: $type),*) -> Result<$result, EncodeError> {
            Err(serde::ser::Error::custom("it is not a number"))
        }
    )*};
}

impl Serializer for Bits {
    type Ok = u128;
    type Error = EncodeError;
    type SerializeSeq = Impossible<u128, EncodeError>;
    type SerializeTuple = Impossible<u128, EncodeError>;
    type SerializeTupleStruct = Impossible<u128, EncodeError>;
    type SerializeTupleVariant = Impossible<u128, EncodeError>;
    type SerializeMap = Impossible<u128, EncodeError>;
    type SerializeStruct = Impossible<u128, EncodeError>;
    type SerializeStructVariant = Impossible<u128, EncodeError>;

    take_bits! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_f32: f32,
        serialize_f64: f64,
        serialize_char: char,
    }

    refuse! {
        serialize_str(&str) -> u128;
        serialize_bytes(&[u8]) -> u128;
        serialize_none() -> u128;
        serialize_some<T>(&T) -> u128;
        serialize_unit() -> u128;
        serialize_unit_struct(&'static str) -> u128;
        serialize_unit_variant(&'static str, u32, &'static str) -> u128;
        serialize_newtype_struct<T>(&'static str, &T) -> u128;
        serialize_newtype_variant<T>(&'static str, u32, &'static str, &T) -> u128;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize)
            -> Self::SerializeStructVariant;
    }
}

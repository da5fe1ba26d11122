//! Numbers, strings and the like: values whose encoding cannot fail and does not run code of users.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use super::{
    BOOL, CHAR, END, F32, F64, I8, I16, I32, I64, I128, RUN, SEQ, STR, TUPLE, U8, U16, U32, U64,
    U128,
};
use crate::key::KeyBytes;

/// A value that is encoded without serde, to the same bytes as with serde.
///
/// Encoding cannot fail, so the key of a call with numbers need not be in memory until it is complete.
pub trait DirectEncode {
    /// Appends the encoding.
    fn encode(&self, out: &mut KeyBytes);
}

/// A number, a `bool` or a `char`, encoded as a tag and a fixed number of bytes.
pub trait Primitive: DirectEncode + Copy {
    /// The tag that the encoding starts with.
    const TAG: u8;
    /// The number of bytes that follow.
    const SIZE: usize;

    /// Returns these bytes as a number, the first one lowest, padded with zeros.
    fn to_bits_128(self) -> u128;

    /// Appends the bytes of all values, through a small buffer.
    #[inline]
    fn push_all(values: &[Self], out: &mut KeyBytes) {
        let mut buffer = [0; 256];
        out.reserve(size_of_val(values));
        for values in values.chunks(buffer.len() / Self::SIZE) {
            for (place, value) in buffer.chunks_exact_mut(Self::SIZE).zip(values) {
                place.copy_from_slice(&value.to_bits_128().to_le_bytes()[..Self::SIZE]);
            }
            out.extend_from_slice(&buffer[..values.len() * Self::SIZE]);
        }
    }
}

macro_rules! number_is_direct {
    ($($number:ty: $tag:ident as $bits:ident by $to_bits:expr $(, $all:item)?;)*) => {$(
        impl DirectEncode for $number {
            #[inline(always)]
            fn encode(&self, out: &mut KeyBytes) {
                let bits: $bits = $to_bits(*self);
                if size_of::<$bits>() == size_of::<u64>() {
                    out.push_tagged($tag, bits.into());
                } else {
                    out.push_word(u64::from(bits) << 8 | u64::from($tag), 1 + size_of::<$bits>());
                }
            }
        }

        impl Primitive for $number {
            const TAG: u8 = $tag;
            const SIZE: usize = size_of::<$bits>();

            #[inline(always)]
            fn to_bits_128(self) -> u128 {
                let bits: $bits = $to_bits(self);
                u128::from(bits)
            }

            $($all)?
        }
    )*};
}

number_is_direct! {
    bool: BOOL as u8 by u8::from;
    i8: I8 as u8 by i8::cast_unsigned;
    i16: I16 as u16 by i16::cast_unsigned;
    i32: I32 as u32 by i32::cast_unsigned;
    i64: I64 as u64 by i64::cast_unsigned;
    u8: U8 as u8 by u8::from,
        #[inline]
        fn push_all(values: &[u8], out: &mut KeyBytes) {
            out.extend_from_slice(values);
        };
    u16: U16 as u16 by u16::from;
    u32: U32 as u32 by u32::from;
    u64: U64 as u64 by u64::from;
    f32: F32 as u32 by f32::to_bits;
    f64: F64 as u64 by f64::to_bits;
    char: CHAR as u32 by u32::from;
}

macro_rules! wide_number_is_direct {
    ($($number:ty: $tag:ident by $to_bits:expr;)*) => {$(
        impl DirectEncode for $number {
            fn encode(&self, out: &mut KeyBytes) {
                out.push($tag);
                out.extend_from_slice(&self.to_le_bytes());
            }
        }

        impl Primitive for $number {
            const TAG: u8 = $tag;
            const SIZE: usize = 16;

            #[inline(always)]
            fn to_bits_128(self) -> u128 {
                $to_bits(self)
            }
        }
    )*};
}

wide_number_is_direct! {
    i128: I128 by i128::cast_unsigned;
    u128: U128 by u128::from;
}

/// Encoded with 64 bits, as in serde: the same on every machine.
macro_rules! size_is_direct {
    ($($size:ty as $number:ty;)*) => {$(
        impl DirectEncode for $size {
            #[inline(always)]
            fn encode(&self, out: &mut KeyBytes) {
                (*self as $number).encode(out);
            }
        }

        impl Primitive for $size {
            const TAG: u8 = <$number>::TAG;
            const SIZE: usize = <$number>::SIZE;

            #[inline(always)]
            fn to_bits_128(self) -> u128 {
                (self as $number).to_bits_128()
            }
        }
    )*};
}

size_is_direct! {
    usize as u64;
    isize as i64;
}

impl DirectEncode for str {
    #[inline]
    fn encode(&self, out: &mut KeyBytes) {
        if self.len() < 0x80 {
            out.push_word((self.len() as u64) << 8 | u64::from(STR), 2);
            out.extend_from_slice(self.as_bytes());
        } else {
            encode_long(self, out);
        }
    }
}

#[cold]
fn encode_long(text: &str, out: &mut KeyBytes) {
    out.push(STR);
    write_len_prefixed(out, text.as_bytes());
}

impl DirectEncode for String {
    #[inline]
    fn encode(&self, out: &mut KeyBytes) {
        (**self).encode(out);
    }
}

/// A sequence, in one run.
impl<T: Primitive> DirectEncode for [T] {
    #[inline]
    fn encode(&self, out: &mut KeyBytes) {
        out.push(SEQ);
        for run in self.chunks(u32::MAX as usize) {
            out.push(T::TAG | RUN);
            out.push_word(run.len() as u64, size_of::<u32>());
            T::push_all(run, out);
        }
        out.push(END);
    }
}

impl<T: Primitive> DirectEncode for Vec<T> {
    #[inline]
    fn encode(&self, out: &mut KeyBytes) {
        (**self).encode(out);
    }
}

/// An array is a tuple: serde does not distinguish the two. Each element has its tag.
impl<T: Primitive, const N: usize> DirectEncode for [T; N] {
    #[inline]
    fn encode(&self, out: &mut KeyBytes) {
        let size = 1 + T::SIZE;
        let mut buffer = [0; 272];
        out.push(TUPLE);
        out.reserve(N * size);
        for values in self.chunks(buffer.len() / size) {
            for (place, value) in buffer.chunks_exact_mut(size).zip(values) {
                if let Some((tag, bytes)) = place.split_first_mut() {
                    *tag = T::TAG;
                    bytes.copy_from_slice(&value.to_bits_128().to_le_bytes()[..T::SIZE]);
                }
            }
            out.extend_from_slice(&buffer[..values.len() * size]);
        }
        out.push(END);
    }
}

macro_rules! pointer_is_direct {
    ($($pointer:ty),*) => {$(
        impl<T: DirectEncode + ?Sized> DirectEncode for $pointer {
            #[inline(always)]
            fn encode(&self, out: &mut KeyBytes) {
                (**self).encode(out);
            }
        }
    )*};
}

pointer_is_direct!(&T, Box<T>, Rc<T>, Arc<T>);

impl<T: DirectEncode + ToOwned + ?Sized> DirectEncode for Cow<'_, T> {
    #[inline(always)]
    fn encode(&self, out: &mut KeyBytes) {
        (**self).encode(out);
    }
}

/// Appends length-prefixed bytes. The length is LEB128: seven bits a byte, lowest first.
#[inline]
pub(super) fn write_len_prefixed(out: &mut KeyBytes, bytes: &[u8]) {
    let mut length = bytes.len();
    while length >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits are wanted")]
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "less than 0x80")]
    out.push(length as u8);
    out.extend_from_slice(bytes);
}

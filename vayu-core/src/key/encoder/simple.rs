//! Numbers, texts and the like: what always has an encoding, made by code that is ours alone.

use super::{BOOL, CHAR, F32, F64, I8, I16, I32, I64, I128, STR, U8, U16, U32, U64, U128};
use crate::key::Material;

/// A value that is encoded without asking serde, in the form that it has there.
///
/// Nothing of that can fail, so the key of a call of numbers needs no place in memory until it is
/// whole.
pub trait Simple {
    /// Appends the encoding.
    fn encode(&self, out: &mut Material);
}

macro_rules! number_is_simple {
    ($($number:ty: $tag:ident as $bits:ident by $to_bits:expr),* $(,)?) => {$(
        impl Simple for $number {
            #[inline(always)]
            fn encode(&self, out: &mut Material) {
                out.push($tag);
                let bits: $bits = $to_bits(*self);
                out.push_word(u64::from(bits), size_of::<$bits>());
            }
        }
    )*};
}

number_is_simple! {
    bool: BOOL as u8 by u8::from,
    i8: I8 as u8 by i8::cast_unsigned,
    i16: I16 as u16 by i16::cast_unsigned,
    i32: I32 as u32 by i32::cast_unsigned,
    i64: I64 as u64 by i64::cast_unsigned,
    u8: U8 as u8 by u8::from,
    u16: U16 as u16 by u16::from,
    u32: U32 as u32 by u32::from,
    u64: U64 as u64 by u64::from,
    f32: F32 as u32 by f32::to_bits,
    f64: F64 as u64 by f64::to_bits,
    char: CHAR as u32 by u32::from,
}

impl Simple for i128 {
    fn encode(&self, out: &mut Material) {
        out.push(I128);
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl Simple for u128 {
    fn encode(&self, out: &mut Material) {
        out.push(U128);
        out.extend_from_slice(&self.to_le_bytes());
    }
}

/// As serde has it: the same on every machine.
impl Simple for usize {
    #[inline(always)]
    fn encode(&self, out: &mut Material) {
        (*self as u64).encode(out);
    }
}

impl Simple for isize {
    #[inline(always)]
    fn encode(&self, out: &mut Material) {
        (*self as i64).encode(out);
    }
}

impl Simple for str {
    #[inline]
    fn encode(&self, out: &mut Material) {
        out.push(STR);
        counted(out, self.as_bytes());
    }
}

impl Simple for String {
    #[inline]
    fn encode(&self, out: &mut Material) {
        (**self).encode(out);
    }
}

impl<T: Simple + ?Sized> Simple for &T {
    #[inline(always)]
    fn encode(&self, out: &mut Material) {
        (**self).encode(out);
    }
}

/// Length-prefixed bytes. The length is LEB128: seven bits a byte, lowest first.
#[inline]
pub(super) fn counted(out: &mut Material, bytes: &[u8]) {
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

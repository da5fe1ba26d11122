//! Values that fit into a machine word, as words.

#![expect(clippy::cast_possible_truncation, reason = "the upper bits are zero")]

use std::any::TypeId;

use super::{AnyValue, Repr};

/// A value that fits into a machine word.
trait InWord: Copy {
    fn to_word(self) -> u64;
    fn from_word(word: u64) -> Self;
}

macro_rules! fits_into_a_word {
    ($($variant:ident: $type:ty, $to_word:expr, $from_word:expr;)*) => {
        $(impl InWord for $type {
            #[inline]
            fn to_word(self) -> u64 {
                $to_word(self)
            }

            #[inline]
            fn from_word(word: u64) -> Self {
                $from_word(word)
            }
        })*

        /// Returns whether values of this type fit into a machine word.
        #[inline(always)]
        pub(in crate::serializer) fn is_inline<T: 'static>() -> bool {
            false $(|| TypeId::of::<T>() == TypeId::of::<$type>())*
        }

        /// The variants of such values.
        #[repr(u64)]
        enum Kind {
            $($variant,)*
        }

        impl AnyValue {
            /// Returns an inline value as two words: its type and its bits.
            pub(crate) fn to_words(&self) -> Option<[u64; 2]> {
                match self.0 {
                    $(Repr::$variant(value) => Some([Kind::$variant as u64, value.to_word()]),)*
                    _ => None,
                }
            }

            /// Returns the value of these words.
            #[inline(always)]
            pub(crate) fn from_words([kind, word]: [u64; 2]) -> Option<Self> {
                // The most frequent type. The choice among all is an unpredictable jump.
                if kind == Kind::U64 as u64 {
                    return Some(Self(Repr::U64(word)));
                }
                Self::other_from_words([kind, word])
            }

            #[inline(never)]
            fn other_from_words([kind, word]: [u64; 2]) -> Option<Self> {
                $(if kind == Kind::$variant as u64 {
                    return Some(Self(Repr::$variant(InWord::from_word(word))));
                })*
                None
            }
        }
    };
}

fits_into_a_word! {
    U64: u64, |n| n, |w| w;
    I64: i64, i64::cast_unsigned, u64::cast_signed;
    F64: f64, f64::to_bits, f64::from_bits;
    Usize: usize, |n| n as u64, |w| w as usize;
    Isize: isize, |n: isize| n.cast_unsigned() as u64, |w| (w as usize).cast_signed();
    U32: u32, u64::from, |w| w as u32;
    I32: i32, |n: i32| n.cast_unsigned().into(), |w| (w as u32).cast_signed();
    F32: f32, |n: f32| n.to_bits().into(), |w| f32::from_bits(w as u32);
    U16: u16, u64::from, |w| w as u16;
    I16: i16, |n: i16| n.cast_unsigned().into(), |w| (w as u16).cast_signed();
    U8: u8, u64::from, |w| w as u8;
    I8: i8, |n: i8| n.cast_unsigned().into(), |w| (w as u8).cast_signed();
    Bool: bool, u64::from, |w| w != 0;
    Char: char, u64::from, |w| char::from_u32(w as u32).unwrap_or_default();
    Unit: (), |()| 0, |_| ();
}

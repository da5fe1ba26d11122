//! Inline values: those that fit into a machine word.

#![expect(clippy::cast_possible_truncation, reason = "the upper bits are zero")]

use std::any::{Any, TypeId};

use super::{AnyValue, Repr};

/// A number, a `bool`, a `char` or `()`, as two machine words: its type and its bits.
///
/// A backend that keeps copies of such values returns them without a lock and without an allocation:
/// [`Backend::read_optimistic`](crate::Backend::read_optimistic).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InlineValue {
    kind: u64,
    bits: u64,
}

impl InlineValue {
    /// Creates the value of the words of [`to_words`](Self::to_words).
    #[inline]
    pub fn from_words([kind, bits]: [u64; 2]) -> Self {
        Self { kind, bits }
    }

    /// Returns the number that stands for the type of the value.
    #[inline]
    pub fn kind(self) -> u64 {
        self.kind
    }

    /// Returns the value as words, which are valid in this process.
    #[inline]
    pub fn to_words(self) -> [u64; 2] {
        [self.kind, self.bits]
    }
}

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
            InlineValue::kind_of_type(TypeId::of::<T>()).is_some()
        }

        /// The variants of such values.
        #[repr(u64)]
        enum Kind {
            $($variant,)*
        }

        /// Memory stores a kind in four bits, of which one value stands for other values.
        const _: () = assert!([$(Kind::$variant as u64),*].len() < 16);

        impl InlineValue {
            /// Returns the kind of the inline values of this type. `None` for a type that has none.
            #[inline(always)]
            pub(crate) fn kind_of<T>() -> Option<u64> {
                Self::kind_of_type(typeid::of::<T>())
            }

            /// It is not generic, so the compiler prepares it once. It is inlined where the type is known.
            #[inline(always)]
            fn kind_of_type(id: TypeId) -> Option<u64> {
                $(if id == TypeId::of::<$type>() {
                    return Some(Kind::$variant as u64);
                })*
                None
            }
        }

        impl AnyValue {
            /// Returns the value if it is inline.
            pub fn to_inline(&self) -> Option<InlineValue> {
                match self.0 {
                    $(Repr::$variant(value) => {
                        Some(InlineValue { kind: Kind::$variant as u64, bits: value.to_word() })
                    })*
                    _ => None,
                }
            }
        }

        impl InlineValue {
            /// Returns the value in the form in which memory stores it. `None` for words that are not
            /// those of a value.
            pub fn to_value(self) -> Option<AnyValue> {
                $(if self.kind == Kind::$variant as u64 {
                    return Some(AnyValue(Repr::$variant(InWord::from_word(self.bits))));
                })*
                None
            }

            /// Returns the value if it is of this type.
            #[inline(always)]
            pub fn downcast<T: 'static>(self) -> Option<T> {
                let mut value: Option<T> = None;
                self.store(&mut value);
                value
            }

            /// Stores the value in an `Option` of its type. It is inlined where the type is known, and then one comparison is left
            /// of it; it is not generic, so the compiler prepares it once.
            #[inline(always)]
            fn store(self, place: &mut dyn Any) {
                $(if let Some(place) = place.downcast_mut::<Option<$type>>() {
                    if self.kind == Kind::$variant as u64 {
                        *place = Some(InWord::from_word(self.bits));
                    }
                    return;
                })*
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

//! Values held in memory as they are.

use std::any::{Any, TypeId, type_name};
use std::fmt;
use std::mem;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::{Serializer, SerializerId};

/// The serializer of caches in memory: the value is held once, and a hit is a clone of it.
///
/// It asks nothing of a value but `Clone + Send + Sync + 'static`. Wrap what is dear to clone in
/// an [`Arc`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ByReference;

/// A value of any type, held by reference. A number, a short text and a reference that is the value
/// are held as they are.
#[derive(Clone)]
pub struct AnyValue(Repr);

/// A number takes no more room than a reference to it, and no atomic operation to clone. The copy of
/// a text, and one more reference, is what a caller gets in the end; a reference to those would be
/// counted up and down for nothing.
///
/// The tag has eight bytes, so all is copied in whole words: a processor that reads a word of which
/// the parts were just written waits for them.
enum Repr {
    Held(Arc<dyn Any + Send + Sync>),
    Text(String),
    SharedText(Arc<str>),
    SharedBytes(Arc<[u8]>),
    Unit(()),
    Bool(bool),
    Char(char),
    I8(i8),
    I16(i16),
    I32(i32),
    I64(i64),
    Isize(isize),
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    Usize(usize),
    F32(f32),
    F64(f64),
}

/// The most frequent ones where they are needed: from a function they would come by way of memory.
impl Clone for Repr {
    #[inline(always)]
    fn clone(&self) -> Self {
        match self {
            Self::U64(value) => Self::U64(*value),
            Self::Held(value) => Self::Held(Arc::clone(value)),
            Self::SharedBytes(value) => Self::SharedBytes(Arc::clone(value)),
            Self::Text(value) => Self::Text(value.clone()),
            other => other.clone_other(),
        }
    }
}

/// Texts up to this length, in bytes, are held as they are. They are copied under the lock of a
/// part of the map.
const SHORT: usize = 256;

impl Repr {
    fn new<T: Send + Sync + 'static>(value: T) -> Self {
        let mut value = Some(value);
        macro_rules! held_as_it_is {
            ($($variant:ident)*) => {
                $(if let Some(value) = take_as(&mut value, |_| true) {
                    return Self::$variant(value);
                })*
            };
        }
        held_as_it_is!(
            Unit Bool Char I8 I16 I32 I64 Isize U8 U16 U32 U64 Usize F32 F64 SharedText SharedBytes
        );
        if let Some(text) = take_as(&mut value, |text: &String| text.len() <= SHORT) {
            return Self::Text(text);
        }
        Self::Held(Arc::new(value.expect("it was not taken")))
    }

    #[inline(never)]
    fn clone_other(&self) -> Self {
        macro_rules! clone {
            ($($variant:ident)*) => {
                match self {
                    $(Self::$variant(value) => Self::$variant(value.clone()),)*
                }
            };
        }
        clone!(
            Held Text SharedText SharedBytes
            Unit Bool Char I8 I16 I32 I64 Isize U8 U16 U32 U64 Usize F32 F64
        )
    }

    /// Each arm is looked at by the compiler with the type at hand: one of them is left.
    #[inline]
    fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        macro_rules! downcast {
            ($($variant:ident)*) => {
                match self {
                    Self::Held(value) => value.downcast_ref(),
                    $(Self::$variant(value) => (value as &dyn Any).downcast_ref(),)*
                }
            };
        }
        downcast!(
            Unit Bool Char I8 I16 I32 I64 Isize U8 U16 U32 U64 Usize F32 F64
            Text SharedText SharedBytes
        )
    }

    /// The value, if it is of this type, taken out if it is nobody else's.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn take<T: Clone + 'static>(&mut self) -> Option<T> {
        macro_rules! take {
            ($($variant:ident)*) => {
                match self {
                    $(Self::$variant(value) if is::<T, _>(value) => {
                        // An empty `Arc` in its place would be one more count to go up and down.
                        match mem::replace(self, Self::Unit(())) {
                            Self::$variant(value) => take_as(&mut Some(value), |_| true),
                            _ => None,
                        }
                    })*
                    other => other.downcast_ref().cloned(),
                }
            };
        }
        take!(Text SharedText SharedBytes)
    }
}

#[inline]
fn is<T: 'static, U: 'static>(_: &U) -> bool {
    TypeId::of::<T>() == TypeId::of::<U>()
}

/// Takes a value as the type that it has, if that is the case and it is wanted.
#[inline]
fn take_as<T: 'static, U: 'static>(
    value: &mut Option<T>,
    is_wanted: impl FnOnce(&U) -> bool,
) -> Option<U> {
    (value as &mut dyn Any).downcast_mut::<Option<U>>()?.take_if(|value| is_wanted(value))
}

impl AnyValue {
    /// Holds a value.
    pub fn new<T: Send + Sync + 'static>(value: T) -> Self {
        Self(Repr::new(value))
    }

    /// The value, if it is of this type.
    #[inline]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

/// A value that fits into a word.
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

        /// Whether values of this type are numbers or the like.
        #[inline(always)]
        pub(super) fn is_number<T: 'static>() -> bool {
            false $(|| TypeId::of::<T>() == TypeId::of::<$type>())*
        }

        /// The variants that hold such a value.
        #[repr(u64)]
        enum Kind {
            $($variant,)*
        }

        impl AnyValue {
            /// The value in two words, the first of which says of which type it is, if it is a number
            /// or the like: how a backend may keep it that copies values word by word.
            pub fn to_words(&self) -> Option<[u64; 2]> {
                match self.0 {
                    $(Repr::$variant(value) => Some([Kind::$variant as u64, value.to_word()]),)*
                    _ => None,
                }
            }

            /// The value that has these words.
            #[inline(always)]
            pub fn from_words([kind, word]: [u64; 2]) -> Option<Self> {
                // Most are these. To choose among all is a jump to nobody knows where.
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

#[expect(clippy::cast_possible_truncation, reason = "these are the bits that are meant")]
mod words {
    use std::any::TypeId;

    use super::{AnyValue, InWord, Repr};

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
}

use self::words::is_number;

impl AsRef<Self> for AnyValue {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for AnyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyValue(..)")
    }
}

impl<T: Clone + Send + Sync + 'static> Serializer<T> for ByReference {
    type Stored = AnyValue;

    #[inline]
    fn id(&self) -> SerializerId {
        SerializerId::BY_REFERENCE
    }

    /// Zero: the reference itself knows the type of the value.
    #[inline]
    fn schema(&self) -> u64 {
        0
    }

    fn serialize(&self, value: &T) -> Result<AnyValue> {
        Ok(AnyValue::new(value.clone()))
    }

    #[inline]
    fn deserialize(&self, stored: &AnyValue) -> Result<T> {
        match stored.downcast_ref::<T>() {
            Some(value) => Ok(value.clone()),
            None => Err(other_type::<T>()),
        }
    }

    #[inline(always)]
    fn deserialize_owned(&self, stored: &mut AnyValue) -> Result<T> {
        stored.0.take().ok_or_else(other_type::<T>)
    }

    /// Numbers, texts and the like are copied by code that we know.
    #[inline(always)]
    fn never_panics(&self) -> bool {
        is_number::<T>()
            || [TypeId::of::<String>(), TypeId::of::<Arc<str>>(), TypeId::of::<Arc<[u8]>>()]
                .contains(&TypeId::of::<T>())
    }

    #[inline(always)]
    fn fits_in_words(&self) -> bool {
        is_number::<T>()
    }
}

#[cold]
fn other_type<T>() -> Error {
    Error::new(ErrorKind::Decode, format!("the entry does not hold a `{}`", type_name::<T>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back_as_its_own_type_and_no_other() {
        macro_rules! check {
            ($($value:expr => $type:ty),* $(,)?) => {$(
                let value: $type = $value;
                let shared = AnyValue::new(value);
                assert!(!matches!(shared.0, Repr::Held(_)), stringify!($type));
                assert_eq!(shared.downcast_ref::<$type>(), Some(&value));
                assert_eq!(shared.clone().downcast_ref::<$type>(), Some(&value));
                let copy = shared.to_words().and_then(AnyValue::from_words).expect("a copy");
                assert_eq!(copy.downcast_ref::<$type>(), Some(&value));
                assert!(shared.downcast_ref::<String>().is_none());
                assert!(shared.downcast_ref::<Option<$type>>().is_none());
            )*};
        }
        check!(
            () => (), true => bool, 'x' => char, -1 => i8, -2 => i16, -3 => i32, -4 => i64, -5 => isize,
            1 => u8, 2 => u16, 3 => u32, 4 => u64, 5 => usize, 0.5 => f32, -0.0 => f64,
        );
        assert!(AnyValue::new(7_u64).downcast_ref::<i64>().is_none());
        assert!(AnyValue::new(7_u64).downcast_ref::<usize>().is_none());
        let negative_zero = AnyValue::new(-0.0_f64);
        assert!(negative_zero.downcast_ref::<f64>().is_some_and(|zero| zero.is_sign_negative()));
    }

    #[test]
    fn other_values_are_held_once() {
        let long = "k".repeat(SHORT + 1);
        let shared = AnyValue::new(long.clone());
        let (one, other) = (shared.clone(), shared.clone());
        let [one, other] = [&one, &other].map(|shared| shared.downcast_ref::<String>().unwrap());
        assert!(std::ptr::eq(one, other));
        assert_eq!(*one, long);
        assert!(shared.to_words().is_none());
        assert!(AnyValue::new("short".to_owned()).to_words().is_none());
        assert!(AnyValue::from_words([u64::MAX, 0]).is_none());
    }

    #[test]
    fn texts_and_references_come_back_as_they_were_as_often_as_they_are_asked_for() {
        fn check<T: Clone + PartialEq + fmt::Debug + Send + Sync + 'static>(value: &T) {
            let stored = ByReference.serialize(value).expect("a form");
            for _ in 0..2 {
                assert_eq!(stored.downcast_ref::<T>(), Some(value));
                assert_eq!(ByReference.deserialize(&stored).as_ref().ok(), Some(value));
                let mut copy = stored.clone();
                assert!(
                    Serializer::<Option<T>>::deserialize_owned(&ByReference, &mut copy).is_err()
                );
                assert!(Serializer::<u8>::deserialize_owned(&ByReference, &mut copy).is_err());
                assert_eq!(ByReference.deserialize_owned(&mut copy).as_ref().ok(), Some(value));
            }
        }
        check(&String::new());
        check(&"k".repeat(SHORT));
        check(&"k".repeat(SHORT + 1));
        check(&Arc::<str>::from("text"));
        check(&Arc::<[u8]>::from(&b"bytes"[..]));
        check(&Arc::new("text".to_owned()));
        check(&vec![1_u8, 2]);
        check(&Some("text".to_owned()));
    }

    #[test]
    fn value_takes_three_words() {
        assert_eq!(size_of::<AnyValue>(), 24);
        assert_eq!(size_of::<Option<AnyValue>>(), 24);
    }
}

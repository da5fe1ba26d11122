//! Type-erased values.

mod words;

use std::any::{Any, TypeId};
use std::fmt;
use std::mem;
use std::sync::Arc;

pub use self::words::InlineValue;
pub(super) use self::words::is_inline;

/// A value of any type behind a reference. Numbers, short strings, `Arc<str>` and `Arc<[u8]>` are
/// stored in place.
#[derive(Clone)]
pub struct AnyValue(Repr);

/// A number takes no more space than a reference to it, and no atomic operation to clone. A caller
/// gets a copy of a string, or one more reference, in the end; a reference count around those would
/// be incremented and decremented for nothing.
///
/// The tag is a word of its own. It has eight bytes, so all is copied in whole words: a load that is wider than the store
/// before it stalls (store forwarding). In the capacity of the string, where the compiler would put it, it takes several
/// instructions of each hit to be found.
#[repr(u64)]
enum Repr {
    Boxed(Arc<dyn Any + Send + Sync>),
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

/// The most frequent variants are cloned inline: the result of a call would be passed through memory.
impl Clone for Repr {
    #[inline(always)]
    fn clone(&self) -> Self {
        match self {
            Self::U64(value) => Self::U64(*value),
            Self::Boxed(value) => Self::Boxed(Arc::clone(value)),
            Self::SharedBytes(value) => Self::SharedBytes(Arc::clone(value)),
            Self::Text(value) => Self::Text(value.clone()),
            other => other.clone_other(),
        }
    }
}

/// The length of the longest string that is stored in place, in bytes. It is copied under the lock of
/// a shard of the map.
const MAX_INLINE_STRING: usize = 256;

impl Repr {
    fn new<T: Send + Sync + 'static>(value: T) -> Self {
        let mut value = Some(value);
        match Self::take_in_place(&mut value) {
            Some(value) => value,
            None => Self::Boxed(Arc::new(value.expect("it was not taken"))),
        }
    }

    /// Moves the value out of an `Option<T>` if it is to be stored in place. It is inlined where `T` is known, and then one
    /// comparison is left of it at most; it is not generic, so the compiler prepares it once.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn take_in_place(value: &mut dyn Any) -> Option<Self> {
        macro_rules! store_in_place {
            ($($variant:ident: $type:ty),* $(,)?) => {
                $(if let Some(value) = value.downcast_mut::<Option<$type>>() {
                    return value.take().map(Self::$variant);
                })*
            };
        }
        store_in_place!(
            Unit: (), Bool: bool, Char: char, I8: i8, I16: i16, I32: i32, I64: i64, Isize: isize, U8: u8, U16: u16,
            U32: u32, U64: u64, Usize: usize, F32: f32, F64: f64, SharedText: Arc<str>, SharedBytes: Arc<[u8]>,
        );
        let text = value.downcast_mut::<Option<String>>()?;
        text.take_if(|text| text.len() <= MAX_INLINE_STRING).map(Self::Text)
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
            Boxed Text SharedText SharedBytes
            Unit Bool Char I8 I16 I32 I64 Isize U8 U16 U32 U64 Usize F32 F64
        )
    }

    /// Returns the value if it is of this type. The compiler knows `T` and removes all arms of strings and byte buffers but
    /// one. Numbers are mostly read as [`InlineValue`]s.
    #[inline]
    fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        match self {
            Self::Boxed(value) => value.downcast_ref(),
            Self::Text(value) => (value as &dyn Any).downcast_ref(),
            Self::SharedText(value) => (value as &dyn Any).downcast_ref(),
            Self::SharedBytes(value) => (value as &dyn Any).downcast_ref(),
            other => other.as_any().downcast_ref(),
        }
    }

    /// Returns the value, by code that all types share.
    #[inline(never)]
    fn as_any(&self) -> &dyn Any {
        macro_rules! value {
            ($($variant:ident)*) => {
                match self {
                    Self::Boxed(value) => &**value,
                    $(Self::$variant(value) => value,)*
                }
            };
        }
        value!(
            Unit Bool Char I8 I16 I32 I64 Isize U8 U16 U32 U64 Usize F32 F64
            Text SharedText SharedBytes
        )
    }

    /// Returns the value if it is of this type, moved out where it is not shared.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn take<T: Clone + 'static>(&mut self) -> Option<T> {
        macro_rules! take {
            ($($variant:ident)*) => {
                match self {
                    $(Self::$variant(value) if is::<T, _>(value) => {
                        // An empty `Arc` in its place would be one more reference count to change.
                        match mem::replace(self, Self::Unit(())) {
                            Self::$variant(value) => take_as(&mut Some(value)),
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

/// Moves a value out as a `T`, if it is one.
#[inline]
pub(super) fn take_as<T: 'static>(value: &mut dyn Any) -> Option<T> {
    value.downcast_mut::<Option<T>>()?.take()
}

impl AnyValue {
    /// Wraps a value.
    pub fn new<T: Send + Sync + 'static>(value: T) -> Self {
        Self(Repr::new(value))
    }

    /// Returns the value if it is of this type.
    #[inline]
    pub fn downcast_ref<T: 'static>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }

    /// Returns the value if it is of this type, moved out where it is not shared.
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn take<T: Clone + 'static>(&mut self) -> Option<T> {
        self.0.take()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back_as_its_own_type_and_no_other() {
        macro_rules! check {
            ($($value:expr => $type:ty),* $(,)?) => {$(
                let value: $type = $value;
                let shared = AnyValue::new(value);
                assert!(!matches!(shared.0, Repr::Boxed(_)), stringify!($type));
                assert_eq!(shared.downcast_ref::<$type>(), Some(&value));
                assert_eq!(shared.clone().downcast_ref::<$type>(), Some(&value));
                let words = shared.to_inline().expect("it is inline").to_words();
                let copy = InlineValue::from_words(words);
                assert_eq!(copy.downcast::<$type>(), Some(value));
                assert!(copy.downcast::<Option<$type>>().is_none());
                assert!(copy.downcast::<String>().is_none());
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
        let inline = AnyValue::new(7_u64).to_inline().expect("it is inline");
        assert!(inline.downcast::<i64>().is_none() && inline.downcast::<usize>().is_none());
        let negative_zero = AnyValue::new(-0.0_f64);
        assert!(negative_zero.downcast_ref::<f64>().is_some_and(|zero| zero.is_sign_negative()));
    }

    #[test]
    fn other_values_are_stored_once() {
        let long = "k".repeat(MAX_INLINE_STRING + 1);
        let shared = AnyValue::new(long.clone());
        let (one, other) = (shared.clone(), shared.clone());
        let [one, other] = [&one, &other].map(|shared| shared.downcast_ref::<String>().unwrap());
        assert!(std::ptr::eq(one, other));
        assert_eq!(*one, long);
        assert!(shared.to_inline().is_none());
        assert!(AnyValue::new("short".to_owned()).to_inline().is_none());
        assert!(InlineValue::from_words([u64::MAX, 0]).downcast::<u64>().is_none());
    }

    #[test]
    fn value_takes_its_longest_variant_and_a_tag() {
        let longest = size_of::<String>().next_multiple_of(align_of::<u64>());
        assert_eq!(size_of::<AnyValue>(), longest + 8);
        assert_eq!(size_of::<Option<AnyValue>>(), longest + 8);
    }
}

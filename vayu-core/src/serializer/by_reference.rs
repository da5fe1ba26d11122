//! The serializer of caches in memory.

use std::any::{Any, TypeId, type_name};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::any_value::{is_inline, take_as};
use crate::serializer::{AnyValue, InlineValue, Serializer, SerializerId, ValueClass};

/// The serializer of caches in memory: a value is stored once, and a hit clones it.
///
/// It requires of a value `Clone + Send + Sync + 'static` and nothing else. Wrap values that are
/// expensive to clone in an [`Arc`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ByReference;

#[diagnostic::do_not_recommend]
impl<T: Clone + Send + Sync + 'static> Serializer<T> for ByReference {
    type Stored = AnyValue;

    #[inline]
    fn id(&self) -> SerializerId {
        SerializerId::BY_REFERENCE
    }

    /// Returns zero: the reference carries the type of the value.
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
            Some(value) => Ok(clone_inline(value)),
            None => Err(other_type::<T>()),
        }
    }

    #[inline(always)]
    fn deserialize_owned(&self, stored: &mut AnyValue) -> Result<T> {
        stored.take().ok_or_else(other_type::<T>)
    }

    #[inline(always)]
    fn deserialize_inline(&self, value: InlineValue) -> Option<T> {
        value.downcast()
    }

    /// Numbers, strings and byte buffers are copied by code of the standard library.
    #[inline(always)]
    fn value_class(&self) -> ValueClass {
        let plain = [TypeId::of::<String>(), TypeId::of::<Arc<str>>(), TypeId::of::<Arc<[u8]>>()];
        if is_inline::<T>() {
            ValueClass::Inline
        } else if plain.contains(&TypeId::of::<T>()) {
            ValueClass::Plain
        } else {
            ValueClass::Opaque
        }
    }
}

/// Clones a value. A string is copied by inlined code, as the standard library does not inline its `clone`.
#[inline(always)]
fn clone_inline<T: Clone + 'static>(value: &T) -> T {
    let text = (value as &dyn Any).downcast_ref::<String>();
    let copy = text.and_then(|text| take_as(&mut Some(text.as_str().to_owned())));
    copy.unwrap_or_else(|| value.clone())
}

#[cold]
fn other_type<T>() -> Error {
    Error::new(ErrorKind::Decode, format!("the entry does not hold a `{}`", type_name::<T>()))
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[test]
    fn strings_and_references_are_returned_unchanged_by_every_read() {
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
        check(&"k".repeat(256));
        check(&"k".repeat(256 + 1));
        check(&Arc::<str>::from("text"));
        check(&Arc::<[u8]>::from(&b"bytes"[..]));
        check(&Arc::new("text".to_owned()));
        check(&vec![1_u8, 2]);
        check(&Some("text".to_owned()));
    }
}

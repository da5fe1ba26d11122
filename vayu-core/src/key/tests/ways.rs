//! Tests that a value has the same key, whichever way it is encoded.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use proptest::prelude::*;
use serde::ser::{SerializeSeq, SerializeTuple, Serializer};

use super::*;
#[allow(unused_imports, reason = "as in the expansion of the attribute")]
use crate::attribute::{AnyPart as _, ExclusiveKind as _, KeyPart, Part};

/// Builds the key of a call with one argument as the attribute does: by the type of the argument.
macro_rules! by_type {
    ($value:expr) => {{
        let mut builder = KeyBuilder::arguments();
        let value = &$value;
        let part = Part(value);
        KeyPart::add(part.vayu_kind(), part.0, &mut builder);
        builder.end_arguments();
        builder.finish("p");
        builder.into_key().expect("a key")
    }};
}

/// Builds the same key for an argument that is only known to be `Serialize`.
fn by_serde(value: impl Serialize) -> Key {
    by_type!(value)
}

/// A sequence that is written one element at a time.
#[derive(Serialize)]
#[serde(transparent)]
struct OneByOne<'a, T: Serialize>(#[serde(serialize_with = "one_by_one")] &'a [T]);

fn one_by_one<T: Serialize, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
    let mut sequence = to.serialize_seq(None)?;
    values.iter().try_for_each(|value| sequence.serialize_element(value))?;
    sequence.end()
}

/// A tuple of any length that is written one element at a time.
struct AsTuple<'a, T>(&'a [T]);

impl<T: Serialize> Serialize for AsTuple<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut tuple = to.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|value| tuple.serialize_element(value))?;
        tuple.end()
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Transparent<T>(T);

macro_rules! ways_of {
    ($($test:ident: $type:ty = $strategy:expr;)*) => {proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        $(#[test]
        fn $test(values in proptest::collection::vec($strategy, 0..150)) {
            let values: Vec<$type> = values;
            let key = Key::new("p", &(&values,)).expect("a key");
            prop_assert_eq!(&by_type!(values), &key);
            prop_assert_eq!(&by_type!(&values), &key);
            prop_assert_eq!(&by_type!(values[..]), &key);
            prop_assert_eq!(&by_type!(&values[..]), &key);
            prop_assert_eq!(&by_type!(Box::<[$type]>::from(&values[..])), &key);
            prop_assert_eq!(&by_type!(Rc::<[$type]>::from(&values[..])), &key);
            prop_assert_eq!(&by_type!(Arc::<[$type]>::from(&values[..])), &key);
            prop_assert_eq!(&by_type!(Cow::Borrowed(&values[..])), &key);
            prop_assert_eq!(&by_type!(Arc::new(values.clone())), &key);
            prop_assert_eq!(&by_serde(&values), &key);
            prop_assert_eq!(&by_serde(VecDeque::from(values.clone())), &key);
            prop_assert_eq!(&by_serde(OneByOne(&values)), &key);
            let wrapped: Vec<_> = values.iter().map(|value| Transparent(Box::new(value))).collect();
            prop_assert_eq!(&by_serde(OneByOne(&wrapped)), &key);
            let two = (1_u8, Some(&values), &values, 1_u8);
            let other = (1_u8, Some(OneByOne(&values)), OneByOne(&wrapped), 1_u8);
            prop_assert_eq!(by_serde(two), by_serde(other));
            let two = vec![&values[..], &values[..0], &values[..]];
            let other = [OneByOne(&values), OneByOne(&[]), OneByOne(&values)];
            prop_assert_eq!(by_serde(two), by_serde(OneByOne(&other)));

            // An array is a tuple: each element has its tag.
            let mut array: [$type; 150] = std::array::from_fn(|_| values.first().copied().unwrap_or_default());
            array[..values.len()].copy_from_slice(&values);
            prop_assert_eq!(by_type!(array), by_serde(AsTuple(&array)));
            if let Some(array) = values.first_chunk::<5>() {
                prop_assert_eq!(&by_type!(*array), &by_serde(array));
                prop_assert_eq!(by_type!(array), by_serde(array.map(Transparent)));
            }
        }
    )*}};
}

ways_of! {
    u8_is_u8: u8 = any::<u8>();
    i8_is_i8: i8 = any::<i8>();
    u16_is_u16: u16 = any::<u16>();
    i16_is_i16: i16 = any::<i16>();
    u32_is_u32: u32 = any::<u32>();
    i32_is_i32: i32 = any::<i32>();
    u64_is_u64: u64 = any::<u64>();
    i64_is_i64: i64 = any::<i64>();
    u128_is_u128: u128 = any::<u128>();
    i128_is_i128: i128 = any::<i128>();
    usize_is_usize: usize = any::<usize>();
    isize_is_isize: isize = any::<isize>();
    f32_is_f32: f32 = any::<u32>().prop_map(f32::from_bits);
    f64_is_f64: f64 = any::<u64>().prop_map(f64::from_bits);
    bool_is_bool: bool = any::<bool>();
    char_is_char: char = any::<char>();
}

#[test]
fn runs_of_other_types_or_lengths_are_distinguished() {
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Any {
        U8(u8),
        U16(u16),
        Bool(bool),
        Text(&'static str),
        List(Vec<u8>),
        None(Option<()>),
    }
    use Any::{Bool, List, None as Nothing, Text, U8, U16};
    all_different(&named![
        vec![0_u8],
        vec![0_i8],
        vec![false],
        vec![0_u8, 0],
        vec![0_u16],
        vec![0_u32],
        vec![0_i32],
        vec![0.0_f32],
        vec!['\0'],
        vec![0_u64],
        vec![0_u8; 9],
        Vec::<u8>::new(),
        vec![Vec::<u8>::new()],
        vec![vec![0_u8], vec![]],
        vec![vec![], vec![0_u8]],
        vec![vec![0_u8]],
        vec![vec![0_u8, 0]],
        vec![vec![0_u8], vec![0]],
        (0_u8,),
        [0_u8, 0],
        vec![Some(0_u8)],
        vec![(0_u8,)],
        vec![Wrapped(0)],
        vec![U8(0), U16(0)],
        vec![U16(0), U8(0)],
        vec![U8(0), Bool(false)],
        vec![U8(0), Text("")],
        vec![Text(""), U8(0)],
        vec![U8(0), List(vec![0])],
        vec![List(vec![0]), U8(0)],
        vec![U8(0), Nothing(None)],
        vec![U8(0), U16(0), U8(0)],
        vec![U8(0), U8(0), U16(0)],
        // Runs whose bytes look like the end of the run and a value after it.
        vec![9_u8, 137, 1, 0, 0, 0, 0],
        vec![vec![9_u8], vec![0, 25]],
        vec![vec![9_u8, 0, 25], vec![]],
    ]);
    let alike =
        |one: Vec<Any>, two: &[u8]| assert_eq!(encoded_arguments(&one), encoded_arguments(&two));
    alike(vec![U8(0), U8(1)], &[0, 1]);
    alike(vec![], &[]);
}

/// A byte in the compact form, and a string in the readable one.
struct Both(u8, &'static str);

impl Serialize for Both {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.serialize_str(self.1) } else { to.serialize_u8(self.0) }
    }
}

#[test]
fn elements_in_two_forms_are_distinguished_from_those_in_one() {
    all_different(&named![
        vec![0_u8, 0],
        vec![Both(0, ""), Both(0, "")],
        vec![Both(0, "a"), Both(0, "")],
        vec![Both(0, ""), Both(0, "a")],
        vec![Both(1, ""), Both(0, "")],
        vec![Both(0, "")],
        (0_u8, ""),
        (Both(0, ""), ""),
        (0_u8, Both(0, ""), ""),
        (Both(0, ""), 0_u8, ""),
        Both(0, ""),
        0_u8,
    ]);
    // A value that does not call `is_human_readable` is written in one form.
    assert_eq!(encoded_arguments(&0_u8), [b'A', 9, 0]);
    assert_eq!(encoded_arguments(&Both(0, "a")), [b'A', 9, 0, 34, 17, 1, b'a']);
    let key = Key::new("p", &(Both(0, "a"), 1_u8)).expect("a key");
    assert_eq!(key, by_two(&Both(0, "a"), &1_u8), "as a tuple, and one by one");
}

fn by_two(one: &impl Serialize, two: &impl Serialize) -> Key {
    let mut builder = KeyBuilder::arguments();
    builder.encode(one);
    builder.encode(two);
    builder.end_arguments();
    builder.finish("p");
    builder.into_key().expect("a key")
}

#[test]
fn form_that_fails_or_panics_leaves_nothing_behind() {
    struct Fails;
    impl Serialize for Fails {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            if to.is_human_readable() {
                Err(serde::ser::Error::custom("planned refusal"))
            } else {
                to.serialize_unit()
            }
        }
    }
    struct Panics;
    impl Serialize for Panics {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            assert!(!to.is_human_readable(), "planned panic of the readable form");
            to.serialize_unit()
        }
    }
    /// A sequence that continues after an element has failed.
    struct Goes;
    impl Serialize for Goes {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            let mut sequence = to.serialize_seq(None)?;
            drop(sequence.serialize_element(&Fails));
            sequence.serialize_element(&Both(1, "a"))?;
            sequence.end()
        }
    }
    let kind = |error: crate::Error| error.kind();
    assert_eq!(Key::new("p", &Fails).map_err(kind), Err(crate::ErrorKind::Encode));
    assert_eq!(Key::new("p", &[Panics]).map_err(kind), Err(crate::ErrorKind::Panic));
    assert!(
        encoded_arguments(&Goes).ends_with(b"\x22\x11\x01a\x00"),
        "both forms of the other one"
    );
}

#[test]
fn elements_of_a_sorted_set_that_are_written_alike_are_counted() {
    #[derive(Serialize)]
    struct Sorted(#[serde(serialize_with = "crate::sorted_set")] Vec<u8>);
    assert_eq!(
        encoded_arguments(&Sorted(vec![2, 1, 2])),
        encoded_arguments(&Sorted(vec![2, 2, 1]))
    );
    assert_ne!(encoded_arguments(&Sorted(vec![2, 1, 2])), encoded_arguments(&Sorted(vec![1, 2])));
}

//! What the byte formats take, give back and refuse.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Debug;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::*;
use crate::error::ErrorKind;

trait Format<T>: Serializer<T, Stored = Bytes> {}
impl<T, S: Serializer<T, Stored = Bytes>> Format<T> for S {}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    for (name, result) in
        [("MessagePack", give_back(&MessagePack, value)), ("JSON", give_back(&Json, value))]
    {
        assert_eq!(result.as_ref().ok(), Some(value), "{name}: {result:?}");
    }
}

fn give_back<T>(format: &impl Format<T>, value: &T) -> Result<T> {
    format.deserialize(&format.serialize(value)?)
}

fn is_refused<T>(format: &impl Format<T>, value: &T) -> bool {
    format.serialize(value).is_err_and(|error| error.kind() == ErrorKind::Encode)
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Tagged {
    Empty,
    Full { bytes: Vec<u8>, note: Option<String> },
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Float(f64),
    Whole(u64),
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maybe: Option<bool>,
}

#[test]
fn shapes_that_users_write_come_back() {
    round_trip(&(1_u8, -1_i64, u128::MAX, i128::MIN, 1.5_f32, "text".to_owned(), 'é'));
    round_trip(&Some(Some(3)));
    round_trip(&Tagged::Empty);
    round_trip(&Tagged::Full { bytes: vec![0, 255], note: None });
    let rest = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
    round_trip(&Flat { name: "n".to_owned(), rest, maybe: Some(true) });
    round_trip(&HashMap::from([(1_u32, vec!["a".to_owned()]), (2, vec![])]));
    round_trip(&(0..100).map(|n| n.to_string()).collect::<HashSet<String>>());
    round_trip(&(0..=u8::MAX).cycle().take(1000).collect::<Vec<u8>>());
    round_trip::<[Result<u8, String>; 2]>(&[Ok(1), Err("e".to_owned())]);
}

#[test]
fn every_bit_of_a_float_comes_back() {
    let mut bits = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..if cfg!(miri) { 20 } else { 2_000 } {
        bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let value = f64::from_bits(bits);
        if value.is_finite() {
            round_trip(&value);
        }
    }
    round_trip(&-0.0_f64);
}

#[test]
fn value_that_a_format_would_change_is_refused() {
    assert!(is_refused(&MessagePack, &Some(None::<u8>)));
    assert!(is_refused(&MessagePack, &vec![Some(Some(1)), Some(None)]));
    assert!(is_refused(&MessagePack, &Some(())));
    assert!(is_refused(&MessagePack, &Untagged::Whole(1)));
    assert!(is_refused(&Json, &Some(None::<u8>)));
    assert!(is_refused(&Json, &f64::NAN));
    assert!(is_refused(&Json, &f32::INFINITY));
    assert!(is_refused(&Json, &BTreeMap::from([((1, 2), 3)])));
    assert_eq!(give_back(&MessagePack, &None::<Option<u8>>).expect("`None` is `None`"), None);
}

#[test]
fn nan_comes_back_from_message_pack_bit_by_bit() {
    let nan = f64::from_bits(f64::NAN.to_bits() | 1);
    let back = give_back(&MessagePack, &nan).expect("a float");
    assert_eq!(back.to_bits(), nan.to_bits());
}

#[test]
fn bytes_that_are_left_over_are_an_error() {
    for mut stored in [
        MessagePack.serialize(&7_u8).expect("encode").to_vec(),
        Json.serialize(&7_u8).expect("encode").to_vec(),
    ] {
        stored.push(b'7');
        stored.push(0xc1);
        let stored = Bytes::from(stored);
        let results: [Result<u8>; 2] =
            [MessagePack.deserialize(&stored), Json.deserialize(&stored)];
        for result in results {
            assert_eq!(result.expect_err("left over").kind(), ErrorKind::Decode);
        }
    }
}

#[test]
fn fields_may_come_in_another_order_and_be_gained() {
    #[derive(Serialize, Deserialize)]
    struct Before {
        a: u8,
        b: u8,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct After {
        b: u8,
        a: u8,
        #[serde(default)]
        c: Option<u8>,
    }
    let after = After { b: 2, a: 1, c: None };
    let stored = MessagePack.serialize(&Before { a: 1, b: 2 }).expect("encode");
    assert_eq!(MessagePack.deserialize(&stored).ok().as_ref(), Some(&after));
    let stored = Json.serialize(&Before { a: 1, b: 2 }).expect("encode");
    assert_eq!(Json.deserialize(&stored).ok(), Some(after));
}

#[derive(Debug, Serialize, Deserialize)]
struct Nested(Option<Box<Nested>>, Vec<Nested>);

#[test]
fn deep_nesting_and_huge_lengths_are_errors() {
    let bytes = if cfg!(miri) { 1 << 12 } else { 1 << 20 };
    for pattern in [&[0x92, 0xc0, 0x91][..], &[0x91], &[0x01]] {
        let deep = Bytes::from(pattern.repeat(bytes));
        assert!(Serializer::<Nested>::deserialize(&MessagePack, &deep).is_err());
    }
    // Arrays, maps, strings and byte strings that claim four gigabytes.
    for tag in [0xdd, 0xdf, 0xdb, 0xc6] {
        let bytes = Bytes::from(vec![tag, 0xff, 0xff, 0xff, 0xff, 0x01]);
        assert!(Serializer::<Vec<u64>>::deserialize(&MessagePack, &bytes).is_err());
        assert!(Serializer::<String>::deserialize(&MessagePack, &bytes).is_err());
        assert!(Serializer::<HashMap<u8, u8>>::deserialize(&MessagePack, &bytes).is_err());
    }
    let deep = Bytes::from("[".repeat(bytes));
    assert!(Serializer::<Nested>::deserialize(&Json, &deep).is_err());
}

#[test]
fn truncated_or_flipped_bytes_never_panic() {
    let value = Tagged::Full { bytes: vec![1, 2, 3], note: Some("note".to_owned()) };
    for stored in [
        MessagePack.serialize(&value).expect("encode").to_vec(),
        Json.serialize(&value).expect("encode").to_vec(),
    ] {
        for length in 0..stored.len() {
            let bytes = Bytes::copy_from_slice(&stored[..length]);
            assert!(Serializer::<Tagged>::deserialize(&MessagePack, &bytes).is_err());
            assert!(Serializer::<Tagged>::deserialize(&Json, &bytes).is_err());
        }
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let bytes = Bytes::from(flipped);
            // Whether it decodes is left to chance: the backend's checksum is there for that.
            drop(Serializer::<Tagged>::deserialize(&MessagePack, &bytes));
            drop(Serializer::<Tagged>::deserialize(&Json, &bytes));
        }
    }
}

#[test]
fn types_have_different_schemas_except_by_reference() {
    assert_ne!(Serializer::<u8>::schema(&MessagePack), Serializer::<u16>::schema(&MessagePack));
    assert_eq!(Serializer::<u8>::schema(&ByReference), Serializer::<u16>::schema(&ByReference));
    let stored = ByReference.serialize(&1_u8).expect("a reference");
    let other = Serializer::<u16>::deserialize(&ByReference, &stored);
    assert_eq!(other.expect_err("another type").kind(), ErrorKind::Decode);
}

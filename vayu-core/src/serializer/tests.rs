//! Tests of the values that the byte formats round-trip and refuse.
#![expect(clippy::option_option, reason = "formats that lose one are refused")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error as _;
use std::fmt::Debug;
use std::iter;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::*;
use crate::error::ErrorKind;

trait Format<T>: Serializer<T, Stored = Bytes> {}
impl<T, S: Serializer<T, Stored = Bytes>> Format<T> for S {}

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(value: &T) {
    let message_pack = give_back(&MessagePack, value);
    for (name, result) in [("MessagePack", message_pack), ("JSON", give_back(&Json, value))] {
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
    round_trip(&(-0.0_f32, vec![-0.05, -0.0], "-0.0".to_owned()));
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
            // It may decode or not: detecting this is left to the checksum of the backend.
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

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    New(u8),
    Tuple(i64, Option<Option<f32>>),
    Struct { name: String, list: Vec<u16> },
}

/// Checks a round trip in the formats that are not self-describing.
fn round_trip_compact<T: Serialize + DeserializeOwned + PartialEq + Debug + 'static>(value: &T) {
    let (postcard, bincode) = (give_back(&Postcard, value), give_back(&Bincode, value));
    for (name, result) in [("Postcard", postcard), ("Bincode", bincode)] {
        assert_eq!(result.as_ref().ok(), Some(value), "{name}: {result:?}");
    }
}

#[test]
fn compact_formats_give_back_what_they_can_and_refuse_the_rest() {
    round_trip_compact(&(1_u8, -1_i64, u128::MAX, i128::MIN, 1.5_f32, "text".to_owned(), 'é'));
    round_trip_compact(&vec![None, Some(None), Some(Some(7))]);
    round_trip_compact(&(0..=255).collect::<Vec<u8>>());
    round_trip_compact(&HashMap::from([(1_u32, vec!["a".to_owned()]), (2, vec![])]));
    let shape = Shape::Struct { name: "n".to_owned(), list: vec![1, 2] };
    round_trip_compact(&vec![Shape::Unit, Shape::New(1), Shape::Tuple(-1, Some(None)), shape]);
    round_trip_compact(&vec![(); 100]);
    let tagged = Tagged::Full { bytes: vec![0, 255], note: None };
    let flat = Flat { name: "n".to_owned(), rest: BTreeMap::new(), maybe: Some(true) };
    assert!(is_refused(&Postcard, &tagged) && is_refused(&Bincode, &tagged));
    assert!(is_refused(&Postcard, &flat) && is_refused(&Bincode, &flat));
    assert!(is_refused(&Postcard, &Untagged::Float(1.5)));
    assert!(is_refused(&Bincode, &vec![0_u8; 17 << 20]), "longer than its limit");
}

#[test]
fn bytes_are_the_part_of_the_stored_form_that_holds_them() {
    for length in [0, 1, 255, 256, 65_535, 65_536] {
        let value = Bytes::from((0..=250).cycle().take(length).collect::<Vec<u8>>());
        let mut stored = MessagePack.serialize(&value).expect("a form");
        assert_eq!(
            Serializer::<Bytes>::deserialize(&MessagePack, &stored).ok(),
            Some(value.clone())
        );
        let form = stored.as_ptr_range();
        let taken: Bytes = MessagePack.deserialize_owned(&mut stored).expect("the value");
        assert_eq!(taken, value);
        assert_eq!(taken.as_ptr_range().end, form.end, "it was copied");
        assert_eq!(
            MessagePack.serialize(&value.to_vec()).ok(),
            MessagePack.serialize(&value).ok(),
            "as a vector"
        );
    }
    assert!(
        Serializer::<Bytes>::deserialize_owned(&MessagePack, &mut Bytes::from_static(b"\xc4\x02a"))
            .is_err()
    );
}

#[test]
fn buffer_of_bytes_takes_as_many_bytes() {
    let buffer: Vec<u8> = (0..=255).collect();
    let stored = MessagePack.serialize(&buffer).expect("encode");
    assert_eq!(stored.len(), buffer.len() + 3);
    assert_eq!(give_back(&MessagePack, &buffer).expect("the same"), buffer);
    assert_eq!(give_back(&MessagePack, &Vec::<u8>::new()).expect("the same"), [0_u8; 0]);
    for length in 0..stored.len() {
        let cut = stored.slice(..length);
        assert!(Serializer::<Vec<u8>>::deserialize(&MessagePack, &cut).is_err());
    }
    let longer = Bytes::from([&stored[..], b"x"].concat());
    assert!(Serializer::<Vec<u8>>::deserialize(&MessagePack, &longer).is_err());
}

#[test]
fn bytes_inside_of_values_take_as_many_bytes_where_they_can_be_read_back() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Page {
        body: Vec<u8>,
        small: Option<Box<[u8]>>,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flattened {
        id: u8,
        #[serde(flatten)]
        page: Page,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Bytes(Vec<u8>),
        Page { body: Vec<u8> },
    }
    fn stored<T>(value: &T) -> usize
    where
        T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
    {
        round_trip(value);
        MessagePack.serialize(value).expect("encode").len()
    }
    let body: Vec<u8> = (0..=255).cycle().take(1000).collect();
    let page = Page { body: body.clone(), small: Some(Box::default()) };
    assert!(stored(&page) < 1_050);
    assert!(stored(&vec![page.clone(), page.clone()]) < 2_100);
    assert!(stored(&(1_u8, Some(body.clone()))) < 1_050);
    assert!(stored(&BTreeMap::from([("body".to_owned(), vec![body.clone()])])) < 1_050);
    stored(&body.iter().copied().collect::<HashSet<u8>>());
    stored(&body.iter().copied().collect::<std::collections::VecDeque<u8>>());
    stored(&vec![1_i8; 100]);

    // Values that serde buffers before their type is known.
    stored(&Tagged::Full { bytes: body.clone(), note: None });
    stored(&Flattened { id: 1, page: page.clone() });
    stored(&vec![Either::Bytes(body.clone()), Either::Page { body: body.clone() }]);

    // Buffers that are written as lists of numbers can be read, too.
    let numbers = encode_as_numbers(&page);
    assert_eq!(Serializer::<Page>::deserialize(&MessagePack, &numbers).ok(), Some(page));
}

fn encode_as_numbers<T: Serialize>(value: &T) -> Bytes {
    let bytes = rmp_serde::to_vec_named(value).expect("encode");
    assert!(bytes.len() > 1_200, "each byte is a number");
    bytes.into()
}

/// Decodes bytes as several types in every format. It may fail, but quickly and without a panic.
fn decode_as_everything(stored: &Bytes) {
    fn decode<T: Serialize + DeserializeOwned + 'static>(stored: &Bytes) {
        drop(Serializer::<T>::deserialize(&MessagePack, stored));
        drop(Serializer::<T>::deserialize(&Json, stored));
        drop(Serializer::<T>::deserialize(&Postcard, stored));
        drop(Serializer::<T>::deserialize(&Bincode, stored));
    }
    decode::<Vec<u8>>(stored);
    decode::<Vec<()>>(stored);
    decode::<String>(stored);
    decode::<Nested>(stored);
    decode::<Tree>(stored);
    decode::<Vec<Shape>>(stored);
    decode::<HashMap<String, Vec<u64>>>(stored);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf(u8),
    Branch(Vec<Tree>),
    Named { child: Option<Box<Tree>> },
}

#[test]
fn hostile_bytes_cost_neither_the_process_nor_much_time() {
    // Deep nesting in every format, and impossible lengths.
    for byte in [0x00, 0x01, 0x02, 0x7f, 0x80, 0x91, 0xc0, 0xfc, 0xff, b'[', b'{', b'"'] {
        decode_as_everything(&Bytes::from(vec![byte; if cfg!(miri) { 500 } else { 2 << 20 }]));
    }
    for length in [u64::from(u32::MAX), 1 << 40, 1 << 60, u64::MAX] {
        for varint in [postcard_length(length), bincode_length(length)] {
            decode_as_everything(&Bytes::from(varint));
        }
    }
}

fn postcard_length(length: u64) -> Vec<u8> {
    ::postcard::to_stdvec(&length).expect("a number")
}

fn bincode_length(length: u64) -> Vec<u8> {
    [&[0xfd][..], &length.to_le_bytes()].concat()
}

/// Damages stored values in ways that a seeded generator chooses.
#[test]
fn mutated_bytes_never_panic_in_any_format() {
    let value = vec![
        Shape::Tuple(-1, Some(None)),
        Shape::Struct { name: "name".to_owned(), list: vec![1, 2, 3] },
    ];
    let stored = [
        MessagePack.serialize(&vec![Shape::New(1)]).expect("encode"),
        Json.serialize(&vec![Shape::New(1)]).expect("encode"),
        Postcard.serialize(&value).expect("encode"),
        Bincode.serialize(&value).expect("encode"),
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).expect("31 bits") % below
    };
    for _ in 0..if cfg!(miri) { 10 } else { 20_000 } {
        for stored in &stored {
            let mut bytes = stored.to_vec();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                match random(4) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xff][random(8)],
                    2 => bytes.truncate(at.max(1)),
                    _ => bytes.insert(at, 0xff),
                }
            }
            decode_as_everything(&Bytes::from(bytes));
        }
    }
}

/// A value that is written as a string, but cannot be read back, since its type expects a number.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String")]
struct Digits(String);

impl TryFrom<String> for Digits {
    type Error = String;

    fn try_from(digits: String) -> std::result::Result<Self, String> {
        if digits.parse::<u32>().is_ok() {
            Ok(Self(digits))
        } else {
            Err(format!("not a number: {digits}"))
        }
    }
}

#[test]
fn errors_of_decoding_do_not_contain_the_value() {
    const SECRET: &str = "hunter2";
    fn assert_silent<T: Debug>(what: &str, kind: ErrorKind, result: Result<T>) {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), kind, "{what}");
        let sources = iter::successors(error.source(), |&source| source.source());
        let seen: Vec<_> = iter::once(format!("{error} {error:?}"))
            .chain(sources.map(|source| format!("{source} {source:?} {source:#?}")))
            .collect();
        let seen = seen.join(" ");
        assert!(!seen.contains(SECRET), "{what}: {seen}");
        assert!(seen.contains(what), "{what}: {seen}");
    }
    fn check<F>(name: &str, format: &F)
    where
        F: Format<String>
            + Format<Digits>
            + Format<(String, f64)>
            + Format<(bool, f64)>
            + Format<u32>,
    {
        let secret = SECRET.to_owned();
        let stored = format.serialize(&secret).expect("a string");
        assert_silent::<u32>(name, ErrorKind::Decode, format.deserialize(&stored));
        assert_silent::<Digits>(name, ErrorKind::Decode, format.deserialize(&stored));
        // JSON with a negative zero is read by another library.
        let stored = format.serialize(&(secret.clone(), -0.0)).expect("a string and a number");
        assert_silent::<(bool, f64)>(name, ErrorKind::Decode, format.deserialize(&stored));
        // The round-trip check decodes too.
        assert_silent(name, ErrorKind::Encode, format.serialize(&Digits(secret)));
    }
    check("MessagePack", &MessagePack);
    check("JSON", &Json);
    check("Postcard", &Postcard);
    check("Bincode", &Bincode);
}

#[test]
fn error_of_decoding_has_the_type_the_category_and_the_position() {
    let decode = |json: &'static str| {
        let result: Result<(u8, f64)> = Json.deserialize(&Bytes::from(json));
        format!("{:?}", result.expect_err(json))
    };
    let mismatch =
        "decode `(u8, f64)` as JSON: the stored value is not of this type at line 1 column ";
    for json in ["[\"x\",1.0]", "[\"x\",-0.0]"] {
        assert!(decode(json).starts_with(mismatch), "{}", decode(json));
    }
    for json in ["[1", "[1,-0.0"] {
        assert!(decode(json).contains(": unexpected end at line 1 column "), "{}", decode(json));
    }
}

//! Tests of the rendering of keys.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::Ipv4Addr;

use serde::{Serialize, Serializer};

use super::*;
use crate::key::{Key, KeyBuilder, ParsedKey};

/// Returns the call of a key with these arguments.
fn shown(arguments: impl Serialize) -> String {
    rendered(&Key::new("f", &arguments).expect("a key"), 1 << 20)
}

fn rendered(key: &Key, max_bytes: usize) -> String {
    ParsedKey::parse(&key.to_bytes()).expect("a key").call(key.label(), max_bytes)
}

#[derive(Debug, Serialize)]
struct Unit;

#[derive(Debug, Serialize)]
struct Id(u64);

#[derive(Debug, Serialize)]
struct Pair(i8, char);

#[derive(Debug, Serialize)]
struct Point {
    x: f64,
    y: Option<f32>,
}

#[derive(Debug, Serialize)]
enum Shape {
    Empty,
    Circle(Id),
    Line(Point, Point),
    Square { corner: Point, side: u16 },
}

/// Bytes, as `serde_bytes` writes them.
struct Bytes(&'static [u8]);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

#[test]
fn values_read_as_rust_writes_them() {
    let point = || Point { x: 0.5, y: None };
    macro_rules! as_debug {
        ($($value:expr),* $(,)?) => {
            $(assert_eq!(shown(($value,)), format!("f({:?})", $value));)*
        };
    }
    as_debug![
        (),
        true,
        -1_i8,
        i16::MIN,
        7_i32,
        -7_i64,
        i128::MIN,
        u8::MAX,
        8_u16,
        9_u32,
        u64::MAX,
        u128::MAX,
        0.5_f32,
        -0.0_f64,
        1e300_f64,
        f64::NAN,
        'é',
        '\n',
        "src/main.rs",
        "\"quoted\" \\ \u{1b}[31m\0",
        Some("x"),
        None::<u8>,
        Some(Some(())),
        (1, "a"),
        (1,),
        vec![1_u8, 2, 3],
        Vec::<u8>::new(),
        vec!["a", "b"],
        vec![Some(1), None],
        vec![vec![1.5], vec![]],
        BTreeMap::from([("a", 1), ("b", 2)]),
        BTreeMap::<u8, u8>::new(),
        Unit,
        Id(7),
        Pair(-1, 'x'),
        point(),
        Point { x: 1.0, y: Some(2.5) },
        Shape::Empty,
        Shape::Circle(Id(1)),
        Shape::Line(point(), point()),
        Shape::Square { corner: point(), side: 3 },
    ];
    assert_eq!(shown(([1_u8, 2],)), "f((1, 2))", "serde writes an array as a tuple");
    assert_eq!(shown((Bytes(b"a\0\"\xff"),)), r#"f(b"a\x00\"\xff")"#);
    assert_eq!(shown(()), "f()");
    assert_eq!(shown(("src/main.rs", 3)), r#"f("src/main.rs", 3)"#);
    assert_eq!(shown(7), "f(7)", "one value holds the arguments");
}

#[test]
fn readable_form_is_shown_alone() {
    let address = Ipv4Addr::LOCALHOST;
    assert_eq!(shown((address, Some(address), 7)), r#"f("127.0.0.1", Some("127.0.0.1"), 7)"#);
    assert_eq!(shown((vec![address; 2],)), r#"f(["127.0.0.1", "127.0.0.1"])"#);
    assert_eq!(shown((BTreeMap::from([(address, address)]),)), r#"f({"127.0.0.1": "127.0.0.1"})"#);
}

#[test]
fn key_is_shown_with_its_version_its_parts_and_its_label() {
    let mut builder = KeyBuilder::arguments();
    builder.encode(&1);
    builder.end_arguments();
    builder.encode(&"eu");
    builder.encode_set(&HashSet::from([7]));
    builder.finish("f");
    let key = builder.into_key().expect("a key");
    assert_eq!(rendered(&key, 256), r#"f(1; "eu", {7})"#);
    assert_eq!(rendered(&key.clone().with_version(2), 256), r#"f@2(1; "eu", {7})"#);
    let labelled = key.with_label("one\n");
    assert_eq!(rendered(&labelled, 256), r"f [one\n]");

    let text = Key::from_text("f", "EUR/2026");
    assert_eq!(rendered(&text, 256), "f:EUR/2026");
    assert_eq!(rendered(&text.clone().with_version("b"), 256), "f@\"b\":EUR/2026");
    let mut builder = KeyBuilder::text("EUR");
    builder.end_text();
    builder.encode(&7);
    builder.finish("f");
    assert_eq!(rendered(&builder.into_key().expect("a key"), 256), "f:EUR; 7");
    assert_eq!(rendered(&Key::from_text("\u{1b}[2J", "\u{202e}\r"), 256), r"\u{1b}[2J:\u{202e}\r");
}

#[test]
fn rendering_is_cut_off_at_its_limit() {
    let key = Key::new("f", &("é".repeat(100),)).expect("a key");
    for limit in 3..40 {
        let shown = rendered(&key, limit);
        assert!(shown.len() <= limit && shown.ends_with('…'), "{limit} {shown}");
    }
    // The compact form of an address exceeds the limit, the readable one does not.
    let wide = vec![Ipv4Addr::new(1, 1, 1, 1)];
    let whole = shown((wide.clone(),));
    assert_eq!(rendered(&Key::new("f", &(wide,)).expect("a key"), whole.len()), whole);
}

#[test]
fn value_that_is_nested_too_deep_is_not_shown() {
    let some = [b"A".as_slice(), &vec![SOME; 100_000]].concat();
    assert_eq!(call("f", None, &some, None, 256), "f(…)");
    let mut nested = Vec::new();
    for _ in 0..100_000 {
        nested.extend_from_slice(&[SEQ]);
    }
    assert_eq!(call("f", None, &[b"A".as_slice(), &nested].concat(), None, 256), "f(…)");
}

#[test]
fn bytes_that_are_not_an_encoding_are_not_shown() {
    for encoded in [
        &b""[..],
        b"A",
        b"Z",
        b"D",
        b"A\x02",
        b"A\x03\x02",
        b"A\x11\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"A\x11\x05abc",
        b"A\x11\x01\xff",
        b"A\x10\xff\xff\xff\xff",
        b"A\x19\x89\xff\xff\xff\xff\x01\x00",
        b"A\x19\x91\x01\x00\x00\x00\x01\x00",
        b"A\x1c\x05",
        b"A\x1d\x01P\x05",
        b"A\x22",
    ] {
        assert_eq!(call("f", None, encoded, None, 256), "f(…)", "{encoded:?}");
    }
    assert_eq!(call("f", None, b"M\x01\0\0\0\0\0\0\0k\xff", None, 256), "f:k; …");
}

#[test]
fn sorted_elements_are_shown_in_their_order() {
    let set = BTreeSet::from([3_u8, 1, 2]);
    assert_eq!(shown((&set,)), "f([1, 2, 3])", "serde writes a set as a sequence");
}

#[cfg(not(miri))]
mod properties {
    use proptest::prelude::*;

    use super::*;

    /// A value whose `Debug` is that of a value of the same form in a program.
    #[derive(Clone)]
    enum Tree {
        Unit,
        Bool(bool),
        I32(i32),
        U8(u8),
        F64(f64),
        Char(char),
        Text(String),
        TwoForms(u8, String),
        Optional(Option<Box<Tree>>),
        Id(Box<Tree>),
        Variant(Box<Tree>),
        List(Vec<Tree>),
        Tuple(Vec<Tree>),
        Map(BTreeMap<String, Tree>),
        Point(Box<Tree>, Box<Tree>),
    }

    impl Serialize for Tree {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::{SerializeSeq, SerializeStruct, SerializeTuple};
            match self {
                Self::Unit => serializer.serialize_unit(),
                Self::Bool(value) => value.serialize(serializer),
                Self::I32(value) => value.serialize(serializer),
                Self::U8(value) => value.serialize(serializer),
                Self::F64(value) => value.serialize(serializer),
                Self::Char(value) => value.serialize(serializer),
                Self::Text(value) => value.serialize(serializer),
                Self::TwoForms(compact, readable) => {
                    if serializer.is_human_readable() {
                        readable.serialize(serializer)
                    } else {
                        compact.serialize(serializer)
                    }
                }
                Self::Optional(value) => value.serialize(serializer),
                Self::Id(value) => serializer.serialize_newtype_struct("Id", value),
                Self::Variant(value) => {
                    serializer.serialize_newtype_variant("Kind", 1, "Variant", value)
                }
                Self::List(values) => {
                    let mut list = serializer.serialize_seq(None)?;
                    values.iter().try_for_each(|value| list.serialize_element(value))?;
                    list.end()
                }
                Self::Tuple(values) => {
                    let mut tuple = serializer.serialize_tuple(values.len())?;
                    values.iter().try_for_each(|value| tuple.serialize_element(value))?;
                    tuple.end()
                }
                Self::Map(entries) => entries.serialize(serializer),
                Self::Point(x, y) => {
                    let mut point = serializer.serialize_struct("Point", 2)?;
                    point.serialize_field("x", x)?;
                    point.serialize_field("y", y)?;
                    point.end()
                }
            }
        }
    }

    impl fmt::Debug for Tree {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Unit => ().fmt(f),
                Self::Bool(value) => fmt::Debug::fmt(value, f),
                Self::I32(value) => fmt::Debug::fmt(value, f),
                Self::U8(value) => fmt::Debug::fmt(value, f),
                Self::F64(value) => fmt::Debug::fmt(value, f),
                Self::Char(value) => fmt::Debug::fmt(value, f),
                Self::Text(value) | Self::TwoForms(_, value) => fmt::Debug::fmt(value, f),
                Self::Optional(value) => value.fmt(f),
                Self::Id(value) => f.debug_tuple("Id").field(value).finish(),
                Self::Variant(value) => f.debug_tuple("Variant").field(value).finish(),
                Self::List(values) => values.fmt(f),
                Self::Tuple(values) if values.is_empty() => f.write_str("()"),
                Self::Tuple(values) => {
                    let mut tuple = f.debug_tuple("");
                    for value in values {
                        tuple.field(value);
                    }
                    tuple.finish()
                }
                Self::Map(entries) => entries.fmt(f),
                Self::Point(x, y) => f.debug_struct("Point").field("x", x).field("y", y).finish(),
            }
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            Just(Tree::Unit),
            any::<bool>().prop_map(Tree::Bool),
            any::<i32>().prop_map(Tree::I32),
            (0_u8..50).prop_map(Tree::U8),
            any::<f64>().prop_map(Tree::F64),
            any::<char>().prop_map(Tree::Char),
            any::<String>().prop_map(Tree::Text),
            (0_u8..50, "[a\\x00]{0,2}").prop_map(|(byte, text)| Tree::TwoForms(byte, text)),
            Just(Tree::Optional(None)),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..5);
            prop_oneof![
                inner.clone().prop_map(|tree| Tree::Optional(Some(Box::new(tree)))),
                inner.clone().prop_map(|tree| Tree::Id(Box::new(tree))),
                inner.clone().prop_map(|tree| Tree::Variant(Box::new(tree))),
                list.clone().prop_map(Tree::List),
                list.prop_map(Tree::Tuple),
                (inner.clone(), inner.clone())
                    .prop_map(|(x, y)| Tree::Point(Box::new(x), Box::new(y))),
                proptest::collection::btree_map("[ab]{2}", inner, 0..3).prop_map(Tree::Map),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn every_value_reads_as_its_debug_form(one in trees(), two in trees()) {
            prop_assert_eq!(shown((&one, &two)), format!("f({one:?}, {two:?})"));
        }

        #[test]
        fn any_bytes_are_rendered_within_the_limit(
            bytes in proptest::collection::vec(prop_oneof![0_u8..36, 0x83_u8..0x91, any::<u8>()], 0..80),
            limit in 3_usize..60,
        ) {
            for start in [&b"A"[..], b"A\x02", b"T", b"M\x02\0\0\0\0\0\0\0", b"V\x02i1A", b""] {
                let shown = call("f", None, &[start, &bytes].concat(), None, limit);
                prop_assert!(shown.len() <= limit && !shown.contains(char::is_control), "{}", shown);
            }
            if let Some(key) = ParsedKey::parse(&bytes) {
                prop_assert!(key.call(None, limit).len() <= limit);
            }
        }

        #[test]
        fn changed_encodings_are_rendered(tree in trees(), at in any::<usize>(), byte in any::<u8>()) {
            let key = Key::new("f", &(tree,)).expect("a key");
            let mut encoded = key.encoded_arguments().to_vec();
            let at = at % encoded.len();
            encoded[at] = byte;
            call("f", None, &encoded, None, 256);
            call("f", None, &encoded[..at], None, 256);
        }
    }
}

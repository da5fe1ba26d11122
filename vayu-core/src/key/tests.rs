use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Serialize;

use super::*;

fn encoded_arguments(value: &(impl Serialize + ?Sized)) -> Vec<u8> {
    Key::new("p", value).expect("a key").encoded_arguments().to_vec()
}

/// Checks that no two of these encodings are equal.
fn all_different(materials: &[(&str, Vec<u8>)]) {
    for (index, (name, one)) in materials.iter().enumerate() {
        for (other, two) in &materials[index + 1..] {
            assert_ne!(one, two, "{name} and {other}");
        }
    }
}

macro_rules! named {
    ($($value:expr),* $(,)?) => { [$((stringify!($value), encoded_arguments(&$value))),*] };
}

#[derive(Serialize)]
enum One {
    A,
    B(u8),
    C { x: u8 },
    D(u8, u8),
}

#[derive(Serialize)]
enum Two {
    A,
}

#[derive(Serialize)]
struct Unit;

#[derive(Serialize)]
struct Wrapped(u8);

#[derive(Serialize)]
struct Pair(u8, u8);

#[derive(Serialize)]
struct Named {
    x: u8,
}

#[derive(Serialize)]
struct OtherName {
    x: u8,
}

#[derive(Serialize)]
struct OtherField {
    y: u8,
}

#[test]
fn one_is_not_one_of_another_type() {
    all_different(&named![
        1_u8,
        1_u16,
        1_u32,
        1_u64,
        1_u128,
        1_i8,
        1_i16,
        1_i32,
        1_i64,
        1_i128,
        1.0_f32,
        1.0_f64,
        true,
        "1",
        '1',
        (1_u8,),
        vec![1_u8],
        Some(1_u8),
        Wrapped(1),
        Named { x: 1 },
        OtherName { x: 1 },
        OtherField { y: 1 },
        One::B(1),
        One::C { x: 1 },
        HashMap::from([(1_u8, 1_u8)]),
    ]);
}

#[test]
fn nothing_is_not_another_nothing() {
    all_different(&named![
        (),
        None::<u8>,
        Some(()),
        Some(None::<u8>),
        Some(Some(())),
        "",
        Vec::<u8>::new(),
        false,
        0_u8,
        Unit,
        One::A,
        Two::A,
        HashMap::<u8, u8>::new(),
        ((),),
        ((), ()),
        '\0',
        "\0",
    ]);
}

#[test]
fn floats_are_distinguished_by_their_bits() {
    all_different(&named![
        0.0_f64,
        -0.0_f64,
        f64::NAN,
        -f64::NAN,
        f64::from_bits(f64::NAN.to_bits() + 1),
        f64::INFINITY,
        f64::MIN_POSITIVE,
    ]);
    assert_eq!(encoded_arguments(&f64::NAN), encoded_arguments(&f64::NAN));
}

#[test]
fn values_that_are_equal_when_joined_are_distinguished() {
    all_different(&named![
        ("ab", "c"),
        ("a", "bc"),
        ("abc", ""),
        ("", "abc"),
        ("abc",),
        "abc",
        (("ab",), "c"),
        ("ab", ("c",)),
        ("x:b:y", "z"),
        ("x", "y:b:z"),
        (vec!["a"], vec!["b", "c"]),
        (vec!["a", "b"], vec!["c"]),
        (vec![vec!["a"], vec!["b"]],),
        (vec![vec!["a", "b"]],),
        Pair(1, 2),
        (1_u8, 2_u8),
        One::D(1, 2),
        vec![1_u8, 2],
    ]);
}

#[test]
fn lengths_around_the_steps_of_their_encoding_are_distinguished() {
    let texts: Vec<String> =
        [0, 1, 63, 64, 127, 128, 129, 16_383, 16_384, 65_536].map(|n| "k".repeat(n)).to_vec();
    let materials: Vec<_> = texts.iter().map(|text| ("a text", encoded_arguments(text))).collect();
    all_different(&materials);
}

#[test]
fn maps_are_equal_in_any_order() {
    let numbers = 0..if cfg!(miri) { 20 } else { 100 };
    let forward: HashMap<u32, u32> = numbers.clone().map(|n| (n, n * n)).collect();
    let backward: HashMap<u32, u32> = numbers.clone().rev().map(|n| (n, n * n)).collect();
    let sorted: BTreeMap<u32, u32> = numbers.map(|n| (n, n * n)).collect();
    assert_eq!(encoded_arguments(&forward), encoded_arguments(&backward));
    assert_eq!(encoded_arguments(&forward), encoded_arguments(&sorted));
    let swapped = HashMap::from([(1, 2), (2, 1)]);
    assert_ne!(encoded_arguments(&swapped), encoded_arguments(&HashMap::from([(1, 1), (2, 2)])));
}

#[test]
fn sets_with_the_helper_are_equal_in_any_order() {
    #[derive(Serialize)]
    struct Filter {
        #[serde(serialize_with = "crate::sorted_set")]
        tags: HashSet<String>,
    }
    let texts = || (0..50).map(|n| n.to_string());
    let (forward, backward): (HashSet<_>, HashSet<_>) =
        (texts().collect(), texts().rev().collect());
    assert_eq!(
        encoded_arguments(&Filter { tags: forward }),
        encoded_arguments(&Filter { tags: backward })
    );
}

#[test]
fn arguments_built_one_by_one_are_those_of_a_tuple() {
    let mut builder = KeyBuilder::arguments();
    builder.encode("a");
    builder.encode(&1_u8);
    builder.end_arguments();
    builder.finish("p");
    let key = builder.key().expect("a key");
    assert_eq!(*key, Key::new("p", &("a", 1_u8)).expect("a key"));
    let mut none = KeyBuilder::arguments();
    none.end_arguments();
    none.finish("p");
    assert_eq!(*none.key().expect("a key"), Key::new("p", &()).expect("a key"));
}

#[test]
fn further_parts_are_not_arguments_and_a_text_is_not_one_either() {
    let build = |arguments: &[&str], parts: &[&str]| {
        let mut builder = KeyBuilder::arguments();
        for argument in arguments {
            builder.encode(*argument);
        }
        builder.end_arguments();
        for part in parts {
            builder.encode(*part);
        }
        builder.finish("p");
        builder.key().expect("a key").encoded_arguments().to_vec()
    };
    let text = |text: &str, parts: &[&str]| {
        let mut builder = KeyBuilder::text(text);
        if !parts.is_empty() {
            builder.end_text();
        }
        for part in parts {
            builder.encode(*part);
        }
        builder.finish("p");
        builder.key().expect("a key").encoded_arguments().to_vec()
    };
    all_different(&[
        ("a, b", build(&["a", "b"], &[])),
        ("a + b", build(&["a"], &["b"])),
        ("+ a b", build(&[], &["a", "b"])),
        ("text a", text("a", &[])),
        ("text ab", text("ab", &[])),
        ("text a + b", text("a", &["b"])),
        ("text + a b", text("", &["a", "b"])),
        ("text a + b c", text("a", &["b", "c"])),
    ]);
}

#[test]
fn prefix_and_rest_are_distinguished() {
    let (one, two) = (Key::from_text("a:b", "c"), Key::from_text("a", "b:c"));
    assert_eq!(one.to_string(), two.to_string(), "as text they are the same");
    assert_ne!(one, two);
    assert_ne!(one.to_bytes(), two.to_bytes());
    assert_ne!(one.digest(), two.digest());
}

#[test]
fn key_shows_its_text_or_a_digest_and_debug_shows_no_argument() {
    let text = Key::from_text("rates", "EUR");
    assert_eq!(text.to_string(), "rates:EUR");
    let secret = Key::new("login", &("alice", "hunter2")).expect("a key");
    let shown = secret.to_string();
    let digest = shown.strip_prefix("login:").expect("the prefix");
    assert_eq!(digest.len(), 64);
    assert!(digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert!(!format!("{secret:?}{text:?}").contains("EUR"));
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

#[test]
fn bytes_and_digest_are_the_same_in_every_process() {
    let key = Key::new("p", &("text", 7_u64, Some(true))).expect("a key");
    assert_eq!(
        hex(&key.to_bytes()),
        "0201000000000000007041021104746578740c070000000000000014030100"
    );
    assert_eq!(
        hex(&key.digest()),
        "2c6ec7dcb2eea1b72c15911e43154b974dd53c58e0827acc8c6745941957ee3f"
    );
}

#[test]
fn long_keys_that_differ_in_the_last_byte_differ() {
    let long = "k".repeat(1 << 16);
    let (one, two) = (format!("{long}a"), format!("{long}b"));
    assert_ne!(Key::from_text("p", &one), Key::from_text("p", &two));
}

#[cfg(not(miri))]
mod ways;

#[cfg(not(miri))]
mod properties {
    use proptest::prelude::*;
    use serde::ser::{SerializeMap, SerializeSeq, SerializeTuple, Serializer};

    use super::*;

    /// A value of the serde data model.
    #[derive(Debug, Clone, PartialEq)]
    enum Tree {
        Unit,
        Bool(bool),
        U8(u8),
        U64(u64),
        I64(i64),
        U128(u128),
        F64(u64),
        Char(char),
        /// A byte in the compact form, and a string in the readable one.
        TwoForms(u8, String),
        Text(String),
        Bytes(Vec<u8>),
        Optional(Option<Box<Tree>>),
        Wrapped(Box<Tree>),
        Variant(bool, Box<Tree>),
        List(Vec<Tree>),
        Tuple(Vec<Tree>),
        Map(BTreeMap<String, Tree>),
    }

    impl Serialize for Tree {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Unit => serializer.serialize_unit(),
                Self::Bool(value) => value.serialize(serializer),
                Self::U8(value) => value.serialize(serializer),
                Self::U64(value) => value.serialize(serializer),
                Self::I64(value) => value.serialize(serializer),
                Self::U128(value) => value.serialize(serializer),
                Self::F64(bits) => f64::from_bits(*bits).serialize(serializer),
                Self::Char(value) => value.serialize(serializer),
                Self::TwoForms(compact, readable) => {
                    if serializer.is_human_readable() {
                        serializer.serialize_str(readable)
                    } else {
                        serializer.serialize_u8(*compact)
                    }
                }
                Self::Text(value) => value.serialize(serializer),
                Self::Bytes(value) => serializer.serialize_bytes(value),
                Self::Optional(value) => value.serialize(serializer),
                Self::Wrapped(value) => serializer.serialize_newtype_struct("W", &**value),
                Self::Variant(first, value) => {
                    let (index, name) = if *first { (0, "F") } else { (1, "S") };
                    serializer.serialize_newtype_variant("E", index, name, &**value)
                }
                Self::List(values) => {
                    let byte =
                        |value: &Self| if let Self::U8(byte) = value { Some(*byte) } else { None };
                    if let Some(bytes) = values.iter().map(byte).collect::<Option<Vec<u8>>>() {
                        // At once or one by one: the encoding is the same.
                        if bytes.len() % 2 == 0 {
                            return bytes.serialize(serializer);
                        }
                    }
                    let mut list = serializer.serialize_seq(None)?;
                    values.iter().try_for_each(|value| list.serialize_element(value))?;
                    list.end()
                }
                Self::Tuple(values) => {
                    let mut tuple = serializer.serialize_tuple(values.len())?;
                    values.iter().try_for_each(|value| tuple.serialize_element(value))?;
                    tuple.end()
                }
                Self::Map(entries) => {
                    let mut map = serializer.serialize_map(None)?;
                    entries
                        .iter()
                        .rev()
                        .try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                    map.end()
                }
            }
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            Just(Tree::Unit),
            any::<bool>().prop_map(Tree::Bool),
            (0_u8..3).prop_map(Tree::U8),
            (0_u64..3).prop_map(Tree::U64),
            (0_i64..3).prop_map(Tree::I64),
            (0_u128..3).prop_map(Tree::U128),
            prop_oneof![Just(0), Just(1 << 63), any::<u64>()].prop_map(Tree::F64),
            prop_oneof![Just('\0'), any::<char>()].prop_map(Tree::Char),
            (0_u8..2, "[a\\x00]{0,1}").prop_map(|(byte, text)| Tree::TwoForms(byte, text)),
            "[a\\x00\\x11]{0,3}".prop_map(Tree::Text),
            proptest::collection::vec(0_u8..35, 0..4).prop_map(Tree::Bytes),
            Just(Tree::Optional(None)),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..4);
            prop_oneof![
                inner.clone().prop_map(|tree| Tree::Optional(Some(Box::new(tree)))),
                inner.clone().prop_map(|tree| Tree::Wrapped(Box::new(tree))),
                (any::<bool>(), inner.clone())
                    .prop_map(|(first, tree)| Tree::Variant(first, Box::new(tree))),
                list.clone().prop_map(Tree::List),
                list.prop_map(Tree::Tuple),
                proptest::collection::btree_map("[ab]{0,2}", inner, 0..3).prop_map(Tree::Map),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn two_values_have_one_encoding_only_if_they_are_equal(one in trees(), two in trees()) {
            prop_assert_eq!(one == two, encoded_arguments(&one) == encoded_arguments(&two));
        }

        #[test]
        fn no_encoding_goes_on_as_another_value(one in trees(), two in trees()) {
            let (one, two) = (encoded_arguments(&one), encoded_arguments(&two));
            // A readable form may follow a compact one. It is not another value.
            let goes_on = |rest: &[u8]| rest.first().is_some_and(|&byte| byte != encoder::READABLE);
            prop_assert!(!two.strip_prefix(&one[..]).is_some_and(goes_on));
        }

        #[test]
        fn two_strings_with_prefixes_are_one_key_only_if_both_are_equal(
            one in ("[:ab]{0,3}", "[:ab]{0,3}"),
            two in ("[:ab]{0,3}", "[:ab]{0,3}"),
        ) {
            let key = |(prefix, text): &(String, String)| Key::from_text(prefix.clone(), text);
            prop_assert_eq!(one == two, key(&one) == key(&two));
            prop_assert_eq!(one == two, key(&one).to_bytes() == key(&two).to_bytes());
        }
    }
}

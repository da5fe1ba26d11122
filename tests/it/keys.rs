//! Arguments in keys, and round trips of stored values.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::mem::discriminant;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::LazyLock;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vayu::testing::MapBackend;
use vayu::{
    Bincode, Cache, ErrorKind, FileCache, Json, MemoryCache, MessagePack, Postcard, TieredOptions,
    cached,
};

use crate::Runs;

const MINUTE: Duration = Duration::from_secs(60);

type Packed<S = MessagePack> = Cache<MapBackend<bytes::Bytes>, S>;

/// The methods by which a map of numbers is serialized.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Entries,
    KeysAndValues,
    Collected,
    Flattened,
}

const WAYS: [Way; 4] = [Way::Entries, Way::KeysAndValues, Way::Collected, Way::Flattened];

/// A list of entries that serializes as a map.
struct Entries<'a>(Way, &'a [(&'a str, u32)]);

impl Serialize for Entries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Inner<'a>(&'a [(&'a str, u32)]);
        impl Serialize for Inner<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().copied())
            }
        }
        #[derive(Serialize)]
        struct Flat<'a> {
            #[serde(flatten)]
            entries: Inner<'a>,
        }
        let Self(way, entries) = *self;
        match way {
            Way::Entries => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Way::KeysAndValues => {
                let mut map = serializer.serialize_map(None)?;
                for (key, value) in entries {
                    map.serialize_key(key)?;
                    map.serialize_value(value)?;
                }
                map.end()
            }
            Way::Collected => serializer.collect_map(entries.iter().copied()),
            Way::Flattened => Flat { entries: Inner(entries) }.serialize(serializer),
        }
    }
}

#[derive(Serialize)]
struct Search {
    tenant: u32,
    #[serde(flatten)]
    extra: HashMap<String, u32>,
}

fn search(tenant: u32, value: u32) -> Search {
    Search { tenant, extra: [("tenant".to_owned(), value)].into() }
}

#[test]
fn field_and_flattened_entry_of_one_name_are_distinct() {
    #[cached(ttl = 60)]
    fn by_value(search: Search) -> String {
        format!("{} {:?}", search.tenant, search.extra)
    }
    #[cached(ttl = 60, key = "k", include(search))]
    fn included(search: &Search) -> u32 {
        search.tenant
    }
    #[cached(ttl = 60)]
    fn nested(searches: (u8, Option<Vec<Search>>)) -> u32 {
        searches.1.map_or(0, |searches| searches[0].tenant)
    }
    assert_ne!(by_value(search(1, 2)), by_value(search(2, 1)));
    assert_eq!((included(&search(1, 2)), included(&search(2, 1))), (1, 2));
    let list = |tenant, value| (1, Some(vec![search(tenant, value)]));
    assert_eq!((nested(list(1, 2)), nested(list(2, 1))), (1, 2));
}

#[test]
fn list_that_is_written_as_a_map_keeps_the_order_of_equal_keys() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, prefix = "entries")]
    fn run<T: Serialize>(value: T) -> usize {
        let _ = value;
        RUNS.count()
    }
    for way in WAYS {
        let lists: [&[(&str, u32)]; 5] = [
            &[("a", 1), ("a", 2)],
            &[("a", 2), ("a", 1)],
            &[("a", 1), ("b", 0), ("a", 1), ("a", 2)],
            &[("a", 1), ("b", 0), ("a", 2), ("a", 1)],
            &[("a", 1)],
        ];
        let runs = |wrap: usize| {
            lists.map(|list| match wrap {
                0 => run(Entries(way, list)),
                1 => run(Some(vec![(7_u8, Entries(way, list))])),
                2 => run(BTreeMap::from([("m", Entries(way, list))])),
                _ => run(Keyed(Entries(way, list))),
            })
        };
        for wrap in 0..4 {
            let first = runs(wrap);
            let different: HashSet<_> = first.iter().collect();
            assert_eq!(different.len(), lists.len(), "{way:?} {wrap} {first:?}");
            assert_eq!(runs(wrap), first, "{way:?}: and each has its entry");
            let other_order: [&[(&str, u32)]; 2] = [
                &[("b", 0), ("a", 1), ("a", 1), ("a", 2)],
                &[("a", 1), ("a", 2), ("b", 0), ("a", 1)],
            ];
            if wrap == 0 {
                assert_eq!(run(Entries(way, other_order[0])), first[2], "{way:?}");
                assert_eq!(run(Entries(way, other_order[1])), first[3], "{way:?}");
            }
        }
    }
}

/// A map whose key is this value.
struct Keyed<T>(T);

impl<T: Serialize> Serialize for Keyed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(&self.0, &())?;
        map.end()
    }
}

mod pairs {
    use super::*;

    pub(super) fn serialize<S: Serializer>(
        pairs: &[(String, String)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        pairs.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

#[derive(Serialize)]
struct Query {
    #[serde(with = "pairs")]
    parameters: Vec<(String, String)>,
}

fn query(pairs: &[(&str, &str)]) -> Query {
    let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    Query { parameters: pairs.iter().map(owned).collect() }
}

#[test]
fn list_that_is_written_as_a_map_is_a_map_and_the_list_itself_is_included() {
    #[cached(ttl = 60)]
    async fn first(query: Query) -> String {
        query.parameters[0].1.clone()
    }
    #[cached(ttl = 60)]
    fn by_the_map(query: &Query) -> String {
        query.parameters[0].1.clone()
    }
    #[cached(ttl = 60, skip(query), include(query.parameters.as_slice()))]
    fn by_the_list(query: &Query) -> String {
        query.parameters[0].1.clone()
    }
    let (one, two) = (query(&[("a", "1"), ("a", "2")]), query(&[("a", "2"), ("a", "1")]));
    assert_eq!((by_the_map(&one), by_the_map(&two)), ("1".to_owned(), "2".to_owned()));
    smol::block_on(async {
        assert_eq!((first(one).await, first(two).await), ("1".to_owned(), "2".to_owned()));
    });
    // The rule, and the workaround.
    let (one, two) = (query(&[("a", "1"), ("b", "2")]), query(&[("b", "2"), ("a", "1")]));
    assert_eq!((by_the_map(&one), by_the_map(&two)), ("1".to_owned(), "1".to_owned()));
    assert_eq!((by_the_list(&one), by_the_list(&two)), ("1".to_owned(), "2".to_owned()));
}

fn link_local(scope: u32) -> SocketAddr {
    SocketAddrV6::new("fe80::1".parse().expect("an address"), 80, 0, scope).into()
}

fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V6(address) => address.scope_id(),
        SocketAddr::V4(_) => 0,
    }
}

/// Serializes differently in compact and in human-readable formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct TwoForms {
    compact: u8,
    readable: u8,
}

impl Serialize for TwoForms {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(&self.readable)
        } else {
            serializer.serialize_u8(self.compact)
        }
    }
}

const FORMS: [TwoForms; 4] = [
    TwoForms { compact: 0, readable: 0 },
    TwoForms { compact: 1, readable: 0 },
    TwoForms { compact: 0, readable: 1 },
    TwoForms { compact: 1, readable: 1 },
];

#[test]
fn argument_is_compared_in_both_forms_of_serde() {
    #[cached(ttl = 60)]
    fn probe(peer: SocketAddr) -> u32 {
        scope(peer)
    }
    #[cached(ttl = 60, key = "k", include(peer))]
    async fn included(peer: &SocketAddr) -> u32 {
        scope(*peer)
    }
    #[cached(ttl = 60)]
    fn in_a_set(peers: &HashSet<SocketAddr>) -> u32 {
        peers.iter().copied().map(scope).sum()
    }
    assert_eq!((probe(link_local(2)), probe(link_local(3)), probe(link_local(2))), (2, 3, 2));
    let sets = [2, 3].map(|scope| HashSet::from([link_local(scope)]));
    assert_eq!((in_a_set(&sets[0]), in_a_set(&sets[1])), (2, 3));
    smol::block_on(async {
        let (two, three) = (link_local(2), link_local(3));
        assert_eq!((included(&two).await, included(&three).await), (2, 3));
    });
}

#[test]
fn nested_value_of_an_argument_is_compared_in_both_forms() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, prefix = "two forms")]
    fn run<T: Serialize>(value: T) -> usize {
        let _ = value;
        RUNS.count()
    }
    #[derive(Serialize)]
    struct Newtype<T>(T);
    #[derive(Serialize)]
    #[serde(transparent)]
    struct Transparent<T>(T);
    #[derive(Serialize)]
    enum Variant<T> {
        New(T),
        Tuple(u8, T),
        Struct { value: T },
    }
    #[derive(Serialize)]
    #[serde(tag = "kind")]
    enum Tagged<T> {
        One { value: T },
    }
    #[derive(Serialize)]
    struct Field<T: Serialize> {
        before: u8,
        #[serde(serialize_with = "by_function")]
        value: T,
        after: u8,
    }
    #[derive(Serialize)]
    struct Flat<T> {
        before: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, T>,
    }
    #[derive(Serialize)]
    struct Sorted {
        #[serde(serialize_with = "vayu::sorted_set")]
        set: HashSet<TwoForms>,
    }
    fn by_function<T: Serialize, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        value.serialize(to)
    }
    type Wrap = fn(TwoForms) -> usize;
    let wraps: [Wrap; 18] = [
        |value| run(value),
        |value| run(std::rc::Rc::new(value).as_ref()),
        |value| run(Box::new(value)),
        |value| run(Some(value)),
        |value| run((value, 1_u8)),
        |value| run([value, value]),
        |value| run(vec![value, FORMS[0]]),
        |value| run(Newtype(value)),
        |value| run(Transparent(value)),
        |value| run(Variant::New(value)),
        |value| run(Variant::Tuple(1, value)),
        |value| run(Variant::Struct { value }),
        |value| run(Tagged::One { value }),
        |value| run(Field { before: 1, value, after: 1 }),
        |value| run(Flat { before: 1, rest: BTreeMap::from([("v".to_owned(), value)]) }),
        |value| run(HashMap::from([(value, 1_u8)])),
        |value| run(HashMap::from([(1_u8, value)])),
        |value| run(Sorted { set: HashSet::from([value]) }),
    ];
    for (n, wrap) in wraps.iter().enumerate() {
        let first = FORMS.map(wrap);
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), FORMS.len(), "{n}: {first:?}");
        assert_eq!(FORMS.map(wrap), first, "{n}: and each has its entry");
    }
}

#[test]
fn deeply_nested_values_are_serialized_twice_and_no_more() {
    /// Calls `is_human_readable` at every depth.
    struct Deep(u32);
    impl Serialize for Deep {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            static WRITES: Runs = Runs::new();
            assert!(WRITES.count() < 2_000, "written too often");
            let name = if serializer.is_human_readable() { "readable" } else { "compact" };
            let mut fields = serializer.serialize_struct(name, 1)?;
            match self.0 {
                0 => fields.serialize_field("end", &())?,
                left => fields.serialize_field("next", &Deep(left - 1))?,
            }
            fields.end()
        }
    }
    #[cached(ttl = 60)]
    fn depth(value: Deep) -> u32 {
        value.0
    }
    assert_eq!((depth(Deep(100)), depth(Deep(99)), depth(Deep(100))), (100, 99, 100));
}

/// Calls a function with each cache that writes bytes.
macro_rules! with_every_serializer {
    ($run:path) => {{
        $run("MessagePack", &Packed::<MessagePack>::default());
        $run("JSON", &Packed::<Json>::default());
        $run("Postcard", &Packed::<Postcard>::default());
        $run("Bincode", &Packed::<Bincode>::default());
    }};
}

#[test]
fn address_that_loses_its_scope_in_a_serializer_is_returned_and_not_stored() {
    #[cached(cache = cache, ttl = "1h", key = "g")]
    fn gateway(cache: &FileCache) -> SocketAddr {
        link_local(3)
    }
    #[cached(cache = cache, ttl = "1h", key = "a")]
    async fn gateways(cache: &FileCache) -> Vec<(u8, Option<SocketAddr>)> {
        vec![(1, Some(link_local(3)))]
    }
    let place = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(place.path().join("cache")).expect("a cache");
    assert_eq!((gateway(&cache), gateway(&cache)), (link_local(3), link_local(3)));
    smol::block_on(async {
        assert_eq!(gateways(&cache).await, gateways(&cache).await);
    });
    let stats = cache.stats();
    assert_eq!((stats.inserts, stats.errors_of(ErrorKind::Encode)), (0, 4));
    let in_front = TieredOptions::new().over(&cache);
    let key = vayu::Key::from_text("p", "k");
    drop(in_front.set(&key, &link_local(3), MINUTE));
    assert_eq!(cache.get::<SocketAddr>(&key).expect("read"), None, "it is not in the file");
}

/// Stores a value and reads it back. Returns whether it was stored; if so, it must be equal.
fn is_stored<T, S>(cache: &Packed<S>, value: &T) -> bool
where
    T: Serialize + DeserializeOwned + PartialEq + fmt::Debug + 'static,
    S: vayu::backend::Serializer<T, Stored = bytes::Bytes>,
{
    let key = vayu::Key::from_text("value", std::any::type_name::<T>());
    cache.remove(&key).expect("remove");
    let stored = cache.set(&key, value, MINUTE);
    match cache.get::<T>(&key).expect("read") {
        Some(found) => {
            assert_eq!(found, *value);
            stored.expect("it is there");
            true
        }
        None => {
            assert_eq!(stored.expect_err("it is not there").kind(), ErrorKind::Encode);
            false
        }
    }
}

#[test]
fn value_is_stored_only_if_both_forms_round_trip() {
    /// Serializes without its second half in one of the two forms.
    #[derive(Debug, PartialEq)]
    struct Half<const COMPACT: bool>(u8, u8);
    impl<const COMPACT: bool> Serialize for Half<COMPACT> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let is_compact = !serializer.is_human_readable();
            if is_compact == COMPACT {
                self.0.serialize(serializer)
            } else {
                (self.0, self.1).serialize(serializer)
            }
        }
    }
    impl<'de, const COMPACT: bool> Deserialize<'de> for Half<COMPACT> {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            if from.is_human_readable() == COMPACT {
                <(u8, u8)>::deserialize(from).map(|(first, second)| Self(first, second))
            } else {
                u8::deserialize(from).map(|first| Self(first, 0))
            }
        }
    }
    let (packed, json) = (Packed::<MessagePack>::default(), Packed::<Json>::default());
    assert!(!is_stored(&packed, &Half::<true>(1, 2)) && is_stored(&json, &Half::<true>(1, 2)));
    assert!(is_stored(&packed, &Half::<false>(1, 2)) && !is_stored(&json, &Half::<false>(1, 2)));
    assert!(is_stored(&packed, &Half::<true>(1, 0)) && is_stored(&json, &Half::<false>(1, 0)));
    assert!(!is_stored(&packed, &vec![Some(Half::<true>(1, 2))]));
    let (postcard, bincode) = (Packed::<Postcard>::default(), Packed::<Bincode>::default());
    assert!(
        !is_stored(&postcard, &Half::<true>(1, 2)) && !is_stored(&bincode, &Half::<true>(1, 2))
    );
    assert!(!is_stored(&packed, &link_local(3)) && is_stored(&json, &link_local(3)));
    assert!(is_stored(&packed, &link_local(0)));
}

/// Lists that serialize as a map or a list, and deserialize through a collection with its own order.
mod reordering {
    use super::*;

    macro_rules! list {
        ($name:ident, $item:ty, $via:ty, $write:ident) => {
            #[derive(Debug, Clone, PartialEq)]
            pub(super) struct $name(pub(super) Vec<$item>);
            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    $write(&self.0, serializer)
                }
            }
            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    <$via>::deserialize(from).map(|read| Self(read.into_iter().collect()))
                }
            }
        };
    }

    fn as_map<S: Serializer>(list: &[(u8, u8)], serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(list.len()))?;
        list.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }

    fn collected<S: Serializer>(list: &[(u8, u8)], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(list.iter().map(|(key, value)| (key, value)))
    }

    fn as_list<S: Serializer>(list: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        list.serialize(serializer)
    }

    /// Deserializes in the serialized order.
    pub(super) struct InOrder(Vec<(u8, u8)>);

    impl<'de> Deserialize<'de> for InOrder {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = InOrder;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a map")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<InOrder, A::Error> {
                    let mut list = Vec::new();
                    while let Some(entry) = map.next_entry()? {
                        list.push(entry);
                    }
                    Ok(InOrder(list))
                }
            }
            from.deserialize_map(Visitor)
        }
    }

    impl IntoIterator for InOrder {
        type Item = (u8, u8);
        type IntoIter = std::vec::IntoIter<(u8, u8)>;
        fn into_iter(self) -> Self::IntoIter {
            self.0.into_iter()
        }
    }

    list!(SortedMap, (u8, u8), BTreeMap<u8, u8>, as_map);
    list!(SortedCollected, (u8, u8), BTreeMap<u8, u8>, collected);
    list!(Kept, (u8, u8), InOrder, as_map);
    list!(KeptCollected, (u8, u8), InOrder, collected);
    list!(SortedList, u8, std::collections::BTreeSet<u8>, as_list);
}

#[test]
fn list_that_is_deserialized_in_another_order_is_not_stored() {
    use reordering::{Kept, KeptCollected, SortedCollected, SortedList, SortedMap};
    fn run<S>(name: &str, cache: &Packed<S>)
    where
        S: vayu::backend::Serializer<SortedMap, Stored = bytes::Bytes>
            + vayu::backend::Serializer<SortedCollected, Stored = bytes::Bytes>
            + vayu::backend::Serializer<Kept, Stored = bytes::Bytes>
            + vayu::backend::Serializer<KeptCollected, Stored = bytes::Bytes>
            + vayu::backend::Serializer<SortedList, Stored = bytes::Bytes>
            + vayu::backend::Serializer<(HashMap<u8, u8>, SortedMap), Stored = bytes::Bytes>,
    {
        let (up, down) = (vec![(1, 0), (2, 0), (3, 1)], vec![(3, 1), (2, 0), (1, 0)]);
        assert!(is_stored(cache, &SortedMap(up.clone())), "{name}");
        assert!(!is_stored(cache, &SortedMap(down.clone())), "{name}");
        assert!(!is_stored(cache, &SortedCollected(down.clone())), "{name}");
        assert!(is_stored(cache, &Kept(down.clone())), "{name}");
        assert!(is_stored(cache, &Kept(vec![(1, 1), (2, 2), (1, 0)])), "{name}: a key twice");
        assert!(is_stored(cache, &KeptCollected(down.clone())), "{name}");
        assert!(!is_stored(cache, &SortedList(vec![2, 1])), "{name}");
        assert!(!is_stored(cache, &SortedList(vec![1, 1])), "{name}");
        // Next to a hash table, whose order does not matter.
        let table: HashMap<u8, u8> = (0..50).map(|n| (n, n)).collect();
        assert!(is_stored(cache, &(table.clone(), SortedMap(up))), "{name}");
        assert!(!is_stored(cache, &(table, SortedMap(down))), "{name}");
    }
    with_every_serializer!(run);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    id: u8,
    #[serde(flatten)]
    rest: HashMap<String, u8>,
}

/// A hash table with a manual `Serialize`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(transparent)]
struct ByHand(HashMap<String, HashSet<u8>>);

impl Serialize for ByHand {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

#[test]
fn hash_table_that_is_deserialized_in_another_order_is_stored() {
    type Fixed<T> = HashMap<T, Vec<HashSet<T>>, BuildHasherDefault<DefaultHasher>>;
    fn run<S>(name: &str, cache: &Packed<S>)
    where
        S: vayu::backend::Serializer<HashMap<u16, u16>, Stored = bytes::Bytes>
            + vayu::backend::Serializer<HashSet<String>, Stored = bytes::Bytes>
            + vayu::backend::Serializer<Fixed<u16>, Stored = bytes::Bytes>
            + vayu::backend::Serializer<ByHand, Stored = bytes::Bytes>,
    {
        for entries in [0, 1, 2, 3, 100] {
            assert!(is_stored(cache, &(0..entries).map(|n| (n, n)).collect::<HashMap<_, _>>()));
            let set: HashSet<String> = (0..entries).map(|n| n.to_string()).collect();
            assert!(is_stored(cache, &set), "{name}");
            let mut fixed: Fixed<u16> =
                HashMap::with_capacity_and_hasher(1000, BuildHasherDefault::default());
            fixed.extend((0..entries).rev().map(|n| (n, vec![(0..n).collect()])));
            assert!(is_stored(cache, &fixed), "{name}");
            let table = |n: u16| (n.to_string(), (0..u8::try_from(n).unwrap_or(9)).collect());
            assert!(is_stored(cache, &ByHand((0..entries).map(table).collect())), "{name}");
        }
    }
    with_every_serializer!(run);
    for entries in [0, 1, 2, 3, 100] {
        let flat = Flat { id: 1, rest: (0..entries).map(|n| (format!("n{n}"), n)).collect() };
        assert!(is_stored(&Packed::<MessagePack>::default(), &flat));
        assert!(is_stored(&Packed::<Json>::default(), &flat));
    }
}

/// Serializes to the same string for every value.
struct Secret(String);

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[REDACTED]")
    }
}

#[derive(Serialize)]
struct Auth {
    token: Secret,
}

#[test]
fn redacted_field_is_not_in_the_key_unless_it_is_included() {
    #[cached(ttl = 60)]
    fn by_serialized_form(auth: &Auth) -> String {
        auth.token.0.clone()
    }
    #[cached(ttl = 60, include(auth.token.0))]
    fn included(auth: &Auth) -> String {
        auth.token.0.clone()
    }
    #[cached(ttl = 60, key = auth.token.0.as_str())]
    fn in_its_place(auth: &Auth) -> String {
        auth.token.0.clone()
    }
    let (ann, bob) =
        (Auth { token: Secret("Ann".to_owned()) }, Auth { token: Secret("Bob".to_owned()) });
    assert_eq!(by_serialized_form(&ann), by_serialized_form(&bob), "the rule");
    assert_eq!((included(&ann), included(&bob)), ("Ann".to_owned(), "Bob".to_owned()));
    assert_eq!((in_its_place(&ann), in_its_place(&bob)), ("Ann".to_owned(), "Bob".to_owned()));
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Contact {
    Email(String),
    Login(String),
}

#[test]
fn variant_of_an_untagged_enum_is_not_in_the_key_unless_it_is_included() {
    #[cached(ttl = 60)]
    fn by_serialized_form(contact: &Contact) -> String {
        format!("{contact:?}")
    }
    #[cached(ttl = 60, include(matches!(contact, Contact::Email(_))))]
    fn included(contact: &Contact) -> String {
        format!("{contact:?}")
    }
    #[cached(ttl = 60, include(format!("{:?}", discriminant(contact))))]
    fn by_discriminant(contact: &Contact) -> String {
        format!("{contact:?}")
    }
    let (email, login) = (Contact::Email("ann".to_owned()), Contact::Login("ann".to_owned()));
    assert_eq!(by_serialized_form(&email), by_serialized_form(&login), "the rule");
    assert_ne!(included(&email), included(&login));
    assert_ne!(by_discriminant(&email), by_discriminant(&login));
}

#[test]
fn unserialized_field_is_not_in_the_key_unless_it_is_included() {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    fn whole<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        #[expect(clippy::cast_possible_truncation, reason = "it is lossy")]
        serializer.serialize_i64(*value as i64)
    }
    #[derive(Clone, Copy, Serialize)]
    struct Point {
        #[serde(serialize_with = "whole")]
        x: f64,
        #[serde(skip)]
        y: u8,
    }
    #[cached(ttl = 60)]
    fn by_serialized_form(point: Point) -> String {
        format!("{} {}", point.x, point.y)
    }
    #[cached(ttl = 60, include(point.x, point.y))]
    fn included(point: Point) -> String {
        format!("{} {}", point.x, point.y)
    }
    let points = [Point { x: 1.25, y: 1 }, Point { x: 1.5, y: 1 }, Point { x: 1.25, y: 2 }];
    assert_eq!(points.map(by_serialized_form), ["1.25 1"; 3], "the rule");
    assert_eq!(points.map(included), ["1.25 1", "1.5 1", "1.25 2"]);
}

static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);

/// Numbers of each type in each type of contiguous list.
#[test]
fn lists_of_numbers_have_the_same_key_in_a_generic_function() {
    use std::borrow::Cow;
    use std::sync::Arc;
    macro_rules! one_entry {
        ($($type:ty: $values:expr),* $(,)?) => {$({
            type Item = $type;
            static RUNS: Runs = Runs::new();
            #[cached(cache = CACHE, ttl = 60, prefix = concat!("list of ", stringify!($type)))]
            fn generic<T: Serialize>(_values: T) -> usize { RUNS.count() }
            #[cached(cache = CACHE, ttl = 60, prefix = concat!("list of ", stringify!($type)))]
            fn slice(_values: &[Item]) -> usize { RUNS.count() }
            #[cached(cache = CACHE, ttl = 60, prefix = concat!("list of ", stringify!($type)))]
            fn vec(_values: Vec<Item>) -> usize { RUNS.count() }
            #[cached(cache = CACHE, ttl = 60, prefix = concat!("list of ", stringify!($type)))]
            fn vec_ref(_values: &Vec<Item>) -> usize { RUNS.count() }
            #[cached(cache = CACHE, ttl = 60, prefix = concat!("list of ", stringify!($type)))]
            fn boxed(_values: Box<[Item]>) -> usize { RUNS.count() }
            #[cached(cache = CACHE, ttl = 60, prefix = concat!("list of ", stringify!($type)))]
            fn arc(_values: Arc<[Item]>) -> usize { RUNS.count() }
            #[cached(cache = CACHE, ttl = 60, prefix = concat!("list of ", stringify!($type)))]
            fn cow(_values: Cow<'_, [Item]>) -> usize { RUNS.count() }
            #[cached(cache = CACHE, ttl = 60, prefix = concat!("list of ", stringify!($type)))]
            fn array(_values: [Item; 3]) -> usize { RUNS.count() }
            let all: [Item; 3] = $values;
            for values in [&all[..0], &all[..1], &all[..]] {
                let run = generic(values);
                assert_eq!(slice(values), run);
                assert_eq!(vec(values.to_vec()), run);
                assert_eq!(vec_ref(&values.to_vec()), run);
                assert_eq!(boxed(values.into()), run);
                assert_eq!(arc(values.into()), run);
                assert_eq!(cow(values.into()), run);
            }
            let run = generic(all);
            assert_eq!(array(all), run);
            assert_ne!(slice(&all), run, "an array is a tuple to serde");
        })*};
    }
    one_entry!(
        u8: [0, 1, 255],
        i8: [0, -1, 1],
        u16: [0, 1, 256],
        i32: [0, -1, 1],
        u64: [0, 1, u64::MAX],
        i128: [0, -1, 1],
        usize: [0, 1, 2],
        f32: [0.0, -0.0, f32::NAN],
        f64: [0.0, -0.0, 0.5],
        bool: [false, true, false],
        char: ['a', '\0', 'é'],
    );
}

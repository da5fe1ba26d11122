//! Ways to return a wrong value: colliding keys, changed types, races.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vayu::backend::{AnyValue, Backend, ByReference, Record};
use vayu::testing::{ManualClock, MapBackend};
use vayu::time::{Clock, Timestamp};
use vayu::{Cache, Json, Key, MemoryCache, MemoryOptions, MessagePack, cached, mem_cached};

use crate::Runs;

type Bytes = Cache<MapBackend, MessagePack>;

mod one {
    use super::cached;

    #[cached(ttl = 60)]
    pub(super) fn name() -> &'static str {
        "one"
    }
}

mod two {
    use super::cached;

    #[cached(ttl = 60)]
    pub(super) fn name() -> &'static str {
        "two"
    }
}

#[test]
fn functions_of_one_name_in_two_modules_have_their_own_entries() {
    assert_eq!((one::name(), two::name()), ("one", "two"));
    assert_eq!((one::name(), two::name()), ("one", "two"));
}

#[test]
fn functions_of_one_name_inside_of_functions_and_blocks_have_their_own_entries() {
    fn first() -> u8 {
        #[cached(ttl = 60)]
        fn inner() -> u8 {
            1
        }
        inner()
    }
    fn second() -> u8 {
        #[cached(ttl = 60)]
        fn inner() -> u8 {
            2
        }
        inner()
    }
    assert_eq!((first(), second()), (1, 2));
    let third = {
        #[cached(ttl = 60)]
        fn inner() -> u8 {
            3
        }
        inner()
    };
    let fourth = {
        #[cached(ttl = 60)]
        fn inner() -> u8 {
            4
        }
        inner()
    };
    assert_eq!((third, fourth), (3, 4));
}

#[test]
fn functions_of_one_path_have_their_own_entries_among_bytes_too() {
    static BYTES: LazyLock<Cache<ByBytes, MessagePack>> = LazyLock::new(Cache::new);
    macro_rules! in_a_block {
        ($output:literal) => {{
            #[cached(cache = BYTES, ttl = 60)]
            fn inner() -> u8 {
                $output
            }
            inner()
        }};
    }
    assert_eq!((in_a_block!(1), in_a_block!(2), in_a_block!(3)), (1, 2, 3));
}

/// Compares keys by their bytes alone, as backends outside of the process do.
#[derive(Default)]
struct ByBytes(std::sync::Mutex<HashMap<Vec<u8>, Record<bytes::Bytes>>>);

#[async_trait::async_trait]
impl Backend for ByBytes {
    type Stored = bytes::Bytes;
    fn read(&self, key: &Key) -> vayu::Result<Option<Record<bytes::Bytes>>> {
        Ok(self.0.lock().expect("no panic").get(&key.to_bytes()).cloned())
    }
    fn write(&self, key: &Key, record: Record<bytes::Bytes>) -> vayu::Result<()> {
        self.0.lock().expect("no panic").insert(key.to_bytes(), record);
        Ok(())
    }
    fn delete(&self, key: &Key) -> vayu::Result<bool> {
        Ok(self.0.lock().expect("no panic").remove(&key.to_bytes()).is_some())
    }
    async fn read_async(&self, key: &Key) -> vayu::Result<Option<Record<bytes::Bytes>>> {
        self.read(key)
    }
    async fn write_async(&self, key: &Key, record: Record<bytes::Bytes>) -> vayu::Result<()> {
        self.write(key, record)
    }
    async fn delete_async(&self, key: &Key) -> vayu::Result<bool> {
        self.delete(key)
    }
}

struct Left;
struct Right;

impl Left {
    #[cached(ttl = 60, skip(self))]
    fn side(&self) -> &'static str {
        "left"
    }

    #[cached(ttl = 60)]
    fn make() -> &'static str {
        "left"
    }
}

impl Right {
    #[cached(ttl = 60, skip(self))]
    fn side(&self) -> &'static str {
        "right"
    }

    #[cached(ttl = 60)]
    fn make() -> &'static str {
        "right"
    }
}

#[test]
fn methods_of_one_name_on_two_types_have_their_own_entries() {
    assert_eq!((Left.side(), Right.side()), ("left", "right"));
    assert_eq!((Left::make(), Right::make()), ("left", "right"));
    assert_eq!((Left.side(), Right.side()), ("left", "right"));
    assert_eq!((Left::make(), Right::make()), ("left", "right"));
}

#[cached(ttl = 60)]
fn width<T>() -> usize {
    size_of::<T>()
}

#[cached(ttl = 60)]
fn constant<const N: usize, const FLAG: bool>() -> (usize, bool) {
    (N, FLAG)
}

struct Holder<T, const N: usize>(std::marker::PhantomData<T>);

impl<T, const N: usize> Holder<T, N> {
    #[cached(ttl = 60)]
    fn describe() -> (usize, usize) {
        (size_of::<T>(), N)
    }
}

#[test]
fn every_instantiation_of_a_generic_has_its_own_entry() {
    assert_eq!((width::<u8>(), width::<u16>(), width::<&str>(), width::<[u8; 7]>()), (1, 2, 16, 7));
    assert_eq!(width::<u8>(), 1);
    assert_eq!(
        (constant::<1, true>(), constant::<1, false>(), constant::<2, true>()),
        ((1, true), (1, false), (2, true))
    );
    assert_eq!(
        (Holder::<u8, 1>::describe(), Holder::<u8, 2>::describe(), Holder::<u16, 1>::describe()),
        ((1, 1), (1, 2), (2, 1))
    );
}

#[test]
fn closures_of_one_function_as_type_parameters_have_their_own_entries() {
    #[cached(ttl = 60, skip(function))]
    fn apply<F: Fn(u64) -> u64>(function: F, n: u64) -> u64 {
        function(n)
    }
    #[cached(cache = BYTES, ttl = 60, skip(function))]
    fn apply_in_bytes<F: Fn(u64) -> u64>(function: F, n: u64) -> u64 {
        function(n)
    }
    static BYTES: LazyLock<Bytes> = LazyLock::new(Cache::new);
    assert_eq!((apply(|n| n + 1, 1), apply(|n| n * 100, 1)), (2, 100));
    assert_eq!((apply_in_bytes(|n| n + 1, 1), apply_in_bytes(|n| n * 100, 1)), (2, 100));
}

trait Animal {
    fn sound(&self) -> &'static str;

    #[cached(ttl = 60, skip(self))]
    fn name(&self) -> String
    where
        Self: Sized,
    {
        std::any::type_name::<Self>().to_owned()
    }
}

impl Animal for Left {
    #[cached(ttl = 60, skip(self))]
    fn sound(&self) -> &'static str {
        "moo"
    }
}

impl Animal for Right {
    #[cached(ttl = 60, skip(self))]
    fn sound(&self) -> &'static str {
        "miaow"
    }
}

impl<T: Animal> Animal for Option<T> {
    #[cached(ttl = 60, skip(self))]
    fn sound(&self) -> &'static str {
        "silence"
    }
}

#[test]
fn trait_impls_and_default_methods_of_two_types_have_their_own_entries() {
    assert_eq!((Left.sound(), Right.sound(), Some(Left).sound()), ("moo", "miaow", "silence"));
    assert_eq!((Left.sound(), Right.sound(), Some(Left).sound()), ("moo", "miaow", "silence"));
    assert_ne!(Left.name(), Right.name());
    assert_ne!(Some(Left).name(), Some(Right).name());
    let (one, two): (&dyn Animal, &dyn Animal) = (&Left, &Right);
    assert_eq!((one.sound(), two.sound()), ("moo", "miaow"));
}

#[cached(ttl = 60)]
fn joined(one: &str, two: &str) -> String {
    format!("{one}|{two}")
}

#[test]
fn strings_that_are_equal_when_joined_are_distinct_arguments() {
    for (one, two) in [
        ("x:b:y", "z"),
        ("x", "y:b:z"),
        ("ab", "c"),
        ("a", "bc"),
        ("abc", ""),
        ("", "abc"),
        ("a\0", "b"),
        ("a", "\0b"),
        // The type tag of a string in a key.
        ("a\u{11}b", "c"),
        ("a", "b\u{11}c"),
    ] {
        for _ in 0..2 {
            assert_eq!(joined(one, two), format!("{one}|{two}"));
        }
    }
}

#[test]
fn number_bool_and_string_of_one_are_distinct_arguments() {
    #[cached(ttl = 60, prefix = "the same for all types")]
    fn show<T: Serialize + std::fmt::Debug>(value: T) -> String {
        format!("{value:?}")
    }
    for _ in 0..2 {
        assert_eq!(show(1_u8), "1");
        assert_eq!(show(1.0_f64), "1.0");
        assert_eq!(show(true), "true");
        assert_eq!(show("1"), "\"1\"");
        assert_eq!(show(Some(1)), "Some(1)");
        assert_eq!(show('1'), "'1'");
    }
}

#[test]
fn fields_redacted_by_debug_are_in_the_key() {
    #[derive(Clone, Serialize)]
    struct User(String);
    impl std::fmt::Debug for User {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("User(<redacted>)")
        }
    }
    #[cached(ttl = 60)]
    fn greet(user: &User) -> String {
        format!("hello, {}", user.0)
    }
    let (ann, bob) = (User("Ann".to_owned()), User("Bob".to_owned()));
    assert_eq!(format!("{ann:?}"), format!("{bob:?}"));
    assert_eq!((greet(&ann), greet(&bob)), ("hello, Ann".to_owned(), "hello, Bob".to_owned()));
}

#[test]
fn fields_ignored_by_hash_are_in_the_key() {
    #[derive(PartialEq, Eq, Serialize)]
    struct Version {
        major: u8,
        minor: u8,
    }
    // A legal `Hash`: equal values have equal hashes.
    impl std::hash::Hash for Version {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.major.hash(state);
        }
    }
    #[cached(ttl = 60)]
    fn minor(version: Version) -> u8 {
        version.minor
    }
    assert_eq!(minor(Version { major: 1, minor: 1 }), 1);
    assert_eq!(minor(Version { major: 1, minor: 2 }), 2);
}

#[test]
fn full_keys_are_compared_if_all_hashes_collide() {
    // A map compares full keys, even if all hashes are equal.
    #[derive(Clone, Default)]
    struct Collide;
    impl std::hash::BuildHasher for Collide {
        type Hasher = Constant;
        fn build_hasher(&self) -> Constant {
            Constant
        }
    }
    struct Constant;
    impl std::hash::Hasher for Constant {
        fn write(&mut self, _: &[u8]) {}
        fn finish(&self) -> u64 {
            7
        }
    }
    let mut map: HashMap<Key, u32, Collide> = HashMap::default();
    for n in 0..100 {
        map.insert(Key::new("p", &(n,)).expect("a number"), n);
    }
    for n in 0..100 {
        assert_eq!(map[&Key::new("p", &(n,)).expect("a number")], n);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Empty {
    A,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Void {
    A,
}

#[test]
fn similar_values_are_distinct_arguments() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, prefix = "look alike")]
    fn run<T: Serialize>(value: T) -> usize {
        let _ = value;
        RUNS.count()
    }
    let other_nan = f64::from_bits(f64::NAN.to_bits() + 1);
    let runs = || {
        [
            run(0.0_f64),
            run(-0.0_f64),
            run(f64::NAN),
            run(other_nan),
            run(None::<()>),
            run(Some(())),
            run(Some(None::<()>)),
            run(""),
            run(Vec::<u8>::new()),
            run(()),
            run(Empty::A),
            run(Void::A),
        ]
    };
    let first = runs();
    assert_eq!(first.iter().collect::<HashSet<_>>().len(), first.len());
    assert_eq!(runs(), first, "and each has its entry");
}

#[test]
fn equal_maps_and_sets_are_one_argument_in_any_order() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60)]
    fn run(map: HashMap<u32, u32>, set: &HashSet<u32>, owned: HashSet<u32>) -> usize {
        let _ = (map, set, owned);
        RUNS.count()
    }
    // Each hash table has its own order.
    for _ in 0..20 {
        let map = (0..50).map(|n| (n, n)).collect();
        let set: HashSet<u32> = (0..50).collect();
        let owned = (0..50).rev().collect();
        assert_eq!(run(map, &set, owned), 1);
    }
    assert_eq!(run(HashMap::new(), &HashSet::new(), HashSet::from([1])), 2);
    assert_eq!(run(HashMap::new(), &HashSet::from([1]), HashSet::new()), 3);
}

struct Shop {
    region: &'static str,
    cache: MemoryCache,
}

impl Shop {
    #[cached(ttl = 60, skip(self))]
    fn shared(&self) -> &'static str {
        self.region
    }

    #[cached(cache = self.cache, ttl = 60)]
    fn own_cache(&self) -> &'static str {
        self.region
    }

    #[cached(ttl = 60, include(self.region))]
    fn included(&self) -> &'static str {
        self.region
    }
}

#[test]
fn self_is_left_out_unless_it_is_included_or_has_its_own_cache() {
    let shop = |region| Shop { region, cache: MemoryCache::new() };
    let (north, south) = (shop("north"), shop("south"));
    assert_eq!((north.shared(), south.shared()), ("north", "north"));
    assert_eq!((north.own_cache(), south.own_cache()), ("north", "south"));
    assert_eq!((north.included(), south.included()), ("north", "south"));
}

#[test]
fn value_of_a_changed_layout_is_a_miss() {
    // The same type name and path, as in two releases of a program.
    mod before {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub(super) struct Price {
            pub(super) net: u32,
            pub(super) tax: u32,
        }
    }
    mod after {
        #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        pub(super) struct Price {
            pub(super) tax: u32,
            pub(super) net: u32,
        }
    }
    let cache: Bytes = Cache::new();
    let key = Key::from_text("price", "sku");
    let minute = Duration::from_secs(60);
    cache.set(&key, &before::Price { net: 100, tax: 19 }, minute).expect("write");
    assert_eq!(cache.get::<after::Price>(&key).expect("read"), None, "another type");
    // Without the schema stamp, the field names would still decode it correctly.
    let stored = cache.backend().read(&key).expect("read").expect("an entry");
    let value: after::Price =
        vayu::backend::Serializer::deserialize(&MessagePack, stored.value()).expect("decode");
    assert_eq!(value, after::Price { tax: 19, net: 100 });
}

#[test]
fn value_of_another_version_is_a_miss() {
    static BYTES: LazyLock<Bytes> = LazyLock::new(Cache::new);
    #[cached(cache = BYTES, ttl = 60, prefix = "versioned", key = "k")]
    fn unversioned() -> u8 {
        0
    }
    #[cached(cache = BYTES, ttl = 60, prefix = "versioned", key = "k", version = 1)]
    fn first() -> u8 {
        1
    }
    #[cached(cache = BYTES, ttl = 60, prefix = "versioned", key = "k", version = 2)]
    fn second() -> u8 {
        2
    }
    #[cached(cache = BYTES, ttl = 60, prefix = "versioned", key = "k", version = "2")]
    fn text() -> u8 {
        3
    }
    assert_eq!((unversioned(), first(), second(), text()), (0, 1, 2, 3));
}

#[test]
fn value_that_does_not_round_trip_is_returned_and_not_stored() {
    static PACKED: LazyLock<Bytes> = LazyLock::new(Cache::new);
    static RUNS: Runs = Runs::new();
    #[cached(cache = PACKED, ttl = 60)]
    fn nested() -> Option<Option<u8>> {
        RUNS.count();
        Some(None)
    }
    #[cached(cache = PACKED, ttl = 60, serializer = Json)]
    fn not_a_number() -> f64 {
        RUNS.count();
        f64::NAN
    }
    for _ in 0..3 {
        assert_eq!(nested(), Some(None));
        assert!(not_a_number().is_nan());
    }
    assert_eq!((RUNS.get(), PACKED.stats().inserts), (6, 0));
    assert_eq!(PACKED.stats().errors_of(vayu::ErrorKind::Encode), 6);
    #[mem_cached(ttl = 60)]
    fn in_memory() -> Option<Option<u8>> {
        RUNS.count();
        Some(None)
    }
    assert_eq!((in_memory(), in_memory()), (Some(None), Some(None)));
    assert_eq!(RUNS.get(), 7, "memory keeps the value itself");
}

#[test]
fn functions_with_one_literal_key_have_their_own_entries() {
    #[cached(ttl = 60, key = "all")]
    fn users() -> u8 {
        1
    }
    #[cached(ttl = 60, key = "all")]
    fn orders() -> u8 {
        2
    }
    assert_eq!((users(), orders(), users()), (1, 2, 1));
}

#[test]
fn invalidation_during_a_computation_wins() {
    static SOURCE: Runs = Runs::new();
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = CACHE, ttl = 60, prefix = "source", key = "k")]
    fn read(meddle: bool) -> usize {
        let seen = SOURCE.get();
        if meddle {
            SOURCE.count();
            CACHE.remove(&Key::from_text("source", "k")).expect("remove");
        }
        seen
    }
    assert_eq!(read(true), 0, "what was read before the change");
    assert_eq!(read(false), 1, "and not cached");
}

#[test]
fn entry_from_the_future_is_a_miss() {
    let clock = ManualClock::new();
    let backend = MapBackend::with_clock(clock.clone());
    let cache = Cache::<_, MessagePack>::with_backend(backend);
    let runs = Runs::new();
    let key = Key::from_text("p", "k");
    let call = || cache.get_or_insert_with(&key, Duration::from_secs(3600), || runs.count());
    assert_eq!(call(), 1);
    clock.set(Timestamp::from_micros(clock.now().as_micros() - 600_000_000));
    assert_eq!(call(), 2, "the clock was set back by ten minutes");
}

#[test]
fn reply_for_another_key_is_rejected_if_the_record_names_it() {
    // A backend that returns its entry for every key.
    struct Confused(MapBackend<AnyValue>);
    #[async_trait::async_trait]
    impl Backend for Confused {
        type Stored = AnyValue;
        fn read(&self, _: &Key) -> vayu::Result<Option<Record<AnyValue>>> {
            self.0.read(&Key::from_text("p", "first"))
        }
        fn write(&self, key: &Key, record: Record<AnyValue>) -> vayu::Result<()> {
            self.0.write(key, record)
        }
        fn delete(&self, key: &Key) -> vayu::Result<bool> {
            self.0.delete(key)
        }
        async fn read_async(&self, key: &Key) -> vayu::Result<Option<Record<AnyValue>>> {
            self.read(key)
        }
        async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> vayu::Result<()> {
            self.write(key, record)
        }
        async fn delete_async(&self, key: &Key) -> vayu::Result<bool> {
            self.delete(key)
        }
    }
    let cache = Cache::<_, ByReference>::with_backend(Confused(MapBackend::default()));
    let minute = Duration::from_secs(60);
    cache.set(&Key::from_text("p", "first"), &1_u8, minute).expect("write");
    let other = cache.get_or_insert_with(&Key::from_text("p", "second"), minute, || "a text");
    assert_eq!(other, "a text", "a value of another type is never decoded");
}

#[test]
fn memory_byte_and_erased_backends_behave_alike() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Row {
        id: u64,
        tags: BTreeMap<String, Vec<f64>>,
        parent: Option<Box<Row>>,
    }
    let row = |id: u64| Row {
        id,
        tags: BTreeMap::from([("a".to_owned(), vec![0.1, -0.0, 1e300])]),
        parent: (id > 0).then(|| Box::new(Row { id: 0, tags: BTreeMap::new(), parent: None })),
    };
    let erased: Arc<dyn Backend<Stored = bytes::Bytes>> = Arc::new(MapBackend::default());
    let erased: Cache<_, Json> = Cache::with_backend(erased);
    let (memory, packed): (MemoryCache, Bytes) = (MemoryOptions::new().build(), Cache::new());
    let minute = Duration::from_secs(60);
    for id in [0, 1, 0, 1] {
        let key = Key::new("row", &(id,)).expect("a number");
        assert_eq!(memory.get_or_insert_with(&key, minute, || row(id)), row(id));
        assert_eq!(packed.get_or_insert_with(&key, minute, || row(id)), row(id));
        assert_eq!(erased.get_or_insert_with(&key, minute, || row(id)), row(id));
    }
    for stats in [memory.stats(), packed.stats(), erased.stats()] {
        assert_eq!((stats.hits, stats.misses), (2, 2));
    }
}

/// A part of an argument that is not `Serialize`.
struct Connection;

#[derive(Clone, Serialize)]
struct Context {
    #[serde(skip)]
    database: u8,
    tenant: u32,
}

#[test]
fn argument_with_a_skipped_part_keeps_its_other_parts_in_the_key() {
    #[cached(ttl = 60, skip(database))]
    fn of_a_struct(Context { database, tenant }: Context, id: u64) -> String {
        let _ = database;
        format!("{tenant}/{id}")
    }
    #[cached(ttl = 60, skip(connection))]
    async fn of_a_tuple((connection, tenant): (&Connection, u32), id: u64) -> String {
        let _ = connection;
        format!("{tenant}/{id}")
    }
    #[cached(ttl = 60, skip(first))]
    fn of_an_array([first, rest @ ..]: [u8; 3]) -> Vec<u8> {
        let _ = first;
        rest.to_vec()
    }
    #[cached(ttl = 60, skip(connection))]
    fn nested(
        (Context { tenant, .. }, (connection, ref name)): (Context, (Connection, String)),
    ) -> String {
        let _ = connection;
        format!("{tenant}{name}")
    }
    #[cached(ttl = 60, skip(whole))]
    fn of_a_whole_and_its_parts(whole @ (one, two): (u8, u8)) -> (u8, u8) {
        let _ = whole;
        (one, two)
    }
    #[cached(ttl = 60, skip(database), handle = with_a_handle_entry)]
    fn with_a_handle(&Context { database, ref tenant }: &Context) -> u32 {
        let _ = database;
        *tenant
    }
    let context = |tenant| Context { database: 0, tenant };
    for _ in 0..2 {
        for n in 1..3_u8 {
            let tenant = u32::from(n);
            assert_eq!(of_a_struct(context(tenant), 5), format!("{n}/5"));
            let pair = of_a_tuple((&Connection, tenant), 5);
            assert_eq!(smol::block_on(pair), format!("{n}/5"));
            assert_eq!(of_an_array([0, n, 0]), [n, 0]);
            assert_eq!(nested((context(tenant), (Connection, "a".to_owned()))), format!("{n}a"));
            assert_eq!(nested((context(1), (Connection, n.to_string()))), format!("1{n}"));
            assert_eq!(of_a_whole_and_its_parts((1, n)), (1, n));
            assert_eq!(with_a_handle(&context(tenant)), tenant);
            let context = context(tenant);
            let entry = with_a_handle_entry(&context);
            assert_eq!(entry.peek().expect("read"), Some(tenant));
        }
    }
    // The skipped part is not in the key.
    assert_eq!(of_an_array([7, 1, 0]), [1, 0]);
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, skip(database))]
    fn run(Context { database, tenant }: Context) -> usize {
        let _ = (database, tenant);
        RUNS.count()
    }
    assert_eq!(run(Context { database: 1, tenant: 1 }), 1);
    assert_eq!(run(Context { database: 2, tenant: 1 }), 1);
}

#[async_trait::async_trait]
trait Pages {
    async fn page(&self, context: Context, id: u64) -> String;
}

struct Site;

#[async_trait::async_trait]
impl Pages for Site {
    #[cached(ttl = 60, skip(database), tags("tenant:{tenant}"))]
    async fn page(&self, Context { database, mut tenant }: Context, id: u64) -> String {
        tenant += u32::from(database);
        format!("{tenant}/{id}")
    }
}

#[test]
fn part_of_an_argument_can_be_skipped_under_async_trait() {
    let page = |tenant| smol::block_on(Site.page(Context { database: 0, tenant }, 5));
    assert_eq!((page(1), page(2), page(1)), ("1/5".into(), "2/5".into(), "1/5".into()));
}

#[test]
fn argument_with_a_macro_pattern_is_in_the_key() {
    macro_rules! pair {
        ($one:ident, $two:ident) => {
            ($one, $two)
        };
    }
    #[cached(ttl = 60)]
    fn sum(pair!(one, two): (u8, u8)) -> u8 {
        one + two
    }
    assert_eq!((sum((1, 2)), sum((3, 4))), (3, 7));
}

#[expect(dead_code, reason = "the name in each pattern is meant, not this")]
fn region() -> String {
    "default".to_owned()
}

#[test]
fn name_bound_by_a_pattern_shadows_an_item() {
    type Region = fn() -> String;
    #[cached(ttl = 60, key = region())]
    fn key((n, region): (u32, Region)) -> String {
        format!("{n} {}", region())
    }
    #[cached(ttl = 60, skip(n, region), include(region()))]
    async fn include((n, region): (u32, Region)) -> String {
        format!("{n} {}", region())
    }
    #[cached(ttl = 60, key = |_, id: &u8| format!("{}{id}", region()))]
    fn closure((n, region): (u32, Region), id: u8) -> String {
        format!("{n}{id} {}", region())
    }
    #[cached(ttl = 60, key = "k", prefix = region())]
    fn prefix((n, region): (u32, Region)) -> String {
        format!("{n} {}", region())
    }
    let (eu, asia): (Region, Region) = (|| "eu".into(), || "asia".into());
    assert_eq!((key((1, eu)), key((1, asia))), ("1 eu".into(), "1 asia".into()));
    let include = |region| smol::block_on(include((1, region)));
    assert_eq!((include(eu), include(asia)), ("1 eu".into(), "1 asia".into()));
    assert_eq!((closure((1, eu), 1), closure((1, asia), 1)), ("11 eu".into(), "11 asia".into()));
    assert_eq!((prefix((1, eu)), prefix((1, asia))), ("1 eu".into(), "1 asia".into()));

    let cache = MemoryCache::new();
    #[cached(cache = cache, ttl = 60, skip(cache), tags("tenant:{tenant}"))]
    fn tag((cache, Context { tenant, .. }): (&MemoryCache, Context)) -> u32 {
        let _ = cache;
        tenant
    }
    #[cached(
        cache = cache, ttl = |_| Duration::from_secs(u64::from(tenant)), key = "k", handle = ttl_entry
    )]
    fn ttl(cache: &MemoryCache, (_, tenant): (u8, u32)) -> u32 {
        tenant
    }
    let context = |tenant| Context { database: 0, tenant };
    tag((&cache, context(7)));
    cache.invalidate_tag("tenant:8").expect("invalidate");
    tag((&cache, context(7)));
    assert_eq!((cache.stats().misses, cache.stats().hits), (1, 1));
    cache.invalidate_tag("tenant:7").expect("invalidate");
    tag((&cache, context(7)));
    assert_eq!(cache.stats().misses, 2);
    ttl(&cache, (0, 3600));
    let left = ttl_entry(&cache, (0, 3600)).ttl_left().expect("read").expect("an entry");
    assert!(left > Duration::from_secs(3000), "{left:?}");
}

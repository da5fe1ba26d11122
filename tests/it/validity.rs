//! Validity of entries is the same through every API: the function, its handle, and a key built
//! by hand.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use vayu::backend::{Backend, KeyVersion, Serializer};
use vayu::testing::{ManualClock, MapBackend};
use vayu::time::Clock;
use vayu::{
    Cache, ErrorKind, FileCache, FileOptions, Json, Key, MemoryCache, MessagePack, Result,
    TieredCache, TieredOptions, cached,
};

use crate::{Runs, with_every_backend};

const HOUR: Duration = Duration::from_secs(3600);

trait Stores<B: Backend>: Serializer<u32, Stored = B::Stored> + Clone {}
impl<B: Backend, S: Serializer<u32, Stored = B::Stored> + Clone> Stores<B> for S {}

#[cached(cache = cache, ttl = "1h", prefix = "tagged", skip(cache, v), tags("user:{id}"), handle = tagged_entry)]
fn tagged<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u32, v: u32) -> u32 {
    v
}

#[cached(cache = cache, ttl = "1h", prefix = "tagged", skip(cache, v), tags("user:{id}"))]
async fn tagged_async<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u32, v: u32) -> u32 {
    v
}

#[cached(cache = cache, ttl = "1h", prefix = "versioned", skip(cache, v), version = 2, handle = versioned_entry)]
fn versioned<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u32, v: u32) -> u32 {
    v
}

#[cached(
    cache = cache, ttl = "1h", prefix = "both", skip(cache, v), version = "a", tags("t", "user:{id}"),
    handle = both_entry
)]
fn both<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u32, v: u32) -> u32 {
    v
}

#[cached(cache = cache, ttl = "1h", prefix = "plain", skip(cache, v))]
fn plain<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u32, v: u32) -> u32 {
    v
}

fn key(prefix: &'static str) -> Key {
    Key::new(prefix, &(7_u32,)).expect("a key")
}

fn get<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, key: &Key) -> Result<Option<u32>> {
    let found = cache.get::<u32>(key);
    let found_async = smol::block_on(cache.get_async::<u32>(key));
    assert_eq!(found.as_ref().ok(), found_async.as_ref().ok(), "sync and async agree");
    found
}

/// Checks that every operation on this key returns an error and neither reads nor writes.
fn assert_rejected<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, key: &Key, names: &str) {
    let refused = [
        cache.get::<u32>(key).map(|_| ()),
        smol::block_on(cache.get_async::<u32>(key)).map(|_| ()),
        cache.set(key, &99, HOUR),
        smol::block_on(cache.set_async(key, &99, HOUR)),
    ];
    for (n, result) in refused.into_iter().enumerate() {
        let error = result.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{n}: {error}");
        assert!(error.to_string().contains(names), "{n}: {error}");
    }
    let errors = || cache.stats().errors_of(ErrorKind::Configuration);
    let before = (errors(), cache.stats().inserts);
    for value in [100, 101] {
        assert_eq!(cache.get_or_insert_with(key, HOUR, || value), value);
        assert_eq!(cache.try_get_or_insert_with(key, HOUR, || Ok::<_, ()>(value)), Ok(value));
        let value_async = cache.get_or_insert_with_async(key, HOUR, async move { value });
        assert_eq!(smol::block_on(value_async), value);
        let value_async =
            cache.try_get_or_insert_with_async(key, HOUR, async move { Ok::<_, ()>(value) });
        assert_eq!(smol::block_on(value_async), Ok(value));
    }
    assert_eq!((errors(), cache.stats().inserts), (before.0 + 8, before.1), "counted, not stored");
}

fn check_tags<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    let cache = open(ManualClock::new());
    let (by_hand, tagged_key) = (key("tagged"), key("tagged").with_tags(["user:7"]));
    assert_eq!(tagged(&cache, 7, 1), 1);
    let invalidations: [&dyn Fn() -> Result<()>; 4] = [
        &|| Ok(()),
        &|| cache.invalidate_tag("user:7"),
        &|| cache.invalidate_prefix("tagged"),
        &|| cache.invalidate_all(),
    ];
    for (n, invalidate) in (0_u32..).zip(invalidations) {
        invalidate().expect("invalidated");
        let stored = if n == 0 { Some(1) } else { None };
        assert_rejected(&cache, &by_hand, "with_tags");
        assert_eq!(get(&cache, &tagged_key).expect("its tags are there"), stored);
        let entry = tagged_entry(&cache, 7, 0);
        assert_eq!(entry.peek().expect("peek"), stored);
        assert_eq!(get(&cache, entry.key().expect("a key")).expect("its tags are there"), stored);

        assert_eq!(tagged(&cache, 7, 10 + n), stored.unwrap_or(10 + n));
        assert_rejected(&cache, &by_hand, "with_tags");
        cache.set(&tagged_key, &(20 + n), HOUR).expect("set");
        assert_eq!(tagged(&cache, 7, 0), 20 + n, "the function sees what was set");
        assert_eq!(smol::block_on(tagged_async(&cache, 7, 0)), 20 + n);
        let compute = || panic!("it is there");
        assert_eq!(cache.get_or_insert_with(&tagged_key, HOUR, compute), 20 + n);
        assert_eq!(get(&cache, entry.key().expect("a key")).expect("get"), Some(20 + n));
    }
    cache.invalidate_tag("user:8").expect("invalidated");
    assert_eq!(get(&cache, &tagged_key).expect("get"), Some(23), "another tag");
    assert!(cache.remove(&by_hand).expect("tags do not matter"));
    assert_eq!(tagged(&cache, 7, 30), 30);
}

#[test]
fn tags_of_an_entry_are_checked_by_every_api() {
    with_every_backend!(check_tags);
}

fn check_versions<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    let cache = open(ManualClock::new());
    let (by_hand, versioned_key) = (key("versioned"), key("versioned").with_version(2));
    assert_eq!(versioned(&cache, 7, 1), 1);
    for n in 0..2 {
        assert_rejected(&cache, &by_hand, "with_version");
        let error = cache.remove(&by_hand).expect_err("it would remove nothing");
        assert!(error.to_string().contains("with_version"), "{error}");
        assert!(smol::block_on(cache.remove_async(&by_hand)).is_err());
        let entry = versioned_entry(&cache, 7, 0);
        assert_eq!(entry.key().expect("a key"), &versioned_key);
        assert_eq!(get(&cache, &versioned_key).expect("get"), Some(if n == 0 { 1 } else { 12 }));
        cache.set(&versioned_key, &11, HOUR).expect("set");
        assert_eq!((versioned(&cache, 7, 0), entry.peek().expect("peek")), (11, Some(11)));
        cache.invalidate_prefix("versioned").expect("invalidated");
        assert_eq!(get(&cache, &versioned_key).expect("get"), None);
        assert_eq!(versioned(&cache, 7, 12), 12);
    }
    for other in [key("versioned").with_version(3), key("versioned").with_version("2")] {
        assert_eq!(get(&cache, &other).expect("another entry"), None);
    }
    assert!(cache.remove(&versioned_key).expect("remove"));
    assert_eq!(versioned(&cache, 7, 13), 13);
}

#[test]
fn version_of_an_entry_is_checked_by_every_api() {
    with_every_backend!(check_versions);
}

fn follow_both<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    let cache = open(ManualClock::new());
    assert_eq!(both(&cache, 7, 1), 1);
    let tags = || ["t", "user:7"];
    assert_rejected(&cache, &key("both"), "with_version");
    assert_rejected(&cache, &key("both").with_version("a"), "with_tags");
    assert_rejected(&cache, &key("both").with_tags(tags()), "with_version");
    for whole in [
        key("both").with_version("a").with_tags(tags()),
        key("both").with_tags(tags()).with_version("a"),
        both_entry(&cache, 7, 0).key().expect("a key").clone(),
    ] {
        assert_eq!(get(&cache, &whole).expect("get"), Some(1));
        cache.invalidate_tag("t").expect("invalidated");
        assert_eq!(get(&cache, &whole).expect("get"), None);
        cache.set(&whole, &1, HOUR).expect("set");
        assert_eq!(both(&cache, 7, 0), 1);
    }
}

#[test]
fn version_and_tags_are_both_checked() {
    with_every_backend!(follow_both);
}

fn check_plain_function<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    let clock = ManualClock::new();
    let cache = open(clock.clone());
    let by_hand = key("plain");
    cache.set(&by_hand, &1, HOUR).expect("set");
    assert_eq!(plain(&cache, 7, 0), 1);
    cache.invalidate_prefix("plain").expect("invalidated");
    assert_eq!(get(&cache, &by_hand).expect("get"), None);
    assert_eq!(plain(&cache, 7, 2), 2);
    assert_eq!(get(&cache, &by_hand).expect("get"), Some(2));
    cache.set(&by_hand, &3, HOUR).expect("set");
    assert_eq!(plain(&cache, 7, 0), 3);
    assert_eq!(cache.get_or_insert_with(&by_hand, HOUR, || 0), 3);
    assert_rejected(&cache, &by_hand.clone().with_version(1), "no version");
    let error = cache.set(&by_hand.clone().with_tags(["t"]), &99, HOUR).expect_err("not seen");
    assert!(error.to_string().contains("no tags"), "{error}");
    clock.advance(HOUR);
    assert_eq!(get(&cache, &by_hand).expect("get"), None, "expired");
    assert!(cache.set(&by_hand, &4, HOUR).is_ok());
    assert_eq!(plain(&cache, 7, 0), 4);
    assert!(cache.remove(&by_hand).expect("remove"));
}

#[test]
fn plain_key_reads_the_entry_of_a_function_without_tags_and_version() {
    with_every_backend!(check_plain_function);
}

fn check_rejected_values<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    #[cached(cache = cache, ttl = "1h", prefix = "rejects", skip(cache), version = 2, cache_if = |v: &u32| *v > 0)]
    fn rejects<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u32) -> u32 {
        id - 7
    }
    #[cached(cache = cache, ttl = "1h", prefix = "rejects async", skip(cache), version = 2, cache_if = |v: &u32| *v > 0)]
    async fn rejects_async<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u32) -> u32 {
        id - 7
    }
    #[cached(cache = cache, prefix = "expired", skip(cache), version = 2, expires_at = SystemTime::UNIX_EPOCH)]
    fn expired<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u32) -> u32 {
        id - 7
    }
    let cache = open(ManualClock::new());
    assert_eq!((rejects(&cache, 7), expired(&cache, 7)), (0, 0));
    assert_eq!(smol::block_on(rejects_async(&cache, 7)), 0);
    assert_eq!(cache.stats().inserts, 0);
    for prefix in ["rejects", "rejects async", "expired"] {
        assert_rejected(&cache, &key(prefix), "with_version");
    }
}

#[test]
fn key_is_checked_against_a_function_whose_values_are_not_stored() {
    with_every_backend!(check_rejected_values);
}

fn check_set_before_the_first_call<B: Backend, S: Stores<B>>(
    open: impl Fn(ManualClock) -> Cache<B, S>,
) {
    let cache = open(ManualClock::new());
    let by_hand = key("tagged");
    cache.set(&by_hand, &1, HOUR).expect("nothing is known of the function");
    for _ in 0..2 {
        assert_eq!(tagged(&cache, 7, 2), 1, "the function sees what was set");
    }
    assert_rejected(&cache, &by_hand, "with_tags");
    cache.invalidate_tag("user:7").expect("invalidated");
    assert_rejected(&cache, &by_hand, "with_tags");
    assert_eq!(tagged(&cache, 7, 3), 3, "and it is invalidated with the function's");
    assert_rejected(&cache, &by_hand, "with_tags");

    let cache = open(ManualClock::new());
    let by_hand = key("versioned");
    cache.set(&by_hand, &1, HOUR).expect("nothing is known of the function");
    assert_eq!(versioned(&cache, 7, 2), 2, "it is of no version");
    assert_rejected(&cache, &by_hand, "with_version");
}

#[test]
fn set_before_the_first_call_is_a_hit_and_after_it_an_error() {
    with_every_backend!(check_set_before_the_first_call);
}

/// Two caches on one directory behave like two processes.
#[test]
fn entry_with_tags_is_recognized_by_another_process() {
    fn follow<B: Backend, S: Stores<B>>(open: impl Fn(&std::path::Path) -> Cache<B, S>) {
        let place = tempfile::tempdir().expect("a directory");
        let first = open(place.path());
        assert_eq!(tagged(&first, 7, 1), 1);
        for _ in 0..2 {
            assert_rejected(&open(place.path()), &key("tagged"), "with_tags");
            assert_eq!(tagged(&first, 7, 0), 1, "it was not replaced");
            first.invalidate_tag("user:7").expect("invalidated");
            assert_rejected(&open(place.path()), &key("tagged"), "with_tags");
            assert_eq!(tagged(&first, 7, 1), 1);
        }
        let other = open(place.path());
        assert_eq!(versioned(&other, 7, 2), 2);
        let one_hit = open(place.path());
        assert_eq!(versioned(&one_hit, 7, 0), 2, "a hit is all that this process has seen");
        assert_rejected(&one_hit, &key("versioned"), "with_version");
    }
    follow(|path| FileCache::open(path.join("c")).expect("a cache"));
    follow(|path| TieredOptions::new().over(&FileCache::open(path.join("c")).expect("a cache")));
}

#[test]
fn expired_entry_with_tags_does_not_prevent_a_set() {
    let clock = ManualClock::new();
    let place = tempfile::tempdir().expect("a directory");
    let open = || FileOptions::new().clock(clock.clone()).open(place.path()).expect("a cache");
    assert_eq!(tagged(&open(), 7, 1), 1);
    clock.advance(HOUR);
    let fresh = open();
    assert_eq!(get(&fresh, &key("tagged")).expect("it has expired"), None);
    fresh.set(&key("tagged"), &2, HOUR).expect("it has expired");
}

#[test]
fn entry_of_another_serializer_is_rejected_and_readable_with_it() {
    #[cached(cache = cache, ttl = "1h", prefix = "json", skip(cache, v), serializer = Json, handle = json_entry)]
    fn json<B: Backend<Stored = bytes::Bytes>>(
        cache: &Cache<B, MessagePack>,
        id: u32,
        v: u32,
    ) -> u32 {
        v
    }
    fn follow<B: Backend<Stored = bytes::Bytes>>(
        cache: &Cache<B, MessagePack>,
        again: &Cache<B, MessagePack>,
    ) {
        assert_eq!(json(cache, 7, 1), 1);
        assert_rejected(cache, &key("json"), "with_serializer");
        assert_rejected(cache, json_entry(cache, 7, 0).key().expect("a key"), "with_serializer");
        assert_rejected(again, &key("json"), "with_serializer");
        assert_eq!(json(cache, 7, 0), 1, "it was not replaced");
        let view = cache.clone().with_serializer(Json);
        assert_eq!(get(&view, &key("json")).expect("get"), Some(1));
        view.set(&key("json"), &2_u32, HOUR).expect("set");
        assert_eq!(json(cache, 7, 0), 2);
        assert_eq!(view.get_or_insert_with(&key("json"), HOUR, || 0_u32), 2);
        assert_eq!(plain(cache, 7, 3), 3);
        assert_rejected(&view, &key("plain"), "with_serializer");
    }
    let place = tempfile::tempdir().expect("a directory");
    let open = || FileCache::open(place.path().join("c")).expect("a cache");
    follow(&open(), &open());
    let map: Arc<MapBackend> = Arc::default();
    let open = || Cache::with_backend(Arc::clone(&map));
    follow(&open(), &open());
}

#[test]
fn value_of_another_type_is_not_set_for_a_function() {
    let place = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(place.path().join("c")).expect("a cache");
    assert_eq!(plain(&cache, 7, 1), 1);
    let error = cache.set(&key("plain"), &1_u64, HOUR).expect_err("the function would not see it");
    assert!(error.to_string().contains("type"), "{error}");
    assert!(cache.get::<u64>(&key("plain")).is_err());
    assert_eq!(plain(&cache, 7, 2), 1);
}

fn check_versions_are_separate<B: Backend, S: Stores<B>>(
    open: impl Fn(ManualClock) -> Cache<B, S>,
) {
    static RUNS: Runs = Runs::new();
    macro_rules! release {
        ($name:ident $(, $version:expr)?) => {
            #[cached(cache = cache, ttl = "1h", prefix = "r", skip(cache) $(, version = $version)?)]
            fn $name<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, k: u32, texts: &[&str]) -> u32 {
                RUNS.count();
                k
            }
        };
    }
    release!(none);
    release!(one, 1);
    release!(two, 2);
    release!(text, "2");
    release!(long, "a version of sixty-four bytes and more, as long as a key that needs the heap");
    let cache = open(ManualClock::new());
    let before = RUNS.get();
    for _ in 0..10 {
        for k in [0, 1] {
            none(&cache, k, &["a"]);
            one(&cache, k, &["a"]);
            two(&cache, k, &["a"]);
            text(&cache, k, &["a"]);
            long(&cache, k, &["a"]);
        }
    }
    assert_eq!(RUNS.get() - before, 10);
}

#[test]
fn versions_of_a_function_do_not_overwrite_each_other() {
    with_every_backend!(check_versions_are_separate);
}

#[test]
fn manual_key_with_a_version_equals_that_of_the_function() {
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = CACHE, ttl = "1h", prefix = "none", version = 1, handle = none_entry)]
    fn none() -> u8 {
        0
    }
    #[cached(cache = cache, ttl = "1h", prefix = "text", key = format!("{k}"), version = "x", handle = text_entry)]
    fn text(cache: &MemoryCache, k: u8) -> u8 {
        k
    }
    #[cached(cache = cache, ttl = "1h", prefix = "closure", key = |_, k| k.to_string(), version = 3, handle = closure_entry)]
    fn closure(cache: &MemoryCache, k: u8) -> u8 {
        k
    }
    fn check(key: &Key, by_hand: Key, version: impl KeyVersion + Copy, shown: &str) {
        assert_ne!(key, &by_hand);
        let other = by_hand.clone().with_version(9);
        assert_ne!(key, &other);
        assert_eq!(key, &by_hand.with_version(version));
        assert_eq!(key, &other.with_version(version), "it is replaced");
        assert!(key.to_string().starts_with(shown), "{key}");
    }
    let cache = MemoryCache::new();
    let of = |entry: Result<&Key>| entry.expect("a key").clone();
    check(&of(none_entry().key()), Key::new("none", &()).expect("a key"), 1, "none@1:");
    check(&of(text_entry(&cache, 5).key()), Key::from_text("text", "5"), "x", "text@\"x\":5");
    check(&of(closure_entry(&cache, 5).key()), Key::from_text("closure", "5"), 3, "closure@3:5");
}

#[test]
fn generations_are_stored_with_the_entries() {
    let map: Arc<MapBackend> = Arc::default();
    let start = || Cache::<_, MessagePack>::with_backend(Arc::clone(&map));
    assert_eq!(tagged(&start(), 7, 1), 1);
    start().invalidate_tag("user:7").expect("invalidated");
    assert_eq!(tagged(&start(), 7, 2), 2);
}

/// A shared backend without generations.
mod forgetful {
    use async_trait::async_trait;
    use bytes::Bytes;
    use vayu::backend::Record;

    use super::*;

    #[derive(Default, Clone)]
    pub(super) struct Forgetful(MapBackend);

    #[async_trait]
    impl Backend for Forgetful {
        type Stored = Bytes;

        fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
            self.0.read(key)
        }

        fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
            self.0.write(key, record)
        }

        fn delete(&self, key: &Key) -> Result<bool> {
            self.0.delete(key)
        }

        async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
            self.read(key)
        }

        async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
            self.write(key, record)
        }

        async fn delete_async(&self, key: &Key) -> Result<bool> {
            self.delete(key)
        }
    }
}

#[test]
fn invalidation_without_persistent_generations_is_an_error() {
    fn check<B: Backend, S: Stores<B>>(cache: &Cache<B, S>) {
        assert_eq!(tagged(cache, 7, 1), 1);
        let results = [
            cache.invalidate_tag("user:7"),
            cache.invalidate_function(&tagged::<B, S>),
            cache.invalidate_prefix("tagged"),
            cache.invalidate_all(),
            smol::block_on(cache.invalidate_tag_async("user:7")),
            smol::block_on(cache.invalidate_function_async(&tagged::<B, S>)),
            smol::block_on(cache.invalidate_prefix_async("tagged")),
            smol::block_on(cache.invalidate_all_async()),
        ];
        for result in results {
            assert_eq!(result.expect_err("not kept").kind(), ErrorKind::Unsupported);
        }
        assert_eq!(tagged(cache, 7, 2), 1, "it did nothing");
    }
    let cache: Cache<forgetful::Forgetful, MessagePack> = Cache::new();
    check(&cache);
    let above: TieredCache<forgetful::Forgetful> = TieredOptions::new().over(&cache);
    check(&above);
}

/// A value that is valid until a time of the clock, in seconds.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Token {
    until: i64,
    number: u32,
}

impl Token {
    fn is_good_for(&self, clock: &ManualClock) -> Duration {
        let left = self.until - clock.now().as_micros() / 1_000_000;
        Duration::from_secs(u64::try_from(left).unwrap_or(0))
    }
}

trait KeepsTokens<B: Backend>: Serializer<Token, Stored = B::Stored> + Clone {}
impl<B: Backend, S: Serializer<Token, Stored = B::Stored> + Clone> KeepsTokens<B> for S {}

/// Counts the runs of the ttl closure and of the function.
struct Counts {
    clock: ManualClock,
    asked: Runs,
    runs: Runs,
}

#[cached(
    cache = cache, key = "t", prefix = "token", stale = "10m", handle = token_entry,
    ttl = |token: &Token| { counts.asked.count(); token.is_good_for(&counts.clock) }
)]
fn token<B: Backend, S: KeepsTokens<B>>(
    cache: &Cache<B, S>,
    counts: &Counts,
) -> Result<Token, String> {
    let number = u32::try_from(counts.runs.count()).expect("a few");
    if number == 2 {
        return Err("down".to_owned());
    }
    Ok(Token { until: counts.clock.now().as_micros() / 1_000_000 + 3600, number })
}

#[cached(
    cache = cache, key = "t", prefix = "token async",
    ttl = |token: &Token| { counts.asked.count(); token.is_good_for(&counts.clock) }
)]
async fn token_async<B: Backend, S: KeepsTokens<B>>(cache: &Cache<B, S>, counts: &Counts) -> Token {
    let number = u32::try_from(counts.runs.count()).expect("a few");
    Token { until: counts.clock.now().as_micros() / 1_000_000 + 3600, number }
}

fn keep_deadlines<B: Backend, S: KeepsTokens<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    let minute = Duration::from_secs(60);
    let counts = || Counts { clock: ManualClock::new(), asked: Runs::new(), runs: Runs::new() };

    let this = counts();
    let cache = open(this.clock.clone());
    for minutes in 0..60 {
        assert_eq!(token(&cache, &this).map(|token| token.number), Ok(1), "at minute {minutes}");
        let left = token_entry(&cache, &this).ttl_left().expect("peek");
        assert_eq!(left, Some(minute * (60 - minutes)));
        this.clock.advance(minute);
    }
    assert_eq!((this.asked.get(), this.runs.get()), (1, 1), "the closure is not asked at a hit");
    assert_eq!(token_entry(&cache, &this).ttl_left().expect("peek"), Some(Duration::ZERO));
    this.clock.advance(9 * minute);
    assert_eq!(
        token(&cache, &this).map(|token| token.number),
        Ok(1),
        "stale, and the source is down"
    );
    assert_eq!((this.asked.get(), this.runs.get()), (1, 2));
    this.clock.advance(minute);
    assert_eq!(token_entry(&cache, &this).peek().expect("peek"), None, "past the window");
    assert_eq!(token(&cache, &this).map(|token| token.number), Ok(3));

    let this = counts();
    let cache = open(this.clock.clone());
    for _ in 0..60 {
        assert_eq!(smol::block_on(token_async(&cache, &this)).number, 1);
        this.clock.advance(minute);
    }
    assert_eq!((this.asked.get(), this.runs.get()), (1, 1));
    assert_eq!(smol::block_on(token_async(&cache, &this)).number, 2);
}

#[test]
fn time_dependent_ttl_is_evaluated_to_one_deadline() {
    with_every_backend!(keep_deadlines);
}

#[test]
fn ttl_of_a_number_is_evaluated_once() {
    #[cached(cache = cache, prefix = "p", skip(cache, asked), ttl = |_: &u64| { asked.count(); HOUR })]
    fn number(cache: &MemoryCache, n: u64, asked: &Runs) -> u64 {
        n
    }
    let (cache, asked) = (MemoryCache::new(), Runs::new());
    for _ in 0..300 {
        assert_eq!(number(&cache, 1, &asked), 1);
    }
    assert_eq!(asked.get(), 1);
}

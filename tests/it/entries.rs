//! `Entry::set`, `run`, `explain` and refreshes that fail, on every backend.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vayu::backend::{Backend, Serializer};
use vayu::testing::{Fault, FaultyBackend, ManualClock, MapBackend};
use vayu::time::Clock;
use vayu::{
    Cache, ErrorKind, Explanation, FileCache, FileOptions, Json, MemoryCache, MemoryOptions,
    MessagePack, TieredOptions, cached,
};

use crate::{Runs, with_every_backend};

const MINUTE: Duration = Duration::from_secs(60);

trait Stores<B: Backend>: Serializer<u32, Stored = B::Stored> + Clone {}
impl<B: Backend, S: Serializer<u32, Stored = B::Stored> + Clone> Stores<B> for S {}

/// A value that no `set` stores.
const COMPUTED: u32 = 1_000_000;

#[cached(cache = cache, ttl = "1m", prefix = "set plain", skip(cache), handle = plain_entry)]
fn plain<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u8) -> u32 {
    COMPUTED + u32::from(id)
}

#[cached(cache = cache, ttl = "1m", version = 3, prefix = "set versioned", skip(cache), handle = versioned_entry)]
fn versioned<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u8) -> Result<u32, String> {
    Ok(COMPUTED + u32::from(id))
}

#[cached(
    cache = cache, ttl = "1m", version = "a", tags("user:{id}", "users"), prefix = "set tagged",
    skip(cache), handle = tagged_entry
)]
async fn tagged<B: Backend, S: Stores<B>>(cache: &Cache<B, S>, id: u8) -> Result<u32, String> {
    Ok(COMPUTED + u32::from(id))
}

#[cached(cache = cache, ttl = "1m", tags("user:{id}"), skip(cache), handle = generic_entry)]
fn generic<B: Backend, S: Stores<B>, T: Default + 'static>(cache: &Cache<B, S>, id: u8) -> u32 {
    let _ = T::default();
    COMPUTED + u32::from(id)
}

trait Prices {
    #[cached(cache = cache, ttl = "1m", tags("user:{id}"), skip(self, cache), handle = price_entry)]
    fn price<B: Backend, S: Stores<B>>(&self, cache: &Cache<B, S>, id: u8) -> u32 {
        COMPUTED + u32::from(id)
    }
}

struct Shop<T>(PhantomData<T>);
impl<T: 'static> Prices for Shop<T> {}

/// The call of a cached function, and what can be done with its entry.
struct Form<'a> {
    call: Box<dyn Fn(u8) -> u32 + 'a>,
    set: Box<dyn Fn(u8, u32) -> bool + 'a>,
    explain: Box<dyn Fn(u8) -> Explanation + 'a>,
    run: Box<dyn Fn(u8) -> u32 + 'a>,
    remove: Box<dyn Fn(u8) -> bool + 'a>,
    invalidate_function: Box<dyn Fn() + 'a>,
    has_tags: bool,
}

/// Returns the forms of functions over a cache.
fn forms<B: Backend, S: Stores<B>>(cache: &Cache<B, S>) -> Vec<Form<'_>> {
    let shop = || Shop::<u8>(PhantomData);
    vec![
        Form {
            call: Box::new(|id| plain(cache, id)),
            set: Box::new(|id, v| plain_entry(cache, id).set(v).expect("set")),
            explain: Box::new(|id| plain_entry(cache, id).explain()),
            run: Box::new(|id| plain_entry(cache, id).run()),
            remove: Box::new(|id| plain_entry(cache, id).invalidate().expect("removed")),
            invalidate_function: Box::new(|| cache.invalidate_prefix("set plain").expect("bumped")),
            has_tags: false,
        },
        Form {
            call: Box::new(|id| versioned(cache, id).expect("a value")),
            set: Box::new(|id, v| {
                smol::block_on(versioned_entry(cache, id).set_async(Ok(v))).expect("set")
            }),
            explain: Box::new(|id| smol::block_on(versioned_entry(cache, id).explain_async())),
            run: Box::new(|id| versioned_entry(cache, id).run().expect("a value")),
            remove: Box::new(|id| versioned_entry(cache, id).invalidate().expect("removed")),
            invalidate_function: Box::new(|| {
                cache.invalidate_prefix("set versioned").expect("bumped");
            }),
            has_tags: false,
        },
        Form {
            call: Box::new(|id| smol::block_on(tagged(cache, id)).expect("a value")),
            set: Box::new(|id, v| {
                smol::block_on(tagged_entry(cache, id).set_async(Ok(v))).expect("set")
            }),
            explain: Box::new(|id| tagged_entry(cache, id).explain()),
            run: Box::new(|id| {
                smol::block_on(tagged_entry(cache, id).run_async()).expect("a value")
            }),
            remove: Box::new(|id| {
                smol::block_on(tagged_entry(cache, id).invalidate_async()).expect("removed")
            }),
            invalidate_function: Box::new(|| {
                cache.invalidate_prefix("set tagged").expect("bumped");
            }),
            has_tags: true,
        },
        Form {
            call: Box::new(|id| generic::<B, S, u16>(cache, id)),
            set: Box::new(|id, v| generic_entry::<B, S, u16>(cache, id).set(v).expect("set")),
            explain: Box::new(|id| generic_entry::<B, S, u16>(cache, id).explain()),
            run: Box::new(|id| generic_entry::<B, S, u16>(cache, id).run()),
            remove: Box::new(|id| {
                generic_entry::<B, S, u16>(cache, id).invalidate().expect("removed")
            }),
            invalidate_function: Box::new(|| {
                cache.invalidate_function(&generic::<B, S, u16>).expect("bumped");
            }),
            has_tags: true,
        },
        Form {
            call: Box::new(move |id| shop().price(cache, id)),
            set: Box::new(move |id, v| shop().price_entry(cache, id).set(v).expect("set")),
            explain: Box::new(move |id| shop().price_entry(cache, id).explain()),
            run: Box::new(move |id| shop().price_entry(cache, id).run()),
            remove: Box::new(move |id| {
                shop().price_entry(cache, id).invalidate().expect("removed")
            }),
            invalidate_function: Box::new(|| {
                cache.invalidate_function(&<Shop<u8> as Prices>::price::<B, S>).expect("bumped");
            }),
            has_tags: true,
        },
    ]
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Set(u8, u32),
    Call(u8),
    Run(u8),
    Wait(u64),
    Remove(u8),
    InvalidateTag(u8),
    InvalidateFunction,
    InvalidateAll,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || 0..3_u8;
    let step = prop_oneof![
        4 => (id(), 0..100_u32).prop_map(|(id, v)| Step::Set(id, v)),
        3 => id().prop_map(Step::Call),
        1 => id().prop_map(Step::Run),
        2 => (1..50_u64).prop_map(Step::Wait),
        1 => id().prop_map(Step::Remove),
        1 => id().prop_map(Step::InvalidateTag),
        1 => Just(Step::InvalidateFunction),
        1 => Just(Step::InvalidateAll),
    ];
    proptest::collection::vec(step, 1..25)
}

/// The model of one entry: its value and its end, or the reason for which there is none.
#[derive(Debug, Clone, Copy)]
enum Model {
    Stored(u32, u64),
    Gone(&'static str),
}

const TTL: u64 = 60;

fn check<B: Backend, S: Stores<B>>(steps: &[Step], open: impl Fn(ManualClock) -> Cache<B, S>) {
    let clock = ManualClock::new();
    let cache = open(clock.clone());
    for form in forms(&cache) {
        let (mut model, mut now) = ([Model::Gone("Absent"); 3], 0);
        for (n, step) in steps.iter().enumerate() {
            let mut invalidate = |ids: &[usize], why| {
                for &id in ids {
                    if let Model::Stored(_, end) = model[id]
                        && now < end
                    {
                        model[id] = Model::Gone(why);
                    }
                }
            };
            match *step {
                Step::Set(id, v) => {
                    assert!((form.set)(id, v), "{n} {step:?}");
                    model[usize::from(id)] = Model::Stored(v, now + TTL);
                }
                Step::Call(id) => {
                    let place = &mut model[usize::from(id)];
                    let expected = match *place {
                        Model::Stored(v, end) if now < end => v,
                        _ => COMPUTED + u32::from(id),
                    };
                    assert_eq!((form.call)(id), expected, "{n} {step:?}");
                    if expected >= COMPUTED && !matches!(*place, Model::Stored(_, end) if now < end)
                    {
                        *place = Model::Stored(expected, now + TTL);
                    }
                }
                Step::Run(id) => assert_eq!((form.run)(id), COMPUTED + u32::from(id), "{n}"),
                Step::Wait(seconds) => {
                    clock.advance(Duration::from_secs(seconds));
                    now += seconds;
                }
                Step::Remove(id) => {
                    (form.remove)(id);
                    model[usize::from(id)] = Model::Gone("Absent");
                }
                Step::InvalidateTag(id) => {
                    cache.invalidate_tag(format_args!("user:{id}")).expect("bumped");
                    if form.has_tags {
                        invalidate(&[usize::from(id)], "Tag");
                    }
                }
                Step::InvalidateFunction => {
                    (form.invalidate_function)();
                    invalidate(&[0, 1, 2], "Function");
                }
                Step::InvalidateAll => {
                    cache.invalidate_all().expect("bumped");
                    invalidate(&[0, 1, 2], "All");
                }
            }
            for id in 0..3_u8 {
                let explained = (form.explain)(id);
                let is_right = match model[usize::from(id)] {
                    Model::Stored(_, end) if now < end => explained.is_hit(),
                    // It may be swept, or invalidated in the meantime.
                    Model::Stored(..) => !explained.is_hit(),
                    Model::Gone("Absent") => matches!(explained, Explanation::Absent),
                    Model::Gone(why) => is_invalidated(&explained, why),
                };
                assert!(
                    is_right,
                    "{n} {step:?}: {explained:?}, and not {:?}",
                    model[usize::from(id)]
                );
            }
        }
    }
}

/// Returns whether the explanation is this invalidation, or one that may hide it.
fn is_invalidated(explained: &Explanation, why: &str) -> bool {
    match explained {
        Explanation::FunctionInvalidated => why != "All",
        Explanation::TagInvalidated => why == "Tag",
        // The last three: after a second invalidation of a group; expired, or swept.
        Explanation::AllInvalidated
        | Explanation::Invalidated
        | Explanation::Expired
        | Explanation::Absent => true,
        _ => false,
    }
}

fn check_any_steps<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    let config = Config { cases: 12, failure_persistence: None, ..Config::default() };
    let result = TestRunner::new(config).run(&steps(), |steps| {
        check(&steps, &open);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn call_returns_what_was_set_until_it_ends_or_is_invalidated() {
    with_every_backend!(check_any_steps);
}

fn check_explanations<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    let clock = ManualClock::new();
    let cache = open(clock.clone());
    let explained = |expected: &str| {
        let entry = tagged_entry(&cache, 7);
        let explanations = [entry.explain(), smol::block_on(entry.explain_async())];
        for explanation in explanations {
            assert_eq!(format!("{explanation:?}"), expected);
        }
    };
    let call = || smol::block_on(tagged(&cache, 7)).expect("a value");
    explained("Absent");
    call();
    explained("Hit");
    for _ in 0..3 {
        cache.invalidate_tag("user:7").expect("bumped");
        explained("TagInvalidated");
        call();
        explained("Hit");
        cache.invalidate_prefix("set tagged").expect("bumped");
        explained("FunctionInvalidated");
        call();
        cache.invalidate_tag("another").expect("bumped");
        explained("Hit");
        cache.invalidate_all().expect("bumped");
        explained("AllInvalidated");
        call();
        cache.invalidate_tag("users").expect("bumped");
        explained("TagInvalidated");
        call();
    }
    let pause = cache.pause();
    explained("Paused");
    pause.resume();
    explained("Hit");
    clock.advance(MINUTE);
    let explanation = tagged_entry(&cache, 7).explain();
    // Some backends remove an expired entry when it is read.
    let is_over = matches!(explanation, Explanation::Expired | Explanation::Absent);
    assert!(is_over, "{explanation}");
    call();
    assert!(tagged_entry(&cache, 7).invalidate().expect("removed"));
    explained("Absent");
}

#[test]
fn explanation_names_the_reason_for_a_miss() {
    with_every_backend!(check_explanations);
}

#[test]
fn explanation_of_another_type_serializer_or_time() {
    mod before {
        use super::*;
        #[cached(cache = cache, ttl = "1h", prefix = "evolving", key = "k")]
        pub(super) fn evolving(cache: &Cache<MapBackend, MessagePack>) -> u16 {
            1
        }
    }
    #[cached(cache = cache, ttl = "1h", prefix = "evolving", key = "k", handle = evolving_entry)]
    fn evolving(cache: &Cache<MapBackend, MessagePack>) -> u64 {
        2
    }
    #[cached(
        cache = cache, ttl = "1m", prefix = "evolving", key = "k", serializer = Json, handle = json_entry
    )]
    fn json(cache: &Cache<MapBackend, MessagePack>) -> u16 {
        3
    }
    #[cached(cache = cache, ttl = "1m", prefix = "evolving", key = "k", handle = shorter_entry)]
    fn shorter(cache: &Cache<MapBackend, MessagePack>) -> u16 {
        4
    }
    let clock = ManualClock::new();
    clock.advance(2 * 60 * MINUTE);
    let cache: Cache<MapBackend, MessagePack> =
        Cache::with_backend(MapBackend::with_clock(clock.clone()));
    assert_eq!(before::evolving(&cache), 1);
    assert!(matches!(evolving_entry(&cache).explain(), Explanation::OtherType));
    assert!(matches!(json_entry(&cache).explain(), Explanation::OtherSerializer));
    assert!(shorter_entry(&cache).explain().is_hit());
    clock.advance(MINUTE);
    assert!(matches!(shorter_entry(&cache).explain(), Explanation::Expired), "the ttl of now");
    assert_eq!((evolving(&cache), json(&cache), shorter(&cache)), (2, 3, 4));
    let past = ManualClock::new();
    let cache: Cache<MapBackend, MessagePack> =
        Cache::with_backend(MapBackend::with_clock(past.clone()));
    let start = past.now();
    past.advance(60 * MINUTE);
    shorter(&cache);
    past.set(start);
    assert!(matches!(shorter_entry(&cache).explain(), Explanation::FromTheFuture));
}

#[test]
fn explanation_of_faults() {
    #[cached(cache = cache, ttl = "1m", key = "k", handle = call_entry)]
    fn call(cache: &Cache<FaultyBackend<MapBackend>, MessagePack>) -> u16 {
        1
    }
    let cache: Cache<_, MessagePack> =
        Cache::with_backend(FaultyBackend::new(MapBackend::default()));
    call(&cache);
    cache.backend().set_fault(Some(Fault::FailsReads));
    let explained = call_entry(&cache).explain();
    assert!(matches!(&explained, Explanation::Unreadable(_)), "{explained}");
    assert!(explained.to_string().starts_with("the backend cannot be read: "), "{explained}");
}

/// Damages the only entry of a directory.
fn damage_file(directory: &Path) {
    let mut damaged = 0;
    for shard in std::fs::read_dir(directory).expect("a directory").flatten() {
        for file in std::fs::read_dir(shard.path()).into_iter().flatten().flatten() {
            if file.path().extension().is_some_and(|ending| ending == "v1") {
                let mut bytes = std::fs::read(file.path()).expect("an entry");
                *bytes.last_mut().expect("a byte") ^= 1;
                std::fs::write(file.path(), bytes).expect("written");
                damaged += 1;
            }
        }
    }
    assert_eq!(damaged, 1);
}

#[test]
fn corrupt_file_is_explained_in_a_file_cache_and_in_tiers() {
    fn check<B: Backend, S: Stores<B>>(over: fn(&FileCache) -> Cache<B, S>) {
        for is_async in [false, true] {
            let place = tempfile::tempdir().expect("a directory");
            let writer = FileCache::open(place.path()).expect("a cache");
            plain(&writer, 1);
            damage_file(place.path());
            let cache = over(&writer);
            let entry = plain_entry(&cache, 1);
            let explained =
                if is_async { smol::block_on(entry.explain_async()) } else { entry.explain() };
            assert!(matches!(explained, Explanation::Corrupt(None)), "{explained}");
        }
    }
    check(FileCache::clone);
    check(|files| TieredOptions::new().over(files));
}

#[test]
fn value_that_panics_when_it_is_dropped_is_explained() {
    /// A value that panics when it is dropped, once that is enabled.
    #[derive(Clone)]
    struct Fragile(Arc<AtomicBool>);
    impl Drop for Fragile {
        fn drop(&mut self) {
            assert!(!self.0.swap(false, Ordering::SeqCst), "planned panic of a drop");
        }
    }
    #[cached(cache = cache, ttl = "1m", stale = "1m", key = "k", handle = call_entry)]
    fn call(cache: &MemoryCache, panics: &Arc<AtomicBool>) -> Fragile {
        Fragile(Arc::clone(panics))
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let panics = Arc::new(AtomicBool::new(false));
    drop(call(&cache, &panics));
    for step in [Duration::ZERO, MINUTE] {
        clock.advance(step);
        for is_async in [false, true] {
            panics.store(true, Ordering::SeqCst);
            let entry = call_entry(&cache, &panics);
            let explained =
                if is_async { smol::block_on(entry.explain_async()) } else { entry.explain() };
            let Explanation::Corrupt(Some(error)) = &explained else { panic!("{explained}") };
            assert_eq!(error.kind(), ErrorKind::Panic);
            assert!(!panics.load(Ordering::SeqCst));
        }
    }
    assert!(
        matches!(call_entry(&cache, &panics).explain(), Explanation::Stale),
        "it is still there"
    );
}

#[test]
fn call_whose_arguments_cannot_be_encoded_has_no_key() {
    struct Broken;
    impl serde::Serialize for Broken {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("broken"))
        }
    }
    #[cached(ttl = 60, log = false, handle = call_entry)]
    fn call(_n: Broken) -> u8 {
        1
    }
    assert!(matches!(call_entry(Broken).explain(), Explanation::NoKey(_)));
    assert_eq!(call_entry(Broken).set(2).expect_err("no key").kind(), ErrorKind::Encode);
    assert_eq!(call_entry(Broken).run(), 1);
}

/// A source that can be switched off, with its cache.
struct Source {
    cache: MemoryCache,
    clock: ManualClock,
    runs: Runs,
    fails: std::sync::atomic::AtomicBool,
}

impl Source {
    fn new() -> Self {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        Self { cache, clock, runs: Runs::new(), fails: false.into() }
    }

    fn set_failing(&self, fails: bool) {
        self.fails.store(fails, std::sync::atomic::Ordering::SeqCst);
    }

    fn ask(&self) -> Result<usize, String> {
        let run = self.runs.count();
        let fails = self.fails.load(std::sync::atomic::Ordering::SeqCst);
        if fails { Err("down".to_owned()) } else { Ok(run) }
    }

    #[cached(
        cache = self.cache, key = "k", stale = "1h", handle = lenient_entry,
        ttl = |n: &usize| Duration::from_secs(*n as u64), cache_if = |n| *n < limit
    )]
    fn lenient(&self, limit: usize) -> Result<usize, String> {
        let _ = limit;
        self.ask()
    }

    #[cached(cache = self.cache, key = "later", ttl = "1m", stale = "1h", handle = later_entry)]
    async fn later(&self) -> Result<usize, String> {
        smol::future::yield_now().await;
        self.ask()
    }

    #[cached(cache = self.cache, key = "strict", ttl = "1m", handle = strict_entry)]
    fn strict(&self) -> Result<usize, String> {
        self.ask()
    }
}

#[test]
fn failed_refresh_returns_the_old_value_where_the_function_has_stale() {
    let source = Source::new();
    assert_eq!(source.lenient(100), Ok(1));
    assert_eq!(smol::block_on(source.later()), Ok(2));
    assert_eq!(source.strict(), Ok(3));
    source.set_failing(true);
    let down = || Err("down".to_owned());
    assert_eq!(source.lenient_entry(100).refresh(), Ok(1));
    assert_eq!(source.lenient_entry(100).refresh_strict(), down());
    assert_eq!(smol::block_on(source.later_entry().refresh_async()), Ok(2));
    assert_eq!(smol::block_on(source.later_entry().refresh_strict_async()), down());
    assert_eq!(source.strict_entry().refresh(), down(), "it has no `stale`");
    assert_eq!(source.strict(), Ok(3));
    source.clock.advance(30 * MINUTE);
    assert_eq!(source.lenient_entry(100).refresh(), Ok(1), "within `stale`");
    source.clock.advance(60 * MINUTE);
    assert_eq!(source.lenient_entry(100).refresh(), down(), "past it");
    assert_eq!(smol::block_on(source.later_entry().refresh_async()), down());
    source.set_failing(false);
    assert!(source.lenient_entry(100).refresh().is_ok_and(|run| run > 3));
}

#[test]
fn set_follows_the_policy_of_the_function() {
    let source = Source::new();
    let entry = || source.lenient_entry(50);
    assert!(entry().set(Ok(20)).expect("set"));
    assert_eq!(entry().ttl_left().expect("read"), Some(Duration::from_secs(20)), "by the closure");
    assert_eq!((entry().age().expect("read"), source.lenient(50)), (Some(Duration::ZERO), Ok(20)));
    assert!(!entry().set(Ok(60)).expect("no fault"), "`cache_if` rejects it");
    assert!(!entry().set(Err("failed".to_owned())).expect("no fault"), "an `Err` is not cached");
    assert_eq!(source.lenient(50), Ok(20), "it stays");
    assert!(!entry().set(Ok(0)).expect("no fault"), "its ttl is zero");
    source.clock.advance(Duration::from_secs(30));
    assert!(matches!(entry().explain(), Explanation::Stale));
    assert_eq!(entry().peek().expect("read"), Some(Ok(20)), "within `stale`");
    let pause = source.cache.pause();
    assert!(!entry().set(Ok(30)).expect("no fault"), "the cache is paused");
    pause.resume();
    assert_eq!((source.runs.get(), entry().run()), (0, Ok(1)));
    assert_eq!(source.cache.stats().inserts, 1);
}

#[test]
fn closures_that_name_arguments_own_clones_of_them_in_an_entry() {
    struct Pair(String);
    #[cached(
        cache = cache, key = name.clone(), handle = call_entry,
        ttl = |n: &usize| Duration::from_secs((n + name.len()) as u64),
        cache_if = |n| *n != name.len() && *n < text.len() + *high as usize
    )]
    fn call(cache: &MemoryCache, name: String, high: &u32, Pair(text): Pair) -> usize {
        assert!(name.len() + text.len() > 0);
        *high as usize
    }
    let cache = MemoryCache::new();
    let pair = || Pair("text".to_owned());
    let entry = |n: u32| call_entry(&cache, "abc".to_owned(), Box::leak(Box::new(n)), pair());
    assert!(!entry(9).set(3).expect("no fault"), "as long as the name");
    assert!(entry(9).set(7).expect("set"));
    assert!(!entry(9).set(13).expect("no fault"), "too high");
    assert!(entry(9).ttl_left().expect("read").is_some_and(|left| left <= Duration::from_secs(10)));
    assert_eq!(entry(9).get(), 7);
    assert_eq!(entry(9).run(), 9);
}

#[test]
fn value_that_is_set_replaces_a_computation_in_progress_and_reaches_all_tiers() {
    #[cached(cache = cache, ttl = "1m", key = "k", handle = call_entry)]
    fn call(cache: &vayu::TieredCache<vayu::backend::FileBackend>, run: &dyn Fn() -> u32) -> u32 {
        run()
    }
    let place = tempfile::tempdir().expect("a directory");
    let files = FileOptions::new().open(place.path()).expect("a cache");
    let cache = TieredOptions::new().over(&files);
    let output = call(&cache, &|| {
        assert!(call_entry(&cache, &|| 9).set(2).expect("set"));
        1
    });
    assert_eq!((output, call(&cache, &|| 3)), (1, 2), "the older computation was not stored");
    let other = TieredOptions::new().over(&files);
    assert_eq!(call(&other, &|| 4), 2, "it is in the files");
}

#[test]
fn run_shares_no_flight_and_stores_nothing() {
    #[cached(cache = cache, ttl = "1m", key = "k", handle = call_entry)]
    fn call(cache: &MemoryCache, run: &dyn Fn() -> u32) -> u32 {
        run()
    }
    let cache = MemoryCache::new();
    let output = call(&cache, &|| {
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(call_entry(&cache, &|| 2).run(), 2)).join().expect("no wait");
        });
        1
    });
    assert_eq!((output, call(&cache, &|| 3), call_entry(&cache, &|| 4).run()), (1, 1, 4));
    assert_eq!(call(&cache, &|| 5), 1);
    assert_eq!((cache.stats().inserts, cache.stats().misses, cache.stats().hits), (1, 3, 2));
}

#[test]
fn futures_of_entries_are_send() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let source = Source::new();
    drop(is_send(source.later_entry().run_async()));
    drop(is_send(source.later_entry().refresh_strict_async()));
    let entry = source.later_entry();
    drop(is_send(entry.set_async(Ok(1))));
    drop(is_send(entry.explain_async()));
}

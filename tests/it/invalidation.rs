//! Entries that are invalidated together: by tag, by function, by prefix, all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Cache, Error, ErrorKind, FileCache, FileOptions, Key, MemoryCache, Result, cached};

use crate::{HANG, with_every_backend};

type CallResult = std::result::Result<u32, String>;

/// The body of the function.
type Body<'a> = &'a dyn Fn() -> CallResult;

const DOWN: Body<'_> = &|| Err("down".to_owned());

#[cached(
    cache = cache, ttl = "1m", stale = "30s", key = format!("{id}"), tags("user:{id}", "users"),
    handle = sync_entry
)]
fn sync_user<B, S>(cache: &Cache<B, S>, id: u32, body: Body<'_>) -> CallResult
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync,
{
    body()
}

#[cached(
    cache = cache, ttl = "1m", stale = "30s", key = format!("{id}"), tags("user:{id}", "users")
)]
async fn async_user<B, S>(cache: &Cache<B, S>, id: u32, body: Body<'_>) -> CallResult
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync,
{
    body()
}

#[derive(Debug, Clone, Copy)]
enum Group {
    Tag(&'static str),
    Function,
    All,
}

impl Group {
    fn invalidate<B, S>(self, cache: &Cache<B, S>, is_async: bool) -> Result<()>
    where
        B: Backend,
        S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync,
    {
        match (self, is_async) {
            (Self::Tag(tag), false) => cache.invalidate_tag(tag),
            (Self::Tag(tag), true) => smol::block_on(cache.invalidate_tag_async(tag)),
            (Self::Function, false) => cache.invalidate_function(&sync_user::<B, S>),
            (Self::Function, true) => {
                smol::block_on(cache.invalidate_function_async(&async_user::<B, S>))
            }
            (Self::All, false) => cache.invalidate_all(),
            (Self::All, true) => smol::block_on(cache.invalidate_all_async()),
        }
    }
}

/// The groups of user 7. True if user 8 belongs to the group, too.
const GROUPS: &[(Group, bool)] = &[
    (Group::Tag("user:7"), false),
    (Group::Tag("users"), true),
    (Group::Function, true),
    (Group::All, true),
];

/// The cases of a value computed at second 0 with `ttl = "60s"` and
/// `stale = "30s"`.
fn check_cases<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync,
{
    for &(group, is_shared) in GROUPS {
        for is_async in [false, true] {
            let clock = ManualClock::new();
            let pass = |seconds| clock.advance(Duration::from_secs(seconds));
            let fresh = || {
                let cache = open(clock.clone());
                assert_eq!(call_user(&cache, is_async, 7, &|| Ok(1)), Ok(1));
                assert_eq!(call_user(&cache, is_async, 8, &|| Ok(1)), Ok(1));
                cache
            };
            let case = format!("{group:?}, async: {is_async}");

            let cache = fresh();
            let call = |id, body: Body<'_>| call_user(&cache, is_async, id, body);
            let invalidate = || group.invalidate(&cache, is_async).expect("invalidated");

            assert_eq!(call(7, &|| Ok(2)), Ok(1), "not invalidated: {case}");
            invalidate();
            assert_eq!(call(7, &|| Ok(2)), Ok(2), "invalidated: {case}");
            assert_eq!(call(7, &|| Ok(3)), Ok(2), "and computed again: {case}");
            let other = if is_shared { 2 } else { 1 };
            assert_eq!(call(8, &|| Ok(2)), Ok(other), "another of the group: {case}");

            invalidate();
            assert_eq!(call(7, DOWN), DOWN(), "no old value for a failure: {case}");

            let computing = || {
                invalidate();
                Ok(4)
            };
            assert_eq!(call(7, &computing), Ok(4), "while it was computed: {case}");
            assert_eq!(call(7, &|| Ok(5)), Ok(5), "that was not kept: {case}");

            pass(70);
            assert_eq!(call(7, DOWN), Ok(5), "stale, and not invalidated: {case}");
            invalidate();
            assert_eq!(call(7, &|| Ok(6)), Ok(6), "stale: {case}");

            pass(70);
            let refreshing = || {
                invalidate();
                assert_eq!(call(7, &|| Ok(7)), Ok(7), "beside a refresh: {case}");
                Ok(8)
            };
            assert_eq!(call(7, &refreshing), Ok(8), "while it was refreshed: {case}");
            let kept = call(7, &|| Ok(9));
            assert!(kept == Ok(7) || kept == Ok(9), "the outdated refresh stayed: {case}");

            let refreshing = || {
                invalidate();
                DOWN()
            };
            pass(70);
            let last = call(7, &refreshing);
            assert!(last == kept, "what failed was asked for before: {case}");
            assert_eq!(call(7, &|| Ok(10)), Ok(10), "and that is the end of it: {case}");
            assert_eq!(cache.stats().in_flight, 0);
        }
    }
}

fn call_user<B, S>(cache: &Cache<B, S>, is_async: bool, id: u32, body: Body<'_>) -> CallResult
where
    B: Backend,
    S: Serializer<u32, Stored = B::Stored> + Clone + Send + Sync,
{
    if is_async { smol::block_on(async_user(cache, id, body)) } else { sync_user(cache, id, body) }
}

#[test]
fn invalidation_behaves_as_in_the_cases_on_every_backend() {
    watchdog(HANG, || with_every_backend!(check_cases));
}

#[test]
fn callers_after_an_invalidation_do_not_join_an_older_flight() {
    watchdog(HANG, || {
        let cache = MemoryCache::new().with_max_wait(Duration::MAX);
        let slow = || {
            cache.invalidate_tag("users").unwrap();
            std::thread::scope(|scope| {
                let call = || sync_user(&cache, 7, &|| Ok(2));
                assert_eq!(scope.spawn(call).join().unwrap(), Ok(2));
            });
            Ok(1)
        };
        assert_eq!(sync_user(&cache, 7, &slow), Ok(1));
        assert_eq!(sync_user(&cache, 7, &|| Ok(3)), Ok(2), "the slow one did not overwrite it");
    });
}

#[test]
fn entry_is_absent_after_its_group_was_invalidated() {
    let cache = MemoryCache::new();
    let entry = sync_entry(&cache, 7, &|| Ok(2));
    sync_user(&cache, 7, &|| Ok(1)).unwrap();
    assert_eq!(entry.peek().unwrap(), Some(Ok(1)));
    cache.invalidate_tag("user:7").unwrap();
    assert_eq!(entry.peek().unwrap(), None);
    assert_eq!(entry.get(), Ok(2));
    assert_eq!(sync_entry(&cache, 7, DOWN).peek().unwrap(), Some(Ok(2)));
}

/// Runs `code` with two caches on one directory, as in two processes.
fn two_processes(code: impl Fn(&ManualClock, &FileCache, &FileCache)) {
    let place = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let open = || FileOptions::new().clock(clock.clone()).open(place.path().join("c")).unwrap();
    let (one, two) = (open(), open());
    code(&clock, &one, &two);
}

#[test]
fn tag_is_invalidated_in_all_processes_at_once() {
    two_processes(|_, one, two| {
        for round in 0..3 {
            assert_eq!(sync_user(one, 7, &|| Ok(round)), Ok(round));
            assert_eq!(sync_user(two, 7, &|| Ok(99)), Ok(round));
            two.invalidate_tag("user:7").unwrap();
        }
        assert_eq!(sync_user(one, 7, &|| Ok(3)), Ok(3));
    });
}

#[test]
fn slow_computation_of_another_process_does_not_overwrite_a_newer_value() {
    two_processes(|_, one, two| {
        let slow = || {
            two.invalidate_tag("users").unwrap();
            assert_eq!(sync_user(two, 7, &|| Ok(2)), Ok(2));
            Ok(1)
        };
        assert_eq!(sync_user(one, 7, &slow), Ok(1));
        assert_eq!(sync_user(two, 7, &|| Ok(3)), Ok(3), "it was overwritten by what is outdated");
        assert_eq!(sync_user(one, 7, &|| Ok(4)), Ok(3));
    });
}

#[test]
fn function_is_invalidated_in_other_processes_within_100_ms() {
    two_processes(|clock, one, two| {
        let call = |cache: &FileCache, n: u32| {
            cache.get_or_insert_with(&Key::from_text("p", "k"), Duration::from_secs(60), || n)
        };
        assert_eq!((call(one, 1), call(two, 2)), (1, 1));
        one.invalidate_prefix("p").unwrap();
        assert_eq!(one.get::<u32>(&Key::from_text("p", "k")).unwrap(), None, "here at once");
        clock.advance(Duration::from_millis(100));
        assert_eq!(call(two, 3), 3);
        assert_eq!(call(one, 4), 3);
        two.invalidate_all().unwrap();
        assert_eq!(call(two, 5), 5);
        clock.advance(Duration::from_millis(100));
        assert_eq!(call(one, 6), 5);
    });
}

#[test]
fn invalidation_survives_the_process_and_a_clear() {
    let place = tempfile::tempdir().unwrap();
    let open = || FileCache::open(place.path().join("c")).unwrap();
    assert_eq!(sync_user(&open(), 7, &|| Ok(1)), Ok(1));
    open().invalidate_tag("user:7").unwrap();
    assert_eq!(sync_user(&open(), 7, &|| Ok(2)), Ok(2));
    let slow = || {
        open().invalidate_tag("user:8").unwrap();
        open().clear().unwrap();
        Ok(1)
    };
    assert_eq!(sync_user(&open(), 8, &slow), Ok(1));
    assert_eq!(sync_user(&open(), 8, &|| Ok(2)), Ok(2));
}

/// A backend whose generations are functions of a test.
mod odd {
    use async_trait::async_trait;
    use vayu::MessagePack;
    use vayu::backend::{Backend, Generations, Group, Record};
    use vayu::testing::MapBackend;

    use super::*;

    pub(super) struct Odd {
        map: MapBackend,
        generation: Box<dyn Fn() -> Result<u64> + Send + Sync>,
        renew: Box<dyn Fn() -> Result<()> + Send + Sync>,
    }

    pub(super) fn cache(
        clock: ManualClock,
        generation: impl Fn() -> Result<u64> + Send + Sync + 'static,
        renew: impl Fn() -> Result<()> + Send + Sync + 'static,
    ) -> Cache<Odd, MessagePack> {
        let (generation, renew) = (Box::new(generation), Box::new(renew));
        Cache::with_backend(Odd { map: MapBackend::with_clock(clock), generation, renew })
    }

    impl Generations for Odd {
        fn generation(&self, _: Group) -> Result<u64> {
            (self.generation)()
        }

        fn bump(&self, _: Group) -> Result<()> {
            (self.renew)()
        }
    }

    #[async_trait]
    impl Backend for Odd {
        type Stored = bytes::Bytes;

        fn read(&self, key: &Key) -> Result<Option<Record<Self::Stored>>> {
            self.map.read(key)
        }

        fn write(&self, key: &Key, record: Record<Self::Stored>) -> Result<()> {
            self.map.write(key, record)
        }

        fn delete(&self, key: &Key) -> Result<bool> {
            self.map.delete(key)
        }

        async fn read_async(&self, key: &Key) -> Result<Option<Record<Self::Stored>>> {
            self.map.read(key)
        }

        async fn write_async(&self, key: &Key, record: Record<Self::Stored>) -> Result<()> {
            self.map.write(key, record)
        }

        async fn delete_async(&self, key: &Key) -> Result<bool> {
            self.map.delete(key)
        }

        fn capabilities(&self) -> vayu::backend::Capabilities<'_, bytes::Bytes> {
            vayu::backend::Capabilities::none().with_generations(self)
        }

        fn clock(&self) -> std::sync::Arc<dyn vayu::time::Clock> {
            self.map.clock()
        }
    }
}

/// The backend reads the old generation, and before it returns it, the function is
/// invalidated.
#[test]
fn generation_read_before_an_invalidation_is_not_cached() {
    type Middle = Box<dyn FnOnce() + Send>;
    for is_async in [false, true] {
        let clock = ManualClock::new();
        let generation = Arc::new(AtomicU64::new(1));
        let middle: Arc<Mutex<Option<Middle>>> = Arc::default();
        let (old, interrupted, renewed) =
            (Arc::clone(&generation), Arc::clone(&middle), Arc::clone(&generation));
        let cache = odd::cache(
            clock.clone(),
            move || {
                let output = old.load(Ordering::SeqCst);
                let middle = interrupted.lock().unwrap().take();
                if let Some(middle) = middle {
                    middle();
                }
                Ok(output)
            },
            move || {
                renewed.fetch_add(1, Ordering::SeqCst);
                Ok(())
            },
        );
        let key = Key::from_text("p", "k");
        let minute = Duration::from_secs(60);
        let call = |n: u32| {
            if is_async {
                smol::block_on(cache.get_or_insert_with_async(&key, minute, async { n }))
            } else {
                cache.get_or_insert_with(&key, minute, || n)
            }
        };
        assert_eq!((call(1), call(2)), (1, 1));
        clock.advance(Duration::from_millis(100));
        let same = cache.clone();
        *middle.lock().unwrap() = Some(Box::new(move || same.invalidate_prefix("p").unwrap()));
        call(3);
        assert!(middle.lock().unwrap().is_none(), "the generation was not read");
        assert_eq!(call(4), 4, "the invalidation was over");
    }
}

#[test]
fn callers_share_a_computation_where_generations_cannot_be_read() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let lost = || Error::new(ErrorKind::Backend, "lost");
        let cache = odd::cache(clock.clone(), move || Err(lost()), move || Err(lost()));
        let key = Key::from_text("p", "k");
        let call =
            |body: &dyn Fn() -> u32| cache.get_or_insert_with(&key, Duration::from_secs(60), body);
        std::thread::scope(|scope| {
            let output = call(&|| {
                for _ in 0..4 {
                    scope.spawn(|| assert_eq!(call(&|| 2), 1));
                }
                crate::until(|| clock.sleepers() == 4);
                1
            });
            assert_eq!(output, 1);
        });
        assert_eq!(cache.stats().coalesced, 4);
        assert_eq!(cache.stats().errors, 5, "each call reports the error");
        assert_eq!((call(&|| 3), cache.stats().inserts), (3, 0), "nothing was stored");
        assert_eq!(sync_user(&cache, 7, &|| Ok(4)), Ok(4));
        assert_eq!(smol::block_on(async_user(&cache, 7, &|| Ok(5))), Ok(5));
        assert_eq!(cache.invalidate_tag("users").unwrap_err().kind(), ErrorKind::Backend);
    });
}

#[test]
fn invalidating_what_is_not_a_named_function_is_an_error() {
    let cache = MemoryCache::new();
    let pointer: fn(u32) -> u32 = u32::swap_bytes;
    let closure = |n: u32| n;
    assert_eq!(cache.invalidate_function(&pointer).unwrap_err().kind(), ErrorKind::Configuration);
    assert_eq!(cache.invalidate_function(&closure).unwrap_err().kind(), ErrorKind::Configuration);
    assert_eq!(cache.invalidate_function(&7_u8).unwrap_err().kind(), ErrorKind::Configuration);
}

#[test]
fn functions_of_every_form_can_be_invalidated_by_name() {
    struct Shop<T>(T, MemoryCache);
    impl<T: Clone + Send + Sync + 'static> Shop<T> {
        #[cached(cache = self.1, ttl = 60)]
        fn sync<const N: usize>(&self, _n: u8) -> usize {
            usize::try_from(self.1.stats().misses).unwrap() + N
        }

        #[cached(cache = self.1, ttl = 60)]
        async fn asynchronous(&self, _n: u8) -> u64 {
            self.1.stats().misses
        }
    }
    trait Count {
        fn count(&self) -> u64;
    }
    impl<T> Count for Shop<T> {
        #[cached(cache = self.1, ttl = 60)]
        fn count(&self) -> u64 {
            self.1.stats().misses
        }
    }
    let shop = Shop("", MemoryCache::new());
    let outputs = || {
        let asynchronous = smol::block_on(shop.asynchronous(1));
        (shop.sync::<2>(1), shop.sync::<0>(1), asynchronous, shop.count())
    };
    assert_eq!(outputs(), (4, 3, 1, 4));
    shop.1.invalidate_function(&Shop::<&str>::sync::<2>).unwrap();
    assert_eq!(outputs(), (7, 3, 1, 4));
    shop.1.invalidate_function(&Shop::<&str>::asynchronous).unwrap();
    assert_eq!(outputs(), (7, 3, 6, 4));
    shop.1.invalidate_function(&<Shop<&str> as Count>::count).unwrap();
    assert_eq!(outputs(), (7, 3, 6, 7));
}

#[test]
fn prefix_is_invalidated_by_its_string() {
    #[cached(cache = cache, ttl = 60, prefix = "rates", skip(cache))]
    fn rate(cache: &MemoryCache, _base: &str) -> u64 {
        cache.stats().misses
    }
    let cache = MemoryCache::new();
    assert_eq!((rate(&cache, "EUR"), rate(&cache, "EUR")), (1, 1));
    cache.invalidate_prefix("other").unwrap();
    assert_eq!(rate(&cache, "EUR"), 1);
    cache.invalidate_prefix("rates").unwrap();
    assert_eq!(rate(&cache, "EUR"), 2);
}

#[test]
fn tags_can_be_expressions() {
    #[cached(cache = cache, ttl = 60, skip(cache), tags(format!("{}/{n}", text.trim()), text, "{{}}"))]
    fn call(cache: &MemoryCache, text: String, n: u8) -> u64 {
        drop(text);
        cache.stats().misses + u64::from(n)
    }
    let cache = MemoryCache::new();
    let output = || call(&cache, " a ".to_owned(), 0);
    assert_eq!((output(), output()), (1, 1));
    cache.invalidate_tag("a/0").unwrap();
    assert_eq!((output(), output()), (2, 2));
    cache.invalidate_tag(" a ").unwrap();
    assert_eq!((output(), output()), (3, 3));
    cache.invalidate_tag("{}").unwrap();
    assert_eq!((output(), output()), (4, 4));
    cache.invalidate_tag("a").unwrap();
    assert_eq!(output(), 4);
}

#[test]
fn calls_with_tags_are_send() {
    #[cached(cache = cache, ttl = 60, skip(cache), tags("{n}"), handle = call_entry)]
    async fn call(cache: &FileCache, n: u8) -> u8 {
        n
    }
    fn is_send<T: Send>(_: impl FnOnce(&'static FileCache) -> T) {}
    is_send(|cache| call(cache, 1));
    is_send(|cache| call_entry(cache, 1).refresh_async());
    is_send(|cache| cache.invalidate_tag_async("1"));
}

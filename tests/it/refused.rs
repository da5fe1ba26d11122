//! Runs that replace a value, and whose own value is not stored or cannot be.

use std::collections::HashMap;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer as Encoder};
use vayu::backend::object_store::ObjectStore;
use vayu::backend::object_store::local::LocalFileSystem;
use vayu::backend::object_store::memory::InMemory;
use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{
    Cache, ErrorKind, FileCache, FileOptions, Key, ObjectCache, ObjectOptions, TieredOptions,
    cached,
};

use crate::{HANG, Runs, poll, until, with_every_backend};

const MINUTE: Duration = Duration::from_secs(60);
const LIMIT: u64 = 4096;

/// The way in which the stored value is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By a call with `refresh_if`.
    Condition,
    /// By a handle.
    Handle,
    /// By a call that finds it past its ttl.
    Expired,
}

const WAYS: [Way; 3] = [Way::Condition, Way::Handle, Way::Expired];

trait Stores<T, B: Backend>: Serializer<T, Stored = B::Stored> + Clone + Send + Sync + 'static {}
impl<T, B: Backend, S> Stores<T, B> for S where
    S: Serializer<T, Stored = B::Stored> + Clone + Send + Sync + 'static
{
}

#[cached(
    cache = cache, ttl = "1m", stale = "1h", prefix = "level", key = "k", cache_if = |level: &u32| *level > 0,
    refresh_if = is_forced, handle = level_entry
)]
fn level<B: Backend, S: Stores<u32, B>>(
    cache: &Cache<B, S>,
    is_forced: bool,
    run: Result<u32, String>,
) -> Result<u32, String> {
    run
}

#[cached(
    cache = cache, ttl = "1m", stale = "1h", prefix = "level async", key = "k", cache_if = |level: &u32| *level > 0,
    refresh_if = is_forced, handle = level_async_entry
)]
async fn level_async<B: Backend, S: Stores<u32, B>>(
    cache: &Cache<B, S>,
    is_forced: bool,
    run: Result<u32, String>,
) -> Result<u32, String> {
    run
}

fn replace_by_a_rejected_value<B: Backend, S: Stores<u32, B>>(
    open: impl Fn(ManualClock) -> Cache<B, S>,
) {
    for (way, is_async) in WAYS.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let clock = ManualClock::new();
        let cache = open(clock.clone());
        let ask = |is_forced, run| {
            if is_async {
                smol::block_on(level_async(&cache, is_forced, run))
            } else {
                level(&cache, is_forced, run)
            }
        };
        let replace = |run| match way {
            Way::Condition => ask(true, run),
            Way::Handle if is_async => {
                smol::block_on(level_async_entry(&cache, false, run).refresh_strict_async())
            }
            Way::Handle => level_entry(&cache, false, run).refresh_strict(),
            Way::Expired => {
                clock.advance(MINUTE);
                ask(false, run)
            }
        };
        let down = || Err("down".to_owned());
        let how = format!("{way:?} async {is_async}");
        assert_eq!(ask(false, Ok(1)), Ok(1), "{how}");
        let failed = replace(down());
        assert_eq!(failed, if way == Way::Expired { Ok(1) } else { down() }, "{how}");
        assert_eq!(ask(false, Ok(2)), Ok(1), "{how}: a failure keeps it");
        assert_eq!(replace(Ok(0)), Ok(0), "{how}: not a failure");
        assert_eq!(ask(false, down()), down(), "{how}: nothing is left to be served");
        assert_eq!((ask(false, Ok(3)), ask(false, Ok(4))), (Ok(3), Ok(3)), "{how}");
        assert_eq!(cache.stats().errors, 0, "{how}");
    }
}

#[test]
fn refresh_whose_value_is_rejected_removes_the_value_before_it() {
    watchdog(HANG, || {
        with_every_backend!(replace_by_a_rejected_value);
        replace_by_a_rejected_value(|clock| objects_in(InMemory::new(), &clock));
    });
}

#[test]
fn refresh_in_the_background_whose_value_is_rejected_removes_the_value_before_it() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "k", cache_if = |n: &usize| *n != 2, spawn = std::thread::spawn,
        handle = run_entry)]
    fn run(cache: FileCache) -> usize {
        RUNS.count()
    }
    watchdog(HANG, || {
        let (directory, clock) = (tempfile::tempdir().expect("a directory"), ManualClock::new());
        let cache = files(directory.path(), &clock);
        assert_eq!(run(cache.clone()), 1);
        clock.advance(MINUTE);
        assert_eq!(run(cache.clone()), 1, "the refresh runs beside it");
        until(|| run_entry(cache.clone()).peek().expect("read").is_none());
        assert_eq!((run(cache.clone()), RUNS.get()), (3, 3));
    });
}

/// The end of a run, which a test sets.
#[derive(Default)]
struct RunEnd(Mutex<Option<Result<u32, String>>>);

impl RunEnd {
    fn set(&self, run: Result<u32, String>) {
        *self.0.lock().expect("no panic") = Some(run);
    }

    async fn reached(&self) -> Result<u32, String> {
        let take = || self.0.lock().expect("no panic").take();
        std::future::poll_fn(|_| take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

#[cached(cache = cache, ttl = "1h", prefix = "overtaken", skip(cache, is_forced, end), cache_if = |level: &u32| *level > 0,
    refresh_if = is_forced)]
async fn overtaken<B: Backend, S: Stores<u32, B>>(
    cache: &Cache<B, S>,
    is_forced: bool,
    end: &RunEnd,
    id: u8,
) -> Result<u32, String> {
    end.reached().await
}

#[cached(cache = cache, ttl = "1h", prefix = "overtaken each", skip(cache, is_forced, end), each = ids,
    cache_if = |level: &u32| *level > 0, refresh_if = is_forced)]
async fn overtaken_each<B: Backend, S: Stores<u32, B>>(
    cache: &Cache<B, S>,
    is_forced: bool,
    end: &RunEnd,
    ids: &[u8],
) -> Result<Vec<u32>, String> {
    Ok(vec![end.reached().await?; ids.len()])
}

/// Leaves out the elements whose value would be zero.
#[cached(cache = cache, ttl = "1h", prefix = "overtaken map", skip(cache, is_forced, end), each = ids,
    refresh_if = is_forced)]
async fn overtaken_map<B: Backend, S: Stores<u32, B>>(
    cache: &Cache<B, S>,
    is_forced: bool,
    end: &RunEnd,
    ids: &[u8],
) -> Result<HashMap<u8, u32>, String> {
    let level = end.reached().await?;
    Ok(ids.iter().filter(|_| level > 0).map(|id| (*id, level)).collect())
}

/// The function whose refresh is slow.
#[derive(Debug, Clone, Copy)]
enum Overtaken {
    Single,
    Each,
    Map,
}

/// Polls a call that waits until it has taken each step before that: some backends are not ready at once.
fn poll_all_steps<T>(mut call: Pin<&mut impl Future<Output = T>>) {
    assert!((0..20).all(|_| poll(call.as_mut()).is_pending()));
}

/// A refresh ends without a value that is stored after another one has replaced it, which has waited for it for the longest time.
fn overtake<B: Backend, S: Stores<u32, B>>(
    function: Overtaken,
    open: impl Fn(ManualClock) -> Cache<B, S>,
) {
    let down = || Err("down".to_owned());
    // Whether the newer run ends first, its output, and what is cached after each of the two ends.
    for (is_first, newer, cached) in [
        (true, Ok(2), [Some(2), Some(2)]),
        (true, down(), [Some(1), None]),
        (false, Ok(2), [None, Some(2)]),
        (false, down(), [None, None]),
    ] {
        let how = format!("the newer run ends first ({is_first}) with {newer:?}");
        let clock = ManualClock::new();
        let cache = open(clock.clone()).with_max_wait(MINUTE);
        let prefix = match function {
            Overtaken::Single => "overtaken",
            Overtaken::Each => "overtaken each",
            Overtaken::Map => "overtaken map",
        };
        let key = Key::new(prefix, &(0_u8,)).expect("a key");
        let call = async |is_forced, end: &RunEnd| match function {
            Overtaken::Single => overtaken(&cache, is_forced, end, 0).await,
            Overtaken::Each => {
                overtaken_each(&cache, is_forced, end, &[0]).await.map(|values| values[0])
            }
            Overtaken::Map => {
                let values = overtaken_map(&cache, is_forced, end, &[0]).await;
                values.map(|values| values.get(&0).copied().unwrap_or_default())
            }
        };
        let [first, slow, other] = [(); 3].map(|()| RunEnd::default());
        first.set(Ok(1));
        assert_eq!(smol::block_on(call(false, &first)), Ok(1));
        clock.advance(Duration::from_secs(1));
        let mut slow_call = pin!(call(true, &slow));
        let mut other_call = pin!(call(true, &other));
        poll_all_steps(slow_call.as_mut());
        poll_all_steps(other_call.as_mut());
        clock.advance(MINUTE);
        poll_all_steps(other_call.as_mut());
        let mut end_slow = || {
            slow.set(Ok(0));
            assert_eq!(smol::block_on(slow_call.as_mut()), Ok(0), "{how}");
        };
        let mut end_other = || {
            other.set(newer.clone());
            assert_eq!(smol::block_on(other_call.as_mut()), newer, "{how}");
        };
        let mut ends: [&mut dyn FnMut(); 2] = [&mut end_slow, &mut end_other];
        if is_first {
            ends.reverse();
        }
        for (end, cached) in ends.into_iter().zip(cached) {
            end();
            assert_eq!(cache.get::<u32>(&key).expect("read"), cached, "{how}");
        }
    }
}

#[test]
fn slow_refresh_whose_value_is_rejected_removes_an_older_value_and_not_a_newer_one() {
    fn overtake_single<B: Backend, S: Stores<u32, B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
        overtake(Overtaken::Single, open);
    }
    watchdog(HANG, || with_every_backend!(overtake_single));
}

#[test]
fn slow_batch_whose_value_is_rejected_removes_an_older_value_and_not_a_newer_one() {
    fn overtake_each<B: Backend, S: Stores<u32, B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
        overtake(Overtaken::Each, open);
    }
    watchdog(HANG, || with_every_backend!(overtake_each));
}

#[test]
fn slow_batch_without_the_element_removes_an_older_value_and_not_a_newer_one() {
    fn overtake_map<B: Backend, S: Stores<u32, B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
        overtake(Overtaken::Map, open);
    }
    watchdog(HANG, || with_every_backend!(overtake_map));
}

#[cached(
    cache = cache, ttl = "1m", stale = "1h", prefix = "page", key = "k", refresh_if = is_forced, handle = page_entry
)]
fn page<B: Backend, S: Stores<String, B>>(
    cache: &Cache<B, S>,
    is_forced: bool,
    length: usize,
) -> String {
    "x".repeat(length)
}

#[cached(
    cache = cache, ttl = "1m", stale = "1h", prefix = "page async", key = "k", refresh_if = is_forced,
    handle = page_async_entry
)]
async fn page_async<B: Backend, S: Stores<String, B>>(
    cache: &Cache<B, S>,
    is_forced: bool,
    length: usize,
) -> String {
    "x".repeat(length)
}

fn files(directory: &Path, clock: &ManualClock) -> FileCache {
    let options = FileOptions::new().clock(clock.clone()).max_entry_bytes(LIMIT);
    options.open(directory).expect("a cache")
}

fn objects_in(store: impl ObjectStore, clock: &ManualClock) -> ObjectCache {
    let options = ObjectOptions::new().clock(clock.clone()).max_entry_bytes(LIMIT);
    options.open(Arc::new(store)).expect("a cache")
}

fn objects(directory: &Path, clock: &ManualClock) -> ObjectCache {
    objects_in(LocalFileSystem::new_with_prefix(directory).expect("a store"), clock)
}

/// The value is replaced in one cache. Another cache of the same directory is asked then.
fn replace_by_a_long_value<B: Backend, S: Stores<String, B>>(
    open: impl Fn(&Path, &ManualClock) -> Cache<B, S>,
) {
    for (way, is_async) in WAYS.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let (directory, clock) = (tempfile::tempdir().expect("a directory"), ManualClock::new());
        let (cache, other) = (open(directory.path(), &clock), open(directory.path(), &clock));
        let ask = |cache: &Cache<B, S>, is_forced, length| {
            if is_async {
                smol::block_on(page_async(cache, is_forced, length)).len()
            } else {
                page(cache, is_forced, length).len()
            }
        };
        let how = format!("{way:?} async {is_async}");
        assert_eq!((ask(&cache, false, 10), ask(&other, false, 20)), (10, 10), "{how}");
        let replaced = match way {
            Way::Condition => ask(&cache, true, 10_000),
            Way::Handle if is_async => {
                smol::block_on(page_async_entry(&cache, false, 10_000).refresh_async()).len()
            }
            Way::Handle => page_entry(&cache, false, 10_000).refresh().len(),
            Way::Expired => {
                clock.advance(MINUTE);
                ask(&cache, false, 10_000)
            }
        };
        assert_eq!(replaced, 10_000, "{how}");
        assert_eq!(cache.stats().errors_of(ErrorKind::Configuration), 1, "{how}: it is too long");
        assert_eq!(ask(&cache, false, 30), 30, "{how}: not the value before it");
        let later = open(directory.path(), &clock);
        assert_eq!(ask(&later, false, 40), 30, "{how}: nor in another process");
    }
}

#[test]
fn refresh_whose_value_is_too_long_removes_the_value_before_it() {
    watchdog(HANG, || {
        replace_by_a_long_value(files);
        replace_by_a_long_value(|place, clock| TieredOptions::new().over(&files(place, clock)));
        replace_by_a_long_value(objects);
    });
}

#[cached(cache = cache, ttl = "1h", prefix = "pages", skip(cache, lengths, is_forced), each = ids,
    refresh_if = is_forced, cache_if = |page: &String| !page.is_empty())]
fn pages<B: Backend, S: Stores<String, B>>(
    cache: &Cache<B, S>,
    is_forced: bool,
    lengths: &[usize],
    ids: &[usize],
) -> Vec<String> {
    ids.iter().map(|id| "x".repeat(lengths[*id])).collect()
}

#[cached(cache = cache, ttl = "1h", prefix = "pages", skip(cache, lengths, is_forced), each = ids,
    refresh_if = is_forced, cache_if = |page: &String| !page.is_empty())]
async fn pages_async<B: Backend, S: Stores<String, B>>(
    cache: &Cache<B, S>,
    is_forced: bool,
    lengths: &[usize],
    ids: &[usize],
) -> Vec<String> {
    ids.iter().map(|id| "x".repeat(lengths[*id])).collect()
}

fn replace_elements<B: Backend, S: Stores<String, B>>(
    open: impl Fn(&Path, &ManualClock) -> Cache<B, S>,
) {
    for is_async in [false, true] {
        let (directory, clock) = (tempfile::tempdir().expect("a directory"), ManualClock::new());
        let cache = open(directory.path(), &clock);
        let ask = |is_forced, lengths: [usize; 3]| {
            let pages = if is_async {
                smol::block_on(pages_async(&cache, is_forced, &lengths, &[0, 1, 2]))
            } else {
                pages(&cache, is_forced, &lengths, &[0, 1, 2])
            };
            [pages[0].len(), pages[1].len(), pages[2].len()]
        };
        assert_eq!(ask(false, [10, 11, 12]), [10, 11, 12]);
        assert_eq!(ask(true, [0, 10_000, 22]), [0, 10_000, 22]);
        assert_eq!(ask(false, [30, 31, 32]), [30, 31, 22], "async {is_async}");
        assert_eq!(cache.stats().errors, 1, "one is too long");
    }
}

#[test]
fn refreshed_elements_whose_values_are_not_stored_lose_the_values_before_them() {
    watchdog(HANG, || {
        replace_elements(files);
        replace_elements(objects);
    });
}

/// A number that the serializer refuses if it is odd.
#[derive(Debug, Clone, PartialEq)]
struct Even(u32);

impl Serialize for Even {
    fn serialize<S: Encoder>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 2 == 1 {
            return Err(serde::ser::Error::custom("it is odd"));
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Even {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u32::deserialize(deserializer).map(Self)
    }
}

#[cached(cache = cache, ttl = "1h", prefix = "even", key = "k", handle = even_entry)]
fn even<B: Backend, S: Stores<Even, B>>(cache: &Cache<B, S>, n: u32) -> Even {
    Even(n)
}

#[cached(cache = cache, ttl = "1h", prefix = "even async", key = "k", handle = even_async_entry)]
async fn even_async<B: Backend, S: Stores<Even, B>>(cache: &Cache<B, S>, n: u32) -> Even {
    Even(n)
}

fn replace_by_a_value_that_cannot_be_encoded<B: Backend, S: Stores<Even, B>>(cache: &Cache<B, S>) {
    assert_eq!((even(cache, 2), even(cache, 4)), (Even(2), Even(2)));
    assert_eq!(even_entry(cache, 5).refresh(), Even(5));
    assert_eq!((even(cache, 6), cache.stats().errors_of(ErrorKind::Encode)), (Even(6), 1));
    let ask = |n| smol::block_on(even_async(cache, n));
    assert_eq!((ask(2), ask(4)), (Even(2), Even(2)));
    assert_eq!(smol::block_on(even_async_entry(cache, 5).refresh_async()), Even(5));
    assert_eq!((ask(6), cache.stats().errors_of(ErrorKind::Encode)), (Even(6), 2));
}

#[test]
fn refresh_whose_value_cannot_be_encoded_removes_the_value_before_it() {
    watchdog(HANG, || {
        let (directory, clock) = (tempfile::tempdir().expect("a directory"), ManualClock::new());
        replace_by_a_value_that_cannot_be_encoded(&files(directory.path(), &clock));
        replace_by_a_value_that_cannot_be_encoded(&objects_in(InMemory::new(), &clock));
    });
}

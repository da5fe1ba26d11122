//! Batches: functions that run once for many elements, and share entries and flights with functions of one element.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use indexmap::{IndexMap, IndexSet};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Cache, MemoryCache, MemoryOptions, cached};

use crate::{HANG, Runs, poll, with_every_backend};

static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);

#[test]
fn elements_share_entries_with_the_function_of_one_element() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = CACHE, ttl = 60, each = ids, prefix = "square")]
    fn squares(ids: &[u64], factor: u64) -> HashMap<u64, u64> {
        RUNS.count();
        ids.iter().map(|id| (*id, id * id * factor)).collect()
    }
    #[cached(cache = CACHE, ttl = 60, prefix = "square")]
    fn square(id: u64, factor: u64) -> u64 {
        RUNS.count();
        id * id * factor
    }
    assert_eq!(square(2, 1), 4);
    assert_eq!(squares(&[1, 2, 3, 2], 1), HashMap::from([(1, 1), (2, 4), (3, 9)]));
    assert_eq!(RUNS.get(), 2);
    assert_eq!((square(3, 1), square(1, 1)), (9, 1));
    assert_eq!(squares(&[3, 2, 1], 1).len(), 3);
    assert_eq!(RUNS.get(), 2);
    assert_eq!((square(3, 2), RUNS.get()), (18, 3));
}

/// All lists of up to four of three elements, of which all combinations are cached already.
#[test]
fn elements_that_were_asked_for_twice_are_in_their_places_and_run_once() {
    static ASKED: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    #[cached(cache = cache, ttl = 60, each = ids, skip(cache))]
    fn texts(cache: &MemoryCache, ids: &[usize]) -> Vec<String> {
        ASKED.lock().expect("no panic").extend(ids);
        ids.iter().map(usize::to_string).collect()
    }
    let cache = MemoryCache::new();
    let lists = (0..=4).flat_map(|length| {
        (0..3_usize.pow(length)).map(move |list| {
            (0..length).map(|place| list / 3_usize.pow(place) % 3).collect::<Vec<_>>()
        })
    });
    for ids in lists {
        for cached in 0..8_usize {
            cache.clear().expect("it is cleared");
            let is_cached = |id: &usize| cached >> id & 1 == 1;
            texts(&cache, &(0..3).filter(is_cached).collect::<Vec<_>>());
            ASKED.lock().expect("no panic").clear();
            let found = texts(&cache, &ids);
            assert_eq!(found, ids.iter().map(usize::to_string).collect::<Vec<_>>(), "{cached}");
            let mut missing = Vec::new();
            for &id in &ids {
                if !is_cached(&id) && !missing.contains(&id) {
                    missing.push(id);
                }
            }
            assert_eq!(*ASKED.lock().expect("no panic"), missing, "{ids:?} {cached}");
        }
    }
}

#[test]
fn output_does_not_depend_on_what_is_cached_where_elements_have_the_same_key() {
    #[cached(cache = cache, ttl = 60, each = ids, key = (ids % 10).to_string())]
    fn digits(cache: &MemoryCache, ids: &[u64]) -> BTreeMap<u64, u64> {
        ids.iter().map(|id| (*id, id % 10)).collect()
    }
    let cache = MemoryCache::new();
    let expected = BTreeMap::from([(12, 2), (21, 1), (3, 3)]);
    for cached in [&[][..], &[1], &[2, 1], &[1, 2, 3]] {
        cache.clear().expect("it is cleared");
        digits(&cache, cached);
        let before = cache.stats();
        assert_eq!(digits(&cache, &[21, 12, 11, 2, 3, 1]), expected, "{cached:?}");
        let stats = cache.stats();
        // Each element counts once.
        assert_eq!(stats.hits - before.hits, cached.len() as u64);
        assert_eq!(stats.misses - before.misses, 3 - cached.len() as u64);
    }
}

#[test]
#[expect(clippy::zero_sized_map_values, reason = "such a function is permitted")]
fn values_may_have_no_size() {
    #[cached(ttl = 60, each = ids)]
    fn exist(ids: &[u64]) -> HashMap<u64, ()> {
        ids.iter().filter(|id| **id < 9).map(|id| (*id, ())).collect()
    }
    #[cached(ttl = 60, each = ids)]
    async fn touch(ids: Vec<u64>) -> Result<Vec<()>, String> {
        Ok(vec![(); ids.len()])
    }
    for _ in 0..2 {
        assert_eq!(exist(&[1, 2, 1, 9]), HashMap::from([(1, ()), (2, ())]));
        assert_eq!(poll(pin!(touch(vec![1, 2, 1]))), Poll::Ready(Ok(vec![(); 3])));
    }
}

/// Checks that a batch finds the entry of a function of one element, and the other way around.
macro_rules! keys_are_equal {
    ($($name:ident: $each:ty, $one:ty, $element:ty, [$first:expr, $second:expr];)*) => {$(
        #[test]
        fn $name() {
            static RUNS: Runs = Runs::new();
            #[cached(cache = CACHE, ttl = 60, each = ids, prefix = stringify!($name))]
            fn many(before: u8, ids: $each, after: &str) -> Vec<usize> {
                let _ = (before, after);
                ids.iter().map(|_| RUNS.count()).collect()
            }
            #[cached(cache = CACHE, ttl = 60, prefix = stringify!($name))]
            fn one(before: u8, id: $one, after: &str) -> usize {
                let _ = (before, id, after);
                RUNS.count()
            }
            let (first, second): ($element, $element) = ($first, $second);
            assert_eq!(one(1, first.clone(), "a"), 1);
            assert_eq!(many(1, &[first.clone(), second.clone()], "a"), [1, 2]);
            assert_eq!(one(1, second.clone(), "a"), 2);
            assert_eq!(one(1, second, "b"), 3);
        }
    )*};
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Point {
    x: i32,
    name: String,
}

keys_are_equal! {
    elements_may_be_numbers: &[u64], u64, u64, [1, 2];
    elements_may_be_strings: &[String], String, String, ["a".to_owned(), "b".to_owned()];
    elements_may_be_borrowed_strings: &[&str], &str, &str, ["a", "b"];
    elements_may_be_tuples: &[(u8, String)], (u8, String), (u8, String),
        [(1, "a".to_owned()), (1, "b".to_owned())];
    elements_may_be_structs: &[Point], Point, Point,
        [Point { x: 1, name: "a".to_owned() }, Point { x: 2, name: "a".to_owned() }];
}

#[test]
fn collection_may_be_of_any_kind() {
    #[cached(ttl = 60, each = ids)]
    fn of_vec(ids: Vec<u8>) -> BTreeMap<u8, usize> {
        ids.iter().map(|id| (*id, ids.len())).collect()
    }
    #[cached(ttl = 60, each = ids)]
    fn of_vec_reference(mut ids: &Vec<u8>) -> BTreeMap<u8, usize> {
        let all = ids.clone();
        ids = &all;
        ids.iter().map(|id| (*id, ids.len())).collect()
    }
    #[cached(ttl = 60, each = ids)]
    fn of_set(mut ids: HashSet<u8>) -> BTreeMap<u8, usize> {
        let count = ids.len();
        ids.drain().map(|id| (id, count)).collect()
    }
    #[cached(ttl = 60, each = ids)]
    fn of_ordered_set(ids: &BTreeSet<u8>) -> BTreeMap<u8, usize> {
        ids.iter().map(|id| (*id, ids.len())).collect()
    }
    #[cached(ttl = 60, each = ids)]
    fn of_shared_slice(ids: Arc<[u8]>) -> BTreeMap<u8, usize> {
        ids.iter().map(|id| (*id, ids.len())).collect()
    }
    let (first, then) = (BTreeMap::from([(1, 2), (2, 2)]), BTreeMap::from([(1, 2), (3, 1)]));
    assert_eq!((of_vec(vec![1, 2]), of_vec(vec![3, 1])), (first.clone(), then.clone()));
    let of = of_vec_reference;
    assert_eq!((of(&vec![1, 2]), of(&vec![3, 1])), (first.clone(), then.clone()));
    let of = |ids: [u8; 2]| of_set(HashSet::from(ids));
    assert_eq!((of([1, 2]), of([3, 1])), (first.clone(), then.clone()));
    let of = |ids: [u8; 2]| of_ordered_set(&BTreeSet::from(ids));
    assert_eq!((of([1, 2]), of([3, 1])), (first.clone(), then.clone()));
    let of = |ids: [u8; 2]| of_shared_slice(Arc::from(ids));
    assert_eq!((of([1, 2]), of([3, 1])), (first, then));
}

#[test]
fn map_and_set_of_indexmap_keep_the_order_of_the_elements() {
    #[cached(ttl = 60, each = ids)]
    fn runs(ids: &IndexSet<u8>) -> Result<IndexMap<u8, usize>, String> {
        Ok(ids.iter().rev().filter(|id| **id != 9).map(|id| (*id, ids.len())).collect())
    }
    let of = |ids: &[u8]| -> Result<Vec<(u8, usize)>, String> {
        Ok(runs(&ids.iter().copied().collect())?.into_iter().collect())
    };
    assert_eq!(of(&[3, 1]), Ok(vec![(3, 2), (1, 2)]));
    assert_eq!(of(&[4, 3, 9, 2, 1]), Ok(vec![(4, 3), (3, 2), (2, 3), (1, 2)]));
}

/// Checks the values of an ordered set, of which some elements are found before others.
fn check_ordered_set<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    #[cached(cache = cache, ttl = 60, each = ids, prefix = "ordered set", skip(cache), tags("t:{ids}"))]
    fn values<B: Backend, S: Stores<B>>(ids: &BTreeSet<u8>, cache: &Cache<B, S>) -> Vec<Value> {
        ids.iter().copied().map(value).collect()
    }
    let cache = open(ManualClock::new());
    for (invalidated, ids) in [("t:0", [3, 4, 5]), ("t:3", [1, 2, 3]), ("t:5", [2, 5, 6])] {
        cache.invalidate_tag(invalidated).expect("invalidated");
        assert_eq!(values(&BTreeSet::from(ids), &cache), ids.map(value));
    }
}

#[test]
fn values_of_an_ordered_set_are_those_of_its_elements_on_every_backend() {
    watchdog(HANG, || with_every_backend!(check_ordered_set));
}

#[test]
fn refresh_runs_although_the_refresh_that_it_has_joined_was_dropped() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, each = ids, skip(open), refresh_if = open.is_some())]
    async fn runs(ids: &[u8], open: Option<Arc<Notify>>) -> BTreeMap<u8, usize> {
        if let Some(open) = open {
            open.notified().await;
        }
        let run = RUNS.count();
        ids.iter().map(|id| (*id, run)).collect()
    }
    assert_eq!(poll(pin!(runs(&[1], None))), Poll::Ready(BTreeMap::from([(1, 1)])));
    let open = Arc::new(Notify::new());
    let mut first = Box::pin(runs(&[1], Some(Arc::clone(&open))));
    let mut second = pin!(runs(&[1], Some(Arc::clone(&open))));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    drop(first);
    assert!(poll(second.as_mut()).is_pending(), "it runs the function");
    open.notify_one();
    assert_eq!(poll(second.as_mut()), Poll::Ready(BTreeMap::from([(1, 2)])));
}

#[test]
fn vec_is_in_the_order_in_which_elements_were_asked_for() {
    #[cached(ttl = 60, each = names)]
    fn lengths(names: &[&str]) -> Result<Vec<usize>, String> {
        Ok(names.iter().map(|name| name.len()).collect())
    }
    assert_eq!(lengths(&["abc", "a"]), Ok(vec![3, 1]));
    assert_eq!(lengths(&["ab", "a", "ab", "abc", "a"]), Ok(vec![2, 1, 2, 3, 1]));
}

#[test]
fn each_element_may_have_a_result_of_its_own() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, each = ids, prefix = "checked")]
    fn many(ids: &[u8]) -> HashMap<u8, Result<u8, String>> {
        RUNS.count();
        ids.iter()
            .map(|&id| (id, if id < 9 { Ok(id) } else { Err("too large".to_owned()) }))
            .collect()
    }
    #[cached(ttl = 60, prefix = "checked")]
    fn one(id: u8) -> Result<u8, String> {
        RUNS.count();
        Ok(id)
    }
    for run in 1..=2 {
        assert_eq!(many(&[1, 9]), HashMap::from([(1, Ok(1)), (9, Err("too large".to_owned()))]));
        assert_eq!(RUNS.get(), run, "an error is not cached");
    }
    assert_eq!((one(1), RUNS.get()), (Ok(1), 2));
}

#[test]
fn tag_may_name_the_element() {
    static RUNS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    static TAGGED: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = TAGGED, ttl = 60, each = ids, tags("user:{ids}", "all"))]
    fn users(ids: &[u8]) -> HashMap<u8, String> {
        RUNS.lock().expect("no panic").push(ids.to_vec());
        ids.iter().map(|id| (*id, format!("user {id}"))).collect()
    }
    let runs = || RUNS.lock().expect("no panic").clone();
    users(&[1, 2, 3]);
    TAGGED.invalidate_tag("user:2").expect("invalidated");
    assert_eq!(users(&[1, 2, 3]).len(), 3);
    assert_eq!(runs(), [vec![1, 2, 3], vec![2]]);
    TAGGED.invalidate_tag("all").expect("invalidated");
    users(&[1, 2]);
    assert_eq!(runs()[2], [1, 2]);
}

#[test]
fn other_arguments_of_the_attribute_are_those_of_each_element() {
    static RUNS: Runs = Runs::new();
    static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::new);
    static TIMED: LazyLock<MemoryCache> =
        LazyLock::new(|| MemoryOptions::new().clock(CLOCK.clone()).build());
    #[cached(
        cache = TIMED, ttl = |value: &u64| Duration::from_secs(*value * scale), each = ids,
        cache_if = |value| *value != 3, bypass_if = ids.is_empty() || is_preview,
        skip(scale, is_preview), version = 2, at_most = 2, include(ids % 2), log = false
    )]
    fn values(ids: &[u64], scale: u64, is_preview: bool) -> BTreeMap<u64, u64> {
        RUNS.count();
        ids.iter().map(|id| (*id, *id)).collect()
    }
    assert_eq!(values(&[1, 2, 3], 60, false).len(), 3);
    assert_eq!(RUNS.get(), 2, "of two elements and of one");
    values(&[1, 2, 3], 60, false);
    assert_eq!(RUNS.get(), 3, "3 is not cached");
    CLOCK.advance(Duration::from_secs(90));
    values(&[1, 2], 60, false);
    assert_eq!((RUNS.get(), TIMED.stats().hits), (4, 3), "1 has expired");
    values(&[1, 2], 60, true);
    assert_eq!((RUNS.get(), TIMED.stats().hits), (5, 3));
}

#[test]
fn own_cache_and_weights_work_for_elements() {
    static RUNS: Runs = Runs::new();
    #[cached(ttl = 60, each = ids, max_weight = 100, weigh = |text: &String| text.len() as u32)]
    fn texts(ids: &[usize]) -> BTreeMap<usize, String> {
        RUNS.count();
        ids.iter().map(|id| (*id, "x".repeat(*id))).collect()
    }
    texts(&[5, 500]);
    texts(&[5, 500]);
    texts(&[5]);
    assert_eq!(RUNS.get(), 2, "500 is too heavy");
}

#[derive(Clone)]
struct Store {
    runs: Arc<AtomicUsize>,
    cache: MemoryCache,
}

#[async_trait]
trait Users {
    async fn users(&self, ids: &[u64], tenant: String) -> Result<HashMap<u64, String>, String>;
}

#[async_trait]
impl Users for Store {
    #[cached(cache = self.cache, ttl = 60, each = ids, prefix = "boxed")]
    async fn users(&self, ids: &[u64], tenant: String) -> Result<HashMap<u64, String>, String> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Ok(ids.iter().map(|id| (*id, format!("{tenant} {id}"))).collect())
    }
}

impl Store {
    fn new() -> Self {
        Self { runs: Arc::default(), cache: MemoryCache::new() }
    }

    #[cached(cache = self.cache, ttl = 60, each = ids)]
    async fn names<T>(&self, ids: &[T], mut suffix: String) -> Result<HashMap<T, String>, String>
    where
        T: Serialize + Clone + Eq + std::hash::Hash + Sync + Send + std::fmt::Display,
    {
        self.runs.fetch_add(1, Ordering::SeqCst);
        suffix.push('!');
        tokio::task::yield_now().await;
        if ids.is_empty() {
            return Err("never run for none".to_owned());
        }
        Ok(ids.iter().map(|id| (id.clone(), format!("{id}{suffix}"))).collect())
    }

    #[cached(cache = self.cache, ttl = 60, each = names, skip(log))]
    fn lengths(&self, names: &[&str], log: &mut Vec<usize>) -> HashMap<String, usize> {
        log.push(names.len());
        names.iter().map(|name| ((*name).to_owned(), name.len())).collect()
    }
}

#[test]
fn methods_generic_functions_and_boxed_futures_may_be_batches() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let runtime = runtime.expect("a runtime");
    let store = Store::new();
    let runs = || store.runs.load(Ordering::SeqCst);
    let spawned = |ids: &'static [&'static str], store: Store| async move {
        tokio::spawn(async move { store.names(ids, "?".to_owned()).await }).await.expect("no panic")
    };
    let names = runtime.block_on(spawned(&["a", "b"], store.clone())).expect("no error");
    assert_eq!((names["b"].as_str(), runs()), ("b?!", 1));
    let names = runtime.block_on(spawned(&["b"], store.clone())).expect("no error");
    assert_eq!((names["b"].as_str(), runs()), ("b?!", 1));
    let numbers = runtime.block_on(store.names(&[7], String::new())).expect("no error");
    assert_eq!((numbers[&7].as_str(), runs()), ("7!", 2));

    let store: Arc<dyn Users + Send + Sync> = Arc::new(store.clone());
    for _ in 0..2 {
        let store = Arc::clone(&store);
        let users =
            tokio_spawn(&runtime, async move { store.users(&[1, 2], "a".to_owned()).await });
        assert_eq!(users.expect("no error")[&2], "a 2");
    }
    assert_eq!(runs(), 3);

    let (store, mut log) = (Store::new(), Vec::new());
    store.lengths(&["a", "bc"], &mut log);
    assert_eq!(store.lengths(&["bc", "def"], &mut log)["bc"], 2);
    assert_eq!(log, [2, 1]);
}

fn tokio_spawn<T: Send + 'static>(
    runtime: &tokio::runtime::Runtime,
    future: impl Future<Output = T> + Send + 'static,
) -> T {
    runtime.block_on(async { tokio::spawn(future).await.expect("no panic") })
}

#[test]
fn async_callers_of_overlapping_batches_run_each_element_once() {
    static ASKED: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = CACHE, ttl = 60, each = ids, prefix = "overlapping")]
    async fn many(ids: Vec<u64>) -> HashMap<u64, u64> {
        ASKED.lock().expect("no panic").extend(&ids);
        tokio::task::yield_now().await;
        ids.into_iter().map(|id| (id, id)).collect()
    }
    #[cached(cache = CACHE, ttl = 60, prefix = "overlapping")]
    async fn one(id: u64) -> u64 {
        ASKED.lock().expect("no panic").push(id);
        tokio::task::yield_now().await;
        id
    }
    watchdog(HANG, || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
        runtime.expect("a runtime").block_on(async {
            let batches = (0..40_u64).map(|n| tokio::spawn(many((n..n + 30).collect())));
            let batches: Vec<_> = batches.collect();
            let singles: Vec<_> = (0..60_u64).map(|n| tokio::spawn(one(n))).collect();
            for (n, batch) in batches.into_iter().enumerate() {
                let found = batch.await.expect("no panic");
                assert_eq!(found.len(), 30, "{n}");
            }
            for (n, single) in singles.into_iter().enumerate() {
                assert_eq!(single.await.expect("no panic"), n as u64);
            }
        });
    });
    let mut asked = ASKED.lock().expect("no panic").clone();
    asked.sort_unstable();
    assert_eq!(asked, (0..69).collect::<Vec<u64>>());
}

/// A call in a random sequence.
#[derive(Debug, Clone)]
enum Step {
    Batch(Vec<u8>),
    AsyncBatch(Vec<u8>),
    Single(u8),
    InvalidateAll,
}

const ELEMENTS: usize = 12;

fn element() -> impl Strategy<Value = u8> {
    0..u8::try_from(ELEMENTS).expect("few")
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(element(), 0..8).prop_map(Step::Batch),
        4 => prop::collection::vec(element(), 0..8).prop_map(Step::AsyncBatch),
        4 => element().prop_map(Step::Single),
        1 => Just(Step::InvalidateAll),
    ];
    prop::collection::vec(step, 1..12)
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Value {
    id: u8,
    text: String,
}

trait Stores<B: Backend>: Serializer<Value, Stored = B::Stored> + Clone + Sync {}
impl<B: Backend, S: Serializer<Value, Stored = B::Stored> + Clone + Sync> Stores<B> for S {}

fn value(id: u8) -> Value {
    Value { id, text: format!("value {id}") }
}

/// The steps of each thread run at the same time, and the runs for each element are counted.
fn check_any_steps<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Stores<B>,
{
    let mut runner = TestRunner::new(ProptestConfig::with_cases(16));
    let any_steps = (any::<bool>(), prop::collection::vec(steps(), 1..4));
    let result = runner.run(&any_steps, |(has_invalidations, mut threads)| {
        for steps in &mut threads {
            steps.retain(|step| has_invalidations || !matches!(step, Step::InvalidateAll));
        }
        let cache = open(ManualClock::new());
        let runs: [AtomicUsize; ELEMENTS] = Default::default();
        thread::scope(|scope| {
            for steps in &threads {
                scope.spawn(|| steps.iter().for_each(|step| run_step(&cache, &runs, step)));
            }
        });
        let is_invalidation = |step: &Step| matches!(step, Step::InvalidateAll);
        if !threads.iter().flatten().any(is_invalidation) {
            for (element, runs) in runs.iter().enumerate() {
                let runs = runs.load(Ordering::SeqCst);
                prop_assert!(runs <= 1, "{runs} runs for {element}");
            }
        }
        prop_assert_eq!(cache.stats().in_flight, 0);
        Ok(())
    });
    result.expect("every element is right");
}

fn run_step<B, S>(cache: &Cache<B, S>, runs: &[AtomicUsize; ELEMENTS], step: &Step)
where
    B: Backend,
    S: Stores<B>,
{
    #[cached(cache = cache, ttl = 60, each = ids, at_most = 3, prefix = "any", skip(cache, runs))]
    fn many<B, S>(
        cache: &Cache<B, S>,
        runs: &[AtomicUsize; ELEMENTS],
        ids: &[u8],
    ) -> Result<BTreeMap<u8, Value>, String>
    where
        B: Backend,
        S: Stores<B>,
    {
        assert!((1..=3).contains(&ids.len()), "{ids:?}");
        for id in ids {
            runs[usize::from(*id)].fetch_add(1, Ordering::SeqCst);
        }
        thread::yield_now();
        Ok(ids.iter().map(|id| (*id, value(*id))).collect())
    }
    #[cached(cache = cache, ttl = 60, each = ids, prefix = "any", skip(cache, runs))]
    async fn many_async<B, S>(
        cache: &Cache<B, S>,
        runs: &[AtomicUsize; ELEMENTS],
        ids: Vec<u8>,
    ) -> Vec<Value>
    where
        B: Backend,
        S: Stores<B>,
    {
        for id in &ids {
            runs[usize::from(*id)].fetch_add(1, Ordering::SeqCst);
        }
        smol::future::yield_now().await;
        ids.into_iter().map(value).collect()
    }
    #[cached(cache = cache, ttl = 60, prefix = "any", skip(cache, runs))]
    fn one<B, S>(cache: &Cache<B, S>, runs: &[AtomicUsize; ELEMENTS], id: u8) -> Value
    where
        B: Backend,
        S: Stores<B>,
    {
        runs[usize::from(id)].fetch_add(1, Ordering::SeqCst);
        thread::yield_now();
        value(id)
    }
    match step {
        Step::Batch(ids) => {
            let wanted = ids.iter().map(|id| (*id, value(*id))).collect();
            assert_eq!(many(cache, runs, ids), Ok(wanted));
        }
        Step::AsyncBatch(ids) => {
            let wanted: Vec<Value> = ids.iter().map(|id| value(*id)).collect();
            assert_eq!(smol::block_on(many_async(cache, runs, ids.clone())), wanted);
        }
        Step::Single(id) => assert_eq!(one(cache, runs, *id), value(*id)),
        Step::InvalidateAll => cache.invalidate_all().expect("invalidated"),
    }
}

#[test]
fn any_overlap_of_batches_and_singles_runs_each_element_once_on_every_backend() {
    watchdog(HANG, || with_every_backend!(check_any_steps));
}

#[test]
fn batch_that_needs_all_elements_of_one_that_fails_gets_its_error() {
    static RUNS: Runs = Runs::new();
    static OPEN: Notify = Notify::const_new();
    static STORE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = STORE, ttl = 60, each = ids, prefix = "batch error")]
    async fn many(ids: &[u64]) -> Result<HashMap<u64, u64>, String> {
        let run = RUNS.count();
        if ids == [4] {
            return Ok(HashMap::from([(4, 4)]));
        }
        OPEN.notified().await;
        Err(format!("run {run}"))
    }
    #[cached(cache = STORE, ttl = 60, prefix = "batch error")]
    async fn one(id: u64) -> Result<u64, String> {
        RUNS.count();
        Ok(id)
    }
    let (mut first, mut same) = (pin!(many(&[1, 2])), pin!(many(&[2, 1, 2])));
    let (mut more, mut part) = (pin!(many(&[1, 4, 2])), pin!(many(&[1])));
    let mut single = pin!(one(1));
    for batch in [first.as_mut(), same.as_mut(), more.as_mut(), part.as_mut()] {
        assert!(poll(batch).is_pending());
    }
    assert!(poll(single.as_mut()).is_pending());
    assert_eq!(RUNS.get(), 2, "the first, and the element that it lacks");
    OPEN.notify_waiters();
    for batch in [first, same, more] {
        assert_eq!(poll(batch), Poll::Ready(Err("run 1".to_owned())));
    }
    assert_eq!(STORE.stats().coalesced, 4);
    // The other element may be the cause of the error.
    assert_eq!(poll(single), Poll::Ready(Ok(1)));
    assert!(poll(part.as_mut()).is_pending());
    assert_eq!(RUNS.get(), 4);
    OPEN.notify_waiters();
    assert_eq!(poll(part), Poll::Ready(Err("run 4".to_owned())));
}

#[test]
fn error_that_cannot_be_cloned_is_not_shared_by_batches() {
    #[derive(Debug, PartialEq)]
    struct Unique(usize);
    static RUNS: Runs = Runs::new();
    static OPEN: Notify = Notify::const_new();
    #[cached(cache = CACHE, ttl = 60, each = ids)]
    async fn many(ids: &[u64]) -> Result<Vec<u64>, Unique> {
        let run = RUNS.count();
        OPEN.notified().await;
        Err(Unique(run + ids.len()))
    }
    let (mut first, mut second) = (pin!(many(&[1])), pin!(many(&[1])));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    OPEN.notify_waiters();
    assert_eq!(poll(first), Poll::Ready(Err(Unique(2))));
    assert!(poll(second.as_mut()).is_pending());
    OPEN.notify_waiters();
    assert_eq!(poll(second), Poll::Ready(Err(Unique(3))));
}

#[test]
fn error_of_a_run_with_an_element_that_a_batch_has_is_not_shared() {
    static OPEN: Notify = Notify::const_new();
    static STORE: LazyLock<(MemoryCache, ManualClock)> = LazyLock::new(|| {
        let clock = ManualClock::new();
        (MemoryOptions::new().clock(clock.clone()).build(), clock)
    });
    static FAILS: AtomicBool = AtomicBool::new(false);
    #[cached(cache = STORE.0, ttl = 60, stale = "1h", each = ids)]
    async fn many(ids: &[u64]) -> Result<BTreeMap<u64, u64>, String> {
        if FAILS.load(Ordering::SeqCst) && ids.contains(&1) {
            OPEN.notified().await;
            return Err("because of 1".to_owned());
        }
        Ok(ids.iter().map(|id| (*id, *id)).collect())
    }
    assert_eq!(poll(pin!(many(&[1]))), Poll::Ready(Ok(BTreeMap::from([(1, 1)]))));
    STORE.1.advance(Duration::from_secs(120));
    FAILS.store(true, Ordering::SeqCst);
    let (mut first, mut second) = (pin!(many(&[1, 2])), pin!(many(&[1, 2])));
    assert!(poll(first.as_mut()).is_pending() && poll(second.as_mut()).is_pending());
    OPEN.notify_waiters();
    assert_eq!(poll(first), Poll::Ready(Err("because of 1".to_owned())));
    // It has the old value of 1, and needs 2 alone.
    assert_eq!(poll(second), Poll::Ready(Ok(BTreeMap::from([(1, 1), (2, 2)]))));
}

/// A set has no element twice, so nothing is left out: elements with one key have one value.
#[test]
fn elements_of_a_set_with_equal_keys_have_the_value_of_the_first() {
    static CACHE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    static RUNS: Mutex<Vec<Vec<u64>>> = Mutex::new(Vec::new());

    #[cached(cache = CACHE, ttl = 60, each = ids, key = (ids % 10).to_string())]
    fn values(ids: &BTreeSet<u64>) -> BTreeMap<u64, u64> {
        RUNS.lock().unwrap().push(ids.iter().copied().collect());
        ids.iter().map(|&id| (id, id)).collect()
    }

    for _ in 0..2 {
        assert_eq!(values(&BTreeSet::from([1, 2, 11])), BTreeMap::from([(1, 1), (2, 2), (11, 1)]));
    }
    assert_eq!(*RUNS.lock().unwrap(), [[1, 2]]);
}

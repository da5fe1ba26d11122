//! Errors of batches that are cached: `each` with `err_ttl`.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tokio::sync::Notify;
use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::time::{Clock, Timestamp};
use vayu::{Cache, MemoryCache, MemoryOptions, cached};

use crate::{HANG, Runs, poll, with_every_backend};

const SECOND: Duration = Duration::from_secs(1);
const MICROSECOND: Duration = Duration::from_micros(1);

/// A source that fails for some elements, and records its queries.
#[derive(Default)]
struct Source {
    fails: RefCell<Vec<u8>>,
    queries: RefCell<Vec<Vec<u8>>>,
}

impl Source {
    fn failing(fails: &[u8]) -> Self {
        Self { fails: RefCell::new(fails.to_vec()), queries: RefCell::default() }
    }

    fn set_failing(&self, fails: &[u8]) {
        *self.fails.borrow_mut() = fails.to_vec();
    }

    fn query(&self, ids: &[u8]) -> Result<BTreeMap<u8, usize>, String> {
        self.queries.borrow_mut().push(ids.to_vec());
        let run = self.queries.borrow().len();
        match ids.iter().find(|id| self.fails.borrow().contains(id)) {
            Some(id) => Err(format!("run {run}: {id}")),
            None => Ok(ids.iter().map(|id| (*id, run)).collect()),
        }
    }

    fn queries(&self) -> Vec<Vec<u8>> {
        self.queries.borrow().clone()
    }
}

fn memory() -> (MemoryCache, ManualClock) {
    let clock = ManualClock::new();
    (MemoryOptions::new().clock(clock.clone()).build(), clock)
}

fn failed(text: &str) -> Result<BTreeMap<u8, usize>, String> {
    Err(text.to_owned())
}

#[test]
fn error_is_cached_for_each_element_of_its_run_and_no_longer_on_every_backend() {
    with_every_backend!(run);

    fn run<B: Backend, S>(make: impl Fn(ManualClock) -> Cache<B, S>)
    where
        S: Serializer<usize, Stored = B::Stored>,
    {
        #[cached(cache = cache, ttl = 60, err_ttl = "2s", each = ids, skip(cache, source), prefix = "batch err_ttl")]
        fn query<B: Backend, S>(
            cache: &Cache<B, S>,
            source: &Source,
            ids: &[u8],
        ) -> Result<BTreeMap<u8, usize>, String>
        where
            S: Serializer<usize, Stored = B::Stored>,
        {
            source.query(ids)
        }
        let clock = ManualClock::new();
        let (cache, source) = (make(clock.clone()), Source::failing(&[2]));
        assert_eq!(query(&cache, &source, &[4]), Ok(BTreeMap::from([(4, 1)])));
        assert_eq!(query(&cache, &source, &[1, 2, 4]), failed("run 2: 2"));
        clock.advance(2 * SECOND - MICROSECOND);
        // Alone, with others, and in another order.
        for ids in [&[1, 2][..], &[1], &[2], &[3, 2], &[4, 1]] {
            assert_eq!(query(&cache, &source, ids), failed("run 2: 2"), "{ids:?}");
        }
        assert_eq!(source.queries(), [vec![4], vec![1, 2]]);
        assert_eq!(query(&cache, &source, &[4]), Ok(BTreeMap::from([(4, 1)])), "not in that run");
        assert_eq!(query(&cache, &source, &[3]), Ok(BTreeMap::from([(3, 3)])), "nor this one");
        clock.advance(MICROSECOND);
        source.set_failing(&[]);
        assert_eq!(query(&cache, &source, &[1, 2]), Ok(BTreeMap::from([(1, 4), (2, 4)])));
        let stats = cache.stats();
        assert_eq!((stats.error_hits, stats.errors, stats.in_flight), (6, 0, 0));
    }
}

#[test]
fn closure_gives_each_error_its_ttl() {
    #[cached(cache = cache, ttl = 60, each = ids, skip(cache, source), prefix = "by error",
        err_ttl = |error| if error.ends_with('2') { seconds * SECOND } else { Duration::ZERO })]
    fn query(
        cache: &MemoryCache,
        source: &Source,
        ids: &[u8],
        seconds: u32,
    ) -> Result<BTreeMap<u8, usize>, String> {
        source.query(ids)
    }
    let ((cache, clock), source) = (memory(), Source::failing(&[1, 2]));
    assert_eq!(query(&cache, &source, &[1], 5), failed("run 1: 1"));
    assert_eq!(query(&cache, &source, &[1], 5), failed("run 2: 1"), "zero is not cached");
    assert_eq!(query(&cache, &source, &[2], 5), failed("run 3: 2"));
    clock.advance(5 * SECOND - MICROSECOND);
    assert_eq!(query(&cache, &source, &[2], 5), failed("run 3: 2"));
    clock.advance(MICROSECOND);
    assert_eq!(query(&cache, &source, &[2], 5), failed("run 4: 2"));
}

#[test]
fn good_and_stale_values_win_over_a_cached_error() {
    #[cached(cache = cache, ttl = 10, stale = 60, err_ttl = 20, each = ids, skip(cache, source), prefix = "old")]
    fn query(
        cache: &MemoryCache,
        source: &Source,
        ids: &[u8],
    ) -> Result<BTreeMap<u8, usize>, String> {
        source.query(ids)
    }
    let ((cache, clock), source) = (memory(), Source::default());
    let old = BTreeMap::from([(1, 1), (2, 1)]);
    assert_eq!(query(&cache, &source, &[1, 2]), Ok(old.clone()));
    clock.advance(10 * SECOND);
    source.set_failing(&[1, 2, 3]);
    // Once in 20 seconds, and the old values all the time.
    for second in 0..60 {
        assert_eq!(query(&cache, &source, &[1, 2]), Ok(old.clone()), "after {second} s");
        assert_eq!(source.queries().len(), 2 + second / 20);
        clock.advance(SECOND);
    }
    // Past `stale`, the error of the last refresh has expired, too.
    assert_eq!(query(&cache, &source, &[1, 2]), failed("run 5: 1"));
    assert_eq!(query(&cache, &source, &[2, 1]), failed("run 5: 1"));
    // A refresh of the old value of 4 with the missing 3 fails for both: then 4 has its old value, and 3 the error.
    assert_eq!(query(&cache, &source, &[4]), Ok(BTreeMap::from([(4, 6)])));
    clock.advance(10 * SECOND);
    assert_eq!(query(&cache, &source, &[3, 4]), failed("run 7: 3"));
    assert_eq!(query(&cache, &source, &[4]), Ok(BTreeMap::from([(4, 6)])));
    assert_eq!(query(&cache, &source, &[3]), failed("run 7: 3"));
    assert_eq!(source.queries().len(), 7);
}

#[test]
fn what_removes_or_stores_a_value_removes_the_error() {
    #[cached(cache = cache, ttl = 60, err_ttl = 30, each = ids, skip(cache, source, again), refresh_if = again,
        prefix = "removed", tags("t:{ids}"), handle = query_entry)]
    fn query(
        cache: &MemoryCache,
        source: &Source,
        ids: &[u8],
        again: bool,
    ) -> Result<BTreeMap<u8, usize>, String> {
        source.query(ids)
    }
    let ((cache, _clock), source) = (memory(), Source::failing(&[1]));
    let fail = || assert!(query(&cache, &source, &[1, 2], true).is_err());
    let runs = |ids: &[u8]| {
        let before = source.queries().len();
        source.set_failing(&[]);
        let output = query(&cache, &source, ids, false);
        source.set_failing(&[1]);
        (output.is_ok(), source.queries().len() - before)
    };
    fail();
    assert_eq!((runs(&[1]), runs(&[2])), ((false, 0), (false, 0)));
    cache.invalidate_tag("t:1").expect("invalidated");
    assert_eq!((runs(&[1]), runs(&[2])), ((true, 1), (false, 0)));
    cache.clear().expect("cleared");
    assert_eq!(runs(&[1, 2]), (true, 1));
    cache.clear().expect("cleared");
    fail();
    let entry = |id| query_entry(&cache, &source, id, false);
    entry(1).set(7).expect("stored");
    assert_eq!(query(&cache, &source, &[1], false), Ok(BTreeMap::from([(1, 7)])));
    assert_eq!(runs(&[2]), (false, 0));
    entry(2).invalidate().expect("removed");
    assert_eq!(runs(&[2]), (true, 1));
    cache.clear().expect("cleared");
    fail();
    source.set_failing(&[]);
    assert!(query(&cache, &source, &[1, 2], true).is_ok(), "a refresh");
    cache.clear().expect("cleared");
    assert_eq!(runs(&[1, 2]), (true, 1));
}

#[test]
fn element_that_a_refresh_leaves_out_has_no_error_any_more() {
    #[cached(cache = cache, ttl = 60, err_ttl = 30, each = ids, skip(cache, output), refresh_if = !ids.is_empty(),
        prefix = "left out")]
    fn refresh(
        cache: &MemoryCache,
        output: &Result<BTreeMap<u8, usize>, String>,
        ids: &[u8],
    ) -> Result<BTreeMap<u8, usize>, String> {
        let _ = ids;
        output.clone()
    }
    #[cached(cache = cache, ttl = 60, err_ttl = 30, each = ids, skip(cache), prefix = "left out")]
    fn query(cache: &MemoryCache, ids: &[u8]) -> Result<BTreeMap<u8, usize>, String> {
        Ok(ids.iter().map(|id| (*id, 9)).collect())
    }
    let (cache, _clock) = memory();
    assert_eq!(refresh(&cache, &failed("down"), &[1]), failed("down"));
    assert_eq!(query(&cache, &[1]), failed("down"));
    assert_eq!(refresh(&cache, &Ok(BTreeMap::new()), &[1]), Ok(BTreeMap::new()));
    assert_eq!(query(&cache, &[1]), Ok(BTreeMap::from([(1, 9)])));
}

#[test]
fn function_of_one_element_gets_no_error_of_a_batch_nor_the_other_way_around() {
    #[cached(cache = cache, ttl = 60, err_ttl = 30, each = ids, skip(cache, source), prefix = "one or many")]
    fn many(
        cache: &MemoryCache,
        source: &Source,
        ids: &[u8],
    ) -> Result<BTreeMap<u8, usize>, String> {
        source.query(ids)
    }
    #[cached(cache = cache, ttl = 60, err_ttl = 30, skip(cache, source), prefix = "one or many")]
    fn one(cache: &MemoryCache, source: &Source, id: u8) -> Result<usize, String> {
        source.query(&[id]).map(|found| found[&id])
    }
    let ((cache, _clock), source) = (memory(), Source::failing(&[1]));
    assert_eq!(many(&cache, &source, &[1, 2]), failed("run 1: 1"));
    assert_eq!(one(&cache, &source, 2), Ok(2), "the error may be that of 1");
    assert_eq!(many(&cache, &source, &[2]), Ok(BTreeMap::from([(2, 2)])));
    assert_eq!(one(&cache, &source, 1), Err("run 3: 1".to_owned()));
    assert_eq!(one(&cache, &source, 1), Err("run 3: 1".to_owned()));
    assert_eq!(many(&cache, &source, &[1]), failed("run 4: 1"));
    assert_eq!(source.queries().len(), 4);
}

#[test]
fn caller_that_waits_for_a_part_of_a_failing_run_gets_its_cached_error() {
    static RUNS: Runs = Runs::new();
    static OPEN: Notify = Notify::const_new();
    static STORE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = STORE, ttl = 60, err_ttl = 30, each = ids)]
    async fn many(ids: &[u64]) -> Result<HashMap<u64, u64>, String> {
        let run = RUNS.count();
        OPEN.notified().await;
        if ids == [3] { Ok(HashMap::from([(3, 3)])) } else { Err(format!("run {run}")) }
    }
    let (mut first, mut part, mut more) =
        (pin!(many(&[1, 2])), pin!(many(&[1])), pin!(many(&[2, 3])));
    for batch in [first.as_mut(), part.as_mut(), more.as_mut()] {
        assert!(poll(batch).is_pending());
    }
    assert_eq!(RUNS.get(), 2, "the first, and 3");
    OPEN.notify_waiters();
    for batch in [first, part, more] {
        assert_eq!(poll(batch), Poll::Ready(Err("run 1".to_owned())));
    }
    assert_eq!(poll(pin!(many(&[3]))), Poll::Ready(Ok(HashMap::from([(3, 3)]))), "it was stored");
    assert_eq!(RUNS.get(), 2);
}

/// An element; 9 has no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Id(u8);

impl serde::Serialize for Id {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 9 {
            return Err(serde::ser::Error::custom("no key"));
        }
        serializer.serialize_u8(self.0)
    }
}

#[test]
fn element_without_a_key_does_not_keep_the_error_of_its_run_out_of_the_cache() {
    #[cached(cache = cache, ttl = 60, err_ttl = 30, each = ids, skip(cache, source), prefix = "no key")]
    fn query(
        cache: &MemoryCache,
        source: &Source,
        ids: &[Id],
    ) -> Result<BTreeMap<Id, usize>, String> {
        let ids: Vec<u8> = ids.iter().map(|id| id.0).collect();
        Ok(source.query(&ids)?.into_iter().map(|(id, run)| (Id(id), run)).collect())
    }
    let ((cache, _clock), source) = (memory(), Source::failing(&[1, 9]));
    let failed = |text: &str| Err(text.to_owned());
    assert_eq!(query(&cache, &source, &[Id(1), Id(9)]), failed("run 1: 1"));
    for ids in [&[Id(1)][..], &[Id(9), Id(1)], &[Id(2), Id(1)]] {
        assert_eq!(query(&cache, &source, ids), failed("run 1: 1"), "{ids:?}");
    }
    assert_eq!(query(&cache, &source, &[Id(9)]), failed("run 2: 9"));
    assert_eq!(query(&cache, &source, &[Id(2)]), Ok(BTreeMap::from([(Id(2), 3)])));
    assert_eq!((cache.stats().error_hits, cache.stats().in_flight), (3, 0));
}

#[test]
fn caller_that_waits_for_a_part_of_a_run_with_an_element_without_a_key_runs() {
    static RUNS: Runs = Runs::new();
    static OPEN: Notify = Notify::const_new();
    static STORE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = STORE, ttl = 60, each = ids)]
    async fn many(ids: &[Id]) -> Result<HashMap<Id, u8>, String> {
        let run = RUNS.count();
        OPEN.notified().await;
        assert!(!ids.is_empty());
        Err(format!("run {run}"))
    }
    let (mut first, mut part) = (pin!(many(&[Id(1), Id(9)])), pin!(many(&[Id(1)])));
    assert!(poll(first.as_mut()).is_pending() && poll(part.as_mut()).is_pending());
    OPEN.notify_waiters();
    assert_eq!(poll(first), Poll::Ready(Err("run 1".to_owned())));
    assert!(poll(part.as_mut()).is_pending(), "the error may be that of 9");
    OPEN.notify_waiters();
    assert_eq!(poll(part), Poll::Ready(Err("run 2".to_owned())));
}

#[test]
fn old_element_that_no_run_was_for_is_refreshed_by_the_next_call() {
    #[cached(cache = cache, ttl = 10, stale = 600, each = ids, skip(cache, source), prefix = "parts", at_most = 1)]
    fn query(
        cache: &MemoryCache,
        source: &Source,
        ids: &[u8],
    ) -> Result<BTreeMap<u8, usize>, String> {
        source.query(ids)
    }
    let ((cache, clock), source) = (memory(), Source::default());
    assert_eq!(query(&cache, &source, &[1]), Ok(BTreeMap::from([(1, 1)])));
    clock.advance(10 * SECOND);
    source.set_failing(&[2]);
    assert_eq!(query(&cache, &source, &[2, 1]), failed("run 2: 2"));
    assert_eq!(query(&cache, &source, &[1]), Ok(BTreeMap::from([(1, 3)])));
    assert_eq!(source.queries(), [[1], [2], [1]]);
}

/// A clock that runs code once, when it is read for the `at`th time.
#[derive(Debug)]
struct Interrupted {
    clock: ManualClock,
    at: AtomicUsize,
    code: fn(),
}

impl Clock for Interrupted {
    fn now(&self) -> Timestamp {
        let count = |at: usize| at.checked_sub(1);
        if self.at.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count) == Ok(1) {
            (self.code)();
        }
        self.clock.now()
    }
}

#[test]
fn old_element_of_a_batch_that_ends_by_a_cached_error_is_refreshed_by_the_next_call() {
    static FAILS: AtomicBool = AtomicBool::new(false);
    static QUERIES: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
    static CLOCK: LazyLock<Arc<Interrupted>> = LazyLock::new(|| {
        let (clock, at) = (ManualClock::new(), AtomicUsize::new(0));
        // Another caller, whose run fails.
        Arc::new(Interrupted { clock, at, code: || assert!(query(&[2]).is_err()) })
    });
    // The other caller must not wait for the one that it interrupts.
    static STORE: LazyLock<MemoryCache> = LazyLock::new(|| {
        MemoryOptions::new().clock(Arc::clone(&CLOCK)).build().with_max_wait(Duration::ZERO)
    });
    #[cached(cache = STORE, ttl = 10, stale = 600, err_ttl = 3600, each = ids, prefix = "interrupted")]
    fn query(ids: &[u8]) -> Result<BTreeMap<u8, u8>, String> {
        QUERIES.lock().unwrap().push(ids.to_vec());
        if FAILS.load(Ordering::SeqCst) {
            Err("down".to_owned())
        } else {
            Ok(ids.iter().map(|id| (*id, 1)).collect())
        }
    }
    let mut ended_without_a_run = 0;
    for at in 1..60 {
        STORE.clear().expect("cleared");
        FAILS.store(false, Ordering::SeqCst);
        assert!(query(&[1]).is_ok());
        CLOCK.clock.advance(10 * SECOND);
        FAILS.store(true, Ordering::SeqCst);
        QUERIES.lock().unwrap().clear();
        CLOCK.at.store(at, Ordering::SeqCst);
        let output = query(&[1, 2]);
        if CLOCK.at.swap(0, Ordering::SeqCst) > 0 {
            break;
        }
        let runs = std::mem::take(&mut *QUERIES.lock().unwrap());
        if runs != [[2]] {
            continue;
        }
        assert_eq!(output, Err("down".to_owned()), "at {at}");
        ended_without_a_run += 1;
        assert_eq!(query(&[1]), Ok(BTreeMap::from([(1, 1)])));
        assert_eq!(*QUERIES.lock().unwrap(), [[1]], "it is refreshed; at {at}");
    }
    assert!(ended_without_a_run > 1, "{ended_without_a_run}");
}

#[test]
fn panic_and_dropped_future_cache_no_error() {
    static FAILS: AtomicBool = AtomicBool::new(true);
    static STORE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = STORE, ttl = 60, err_ttl = 30, each = ids)]
    fn panics(ids: &[u8]) -> Result<BTreeMap<u8, u8>, String> {
        assert!(!FAILS.load(Ordering::SeqCst), "planned");
        Ok(ids.iter().map(|id| (*id, 1)).collect())
    }
    #[cached(cache = STORE, ttl = 60, err_ttl = 30, each = ids)]
    async fn hangs(ids: &[u8]) -> Result<BTreeMap<u8, u8>, String> {
        if FAILS.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        Ok(ids.iter().map(|id| (*id, 1)).collect())
    }
    assert!(std::panic::catch_unwind(|| panics(&[1, 2])).is_err());
    {
        let mut call = Box::pin(hangs(&[1, 2]));
        assert!(poll(call.as_mut()).is_pending());
    }
    FAILS.store(false, Ordering::SeqCst);
    let found = Ok(BTreeMap::from([(1, 1), (2, 1)]));
    assert_eq!(panics(&[1, 2]), found);
    assert_eq!(poll(pin!(hangs(&[1, 2]))), Poll::Ready(found));
    assert_eq!((STORE.stats().error_hits, STORE.stats().in_flight), (0, 0));
}

#[test]
fn threads_with_batches_that_overlap_query_a_source_that_is_down_once_for_each_element() {
    static RUNS: [Runs; 9] = [const { Runs::new() }; 9];
    static STORE: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
    #[cached(cache = STORE, ttl = 60, err_ttl = 3600, each = ids)]
    fn many(ids: &[usize]) -> Result<Vec<usize>, String> {
        for id in ids {
            RUNS[*id].count();
        }
        thread::yield_now();
        Err("down".to_owned())
    }
    watchdog(HANG, || {
        thread::scope(|scope| {
            for caller in 0..8 {
                scope.spawn(move || {
                    for n in 0..50 {
                        let ids = [caller, (caller + n) % 9, (caller * n + 1) % 9];
                        assert_eq!(many(&ids), Err("down".to_owned()));
                    }
                });
            }
        });
    });
    let runs = RUNS.each_ref().map(Runs::get);
    assert!(runs.iter().all(|runs| *runs <= 1), "{runs:?}");
    assert_eq!(STORE.stats().in_flight, 0);
}

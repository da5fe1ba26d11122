//! Batches with `spawn`: computations that go on without their caller, and refreshes in the background.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Cache, ErrorKind, MemoryCache, MemoryOptions, cached};

use crate::{HANG, poll, until, with_every_backend};

const MINUTE: Duration = Duration::from_secs(60);

type Found = Result<BTreeMap<u64, usize>, String>;

/// A source that waits until it is open, fails or panics, and records its queries.
#[derive(Default)]
struct Source {
    queries: Mutex<Vec<Vec<u64>>>,
    is_open: AtomicBool,
    is_down: AtomicBool,
    panics: AtomicBool,
}

impl Source {
    fn open() -> Arc<Self> {
        Arc::new(Self { is_open: AtomicBool::new(true), ..Self::default() })
    }

    fn queries(&self) -> Vec<Vec<u64>> {
        self.queries.lock().expect("no panic").clone()
    }

    fn set(flag: &AtomicBool, value: bool) {
        flag.store(value, Ordering::SeqCst);
    }

    fn begin(&self, ids: &[u64]) -> usize {
        let mut queries = self.queries.lock().expect("no panic");
        queries.push(ids.to_vec());
        queries.len()
    }

    fn end(&self, ids: &[u64], run: usize) -> Found {
        assert!(!self.panics.load(Ordering::SeqCst), "planned panic");
        if self.is_down.load(Ordering::SeqCst) {
            return Err(format!("run {run}"));
        }
        Ok(ids.iter().map(|id| (*id, run)).collect())
    }

    fn query(&self, ids: &[u64]) -> Found {
        let run = self.begin(ids);
        self.end(ids, run)
    }

    async fn query_async(&self, ids: &[u64]) -> Found {
        let run = self.begin(ids);
        while !self.is_open.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        self.end(ids, run)
    }
}

/// Jobs and tasks that wait until the test runs them.
#[derive(Default)]
struct Queue {
    jobs: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    panics: AtomicBool,
}

impl Queue {
    fn spawn(&self, job: impl FnOnce() + Send + 'static) {
        assert!(!self.panics.load(Ordering::SeqCst), "planned panic of the spawner");
        self.jobs.lock().expect("no panic").push(Box::new(job));
    }

    fn spawn_task(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawn(|| smol::block_on(task));
    }

    fn clear(&self) {
        let jobs = std::mem::take(&mut *self.jobs.lock().expect("no panic"));
        drop(jobs);
    }

    /// Runs the jobs, each in a thread, and returns their number.
    fn run(&self) -> usize {
        let jobs = std::mem::take(&mut *self.jobs.lock().expect("no panic"));
        jobs.into_iter().map(|job| thread::spawn(job).join().expect("no panic")).count()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the output of a function")]
fn of(run: usize, ids: &[u64]) -> Found {
    Ok(ids.iter().map(|id| (*id, run)).collect())
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(future)
}

/// Polls a call a few times, between which other tasks run, and gives up.
async fn give_up<T>(call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    for _ in 0..64 {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(output) = call.as_mut().poll(&mut context) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

trait Stores<B: Backend>:
    Serializer<usize, Stored = B::Stored> + Clone + Send + Sync + 'static
{
}
impl<B: Backend, S> Stores<B> for S where
    S: Serializer<usize, Stored = B::Stored> + Clone + Send + Sync + 'static
{
}

#[cached(cache = cache, ttl = "1m", each = ids, skip(cache, source), prefix = "spawned", spawn = tokio::spawn)]
async fn spawned<B: Backend, S: Stores<B>>(
    cache: Cache<B, S>,
    source: Arc<Source>,
    ids: &[u64],
) -> Found {
    source.query_async(ids).await
}

#[cached(cache = cache, ttl = "1m", skip(cache, source), prefix = "spawned")]
async fn single<B: Backend, S: Stores<B>>(
    cache: Cache<B, S>,
    source: Arc<Source>,
    id: u64,
) -> Result<usize, String> {
    source.query_async(&[id]).await.map(|found| found[&id])
}

fn follow_a_task<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    block_on(async {
        let clock = ManualClock::new();
        let (cache, source) = (open(clock.clone()), Arc::new(Source::default()));
        let ask = |ids| spawned(cache.clone(), Arc::clone(&source), ids);
        assert_eq!(give_up(ask(&[1, 2, 1])).await, None);
        // They join it: the second has an element of its own, which another task computes.
        assert_eq!(give_up(ask(&[2, 1])).await, None);
        assert_eq!(give_up(ask(&[3, 2])).await, None);
        assert_eq!(give_up(single(cache.clone(), Arc::clone(&source), 1)).await, None);
        assert_eq!(source.queries(), [vec![1, 2], vec![3]]);
        Source::set(&source.is_open, true);
        while cache.stats().in_flight > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&[1, 2]).await, of(1, &[1, 2]));
        assert_eq!(single(cache.clone(), Arc::clone(&source), 2).await, Ok(1));
        assert_eq!(ask(&[1, 2, 3, 2]).await, Ok(BTreeMap::from([(1, 1), (2, 1), (3, 2)])));
        let stats = cache.stats();
        assert_eq!((source.queries().len(), stats.inserts, stats.errors), (2, 3, 0));

        clock.advance(MINUTE);
        Source::set(&source.is_down, true);
        assert_eq!(ask(&[1, 4]).await, Err("run 3".to_owned()));
        assert_eq!((cache.stats().in_flight, cache.stats().errors), (0, 0));
    });
}

#[test]
fn batch_outlives_its_caller_on_every_backend() {
    watchdog(HANG, || with_every_backend!(follow_a_task));
}

#[test]
fn caller_that_finds_everything_or_only_waits_spawns_nothing() {
    static SPAWNED: AtomicUsize = AtomicUsize::new(0);
    fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        SPAWNED.fetch_add(1, Ordering::SeqCst);
        drop(tokio::spawn(task));
    }
    #[cached(cache = cache, ttl = "1m", each = ids, skip(cache, source), spawn = spawn)]
    async fn batch(cache: MemoryCache, source: Arc<Source>, ids: Vec<u64>) -> Found {
        source.query_async(&ids).await
    }
    watchdog(HANG, || {
        block_on(async {
            let (cache, source) = (MemoryCache::new(), Arc::new(Source::default()));
            let ask = || batch(cache.clone(), Arc::clone(&source), vec![1, 2]);
            let calls: Vec<_> = (0..100).map(|_| tokio::spawn(ask())).collect();
            until_async(|| source.queries().len() == 1).await;
            Source::set(&source.is_open, true);
            for call in calls {
                assert_eq!(call.await.expect("no panic"), of(1, &[1, 2]));
            }
            assert_eq!(ask().await, of(1, &[1, 2]));
            assert_eq!(batch(cache.clone(), Arc::clone(&source), vec![]).await, of(0, &[]));
            assert_eq!((source.queries().len(), SPAWNED.load(Ordering::SeqCst)), (1, 1));
        });
    });
}

async fn until_async(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[test]
fn panic_in_the_task_reaches_the_caller_and_a_waiter_takes_over() {
    watchdog(HANG, || {
        block_on(async {
            let (cache, source) = (MemoryCache::new(), Arc::new(Source::default()));
            Source::set(&source.panics, true);
            let ask = |ids: &'static [u64]| {
                tokio::spawn(spawned(cache.clone(), Arc::clone(&source), ids))
            };
            let first = ask(&[1, 2]);
            until_async(|| source.queries().len() == 1).await;
            let second = tokio::spawn(single(cache.clone(), Arc::clone(&source), 2));
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
            Source::set(&source.is_open, true);
            let panic = first.await.expect_err("it panics").into_panic();
            assert_eq!(panic.downcast_ref::<&str>(), Some(&"planned panic"));
            Source::set(&source.panics, false);
            drop(second.await);
            assert!(spawned(cache.clone(), Arc::clone(&source), &[1, 2]).await.is_ok());
            assert_eq!(cache.stats().in_flight, 0);
        });
    });
}

#[test]
fn caller_continues_if_nothing_can_be_spawned_or_the_task_is_dropped() {
    #[cached(cache = cache, ttl = "1m", each = ids, skip(cache, source), spawn = drop)]
    async fn dropped(cache: MemoryCache, source: Arc<Source>, ids: &[u64]) -> Found {
        source.query_async(ids).await
    }
    watchdog(HANG, || {
        let (cache, source) = (MemoryCache::new(), Source::open());
        // Without a tokio runtime.
        for _ in 0..2 {
            let found = smol::block_on(spawned(cache.clone(), Arc::clone(&source), &[1, 2]));
            assert_eq!(found, of(1, &[1, 2]));
        }
        assert_eq!(cache.stats().errors_of(ErrorKind::Panic), 1);
        let cache = MemoryCache::new();
        for _ in 0..2 {
            let found = smol::block_on(dropped(cache.clone(), Arc::clone(&source), &[1, 2]));
            assert_eq!(found, of(2, &[1, 2]));
        }
        assert_eq!((cache.stats().errors, cache.stats().in_flight), (0, 0));

        // The runtime of the task shuts down while it runs.
        let (cache, source) = (MemoryCache::new(), Arc::new(Source::default()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let runtime = runtime.expect("a runtime");
        let guard = runtime.enter();
        let mut ask = Box::pin(spawned(cache.clone(), Arc::clone(&source), &[1, 2]));
        assert!(poll(ask.as_mut()).is_pending());
        until(|| source.queries().len() == 1);
        drop(guard);
        runtime.shutdown_timeout(Duration::from_secs(10));
        Source::set(&source.is_open, true);
        assert_eq!(smol::block_on(ask), of(1, &[1, 2]), "the caller runs the rest of it");
        assert_eq!((source.queries().len(), cache.stats().inserts), (1, 2));
    });
}

#[test]
fn task_runs_for_elements_of_a_leader_that_is_gone() {
    watchdog(HANG, || {
        block_on(async {
            let (cache, source) = (MemoryCache::new(), Arc::new(Source::default()));
            let mut leader = Box::pin(single(cache.clone(), Arc::clone(&source), 2));
            assert!(poll(leader.as_mut()).is_pending());
            let mut batch = Box::pin(spawned(cache.clone(), Arc::clone(&source), &[1, 2]));
            assert!(poll(batch.as_mut()).is_pending());
            until_async(|| source.queries().len() == 2).await;
            drop(batch);
            Source::set(&source.is_open, true);
            // The task goes on to wait for 2, and computes it.
            drop(leader);
            until_async(|| cache.stats().inserts == 2).await;
            assert_eq!(source.queries(), [vec![2], vec![1], vec![2]]);
            let found = give_up(spawned(cache.clone(), Arc::clone(&source), &[1, 2])).await;
            assert_eq!(found, Some(Ok(BTreeMap::from([(1, 2), (2, 3)]))));
        });
    });
}

#[test]
fn vec_of_another_length_is_that_of_a_run_for_the_whole_argument() {
    #[cached(cache = cache, ttl = "1m", each = ids, skip(cache, more), spawn = tokio::spawn)]
    async fn lengths(cache: MemoryCache, ids: Vec<u64>, more: usize) -> Vec<usize> {
        vec![ids.len(); ids.len() + more]
    }
    block_on(async {
        let cache = MemoryCache::new();
        let ask = |ids: &[u64], more| lengths(cache.clone(), ids.to_vec(), more);
        assert_eq!(ask(&[1, 2], 0).await, [2, 2]);
        assert_eq!(ask(&[5, 6], 1).await, [2; 3], "as it is");
        assert_eq!(ask(&[1, 3, 1, 4], 1).await, [4; 5]);
        assert_eq!(ask(&[1, 3, 1], 0).await, [2, 1, 2]);
    });
}

#[derive(Clone)]
struct Store {
    cache: MemoryCache,
    suffix: String,
}

impl Store {
    #[cached(cache = self.cache, ttl = |value: &String| MINUTE * value.len() as u32, each = ids, at_most = 2,
        own(self, tenant), include(self.suffix), tags("{ids}"), cache_if = |value| !value.is_empty(),
        spawn = |task| tokio::spawn(task), version = 3)]
    async fn names(
        &self,
        ids: &HashSet<u64>,
        mut tenant: &str,
        mut log: Vec<u64>,
    ) -> HashMap<u64, String> {
        tokio::task::yield_now().await;
        log.extend(ids);
        tenant = tenant.trim();
        ids.iter().map(|id| (*id, format!("{tenant} {id}{} {}", self.suffix, log.len()))).collect()
    }

    #[cached(cache = self.cache, ttl = "1m", stale = "1h", each = ids, own(self), err_ttl = "1s",
        handle = numbers_entry, spawn = std::thread::spawn)]
    fn numbers<T>(&self, ids: Vec<T>, scale: String) -> Result<Vec<usize>, String>
    where
        T: serde::Serialize + std::fmt::Display + Clone + Send + Sync + 'static,
    {
        Ok(ids.iter().map(|id| id.to_string().len() * scale.len() + self.suffix.len()).collect())
    }
}

#[test]
fn methods_with_copies_of_arguments_may_spawn() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let store = Store { cache, suffix: "!".to_owned() };
        block_on(async {
            let ids = HashSet::from([1, 2, 3]);
            for _ in 0..2 {
                let names = store.names(&ids, " a ", vec![7]).await;
                assert_eq!(names.len(), 3);
                assert!(names[&3].starts_with("a 3! "), "{names:?}");
            }
            assert_eq!(store.cache.stats().inserts, 3);
        });
        let ask = || store.numbers(vec![1, 22], "ab".to_owned());
        assert_eq!(ask(), Ok(vec![3, 5]));
        assert_eq!(store.numbers_entry(22, "ab".to_owned()).peek().expect("read"), Some(5));
        clock.advance(2 * MINUTE);
        assert_eq!(ask(), Ok(vec![3, 5]), "old");
        until(|| store.cache.stats().refreshes == 2 && store.cache.stats().in_flight == 0);
        assert_eq!(ask(), Ok(vec![3, 5]));
        assert_eq!(store.cache.stats().stale, 2);
    });
}

/// Calls of a function that refreshes in the background: ids and the queue of jobs.
type Refreshing<'a> = &'a dyn Fn(&[u64]) -> Found;

/// Tests a sync and an async function in the same way.
fn refresh_in_the_background<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    #[cached(cache = cache, ttl = "1m", stale = "1h", each = ids, skip(cache, source, queue),
        prefix = "refreshed", at_most = 2, spawn = |job| queue.spawn(job))]
    fn sync<B: Backend, S: Stores<B>>(
        cache: Cache<B, S>,
        source: Arc<Source>,
        queue: Arc<Queue>,
        ids: &[u64],
    ) -> Found {
        source.query(ids)
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", each = ids, skip(cache, source, queue),
        prefix = "refreshed", at_most = 2, spawn = |task| queue.spawn_task(task))]
    async fn future<B: Backend, S: Stores<B>>(
        cache: Cache<B, S>,
        source: Arc<Source>,
        queue: Arc<Queue>,
        ids: Vec<u64>,
    ) -> Found {
        source.query_async(&ids).await
    }
    for is_sync in [true, false] {
        let clock = ManualClock::new();
        let (cache, source, queue) =
            (open(clock.clone()), Source::open(), Arc::new(Queue::default()));
        let ask = |ids: &[u64]| {
            let (cache, source, queue) = (cache.clone(), Arc::clone(&source), Arc::clone(&queue));
            if is_sync {
                sync(cache, source, queue, ids)
            } else {
                smol::block_on(future(cache, source, queue, ids.to_vec()))
            }
        };
        check_refreshes(&ask, &source, &queue, &clock);
        let stats = cache.stats();
        assert_eq!((stats.in_flight, stats.errors, stats.failed_refreshes), (0, 0, 4));
    }
}

fn check_refreshes(ask: Refreshing<'_>, source: &Source, queue: &Queue, clock: &ManualClock) {
    assert_eq!(ask(&[1, 2]), of(1, &[1, 2]));
    assert_eq!(queue.run(), 0);
    clock.advance(MINUTE);
    // Old values and a missing one, which runs in the caller.
    assert_eq!(ask(&[1, 3, 2]), Ok(BTreeMap::from([(1, 1), (2, 1), (3, 2)])));
    assert_eq!(ask(&[2, 1]), of(1, &[1, 2]), "the refresh has begun");
    assert_eq!(queue.run(), 1, "one for both");
    assert_eq!(source.queries(), [vec![1, 2], vec![3], vec![1, 2]]);
    assert_eq!(ask(&[1, 2]), of(3, &[1, 2]));

    // A refresh that fails leaves the old values, and is not repeated at once.
    clock.advance(MINUTE);
    Source::set(&source.is_down, true);
    assert_eq!(ask(&[1, 2]), of(3, &[1, 2]));
    assert_eq!((queue.run(), source.queries().len()), (1, 4));
    assert_eq!(ask(&[1, 2]), of(3, &[1, 2]));
    assert_eq!(queue.run(), 0);
    clock.advance(MINUTE);
    // So does one that panics.
    Source::set(&source.is_down, false);
    Source::set(&source.panics, true);
    assert_eq!(ask(&[1, 2]), of(3, &[1, 2]));
    queue.jobs.lock().expect("no panic").drain(..).for_each(|job| {
        let _ = thread::spawn(job).join();
    });
    assert_eq!(source.queries().len(), 5);
    Source::set(&source.panics, false);
    assert_eq!(ask(&[1, 2]), of(3, &[1, 2]));
    assert_eq!(queue.run(), 0, "the pause of a refresh that has failed");

    // A refresh that is dropped is begun by the next call; not that of a spawner that panics.
    clock.advance(MINUTE);
    assert_eq!(ask(&[1, 2]), of(3, &[1, 2]));
    queue.clear();
    assert_eq!(ask(&[2]), of(3, &[2]));
    assert_eq!(ask(&[1, 2]), of(3, &[1, 2]));
    assert_eq!(queue.run(), 2, "of 2, and of 1");
    assert_eq!(source.queries()[5..], [vec![2], vec![1]]);

    // More elements than one run has.
    assert_eq!(ask(&[4, 5, 6]).map(|found| found.len()), Ok(3));
    clock.advance(MINUTE);
    let before = source.queries().len();
    assert_eq!(ask(&[4, 5, 6]).map(|found| found.len()), Ok(3));
    assert_eq!(queue.run(), 1);
    assert_eq!(source.queries()[before..], [vec![4, 5], vec![6]]);
}

#[test]
fn old_values_are_refreshed_by_one_run_in_the_background_on_every_backend() {
    watchdog(HANG, || with_every_backend!(refresh_in_the_background));
}

#[test]
fn refresh_leaves_out_what_another_caller_computes_or_has_computed() {
    #[cached(cache = cache, ttl = "1m", stale = "1h", each = ids, skip(cache, source, queue),
        prefix = "overlap", spawn = |job| queue.spawn(job))]
    fn many(cache: MemoryCache, source: Arc<Source>, queue: Arc<Queue>, ids: &[u64]) -> Found {
        source.query(ids)
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", skip(cache, source), prefix = "overlap", handle = entry)]
    fn one(cache: &MemoryCache, source: &Source, id: u64) -> Result<usize, String> {
        source.query(&[id]).map(|found| found[&id])
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let (source, queue) = (Source::open(), Arc::new(Queue::default()));
    let ask = |ids: &[u64]| many(cache.clone(), Arc::clone(&source), Arc::clone(&queue), ids);
    assert_eq!(ask(&[1, 2]), of(1, &[1, 2]));
    clock.advance(MINUTE);
    assert_eq!(ask(&[1, 2]), of(1, &[1, 2]));
    assert_eq!(entry(&cache, &source, 1).refresh(), Ok(2));
    assert_eq!(queue.run(), 1);
    assert_eq!(source.queries()[1..], [vec![1], vec![2]]);
    assert_eq!(ask(&[1, 2]), Ok(BTreeMap::from([(1, 2), (2, 3)])));
    // An element that was invalidated in the meantime is not stored.
    clock.advance(MINUTE);
    assert!(ask(&[1, 2]).is_ok());
    cache.invalidate_all().expect("invalidated");
    assert_eq!(queue.run(), 1);
    assert_eq!(ask(&[1]), of(5, &[1]));
}

#[test]
fn panic_of_the_spawner_is_counted_and_its_call_has_old_values() {
    #[cached(cache = cache, ttl = "1m", stale = "1h", each = ids, skip(cache, source, queue),
        spawn = |job| queue.spawn(job))]
    fn many(cache: MemoryCache, source: Arc<Source>, queue: Arc<Queue>, ids: Vec<u64>) -> Found {
        source.query(&ids)
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let (source, queue) = (Source::open(), Arc::new(Queue::default()));
    let ask = || many(cache.clone(), Arc::clone(&source), Arc::clone(&queue), vec![1, 2]);
    assert_eq!(ask(), of(1, &[1, 2]));
    clock.advance(MINUTE);
    Source::set(&queue.panics, true);
    for _ in 0..3 {
        assert_eq!(ask(), of(1, &[1, 2]));
    }
    assert_eq!(cache.stats().errors_of(ErrorKind::Panic), 1, "once, then there is a pause");
    Source::set(&queue.panics, false);
    // Without places for runs in the background.
    clock.advance(MINUTE);
    cache.set_max_background_refreshes(0);
    assert_eq!((ask(), queue.run()), (of(1, &[1, 2]), 0));
    cache.set_max_background_refreshes(1);
    assert_eq!((ask(), queue.run()), (of(1, &[1, 2]), 1));
    assert_eq!(ask(), of(2, &[1, 2]));
}

#[test]
fn run_of_a_refresh_that_fails_or_panics_concerns_its_elements_only() {
    #[cached(cache = cache, ttl = "1m", stale = "1h", each = ids, at_most = 1, skip(cache, broken, queue),
        spawn = |job| queue.spawn(job))]
    fn many(cache: MemoryCache, broken: Arc<Broken>, queue: Arc<Queue>, ids: &[u64]) -> Found {
        broken.query(ids)
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let (broken, queue) = (Arc::new(Broken::default()), Arc::new(Queue::default()));
    let ask = || many(cache.clone(), Arc::clone(&broken), Arc::clone(&queue), &[1, 2, 3]);
    let first = Ok(BTreeMap::from([(1, 0), (2, 0), (3, 0)]));
    assert_eq!(ask(), first);
    clock.advance(MINUTE);
    broken.version.store(1, Ordering::SeqCst);
    broken.fails_at.store(1, Ordering::SeqCst);
    assert_eq!((ask(), queue.run(), cache.stats().failed_refreshes), (first, 1, 1));
    let second = Ok(BTreeMap::from([(1, 0), (2, 1), (3, 1)]));
    assert_eq!((ask(), queue.run()), (second.clone(), 0));
    // A panic ends the refresh. Runs before it have stored their values, and those after it have not failed.
    clock.advance(MINUTE);
    broken.version.store(2, Ordering::SeqCst);
    broken.fails_at.store(0, Ordering::SeqCst);
    broken.panics_at.store(2, Ordering::SeqCst);
    assert_eq!((ask(), queue.run(), cache.stats().failed_refreshes), (second, 1, 2));
    assert_eq!(ask(), Ok(BTreeMap::from([(1, 2), (2, 1), (3, 1)])));
}

/// A source of versions that fails or panics if it is asked for one element.
#[derive(Default)]
struct Broken {
    version: AtomicUsize,
    fails_at: AtomicUsize,
    panics_at: AtomicUsize,
}

impl Broken {
    fn query(&self, ids: &[u64]) -> Found {
        let asks_for = |id: &AtomicUsize| ids.contains(&(id.load(Ordering::SeqCst) as u64));
        assert!(!asks_for(&self.panics_at), "planned panic");
        if asks_for(&self.fails_at) {
            return Err("planned failure".to_owned());
        }
        let version = self.version.load(Ordering::SeqCst);
        Ok(ids.iter().map(|id| (*id, version)).collect())
    }
}

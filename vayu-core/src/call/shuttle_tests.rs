//! The drivers under schedules of a model checker: random ones, and ones with few preemptions.
//!
//! The environment variable `SCHEDULES` is the number of each kind. One process runs one test, which
//! checks a backend that may suspend and one in the memory of the process.

mod batch_tasks;
mod batches;
mod patience;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner, thread};

use crate::attribute::err_ttl;
use crate::call::request::{self, Request};
use crate::call::{FixedTtl, PlainOutput, Policy, Retention, SharedResultOutput, blocking, future};
use crate::record::Record;
use crate::serializer::{AnyValue, ByReference, ValueClass};
use crate::sync::block_on;
use crate::testing::{ManualClock, MapBackend};
use crate::{Backend, Cache, Capabilities, Key, Timestamp, forward_backend};

type TestCache = Cache<ModelBackend, ByReference>;

/// `true` while a test checks a backend in the memory of the process.
static IN_PROCESS: AtomicBool = AtomicBool::new(false);

/// A map in or outside of the memory of the process, as it reports.
struct ModelBackend {
    map: MapBackend<AnyValue>,
    is_in_process: bool,
}

impl ModelBackend {
    fn new(clock: &ManualClock) -> Self {
        let is_in_process = IN_PROCESS.load(Ordering::SeqCst);
        Self { map: MapBackend::with_clock(clock.clone()), is_in_process }
    }

    /// Suspends an operation of a backend that is not in the memory of the process.
    async fn suspend(&self) {
        if !self.is_in_process {
            Yield(false).await;
        }
    }
}

#[async_trait]
impl Backend for ModelBackend {
    type Stored = AnyValue;

    forward_backend! { |this| this.map => read write delete clock }

    async fn read_async(&self, key: &Key) -> crate::Result<Option<Record<AnyValue>>> {
        self.suspend().await;
        let record = self.map.read(key);
        self.suspend().await;
        record
    }

    async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> crate::Result<()> {
        self.suspend().await;
        self.map.write(key, record)?;
        self.suspend().await;
        Ok(())
    }

    async fn delete_async(&self, key: &Key) -> crate::Result<bool> {
        self.suspend().await;
        self.map.delete(key)
    }

    fn read_now(
        &self,
        key: &Key,
        _: ValueClass,
        visit: &mut dyn FnMut(Record<&AnyValue>),
    ) -> Option<crate::Result<()>> {
        let read = || Ok(self.map.read(key)?.iter().for_each(|record| visit(record.as_ref())));
        self.is_in_process.then(read)
    }

    fn is_in_process(&self) -> bool {
        self.is_in_process
    }

    fn capabilities(&self) -> Capabilities<'_, AnyValue> {
        let map = self.map.capabilities();
        let generations = if self.is_in_process { None } else { map.generations };
        Capabilities { generations, clear: map.clear, usage: map.usage, ..Capabilities::none() }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// The number of preemptions up to which schedules are searched for a bug.
const DEPTH: usize = 3;

fn check(test: fn()) {
    let schedules = std::env::var("SCHEDULES").ok().and_then(|text| text.parse().ok());
    let schedules = schedules.unwrap_or(5_000);
    for is_in_process in [false, true] {
        IN_PROCESS.store(is_in_process, Ordering::SeqCst);
        let mut config = Config::new();
        // The default is too small for the frames of a batch that calls another one.
        config.stack_size = 1 << 18;
        Runner::new(RandomScheduler::new(schedules), config.clone()).run(test);
        Runner::new(PctScheduler::new(DEPTH, schedules), config).run(test);
    }
}

struct Fixture {
    cache: TestCache,
    clock: ManualClock,
    runs: AtomicUsize,
}

impl Fixture {
    fn new() -> Arc<Self> {
        let clock = ManualClock::new();
        let cache = Cache::with_backend(ModelBackend::new(&clock));
        Arc::new(Self { cache, clock, runs: AtomicUsize::new(0) })
    }

    /// Counts one run of a body, in the middle of which other threads may run.
    fn run(&self) -> usize {
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        thread::yield_now();
        run
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    fn call(&self, is_async: bool, key: &Key, body: impl FnOnce() -> usize) -> usize {
        if is_async {
            let body = async {
                Yield(false).await;
                body()
            };
            block_on(self.cache.get_or_insert_with_async(key, MINUTE, body))
        } else {
            self.cache.get_or_insert_with(key, MINUTE, body)
        }
    }

    fn is_empty(&self) {
        assert_eq!(self.cache.engine().flights().len(), 0);
    }
}

/// A future that is pending once.
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut Context<'_>) -> std::task::Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    }
}

fn key(text: &str) -> Key {
    Key::from_text("model", text)
}

fn spawn_all(fixture: &Arc<Fixture>, callers: usize, code: fn(&Fixture, usize)) {
    let threads: Vec<_> = (0..callers)
        .map(|caller| {
            let fixture = Arc::clone(fixture);
            thread::spawn(move || code(&fixture, caller))
        })
        .collect();
    for thread in threads {
        thread.join().expect("a caller");
    }
}

#[test]
fn sync_and_async_callers_compute_once() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 4, |fixture, caller| {
            let value = fixture.call(caller % 2 == 0, &key("k"), || fixture.run());
            assert_eq!(value, 1);
        });
        assert_eq!(fixture.runs(), 1);
        fixture.is_empty();
    });
}

#[test]
fn hedge_and_leader_end_in_any_order() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 4, |fixture, caller| {
            if caller == 3 {
                fixture.clock.advance(Duration::from_secs(3));
                return;
            }
            let run = fixture.call(caller == 0, &key("k"), || fixture.run());
            assert!(run == 1 || run == 2);
        });
        assert!(fixture.runs() <= 2);
        let stored = fixture.cache.get::<usize>(&key("k")).expect("read");
        assert!(stored.is_some_and(|run| run <= fixture.runs()));
        fixture.is_empty();
    });
}

#[test]
fn one_takes_over_from_a_leader_that_panics() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 3, |fixture, caller| {
            let result = catch_unwind(AssertUnwindSafe(|| {
                fixture.call(caller == 1, &key("k"), || {
                    let run = fixture.run();
                    if run == 1 {
                        // Without the message of a panic.
                        std::panic::resume_unwind(Box::new("planned"));
                    }
                    run
                })
            }));
            assert!(result.is_err() || result.is_ok_and(|run| run == 2));
        });
        assert_eq!(fixture.runs(), 2);
        fixture.is_empty();
    });
}

#[test]
fn failing_leader_leaves_no_caller_asleep() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 3, |fixture, _| {
            let failed: Result<(), ()> =
                fixture.cache.try_get_or_insert_with(&key("k"), MINUTE, || {
                    fixture.run();
                    Err(())
                });
            assert!(failed.is_err());
        });
        assert_eq!(fixture.runs(), 3);
        fixture.is_empty();
    });
}

/// Makes a call that fails with the number of its run, and shares that with the callers that wait.
fn failing(fixture: &Fixture, is_async: bool) -> usize {
    failing_for(fixture, is_async, FixedTtl::new(MINUTE))
}

/// [`failing`], whose error may be cached.
fn failing_for(fixture: &Fixture, is_async: bool, ttl: impl Retention<usize>) -> usize {
    let key = key("k");
    let policy = Policy::new(&key, SharedResultOutput::new(), &ByReference, ttl);
    let output: Result<usize, usize> = if is_async {
        let body = pin!(async {
            Yield(false).await;
            Err(fixture.run())
        });
        block_on(future::run(fixture.cache.engine(), &policy, body))
    } else {
        blocking::run(fixture.cache.engine(), policy, || Err(fixture.run()))
    };
    output.expect_err("each run fails")
}

#[test]
fn error_is_shared_by_callers_that_joined_before_it() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 4, |fixture, caller| {
            let before = fixture.runs();
            let run = failing(fixture, caller % 2 == 0);
            // A run that was counted before the call began may not have ended.
            assert!((before.max(1)..=fixture.runs()).contains(&run));
        });
        let stats = fixture.cache.stats();
        assert_eq!(stats.misses + stats.coalesced, 4);
        assert_eq!(stats.misses, fixture.runs() as u64);
        fixture.is_empty();
    });
}

#[test]
fn value_of_a_hedge_wins_over_the_error_of_its_leader() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 4, |fixture, caller| {
            if caller == 3 {
                fixture.clock.advance(Duration::from_secs(3));
                return;
            }
            let key = key("k");
            let policy =
                Policy::new(&key, SharedResultOutput::new(), &ByReference, FixedTtl::new(MINUTE));
            let body = || {
                let run = fixture.run();
                if run == 1 { Err(run) } else { Ok(run) }
            };
            let output: Result<usize, usize> = if caller == 0 {
                let body = pin!(async {
                    Yield(false).await;
                    body()
                });
                block_on(future::run(fixture.cache.engine(), &policy, body))
            } else {
                blocking::run(fixture.cache.engine(), policy, body)
            };
            let (Ok(run) | Err(run)) = output;
            assert!(run <= fixture.runs());
        });
        let stored = fixture.cache.get::<usize>(&key("k")).expect("read");
        assert!(stored.is_none_or(|run| run > 1), "an error is not stored");
        fixture.is_empty();
    });
}

#[test]
fn error_from_before_an_invalidation_is_not_returned_after_it() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 3, |fixture, caller| {
            if caller == 0 {
                let before = fixture.runs();
                fixture.cache.remove(&key("k")).expect("remove");
                let run = failing(fixture, false);
                assert!(run > before, "run {run} began before the invalidation");
            } else {
                failing(fixture, caller == 1);
            }
        });
        fixture.is_empty();
    });
}

#[test]
fn cached_error_is_not_returned_after_an_invalidation() {
    fn call(fixture: &Fixture, is_async: bool) -> usize {
        let shape = SharedResultOutput::<usize, usize>::new();
        failing_for(fixture, is_async, err_ttl(shape, FixedTtl::new(MINUTE), |_| MINUTE))
    }
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 3, |fixture, caller| {
            if caller == 0 {
                let before = fixture.runs();
                fixture.cache.remove(&key("k")).expect("remove");
                let run = call(fixture, false);
                assert!(run > before, "run {run} began before the invalidation");
            } else {
                call(fixture, caller == 1);
            }
        });
        assert!(fixture.runs() <= 3);
        assert_eq!(call(&fixture, false), call(&fixture, true), "it is cached now at the latest");
        fixture.is_empty();
    });
}

#[test]
fn one_takes_over_from_a_leader_that_is_dropped() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 3, |fixture, caller| {
            if caller == 0 {
                // Polled once and dropped: as a leader, as a waiter, or ready at once.
                let key = key("k");
                let call = fixture.cache.get_or_insert_with_async(&key, MINUTE, async {
                    Yield(false).await;
                    1
                });
                let _ = pin!(call).poll(&mut Context::from_waker(Waker::noop()));
            } else {
                assert_eq!(fixture.call(caller == 1, &key("k"), || fixture.run()), 1);
            }
        });
        assert!(fixture.runs() <= 1);
        fixture.is_empty();
    });
}

#[test]
fn lead_that_is_left_to_a_waiter_that_is_dropped_goes_to_the_next() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 4, |fixture, caller| {
            if caller < 2 {
                // Dropped at any moment: as a leader, as a waiter, or as one that is to lead.
                let key = key("k");
                let call = fixture.cache.get_or_insert_with_async(&key, MINUTE, async {
                    Yield(false).await;
                    Yield(false).await;
                    1
                });
                let mut call = pin!(call);
                for _ in 0..=caller {
                    let mut context = Context::from_waker(Waker::noop());
                    if call.as_mut().poll(&mut context).is_ready() {
                        break;
                    }
                    thread::yield_now();
                }
            } else {
                let value = fixture.call(caller == 2, &key("k"), || fixture.run());
                assert_eq!(value, 1);
            }
        });
        fixture.is_empty();
    });
}

#[test]
fn cycles_of_two_and_three_keys_are_broken() {
    check(|| {
        for callers in [2, 3] {
            let fixture = Fixture::new();
            let code: fn(&Fixture, usize) = if callers == 2 { cycle::<2> } else { cycle::<3> };
            spawn_all(&fixture, callers, code);
            fixture.is_empty();
        }
    });

    fn cycle<const CALLERS: usize>(fixture: &Fixture, caller: usize) {
        let key_of = |caller: usize| key(&(caller % CALLERS).to_string());
        let value = fixture.call(caller == 0, &key_of(caller), || {
            fixture.run();
            fixture.call(caller == 1, &key_of(caller + 1), || 7)
        });
        assert_eq!(value, 7);
    }
}

#[test]
fn nothing_older_than_an_invalidation_is_read_after_it() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 3, |fixture, caller| {
            if caller == 0 {
                for _ in 0..2 {
                    let newest = fixture.runs.fetch_add(1, Ordering::SeqCst) + 1;
                    thread::yield_now();
                    fixture.cache.remove(&key("k")).expect("remove");
                    let stored = fixture.cache.get::<usize>(&key("k")).expect("read");
                    assert!(stored.is_none_or(|stored| stored >= newest));
                }
            } else {
                fixture.call(caller == 1, &key("k"), || {
                    let seen = fixture.runs();
                    thread::yield_now();
                    seen
                });
            }
        });
        fixture.is_empty();
    });
}

#[test]
fn value_that_was_set_is_not_overwritten_by_an_older_computation() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 3, |fixture, caller| {
            if caller == 0 {
                fixture.cache.set(&key("k"), &100_usize, MINUTE).expect("write");
            } else {
                let value = fixture.call(caller == 1, &key("k"), || fixture.run());
                assert!(value == 100 || value <= 2);
            }
        });
        assert_eq!(fixture.cache.get::<usize>(&key("k")).expect("read"), Some(100));
        fixture.is_empty();
    });
}

#[test]
fn two_slow_leaders_of_one_key_end_with_one_of_their_values() {
    check(|| {
        let clock = ManualClock::new();
        let cache: TestCache = Cache::with_backend(ModelBackend::new(&clock));
        let fixture =
            Arc::new(Fixture { cache, clock: ManualClock::new(), runs: AtomicUsize::new(0) });
        let hasty = Arc::clone(&fixture);
        let advance = thread::spawn(move || {
            thread::yield_now();
            clock.advance(Duration::from_secs(30));
            drop(hasty);
        });
        spawn_all(&fixture, 3, |fixture, caller| {
            fixture.call(caller == 1, &key("k"), || fixture.run());
        });
        advance.join().expect("the clock");
        let stored = fixture.cache.get::<usize>(&key("k")).expect("read").expect("a value");
        assert!((1..=fixture.runs()).contains(&stored));
        fixture.is_empty();
    });
}

#[test]
fn value_past_its_ttl_is_refreshed_by_one_caller_while_none_waits() {
    check(|| {
        let fixture = Fixture::new();
        let now = fixture.cache.engine().now();
        let before = |seconds: i64| Timestamp::from_micros(now.as_micros() - seconds * 1_000_000);
        let record = Record::new(AnyValue::new(0_usize), before(120), before(60));
        let record = record.with_stale_until(now.saturating_add(MINUTE));
        fixture.cache.backend().write(&key("k"), record).expect("a map takes everything");
        spawn_all(&fixture, 4, |fixture, caller| {
            let key = key("k");
            let policy = Policy::new(&key, PlainOutput::new(), &ByReference, FixedTtl::new(MINUTE))
                .stale(2 * MINUTE);
            let value = if caller % 2 == 0 {
                let body = pin!(async {
                    Yield(false).await;
                    fixture.run()
                });
                block_on(future::run(fixture.cache.engine(), &policy, body))
            } else {
                blocking::run(fixture.cache.engine(), policy, || fixture.run())
            };
            assert!(value <= 1);
        });
        assert_eq!(fixture.runs(), 1);
        let stats = fixture.cache.stats();
        assert_eq!((stats.refreshes, stats.coalesced), (1, 0));
        assert_eq!(fixture.cache.get::<usize>(&key("k")).expect("read"), Some(1));
        fixture.is_empty();
    });
}

#[test]
fn refreshed_value_stays() {
    check(|| {
        let fixture = Fixture::new();
        let key = key("k");
        let call = |fixture: &Fixture, body: &dyn Fn() -> usize| {
            let policy = Policy::new(&key, PlainOutput::new(), &ByReference, FixedTtl::new(MINUTE))
                .with_handle();
            blocking::run(fixture.cache.engine(), policy, body)
        };
        let refreshed = Arc::new(AtomicUsize::new(0));
        let other = {
            let (fixture, refreshed, key) =
                (Arc::clone(&fixture), Arc::clone(&refreshed), key.clone());
            thread::spawn(move || {
                let policy =
                    Policy::new(&key, PlainOutput::new(), &ByReference, FixedTtl::new(MINUTE))
                        .with_handle();
                let value = request::with(&mut Some((key.clone(), Request::Refresh)), || {
                    blocking::run(fixture.cache.engine(), policy, || fixture.run())
                });
                refreshed.store(value, Ordering::SeqCst);
            })
        };
        call(&fixture, &|| fixture.run());
        other.join().expect("a caller");
        let refreshed = refreshed.load(Ordering::SeqCst);
        let kept = call(&fixture, &|| panic!("what was refreshed is gone"));
        assert!(kept >= refreshed, "{kept} was computed before {refreshed}");
        fixture.is_empty();
    });
}

#[test]
fn what_began_before_an_invalidation_of_all_is_not_served_after_it() {
    check(|| {
        let fixture = Fixture::new();
        spawn_all(&fixture, 3, |fixture, caller| {
            if caller == 0 {
                let before = fixture.runs();
                fixture.cache.invalidate_all().expect("invalidated");
                let value = fixture.call(false, &key("k"), || fixture.run());
                assert!(value > before, "{value} was computed before the invalidation");
            } else {
                fixture.call(caller == 1, &key("k"), || fixture.run());
            }
        });
        fixture.is_empty();
    });
}

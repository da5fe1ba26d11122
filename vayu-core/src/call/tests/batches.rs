//! Batches: one run of a function for many elements.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::attribute::batch_call;
use crate::backend::{Backend, Capabilities, Lease, LeaseGuard, Leases, ReleaseLease};
use crate::call::{FixedTtl, PlainOutput, Policy};
use crate::clock::Clock;
use crate::error::Result;
use crate::record::Record;
use crate::sync::block_on;
use crate::testing::Fault;

type Values = BTreeMap<u32, usize>;
type Outcome = Result<Values, &'static str>;
type ElementPolicy = Policy<Key, PlainOutput<usize>, &'static ByReference, FixedTtl>;

fn of(element: u32) -> Key {
    key(&element.to_string())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "elements are borrowed")]
fn describe(&element: &u32) -> ElementPolicy {
    Policy::new(of(element), PlainOutput::new(), &ByReference, FixedTtl::new(MINUTE))
        .stale(10 * MINUTE)
}

/// The value of an element after a number of runs.
fn values(elements: &[u32], run: usize) -> Values {
    elements.iter().map(|&element| (element, element as usize * 100 + run)).collect()
}

impl Fixture {
    /// Calls a batch function whose runs count.
    fn batch(&self, elements: &[u32], at_most: usize) -> Outcome {
        self.batch_of(elements, at_most, |elements| Ok(values(&elements, self.run())))
    }

    fn batch_of(
        &self,
        elements: &[u32],
        at_most: usize,
        body: impl FnMut(Vec<u32>) -> Outcome,
    ) -> Outcome {
        batch_call(elements, at_most).vayu_call(self.cache.engine(), describe, body)
    }

    fn single(&self, element: u32) -> usize {
        let compute = || element as usize * 100 + self.run();
        self.cache.get_or_insert_with(&of(element), MINUTE, compute)
    }
}

#[test]
fn run_has_the_elements_that_are_missing_each_once() {
    let fixture = Fixture::new();
    assert_eq!(fixture.single(2), 201);
    let mut asked = Vec::new();
    let found = fixture.batch_of(&[3, 2, 1, 3, 2], usize::MAX, |elements| {
        asked.push(elements.clone());
        Ok(values(&elements, 7))
    });
    assert_eq!(found, Ok(BTreeMap::from([(1, 107), (2, 201), (3, 307)])));
    assert_eq!(asked, [[3, 1]]);
    let stats = fixture.cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.inserts), (1, 3, 3));
    let again = fixture.batch_of(&[1, 2, 3], usize::MAX, |_| panic!("all are there"));
    assert_eq!(again, found);
    assert_eq!(
        fixture.batch_of(&[], usize::MAX, |_| panic!("none is asked for")),
        Ok(Values::new())
    );
}

#[test]
fn long_rest_is_split_into_several_runs() {
    let fixture = Fixture::new();
    let mut asked = Vec::new();
    let found = fixture.batch_of(&[1, 2, 3, 4, 5], 2, |elements| {
        asked.push(elements.len());
        Ok(values(&elements, 0))
    });
    assert_eq!((found, asked), (Ok(values(&[1, 2, 3, 4, 5], 0)), vec![2, 2, 1]));
    // The first run is stored although the second fails.
    let failed = fixture.batch_of(&[6, 7, 8], 1, |elements| match elements[..] {
        [6] => Ok(values(&elements, 0)),
        _ => Err("planned"),
    });
    assert_eq!(failed, Err("planned"));
    assert_eq!(fixture.batch_of(&[6], 1, |_| panic!("it is there")), Ok(values(&[6], 0)));
    assert_eq!(fixture.batch(&[8], 1), Ok(values(&[8], 1)));
}

#[test]
fn element_that_is_left_out_is_not_cached_and_one_that_is_added_is_not_either() {
    let fixture = Fixture::new();
    let found = fixture.batch_of(&[1, 2], usize::MAX, |_| Ok(values(&[1, 9], 0)));
    assert_eq!(found, Ok(values(&[1], 0)));
    assert_eq!(fixture.single(2), 201);
    assert_eq!(fixture.single(9), 902);
}

#[test]
fn element_that_is_left_out_of_a_refresh_is_deleted() {
    let fixture = Fixture::new();
    fixture.batch(&[1, 2], usize::MAX).expect("no failure");
    fixture.clock.advance(2 * MINUTE);
    let found = fixture.batch_of(&[1, 2], usize::MAX, |_| Ok(values(&[1], 2)));
    assert_eq!(found, Ok(values(&[1], 2)));
    // Otherwise this would be the value past its ttl.
    let found = fixture.batch_of(&[2], usize::MAX, |_| Ok(Values::new()));
    assert_eq!(found, Ok(Values::new()));
    assert_eq!(fixture.cache.stats().failed_refreshes, 0);
}

#[test]
fn failed_run_returns_values_past_their_ttl_if_there_is_one_for_each_element() {
    let fixture = Fixture::new();
    let old = fixture.batch(&[1, 2], usize::MAX);
    fixture.clock.advance(2 * MINUTE);
    assert_eq!(fixture.batch_of(&[1, 2, 3], usize::MAX, |_| Err("planned")), Err("planned"));
    // The last attempts have just failed: old values, and no run.
    assert_eq!(fixture.batch_of(&[1, 2], usize::MAX, |_| panic!("too early")), old);
    fixture.clock.advance(MINUTE);
    assert_eq!(fixture.batch_of(&[1, 2], usize::MAX, |_| Err("planned")), old);
    let stats = fixture.cache.stats();
    assert_eq!((stats.stale, stats.failed_refreshes), (4, 4));
    fixture.clock.advance(MINUTE);
    assert_eq!(fixture.batch(&[1, 2], usize::MAX), Ok(values(&[1, 2], 2)));
}

#[test]
fn vec_of_another_length_is_returned_and_not_cached() {
    let fixture = Fixture::new();
    let call = |elements: &[u32], found: usize| -> Vec<usize> {
        batch_call(elements, usize::MAX).vayu_call(
            fixture.cache.engine(),
            describe,
            |elements: Vec<u32>| {
                let run = fixture.run();
                (0..found.max(elements.len())).map(|_| run).collect()
            },
        )
    };
    assert_eq!(call(&[1, 2], 3), [1, 1, 1], "as it is");
    assert_eq!(fixture.cache.stats().inserts, 0);
    assert_eq!(call(&[1, 2, 1], 0), [2, 2, 2]);
    // Of a hit and of two missing elements: the function runs for all, without the cache.
    assert_eq!(call(&[3, 1, 4], 5), [4; 5]);
    assert_eq!(call(&[3, 4], 0), [5, 5]);
    assert_eq!(fixture.cache.stats().errors, 2);
}

#[test]
fn batch_runs_for_its_own_elements_before_it_waits_for_others() {
    watchdog(HANG, || {
        let (fixture, has_run) = (Fixture::new(), Mutex::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                fixture.cache.get_or_insert_with(&of(2), MINUTE, || {
                    until(|| *has_run.lock().expect("no panic"));
                    fixture.until_waiting(1);
                    207_usize
                })
            });
            until(|| fixture.cache.stats().in_flight == 1);
            let found = fixture.batch_of(&[1, 2, 3], usize::MAX, |elements| {
                assert_eq!(elements, [1, 3]);
                *has_run.lock().expect("no panic") = true;
                Ok(values(&elements, 7))
            });
            assert_eq!(found, Ok(values(&[1, 2, 3], 7)));
        });
        assert_eq!(fixture.cache.stats().coalesced, 1);
    });
}

#[test]
fn elements_of_leaders_that_are_gone_are_computed_by_one_run() {
    let fixture = Fixture::new();
    let mut leaders: Vec<_> = [1, 2, 3]
        .map(|element| {
            let key = of(element);
            let cache = fixture.cache.clone();
            let call = async move {
                cache.get_or_insert_with_async(&key, MINUTE, std::future::pending::<usize>()).await
            };
            let mut leader = Task::new(call);
            assert!(leader.poll().is_pending());
            leader
        })
        .into();
    let elements = [1, 2, 3, 4];
    let body = |elements: Vec<u32>| {
        let run = fixture.run();
        std::future::ready(values(&elements, run))
    };
    let mut batch = Task::new(batch_call(&elements[..], usize::MAX).vayu_call_async(
        fixture.cache.engine(),
        describe,
        body,
    ));
    assert!(batch.poll().is_pending());
    assert_eq!(fixture.runs(), 1, "it has run for its own element");
    leaders.clear();
    let Poll::Ready(found) = batch.poll() else { panic!("all leaders are gone") };
    assert_eq!(found, [values(&[1, 2, 3], 2), values(&[4], 1)].into_iter().flatten().collect());
}

#[test]
fn overdue_leaders_are_replaced_by_one_run() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let stuck: Vec<_> = [1, 2, 3]
            .map(|element| {
                let (key, cache) = (of(element), fixture.cache.clone());
                let mut leader = Task::new(async move {
                    let never = std::future::pending::<usize>();
                    cache.get_or_insert_with_async(&key, MINUTE, never).await
                });
                assert!(leader.poll().is_pending());
                leader
            })
            .into();
        let elements = [1, 2, 3];
        let body = |elements: Vec<u32>| std::future::ready(values(&elements, fixture.run()));
        let call = batch_call(&elements[..], usize::MAX).vayu_call_async(
            fixture.cache.engine(),
            describe,
            body,
        );
        let mut batch = Task::new(call);
        assert!(batch.poll().is_pending());
        fixture.clock.advance(MAX_WAIT);
        assert_eq!(batch.poll(), Poll::Ready(values(&elements, 1)));
        drop(stuck);
    });
}

#[test]
fn function_that_calls_itself_for_its_own_elements_does_not_wait() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let found = fixture.batch_of(&[1, 2, 3], usize::MAX, |elements| {
            assert_eq!(fixture.single(2), 201);
            let inner = fixture
                .batch_of(&[3, 1, 4], usize::MAX, |elements| Ok(values(&elements, fixture.run())));
            assert_eq!(inner, Ok(BTreeMap::from([(1, 103), (3, 303), (4, 402)])));
            Ok(values(&elements, 9))
        });
        assert_eq!(found, Ok(values(&[1, 2, 3], 9)));
    });
}

#[test]
fn panic_of_the_function_leaves_every_element_to_others() {
    let fixture = Fixture::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        fixture.batch_of(&[1, 2], usize::MAX, |_| panic!("planned"))
    }));
    assert!(result.is_err());
    assert_eq!(fixture.batch(&[1, 2], usize::MAX), Ok(values(&[1, 2], 1)));
}

#[test]
fn backend_that_fails_costs_a_run_and_no_error() {
    for fault in [Fault::FailsReads, Fault::FailsWrites] {
        let fixture = Fixture::new();
        fixture.cache.backend().set_fault(fault);
        for run in 1..=2 {
            assert_eq!(fixture.batch(&[1, 2], usize::MAX), Ok(values(&[1, 2], run)));
        }
        assert!(fixture.cache.stats().errors >= 4);
    }
}

#[test]
fn paused_cache_runs_the_function_for_all_elements() {
    let fixture = Fixture::new();
    fixture.batch(&[1], usize::MAX).expect("no failure");
    let _paused = fixture.cache.pause();
    assert_eq!(fixture.batch(&[1, 2], usize::MAX), Ok(values(&[1, 2], 2)));
}

/// A map whose async operations are pending for a while, and whose keys have leases.
#[derive(Clone, Default)]
struct SlowBackend {
    map: MapBackend<AnyValue>,
    held: Arc<Mutex<HashSet<Key>>>,
    /// The records of another process that has a lease before it is acquired here.
    stored_before_lease: Arc<Mutex<HashMap<Key, Record<AnyValue>>>>,
}

struct ReleaseHeld(SlowBackend, Key);

impl Drop for ReleaseHeld {
    fn drop(&mut self) {
        self.0.held.lock().expect("no panic").remove(&self.1);
    }
}

#[async_trait]
impl ReleaseLease for ReleaseHeld {
    fn release(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    async fn release_async(self: Box<Self>) -> Result<()> {
        Yield(1).await;
        Ok(())
    }
}

#[async_trait]
impl Backend for SlowBackend {
    type Stored = AnyValue;

    fn read(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        self.map.read(key)
    }
    fn write(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.map.write(key, record)
    }
    fn delete(&self, key: &Key) -> Result<bool> {
        self.map.delete(key)
    }
    async fn read_async(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        Yield(1).await;
        self.read(key)
    }
    async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        Yield(1).await;
        self.write(key, record)
    }
    async fn delete_async(&self, key: &Key) -> Result<bool> {
        Yield(1).await;
        self.delete(key)
    }
    fn capabilities(&self) -> Capabilities<'_, AnyValue> {
        Capabilities::none().with_leases(self)
    }
    fn clock(&self) -> Arc<dyn Clock> {
        self.map.clock()
    }
}

#[async_trait]
impl Leases for SlowBackend {
    fn try_acquire(&self, key: &Key) -> Result<Lease> {
        if self.held.lock().expect("no panic").insert(key.clone()) {
            if let Some(record) = self.stored_before_lease.lock().expect("no panic").remove(key) {
                self.map.write(key, record)?;
            }
            let release = ReleaseHeld(self.clone(), key.clone());
            return Ok(Lease::Acquired(LeaseGuard::with_release(release)));
        }
        Ok(Lease::Held)
    }

    async fn try_acquire_async(&self, key: &Key) -> Result<Lease> {
        Yield(1).await;
        self.try_acquire(key)
    }
}

#[test]
fn batch_that_is_dropped_at_any_await_leaves_every_element_to_others() {
    watchdog(HANG, || {
        let elements = [1, 2, 3];
        let mut is_ended = false;
        for polls in 1.. {
            let backend = SlowBackend::default();
            let cache: Cache<SlowBackend, ByReference> = Cache::with_backend(backend.clone());
            let body = |elements: Vec<u32>| async move {
                Yield(1).await;
                values(&elements, 1)
            };
            let call = batch_call(&elements[..], 2).vayu_call_async(cache.engine(), describe, body);
            let mut batch = Task::new(call);
            for _ in 0..polls {
                is_ended |= batch.poll().is_ready();
                if is_ended {
                    break;
                }
            }
            drop(batch);
            assert_eq!(cache.stats().in_flight, 0, "after {polls} polls");
            assert!(backend.held.lock().expect("no panic").is_empty(), "after {polls} polls");
            for element in elements {
                let value = cache.get_or_insert_with(&of(element), MINUTE, || 2);
                assert!(value == 2 || value == element as usize * 100 + 1);
            }
            if is_ended {
                assert!(polls > 15, "{polls} are all awaits");
                break;
            }
        }
    });
}

#[test]
fn elements_that_another_process_computes_are_waited_for_after_the_own_run() {
    watchdog(HANG, || {
        let clock = ManualClock::new();
        let (map, held) = (MapBackend::with_clock(clock.clone()), Arc::default());
        let backend = SlowBackend { map, held, ..SlowBackend::default() };
        let caches: [Cache<SlowBackend, ByReference>; 2] =
            [(); 2].map(|()| Cache::with_backend(backend.clone()));
        let [here, elsewhere] = &caches;
        let has_run = Mutex::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                elsewhere.get_or_insert_with(&of(2), MINUTE, || {
                    until(|| *has_run.lock().expect("no panic"));
                    207_usize
                })
            });
            until(|| {
                elsewhere.stats().in_flight == 1
                    && !backend.held.lock().expect("no panic").is_empty()
            });
            let time = scope.spawn(|| {
                until(|| elsewhere.stats().inserts == 1 && clock.sleepers() > 0);
                clock.advance(MINUTE / 3);
            });
            let elements = [1, 2, 3];
            let found = batch_call(&elements[..], usize::MAX).vayu_call(
                here.engine(),
                describe,
                |elements: Vec<u32>| {
                    assert_eq!(elements, [1, 3]);
                    *has_run.lock().expect("no panic") = true;
                    values(&elements, 7)
                },
            );
            assert_eq!(found, values(&elements, 7));
            time.join().expect("the clock");
        });
        assert!(backend.held.lock().expect("no panic").is_empty());
    });
}

/// Another process stores some of the elements after they were looked up, and releases their leases.
#[test]
fn elements_that_are_found_with_their_lease_are_not_computed() {
    let elements = [0, 1, 2, 3];
    for stored in 0..1 << elements.len() {
        let is_stored = |element: &u32| stored >> element & 1 == 1;
        for is_async in [false, true] {
            let backend = SlowBackend::default();
            let now = backend.clock().now();
            for element in elements.into_iter().filter(is_stored) {
                let value = AnyValue::new(element as usize * 100 + 1);
                let record = Record::new(value, now, now.saturating_add(MINUTE));
                backend.stored_before_lease.lock().expect("no panic").insert(of(element), record);
            }
            let cache: Cache<SlowBackend, ByReference> = Cache::with_backend(backend);
            let missing: Vec<u32> =
                elements.into_iter().filter(|element| !is_stored(element)).collect();
            let body = |elements: Vec<u32>| {
                assert_eq!(elements, missing, "{stored:b}");
                values(&elements, 2)
            };
            let call = batch_call(&elements[..], usize::MAX);
            let found = if is_async {
                let body = |elements: Vec<u32>| std::future::ready(body(elements));
                block_on(call.vayu_call_async(cache.engine(), describe, body))
            } else {
                call.vayu_call(cache.engine(), describe, body)
            };
            let run = |element: &u32| if is_stored(element) { 1 } else { 2 };
            let expected = elements.iter().flat_map(|element| values(&[*element], run(element)));
            assert_eq!(found, expected.collect(), "{stored:b}");
        }
    }
}

#[test]
fn processes_whose_batches_overlap_compute_each_element_once() {
    watchdog(HANG, || {
        let backend = SlowBackend::default();
        let runs: [AtomicUsize; 8] = Default::default();
        thread::scope(|scope| {
            for caller in 0..4 {
                let process: Cache<SlowBackend, ByReference> = Cache::with_backend(backend.clone());
                let runs = &runs;
                scope.spawn(move || {
                    let elements: Vec<u32> = (0..6).map(|n| (caller * 2 + n) % 8).collect();
                    let body = |elements: Vec<u32>| {
                        for &element in &elements {
                            runs[element as usize].fetch_add(1, Ordering::SeqCst);
                        }
                        thread::yield_now();
                        values(&elements, 0)
                    };
                    let found = if caller % 2 == 0 {
                        batch_call(&elements[..], 3).vayu_call(process.engine(), describe, body)
                    } else {
                        let body = |elements| std::future::ready(body(elements));
                        block_on(batch_call(&elements[..], 3).vayu_call_async(
                            process.engine(),
                            describe,
                            body,
                        ))
                    };
                    assert_eq!(found, values(&elements, 0));
                });
            }
        });
        assert_eq!(runs.map(AtomicUsize::into_inner), [1; 8]);
    });
}

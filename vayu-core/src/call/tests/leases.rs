//! Callers of several processes: here several caches over one backend, which share nothing but that
//! backend.

use std::cell::RefCell;
use std::collections::HashSet;
use std::future::ready;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use event_listener::Event;

use super::*;
use crate::attribute::batch_call;
use crate::backend::{Backend, Capabilities, Lease, LeaseGuard, LeaseWatch, Leases, ReleaseLease};
use crate::cache::BACKOFF;
use crate::call::background_refresh::{finish, finish_blocking, job, task};
use crate::call::late_body::Made;
use crate::call::lookup::begin;
use crate::call::patience::patient;
use crate::call::{FixedTtl, PlainOutput, Policy};
use crate::call::{blocking, future};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::observer::{CallEvent, Observer};
use crate::outcome::CallOutcome;
use crate::record::Record;
use crate::serializer::ValueClass;
use crate::sync::block_on;
use crate::testing::Fault;

/// A map whose keys are computed by one cache at a time.
#[derive(Clone, Default)]
struct LeasingBackend {
    map: MapBackend<AnyValue>,
    held: Arc<Mutex<HashSet<Key>>>,
    acquire_fails: bool,
    /// The sync methods of the map do not block, so that an absent key is known at once.
    reads_now: bool,
    /// Notifies of releases, where callers that wait are notified.
    released: Option<Arc<Event>>,
    /// The keys of whose releases they are not.
    silent: Arc<Mutex<HashSet<Key>>>,
    /// The number of reads and of attempts to acquire a lease.
    operations: Arc<AtomicUsize>,
    releases: Arc<AtomicUsize>,
}

struct ReleaseHeld(LeasingBackend, Key);

impl Drop for ReleaseHeld {
    fn drop(&mut self) {
        self.0.held.lock().expect("no panic").remove(&self.1);
        if let Some(released) = &self.0.released {
            released.notify(usize::MAX);
        }
    }
}

#[async_trait]
impl ReleaseLease for ReleaseHeld {
    fn release(self: Box<Self>) -> Result<()> {
        self.0.releases.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    async fn release_async(self: Box<Self>) -> Result<()> {
        Yield(3).await;
        self.release()
    }
}

#[async_trait]
impl Backend for LeasingBackend {
    type Stored = AnyValue;
    fn read(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        self.operations.fetch_add(1, Ordering::SeqCst);
        self.map.read(key)
    }
    fn write(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.map.write(key, record)
    }
    fn delete(&self, key: &Key) -> Result<bool> {
        self.map.delete(key)
    }
    async fn read_async(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        self.read(key)
    }
    async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.write(key, record)
    }
    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }
    fn read_now(
        &self,
        key: &Key,
        _: ValueClass,
        visit: &mut dyn FnMut(Record<&AnyValue>),
    ) -> Option<Result<()>> {
        self.reads_now.then(|| {
            self.map.read(key).map(|found| found.iter().for_each(|record| visit(record.as_ref())))
        })
    }
    fn capabilities(&self) -> Capabilities<'_, AnyValue> {
        Capabilities::none().with_leases(self)
    }
    fn clock(&self) -> Arc<dyn Clock> {
        self.map.clock()
    }
}

impl Leases for LeasingBackend {
    fn try_acquire(&self, key: &Key) -> Result<Lease> {
        if self.acquire_fails {
            return Err(Error::new(ErrorKind::Backend, "planned failure of a lease"));
        }
        self.operations.fetch_add(1, Ordering::SeqCst);
        let is_silent = self.silent.lock().expect("no panic").contains(key);
        let watch = self
            .released
            .as_ref()
            .map(|released| if is_silent { Event::new().listen() } else { released.listen() });
        let is_free = self.held.lock().expect("no panic").insert(key.clone());
        let granted =
            || Lease::Acquired(LeaseGuard::with_release(ReleaseHeld(self.clone(), key.clone())));
        Ok(match watch {
            _ if is_free => granted(),
            Some(watch) => Lease::Watched(LeaseWatch::new(watch)),
            None => Lease::Held,
        })
    }
}

fn compute_once(call: impl Fn(&Cache<LeasingBackend, ByReference>, &AtomicUsize) -> usize + Sync) {
    let backend = LeasingBackend::default();
    let runs = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            let process: Cache<LeasingBackend, ByReference> = Cache::with_backend(backend.clone());
            let (call, runs) = (&call, &runs);
            scope.spawn(move || {
                thread::scope(|scope| {
                    for _ in 0..4 {
                        scope.spawn(|| assert_eq!(call(&process, runs), 1));
                    }
                });
            });
        }
    });
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert!(backend.held.lock().expect("no panic").is_empty(), "every lease was released");
}

#[test]
fn processes_compute_a_key_once() {
    watchdog(HANG, || {
        compute_once(|process, runs| {
            process.get_or_insert_with(&key("k"), MINUTE, || {
                thread::yield_now();
                runs.fetch_add(1, Ordering::SeqCst) + 1
            })
        });
        compute_once(|process, runs| {
            block_on(process.get_or_insert_with_async(&key("k"), MINUTE, async {
                Yield(3).await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            }))
        });
    });
}

#[test]
fn lease_that_is_never_released_delays_calls_by_max_wait() {
    watchdog(HANG, || {
        let backend = LeasingBackend::default();
        let _held = backend.try_acquire(&key("k")).expect("free");
        let process: Cache<LeasingBackend, ByReference> =
            Cache::with_backend(backend).with_max_wait(Duration::from_millis(20));
        assert_eq!(process.get_or_insert_with(&key("k"), MINUTE, || 1), 1);
        assert_eq!(process.get::<i32>(&key("k")).expect("read"), Some(1), "and it is stored");
        let other = key("other");
        let _held = process.backend().try_acquire(&other).expect("free");
        assert_eq!(block_on(process.get_or_insert_with_async(&other, MINUTE, async { 2 })), 2);
    });
}

#[test]
fn lease_is_released_when_the_function_panics() {
    let backend = LeasingBackend::default();
    let process: Cache<LeasingBackend, ByReference> = Cache::with_backend(backend.clone());
    let call = || process.get_or_insert_with(&key("k"), MINUTE, || -> u8 { panic!("planned") });
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err());
    assert!(backend.held.lock().expect("no panic").is_empty());
}

#[test]
fn function_runs_without_a_lease_that_cannot_be_acquired() {
    let backend = LeasingBackend { acquire_fails: true, ..LeasingBackend::default() };
    let process: Cache<LeasingBackend, ByReference> = Cache::with_backend(backend);
    assert_eq!(process.get_or_insert_with(&key("k"), MINUTE, || 1), 1);
    assert_eq!(process.get::<i32>(&key("k")).expect("read"), Some(1));
    assert_eq!(process.stats().errors_of(ErrorKind::Backend), 1);
}

#[test]
fn lease_is_released_before_the_call_returns_however_it_ends() {
    watchdog(HANG, || {
        let backend = LeasingBackend::default();
        let process: Cache<LeasingBackend, ByReference> = Cache::with_backend(backend.clone());
        let key = key("k");
        let is_free = |releases: usize| {
            assert!(backend.held.lock().expect("no panic").is_empty());
            assert_eq!(backend.releases.load(Ordering::SeqCst), releases);
        };
        process.try_get_or_insert_with(&key, MINUTE, || Err::<u8, _>("failed")).unwrap_err();
        is_free(1);
        let fails = async { Err::<u8, _>("failed") };
        block_on(process.try_get_or_insert_with_async(&key, MINUTE, fails)).unwrap_err();
        is_free(2);
        assert_eq!(block_on(process.get_or_insert_with_async(&key, MINUTE, async { 1_u8 })), 1);
        is_free(3);
        // The value is found once the lease is acquired.
        process.remove(&key).expect("remove");
        let found = || {
            let other: Cache<LeasingBackend, ByReference> = Cache::with_backend(backend.clone());
            other.set(&key, &2_u8, MINUTE).expect("set");
            2
        };
        assert_eq!(process.get_or_insert_with(&key, MINUTE, found), 2);
        is_free(4);
        // The last resort: a call that is dropped while it computes, or while it releases.
        process.remove(&key).expect("remove");
        for polls in 0..8 {
            let body = async {
                Yield(2).await;
                Err::<u8, _>("failed")
            };
            let mut call = Box::pin(process.try_get_or_insert_with_async(&key, MINUTE, body));
            for _ in 0..polls {
                if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                    break;
                }
            }
            drop(call);
            assert!(backend.held.lock().expect("no panic").is_empty(), "after {polls} polls");
        }
    });
}

#[test]
fn lease_that_cannot_be_released_is_counted() {
    let backend = FaultyBackend::new(LeasingBackend::default());
    backend.set_fault(Fault::KeepsLeases);
    let process: Cache<_, ByReference> = Cache::with_backend(backend);
    assert_eq!(process.get_or_insert_with(&key("k"), MINUTE, || 1), 1);
    assert_eq!(process.stats().errors_of(ErrorKind::Backend), 1);
    assert_eq!(block_on(process.get_or_insert_with_async(&key("l"), MINUTE, async { 2 })), 2);
    assert_eq!(process.stats().errors_of(ErrorKind::Backend), 2);
}

#[test]
fn conformance_kit_finds_a_lease_that_is_not_released() {
    use crate::testing::suite::{Harness, Mode, lease_that_was_released_is_acquired_again};
    for (fault, mode) in [
        (None, Mode::Sync),
        (None, Mode::Async),
        (Some(Fault::KeepsLeases), Mode::Sync),
        (Some(Fault::KeepsLeases), Mode::Async),
    ] {
        let backend = FaultyBackend::new(LeasingBackend::default());
        backend.set_fault(fault);
        let subject = Harness::new(backend, ManualClock::new(), ByReference, mode);
        let test = || lease_that_was_released_is_acquired_again(&subject);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
        assert_eq!(result.is_err(), fault.is_some(), "{fault:?}, {mode:?}");
    }
}

/// Runs a call by each of four callers of one process, some of them async, and advances the clock
/// until all have returned. Returns by how much.
fn wait_of(
    kinds: [bool; 4],
    process: &Cache<LeasingBackend, ByReference>,
    clock: &ManualClock,
    body: impl Fn() -> usize + Sync,
) -> Duration {
    let step = Duration::from_millis(if cfg!(miri) { 250 } else { 1 });
    let mut time = Duration::ZERO;
    thread::scope(|scope| {
        let body = &body;
        let callers = kinds.map(|is_async| {
            scope.spawn(move || {
                if is_async {
                    block_on(process.get_or_insert_with_async(&key("k"), MINUTE, async { body() }))
                } else {
                    process.get_or_insert_with(&key("k"), MINUTE, body)
                }
            })
        });
        // All wait: three for the first, which waits for another process.
        until(|| clock.sleepers() >= 4);
        while callers.iter().any(|caller| !caller.is_finished()) {
            if clock.sleepers() > 0 {
                clock.advance(step);
                time += step;
            }
            thread::yield_now();
        }
        for caller in callers {
            caller.join().expect("a value");
        }
    });
    time
}

const KINDS: [[bool; 4]; 3] = [[false; 4], [true; 4], [false, true, true, false]];

fn with_manual_clock() -> (ManualClock, LeasingBackend, Cache<LeasingBackend, ByReference>) {
    let clock = ManualClock::new();
    let map = MapBackend::with_clock(clock.clone());
    let backend = LeasingBackend { map, ..LeasingBackend::default() };
    let process = Cache::with_backend(backend.clone());
    (clock, backend, process)
}

/// The steps of the clock that may pass while threads are on their way.
const SLACK: Duration = Duration::from_millis(if cfg!(miri) { 20_000 } else { 500 });

#[test]
fn lease_that_stays_held_delays_waiting_calls_by_max_wait_once() {
    watchdog(HANG, || {
        for kinds in KINDS {
            let (clock, backend, process) = with_manual_clock();
            let max_wait = Duration::from_secs(3);
            let process = process.with_max_wait(max_wait);
            let _held = backend.try_acquire(&key("k")).expect("free");
            let runs = AtomicUsize::new(0);
            let time = wait_of(kinds, &process, &clock, || {
                runs.fetch_add(1, Ordering::SeqCst);
                7
            });
            assert!(time >= max_wait && time < max_wait + SLACK, "{kinds:?}: {time:?}");
            // Two operations for each pause of 32 ms and six shorter ones, and some at the end.
            let operations = backend.operations.load(Ordering::SeqCst);
            assert!(operations < 2 * (3000 / 32 + 6) + 40, "{operations} operations");
            assert!(runs.load(Ordering::SeqCst) <= 4);
        }
    });
}

#[test]
fn watched_lease_that_stays_held_is_asked_for_once_a_second() {
    watchdog(HANG, || {
        for kinds in KINDS {
            let (clock, mut backend, _) = with_manual_clock();
            backend.released = Some(Arc::default());
            let max_wait = Duration::from_secs(4);
            let process = Cache::with_backend(backend.clone()).with_max_wait(max_wait);
            let _held = backend.try_acquire(&key("k")).expect("free");
            let time = wait_of(kinds, &process, &clock, || 7);
            assert!(time >= max_wait && time < max_wait + SLACK, "{kinds:?}: {time:?}");
            // Two operations after 0.5, 1.5, 2.5 and 3.5 s, and those of four callers at the beginning and at the end.
            let operations = backend.operations.load(Ordering::SeqCst);
            assert!(operations < 2 * 4 + 20, "{operations} operations");
        }
    });
}

#[test]
fn release_of_a_watched_lease_ends_the_wait_for_it() {
    watchdog(HANG, || {
        let (clock, mut backend, _) = with_manual_clock();
        backend.released = Some(Arc::default());
        for is_async in [false, true] {
            let key = key(if is_async { "async" } else { "sync" });
            let held = backend.try_acquire(&key).expect("free");
            let process: Cache<_, ByReference> = Cache::with_backend(backend.clone());
            thread::scope(|scope| {
                let call = scope.spawn(|| {
                    if is_async {
                        block_on(process.get_or_insert_with_async(&key, MINUTE, async { 1_u32 }))
                    } else {
                        process.get_or_insert_with(&key, MINUTE, || 1_u32)
                    }
                });
                // The pause and the deadline. The clock stands still.
                until(|| clock.sleepers() >= 2);
                drop(held);
                assert_eq!(call.join().expect("a value"), 1);
            });
            let held = backend.try_acquire(&key).expect("free");
            thread::scope(|scope| {
                let update = scope.spawn(|| {
                    if is_async {
                        block_on(process.update_with_async(&key, MINUTE, increment))
                    } else {
                        process.update_with(&key, MINUTE, increment)
                    }
                });
                until(|| clock.sleepers() >= 2);
                drop(held);
                assert_eq!(update.join().expect("no panic").expect("updated"), 2);
            });
        }
    });
}

#[test]
fn element_whose_holder_has_died_is_tried_in_time_while_others_are_notified() {
    let (clock, mut backend, _) = with_manual_clock();
    backend.released = Some(Arc::default());
    let elements: Vec<u32> = (0..10).collect();
    let of = |element: &u32| key(&element.to_string());
    backend.silent.lock().expect("no panic").insert(of(&0));
    let acquire = |element| match backend.try_acquire(&of(element)) {
        Ok(Lease::Acquired(lease)) => lease,
        lease => panic!("{lease:?}"),
    };
    let mut held: Vec<LeaseGuard> = elements.iter().map(acquire).collect();
    let process: Cache<LeasingBackend, ByReference> = Cache::with_backend(backend.clone());
    let runs = RefCell::new(Vec::new());
    let describe = |element: &u32| {
        let ttl = FixedTtl::new(MINUTE);
        Policy::new(of(element), PlainOutput::new(), &ByReference, ttl)
    };
    let body = |elements: Vec<u32>| {
        runs.borrow_mut().push(elements.clone());
        ready(elements)
    };
    let call =
        batch_call(&elements[..], usize::MAX).vayu_call_async(process.engine(), describe, body);
    let mut batch = Box::pin(call);
    assert!(poll(&mut batch).is_pending());
    // Its lease has expired. No caller is notified of that.
    let _dead = held.remove(0);
    backend.held.lock().expect("no panic").remove(&of(&0));
    let step = Duration::from_millis(100);
    let mut time = Duration::ZERO;
    for (lease, element) in held.into_iter().zip(1..) {
        clock.advance(step);
        time += step;
        drop(lease);
        // A release of the batch takes some polls.
        let is_over = (0..16).any(|_| poll(&mut batch).is_ready());
        let computed = runs.borrow().concat();
        assert!(computed.contains(&element), "{element} was released: {computed:?}");
        assert_eq!(computed.contains(&0), time >= 5 * step, "after {time:?}: {computed:?}");
        assert_eq!(is_over, element == 9);
    }
}

/// Tests a holder that is a caller of this process and takes longer than the others wait.
#[test]
fn slow_function_delays_waiting_calls_by_max_wait_once() {
    watchdog(HANG, || {
        for kinds in KINDS {
            let (clock, _backend, process) = with_manual_clock();
            let max_wait = Duration::from_secs(1);
            let process = process.with_max_wait(max_wait);
            let (is_running, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
            thread::scope(|scope| {
                let slow = || {
                    is_running.store(true, Ordering::SeqCst);
                    until(|| is_over.load(Ordering::SeqCst));
                    1
                };
                let process = &process;
                scope.spawn(move || process.get_or_insert_with(&key("k"), MINUTE, slow));
                until(|| is_running.load(Ordering::SeqCst));
                let time = wait_of(kinds, process, &clock, || 2);
                assert!(time >= max_wait && time < max_wait + SLACK, "{kinds:?}: {time:?}");
                is_over.store(true, Ordering::SeqCst);
            });
        }
    });
}

#[test]
fn value_of_a_process_without_the_lease_ends_the_wait_for_it() {
    watchdog(HANG, || {
        for kinds in KINDS {
            let (clock, backend, process) = with_manual_clock();
            let _held = backend.try_acquire(&key("k")).expect("free");
            // The value is stored by a process without the lease.
            let other: Cache<LeasingBackend, ByReference> = Cache::with_backend(backend.clone());
            let stores = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    until(|| stores.load(Ordering::SeqCst));
                    other.set(&key("k"), &9_usize, MINUTE).expect("set");
                });
                let process = process.clone();
                scope.spawn(|| {
                    until(|| clock.sleepers() >= 4);
                    stores.store(true, Ordering::SeqCst);
                });
                let time = wait_of(kinds, &process, &clock, || panic!("there is a value"));
                assert!(time < MAX_WAIT / 2, "{kinds:?}: {time:?}");
            });
        }
    });
}

fn increment(old: Option<u32>) -> u32 {
    old.unwrap_or(0) + 1
}

/// Creates a cache with leases whose calls wait without a limit.
fn waiting_forever() -> Cache<LeasingBackend, ByReference> {
    Cache::with_backend(LeasingBackend::default()).with_max_wait(Duration::MAX)
}

fn assert_is_refused(result: Result<u32>) {
    assert_eq!(result.expect_err("it would wait for itself").kind(), ErrorKind::Timeout);
}

#[test]
fn update_in_a_computation_that_holds_the_lease_of_its_key_is_an_error() {
    for removes_first in [false, true] {
        watchdog(HANG, move || {
            let (cache, key) = (waiting_forever(), key("k"));
            let (cache, key) = (&cache, &key);
            let computed = cache.get_or_insert_with(key, MINUTE, || {
                if removes_first {
                    cache.remove(key).expect("removed");
                }
                assert_is_refused(cache.update_with(key, MINUTE, increment));
                let context = crate::FlightContext::current();
                thread::scope(|scope| {
                    let update = || cache.update_with(key, MINUTE, increment);
                    let below = scope.spawn(move || context.in_scope(update));
                    assert_is_refused(below.join().expect("no panic"));
                });
                7_u32
            });
            assert_eq!(computed, 7);
            let stored = if removes_first { 0 } else { 7 };
            assert_eq!(cache.update_with(key, MINUTE, increment).expect("updated"), stored + 1);
        });
    }
}

#[test]
fn update_waits_for_a_computation_that_holds_the_lease() {
    watchdog(HANG, || {
        let (clock, key) = (ManualClock::new(), key("k"));
        let map = MapBackend::with_clock(clock.clone());
        let backend = LeasingBackend { map, ..LeasingBackend::default() };
        let cache: Cache<LeasingBackend, ByReference> = Cache::with_backend(backend);
        let (cache, clock, key) = (&cache, &clock, &key);
        let [is_running, is_updated] = &[false, false].map(AtomicBool::new);
        thread::scope(|scope| {
            scope.spawn(move || {
                cache.get_or_insert_with(key, MINUTE, || {
                    is_running.store(true, Ordering::SeqCst);
                    until(|| clock.sleepers() == 1);
                    7_u32
                });
                // The update may have found the lease held between the end of the flight and its release.
                until(|| {
                    if clock.sleepers() > 0 {
                        clock.advance(Duration::from_millis(10));
                    }
                    is_updated.load(Ordering::SeqCst)
                });
            });
            until(|| is_running.load(Ordering::SeqCst));
            let updated = cache.update_with(key, MINUTE, increment);
            is_updated.store(true, Ordering::SeqCst);
            assert_eq!(updated.expect("updated"), 8);
        });
    });
}

#[test]
fn sync_update_on_the_thread_of_a_pending_computation_with_a_lease_is_an_error() {
    watchdog(HANG, || {
        let (cache, key) = (waiting_forever(), key("k"));
        let body = async {
            Yield(1).await;
            7_u32
        };
        let mut leader = Task::new(cache.get_or_insert_with_async(&key, MINUTE, body));
        assert!(leader.poll().is_pending());
        assert_is_refused(cache.update_with(&key, MINUTE, increment));
        while leader.poll().is_pending() {}
        assert_eq!(cache.update_with(&key, MINUTE, increment).expect("updated"), 8);
    });
}

fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn callers_with_patience_return_the_value_that_another_process_has_stored() {
    let clock = ManualClock::new();
    let map = MapBackend::with_clock(clock.clone());
    let backend = LeasingBackend { map, ..LeasingBackend::default() };
    let new = || Cache::<LeasingBackend, ByReference>::with_backend(backend.clone());
    let (process, other, key) = (new(), new(), key("k"));
    let (engine, tasks) = (process.engine(), RefCell::new(Vec::new()));
    let call = |value: u8| {
        let policy = Policy::new(&key, PlainOutput::new(), &ByReference, FixedTtl::new(MINUTE));
        let (policy, tasks) = (policy.stale(60 * MINUTE), &tasks);
        Box::pin(async move {
            let lookup = match begin(engine, &policy) {
                Ok(output) => return output,
                Err(lookup) => lookup,
            };
            let (body, patience) = (Box::pin(async move { value }), Duration::from_millis(50));
            let call = patient(engine.clone(), policy, lookup, body, patience);
            call.vayu_run(engine, Made, |task| tasks.borrow_mut().push(task)).await
        })
    };
    assert_eq!(block_on(call(1)), 1);
    clock.advance(MINUTE);
    let _held = backend.try_acquire(&key).expect("free");
    let mut calls = [call(2), call(3), call(4)];
    assert_eq!(calls.each_mut().map(poll), [Poll::Pending; 3]);
    let mut task = tasks.take().pop().expect("one leads");
    assert!(poll(&mut task).is_pending(), "another process holds the lease");
    other.set(&key, &9_u8, MINUTE).expect("set");
    clock.advance(Duration::from_millis(40));
    assert!(poll(&mut task).is_ready());
    assert_eq!(calls.each_mut().map(poll), [Poll::Ready(9); 3]);
}

#[test]
fn refresh_in_the_background_is_left_to_the_process_that_holds_the_lease() {
    watchdog(HANG, || {
        let (clock, backend, process) = with_manual_clock();
        let engine = process.engine();
        let policy = || {
            Policy::new(key("k"), PlainOutput::new(), &ByReference, FixedTtl::new(MINUTE))
                .stale(60 * MINUTE)
        };
        let in_thread = |value: u8| {
            let policy = policy();
            let Err(lookup) = begin(engine, &policy) else { panic!("a hit") };
            let body = move || value;
            let (old, refresh) = finish_blocking(engine, &policy, lookup, body, |body| body());
            job(engine.clone(), policy, refresh.expect("it begins"))();
            old
        };
        let in_task = |value: u8| {
            let policy = policy();
            let Err(lookup) = begin(engine, &policy) else { panic!("a hit") };
            let body = Box::pin(async move { value });
            let (old, refresh) = block_on(finish(engine, &policy, lookup, body));
            block_on(task(engine.clone(), policy, refresh.expect("it begins")));
            old
        };
        let refreshes: [&dyn Fn(u8) -> u8; 2] = [&in_thread, &in_task];
        for (refresh, value) in refreshes.into_iter().zip([1, 3]) {
            process.remove(&key("k")).expect("remove");
            assert_eq!(blocking::run(engine, policy(), || value), value);
            clock.advance(MINUTE);
            let held = backend.try_acquire(&key("k")).expect("free");
            // The clock stands still.
            assert_eq!(refresh(9), value);
            let stats = process.stats();
            assert_eq!((stats.failed_refreshes, stats.errors, stats.in_flight), (0, 0, 0));
            drop(held);
            clock.advance(BACKOFF);
            assert_eq!(refresh(value + 1), value);
            assert_eq!(blocking::run(engine, policy(), || 9), value + 1);
        }
    });
}

/// An observer that calls its cache for the key of the first value past its ttl that is served.
struct CallsOnStale {
    cache: Mutex<Option<Cache<LeasingBackend, ByReference>>>,
    calls: Arc<AtomicUsize>,
}

impl Observer for CallsOnStale {
    fn on_call(&self, call: &CallEvent<'_>) {
        if call.outcome != CallOutcome::Stale {
            return;
        }
        let Some(cache) = self.cache.lock().expect("no panic").take() else { return };
        assert_eq!(cache.stats().in_flight, 1);
        assert_eq!(cache.get_or_insert_with(&key("k"), MINUTE, || 9_u8), 9);
        self.calls.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn observer_of_a_stale_value_that_is_served_without_the_lease_may_call_for_the_same_key() {
    watchdog(HANG, || {
        for is_async in [false, true] {
            let (clock, backend, process) = with_manual_clock();
            let call = |value: u8| {
                let ttl = FixedTtl::new(MINUTE);
                let policy = Policy::new(key("k"), PlainOutput::new(), &ByReference, ttl);
                let policy = policy.stale(60 * MINUTE);
                if is_async {
                    let body = std::pin::pin!(async { value });
                    block_on(future::run(process.engine(), &policy, body))
                } else {
                    blocking::run(process.engine(), policy, || value)
                }
            };
            assert_eq!(call(1), 1);
            clock.advance(MINUTE);
            let calls = Arc::new(AtomicUsize::new(0));
            let cache = Mutex::new(Some(process.clone()));
            process.observe(CallsOnStale { cache, calls: Arc::clone(&calls) });
            let _held = backend.try_acquire(&key("k")).expect("free");
            assert_eq!(call(2), 1, "the process that holds the lease refreshes it");
            assert_eq!(calls.load(Ordering::SeqCst), 1, "async: {is_async}");
        }
    });
}

/// That a key is absent is known at once, but the backend is shared, so another process may hold the lease.
#[test]
fn number_that_is_absent_at_once_is_computed_under_a_lease() {
    let backend = LeasingBackend { reads_now: true, ..LeasingBackend::default() };
    let process: Cache<LeasingBackend, ByReference> = Cache::with_backend(backend.clone());
    let run = |body: &dyn Fn() -> u64| {
        let policy = Policy::new(key("k"), PlainOutput::new(), &ByReference, FixedTtl::new(MINUTE));
        blocking::run(process.engine(), policy, body)
    };
    let is_held = || backend.held.lock().expect("no panic").contains(&key("k"));
    let body = || u64::from(is_held());
    assert_eq!((run(&body), run(&|| 9)), (1, 1));
    assert!(!is_held());
}

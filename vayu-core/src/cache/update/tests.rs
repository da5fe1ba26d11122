mod errors;

use std::panic::AssertUnwindSafe;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::backend::{BackendExt, Capabilities, Clear, Leases, ReleaseLease};
use crate::sync::block_on;
use crate::testing::{Fault, FaultyBackend, MapBackend, watchdog};
use crate::{AnyValue, ByReference};

type Map = Cache<FaultyBackend<MapBackend<AnyValue>>, ByReference>;

const HANG: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The updates of each thread. Miri is slow.
const TIMES: usize = if cfg!(miri) { 8 } else { 1_000 };

fn map() -> Map {
    Cache::with_backend(FaultyBackend::new(MapBackend::default()))
}

fn key() -> Key {
    Key::from_text("counter", "k")
}

fn increment(old: Option<usize>) -> usize {
    old.unwrap_or(0) + 1
}

#[test]
fn counter_keeps_all_increments_of_sync_and_async_threads() {
    watchdog(HANG, || {
        let (cache, key) = (map(), key());
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (cache, key) = (&cache, &key);
                scope.spawn(move || {
                    for _ in 0..TIMES {
                        if thread % 2 == 0 {
                            cache.update_with(key, HOUR, increment).expect("updated");
                        } else {
                            let update = cache.update_with_async(key, HOUR, increment);
                            block_on(update).expect("updated");
                        }
                    }
                });
            }
        });
        assert_eq!(cache.get(&key).expect("get"), Some(8 * TIMES));
    });
}

/// Each update that returns 1 has found nothing: it is the first after an invalidation. So the number of
/// values is that of the updates, if each continues the one before it.
#[test]
fn updates_between_invalidations_continue_one_another() {
    for invalidate in [
        (|cache, key| {
            cache.remove(key).expect("removed");
        }) as fn(&Map, &Key),
        |cache, _| cache.invalidate_tag("t").expect("bumped"),
        |cache, _| cache.invalidate_all().expect("bumped"),
    ] {
        watchdog(HANG, move || {
            let (cache, key) = (map(), key().with_tags(["t"]));
            let seen: Vec<AtomicUsize> = (0..=4 * TIMES).map(|_| AtomicUsize::new(0)).collect();
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for n in 0..TIMES {
                            let value = cache.update_with(&key, HOUR, increment).expect("updated");
                            seen[value].fetch_add(1, Ordering::SeqCst);
                            if n % (TIMES / 8) == TIMES / 16 {
                                invalidate(&cache, &key);
                            }
                        }
                    });
                }
            });
            let seen: Vec<usize> = seen.into_iter().map(AtomicUsize::into_inner).collect();
            assert_eq!(seen.iter().sum::<usize>(), 4 * TIMES);
            assert!(seen[1] <= 41, "{} runs from nothing, and 40 invalidations", seen[1]);
            assert!(seen[1..].is_sorted_by(|less, more| less >= more), "no value is skipped");
        });
    }
}

#[test]
fn changes_during_an_update_take_effect_after_it() {
    watchdog(HANG, || {
        let (clock, key) = (crate::testing::ManualClock::new(), key());
        let cache: Cache<MapBackend<AnyValue>, ByReference> =
            Cache::with_backend(MapBackend::with_clock(clock.clone()));
        for is_removal in [true, false] {
            cache.set(&key, &10_usize, HOUR).expect("set");
            let is_running = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    is_running.wait();
                    if is_removal {
                        cache.remove(&key).expect("removed");
                    } else {
                        cache.set(&key, &20_usize, HOUR).expect("set");
                    }
                });
                let update = |old: Option<usize>| {
                    is_running.wait();
                    until(|| clock.sleepers() == 1);
                    increment(old)
                };
                assert_eq!(cache.update_with(&key, HOUR, update).expect("updated"), 11);
            });
            assert_eq!(cache.get(&key).expect("get"), (!is_removal).then_some(20_usize));
        }
    });
}

/// A backend that calls a function around a change, perhaps with leases whose release fails.
struct Hooked<F> {
    inner: MapBackend<AnyValue>,
    has_leases: bool,
    hook: F,
}

struct FailingRelease;

impl ReleaseLease for FailingRelease {
    fn release(self: Box<Self>) -> Result<()> {
        Err(Error::new(ErrorKind::Backend, "planned failure of a release"))
    }
}

#[async_trait::async_trait]
impl<F: Fn(Moment) + Send + Sync + 'static> Leases for Hooked<F> {
    fn try_acquire(&self, _: &Key) -> Result<Lease> {
        Ok(Lease::Acquired(LeaseGuard::with_release(FailingRelease)))
    }

    async fn try_acquire_async(&self, key: &Key) -> Result<Lease> {
        self.try_acquire(key)
    }
}

/// The moment at which [`Hooked`] calls its function.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    BeforeDelete,
    BeforeClear,
    AfterClear,
}

#[async_trait::async_trait]
#[deny(clippy::missing_trait_methods)]
impl<F: Fn(Moment) + Send + Sync + 'static> Backend for Hooked<F> {
    type Stored = AnyValue;

    fn delete(&self, key: &Key) -> Result<bool> {
        (self.hook)(Moment::BeforeDelete);
        self.inner.delete(key)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }

    fn capabilities(&self) -> Capabilities<'_, AnyValue> {
        let mut capabilities = self.inner.capabilities().with_clear(self);
        if self.has_leases {
            capabilities.leases = Some(self);
        }
        capabilities
    }

    crate::forward_backend! { |this| this.inner =>
        read write read_async write_async read_now read_with read_optimistic is_in_process description clock
    }
}

impl<F: Fn(Moment) + Send + Sync + 'static> Clear for Hooked<F> {
    fn clear(&self) -> Result<()> {
        (self.hook)(Moment::BeforeClear);
        let cleared = BackendExt::clear(&self.inner);
        (self.hook)(Moment::AfterClear);
        cleared
    }
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

#[test]
fn callers_that_come_during_a_removal_compute_once() {
    watchdog(HANG, || {
        let clock = crate::testing::ManualClock::new();
        let (key, runs) = (key(), AtomicUsize::new(0));
        let hook = {
            let clock = clock.clone();
            move |_| until(|| clock.sleepers() == 8)
        };
        let inner = MapBackend::with_clock(clock);
        let backend = Hooked { inner, has_leases: false, hook };
        let cache: Cache<_, ByReference> = Cache::with_backend(backend);
        std::thread::scope(|scope| {
            scope.spawn(|| cache.remove(&key).expect("removed"));
            until(|| cache.stats().in_flight == 1);
            for _ in 0..8 {
                scope.spawn(|| {
                    cache.get_or_insert_with(&key, HOUR, || runs.fetch_add(1, Ordering::SeqCst))
                });
            }
        });
        assert_eq!(runs.load(Ordering::SeqCst), 1);
        assert_eq!(cache.get(&key).expect("get"), Some(0_usize));
    });
}

#[test]
fn update_that_read_its_entry_before_a_clear_leaves_none() {
    /// The clear has begun (1), the update runs (2), the entries are gone (3), the update has returned (4).
    static STEP: AtomicUsize = AtomicUsize::new(0);
    fn is_reached(step: usize) -> bool {
        STEP.load(Ordering::SeqCst) >= step
    }
    for ends_before_the_clear in [false, true] {
        watchdog(HANG, move || {
            STEP.store(0, Ordering::SeqCst);
            let hook = move |moment| match moment {
                Moment::BeforeDelete => {}
                Moment::BeforeClear => {
                    STEP.store(1, Ordering::SeqCst);
                    until(|| is_reached(2));
                }
                Moment::AfterClear => {
                    STEP.store(3, Ordering::SeqCst);
                    until(|| is_reached(if ends_before_the_clear { 4 } else { 3 }));
                }
            };
            let inner = MapBackend::default();
            let backend = Hooked { inner, has_leases: false, hook };
            let (cache, key) = (Cache::with_backend(backend), key());
            let cache: &Cache<_, ByReference> = &cache;
            cache.set(&key, &5_usize, HOUR).expect("set");
            std::thread::scope(|scope| {
                scope.spawn(|| cache.clear().expect("cleared"));
                until(|| is_reached(1));
                let update = |old: Option<usize>| {
                    STEP.store(2, Ordering::SeqCst);
                    until(|| is_reached(3));
                    increment(old)
                };
                assert_eq!(cache.update_with(&key, HOUR, update).expect("updated"), 6);
                STEP.store(4, Ordering::SeqCst);
            });
            assert_eq!(cache.get::<usize>(&key).expect("get"), None);
        });
    }
}

#[test]
fn update_is_stored_if_its_lease_cannot_be_released() {
    let (inner, hook) = (MapBackend::default(), |_| ());
    let backend = Hooked { inner, has_leases: true, hook };
    let cache: Cache<_, ByReference> = Cache::with_backend(backend);
    assert_eq!(cache.update_with(&key(), HOUR, increment).expect("updated"), 1);
    assert_eq!(cache.get(&key()).expect("get"), Some(1_usize));
    assert_eq!(cache.stats().errors, 1);
}

#[test]
fn update_replaces_a_computation_in_progress() {
    watchdog(HANG, || {
        let (cache, key) = (map(), key());
        let computed = cache.get_or_insert_with(&key, HOUR, || {
            std::thread::scope(|scope| {
                let update = scope.spawn(|| cache.update_with(&key, HOUR, increment));
                assert_eq!(update.join().expect("no panic").expect("updated"), 1);
            });
            7_usize
        });
        assert_eq!((computed, cache.get(&key).expect("get")), (7, Some(1_usize)));
        assert_eq!(cache.update_with(&key, HOUR, increment).expect("updated"), 2);
    });
}

#[test]
fn update_of_the_same_key_in_an_update_is_an_error() {
    watchdog(HANG, || {
        let (cache, key) = (map(), key());
        let outer = cache.update_with(&key, HOUR, |old: Option<usize>| {
            let inner = cache.update_with(&key, HOUR, increment);
            assert_eq!(inner.expect_err("it would wait for itself").kind(), ErrorKind::Timeout);
            let other = Key::from_text("counter", "other");
            increment(old) + cache.update_with(&other, HOUR, increment).expect("another key")
        });
        assert_eq!(outer.expect("updated"), 2);
    });
}

#[test]
fn panic_of_an_update_and_an_error_leave_the_old_value() {
    let (cache, key) = (map(), key());
    cache.set(&key, &5_usize, HOUR).expect("set");
    let panics = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let _ = cache.update_with(&key, HOUR, |_: Option<usize>| panic!("planned"));
    }));
    assert!(panics.is_err());
    assert_eq!(cache.stats().in_flight, 0);
    assert!(cache.update_with(&key, Duration::ZERO, increment).is_err());
    cache.backend().set_fault(Fault::FailsReads);
    assert!(cache.update_with(&key, HOUR, increment).is_err(), "the old value is unknown");
    cache.backend().set_fault(Fault::FailsWrites);
    assert!(cache.update_with(&key, HOUR, increment).is_err());
    cache.backend().set_fault(None);
    assert_eq!(cache.update_with(&key, HOUR, increment).expect("updated"), 6);
}

#[test]
fn update_in_a_pause_stores_nothing_and_one_past_the_ttl_finds_nothing() {
    let clock = crate::testing::ManualClock::new();
    let cache: Cache<MapBackend<AnyValue>, ByReference> =
        Cache::with_backend(MapBackend::with_clock(clock.clone()));
    let key = key();
    cache.set(&key, &5_usize, HOUR).expect("set");
    let pause = cache.pause();
    assert_eq!(cache.update_with(&key, HOUR, increment).expect("no fault"), 1);
    pause.resume();
    assert_eq!(cache.update_with(&key, HOUR, increment).expect("updated"), 6);
    clock.advance(HOUR);
    assert_eq!(cache.update_with(&key, HOUR, increment).expect("updated"), 1);
}

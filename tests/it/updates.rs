//! `Cache::update_with` on every backend.

use std::pin::pin;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Cache, ErrorKind, FileCache, FileOptions, FlightContext, Key, SingleFlight};

use crate::{HANG, with_every_backend};

const HOUR: Duration = Duration::from_secs(3600);

trait Stores<B: Backend>: Serializer<u32, Stored = B::Stored> + Clone + Sync {}
impl<B: Backend, S: Serializer<u32, Stored = B::Stored> + Clone + Sync> Stores<B> for S {}

fn increment(old: Option<u32>) -> u32 {
    old.unwrap_or(0) + 1
}

fn check_counter<B: Backend, S: Stores<B>>(open: impl Fn(ManualClock) -> Cache<B, S>) {
    let cache = open(ManualClock::new());
    let key = Key::from_text("counters", "k").with_tags(["t"]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (cache, key) = (&cache, &key);
            scope.spawn(move || {
                for _ in 0..50 {
                    if thread % 2 == 0 {
                        cache.update_with(key, HOUR, increment).expect("updated");
                    } else {
                        let update = cache.update_with_async(key, HOUR, increment);
                        smol::block_on(update).expect("updated");
                    }
                }
            });
        }
    });
    assert_eq!(cache.get::<u32>(&key).expect("get"), Some(200));
    for n in 0..3_u32 {
        cache.invalidate_tag("t").expect("bumped");
        assert_eq!(cache.update_with(&key, HOUR, increment).expect("updated"), 1, "{n}");
        assert_eq!(cache.update_with(&key, HOUR, increment).expect("updated"), 2, "{n}");
        assert!(cache.remove(&key).expect("removed"));
        assert_eq!(cache.update_with(&key, HOUR, increment).expect("updated"), 1, "{n}");
        assert_eq!(cache.update_with(&key, HOUR, increment).expect("updated"), 2, "{n}");
    }
}

#[test]
fn counter_keeps_all_increments_on_every_backend() {
    watchdog(HANG, || with_every_backend!(check_counter));
}

#[test]
fn updates_of_caches_that_share_a_directory_exclude_one_another() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().expect("a directory");
        let key = Key::from_text("counters", "shared");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let options = FileOptions::new().single_flight(SingleFlight::Everywhere);
                    let cache = options.open(place.path()).expect("a cache");
                    for _ in 0..20 {
                        cache.update_with(&key, HOUR, increment).expect("updated");
                    }
                });
            }
        });
        let cache = FileOptions::new().open(place.path()).expect("a cache");
        assert_eq!(cache.get::<u32>(&key).expect("get"), Some(60));
    });
}

/// Opens a cache with leases whose calls wait without a limit.
fn with_leases(directory: &std::path::Path) -> FileCache {
    let options = FileOptions::new().single_flight(SingleFlight::Everywhere);
    options.open(directory).expect("a cache").with_max_wait(Duration::MAX)
}

fn assert_is_refused(result: vayu::Result<u32>) {
    assert_eq!(result.expect_err("it would wait for itself").kind(), ErrorKind::Timeout);
}

#[test]
fn update_in_a_computation_that_holds_the_lease_of_its_key_is_an_error() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().expect("a directory");
        let cache = &with_leases(place.path());
        for removes_first in [false, true] {
            let key = &Key::from_text("counters", format!("{removes_first}"));
            let computed = cache.get_or_insert_with(key, HOUR, || {
                if removes_first {
                    cache.remove(key).expect("removed");
                }
                assert_is_refused(cache.update_with(key, HOUR, increment));
                let context = FlightContext::current();
                std::thread::scope(|scope| {
                    let update = || cache.update_with(key, HOUR, increment);
                    let below = scope.spawn(move || context.in_scope(update));
                    assert_is_refused(below.join().expect("no panic"));
                });
                7_u32
            });
            assert_eq!(computed, 7);
            let stored = if removes_first { 0 } else { 7 };
            assert_eq!(cache.update_with(key, HOUR, increment).expect("updated"), stored + 1);
        }
    });
}

#[test]
fn update_waits_for_a_computation_that_holds_the_lease() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().expect("a directory");
        let (cache, key) = (&with_leases(place.path()), &Key::from_text("counters", "long"));
        let is_running = &Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let computed = cache.get_or_insert_with(key, HOUR, || {
                    is_running.wait();
                    std::thread::sleep(Duration::from_millis(100));
                    7_u32
                });
                assert_eq!(computed, 7);
            });
            is_running.wait();
            assert_eq!(cache.update_with(key, HOUR, increment).expect("updated"), 8);
        });
        assert_eq!(cache.get::<u32>(key).expect("get"), Some(8));
    });
}

#[test]
fn sync_update_on_the_thread_of_a_pending_computation_with_a_lease_is_an_error() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().expect("a directory");
        let (cache, key) = (with_leases(place.path()), Key::from_text("counters", "pending"));
        let is_running = AtomicBool::new(false);
        smol::block_on(async {
            let body = async {
                is_running.store(true, Ordering::SeqCst);
                smol::future::yield_now().await;
                7_u32
            };
            let mut leader = pin!(cache.get_or_insert_with_async(&key, HOUR, body));
            while !is_running.load(Ordering::SeqCst) {
                assert!(smol::future::poll_once(&mut leader).await.is_none());
            }
            assert_is_refused(cache.update_with(&key, HOUR, increment));
            assert_eq!(leader.await, 7);
            assert_eq!(cache.update_with(&key, HOUR, increment).expect("updated"), 8);
        });
    });
}

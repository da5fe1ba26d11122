//! `Cache::update_with` on every backend.

use std::time::Duration;

use vayu::backend::{Backend, Serializer};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Cache, FileOptions, Key, SingleFlight};

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

//! Memory in front of another cache, as far as no server is needed.

use std::time::Duration;

use vayu::testing::{Fault, FaultyBackend, ManualClock, MapBackend};
use vayu::{Cache, ErrorKind, MessagePack, Tiered, cached, tiered};

use crate::Runs;

type Far = FaultyBackend<MapBackend>;

#[cached(cache = cache, ttl = "1m", prefix = "fact", skip(cache, runs))]
fn fact(cache: &Tiered<Far>, runs: &Runs, n: u32) -> usize {
    runs.count() * 100 + n as usize
}

/// What is not stored below, and is in memory all the same.
#[cached(cache = cache, ttl = "1m", prefix = "nested", key = "nested")]
fn nested(cache: &Tiered<Far>, runs: &Runs) -> Option<Option<u8>> {
    runs.count();
    Some(None)
}

fn far(clock: &ManualClock) -> Cache<Far, MessagePack> {
    Cache::with_backend(FaultyBackend::new(MapBackend::with_clock(clock.clone())))
}

#[test]
fn expired_copy_does_not_hide_a_newer_value_below() {
    let (clock, runs) = (ManualClock::new(), Runs::new());
    let far = far(&clock);
    let (one, other) = (tiered(&far), tiered(&far));
    assert_eq!((fact(&one, &runs, 7), fact(&other, &runs, 7)), (107, 107));
    clock.advance(Duration::from_secs(60));
    assert_eq!(fact(&other, &runs, 7), 207);
    let key = vayu::Key::new("fact", &(7_u32,)).unwrap();
    assert_eq!(one.get::<usize>(&key).unwrap(), Some(207));
    assert_eq!(fact(&one, &runs, 7), 207, "the other one has computed it");
    assert_eq!(runs.get(), 2);
}

#[test]
fn copy_lives_for_the_rest_of_the_time_and_no_longer() {
    let (clock, runs) = (ManualClock::new(), Runs::new());
    let far = far(&clock);
    let (one, other) = (tiered(&far), tiered(&far));
    fact(&one, &runs, 7);
    clock.advance(Duration::from_secs(59));
    assert_eq!(fact(&other, &runs, 7), 107, "read below a second before its end");
    clock.advance(Duration::from_secs(1));
    assert_eq!(fact(&other, &runs, 7), 207);
}

#[test]
fn hit_in_memory_asks_nobody() {
    let (clock, runs) = (ManualClock::new(), Runs::new());
    let far = far(&clock);
    let cache = tiered(&far);
    fact(&cache, &runs, 7);
    far.backend().set_fault(Fault::ReadPanics);
    for _ in 0..10 {
        assert_eq!(fact(&cache, &runs, 7), 107);
    }
    assert_eq!((cache.stats().hits, cache.stats().errors), (10, 0));
}

#[test]
fn value_that_is_not_taken_below_is_in_memory() {
    let (clock, runs) = (ManualClock::new(), Runs::new());
    let far = far(&clock);
    let cache = tiered(&far);
    far.backend().set_fault(Fault::WriteFails);
    assert_eq!((fact(&cache, &runs, 7), fact(&cache, &runs, 7)), (107, 107));
    assert_eq!(cache.stats().errors_of(ErrorKind::Backend), 1);
    far.backend().set_fault(None);
    let runs = Runs::new();
    assert_eq!((nested(&cache, &runs), nested(&cache, &runs)), (Some(None), Some(None)));
    assert_eq!(runs.get(), 1, "memory gives back what the format cannot");
    assert_eq!(cache.stats().errors_of(ErrorKind::Encode), 1);
    assert_eq!(nested(&tiered(&far), &runs), Some(None));
    assert_eq!(runs.get(), 2, "and it is nowhere else");
}

#[test]
fn cache_below_has_what_the_tiers_write_and_they_read_what_it_has() {
    let clock = ManualClock::new();
    let far = far(&clock);
    let cache = tiered(&far);
    let (key, minute) = (vayu::Key::from_text("p", "k"), Duration::from_secs(60));
    cache.set(&key, &vec![1_u8, 2], minute).unwrap();
    assert_eq!(far.get::<Vec<u8>>(&key).unwrap(), Some(vec![1, 2]));
    let other = vayu::Key::from_text("p", "other");
    far.set(&other, &"text".to_owned(), minute).unwrap();
    assert_eq!(cache.get::<String>(&other).unwrap().as_deref(), Some("text"));
    assert_eq!(cache.get::<String>(&other).unwrap().as_deref(), Some("text"));
    assert_eq!(cache.get::<u64>(&other).unwrap(), None, "it is of another type");
    assert_eq!(cache.backend().tier_stats().found, 1);
    assert!(cache.remove(&key).unwrap());
    assert_eq!(far.get::<Vec<u8>>(&key).unwrap(), None);
}

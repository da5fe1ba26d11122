//! Memory in front of another cache, without a server.

use std::time::Duration;

use vayu::testing::{Fault, FaultyBackend, ManualClock, MapBackend};
use vayu::{Cache, ErrorKind, FileOptions, Key, MessagePack, TieredCache, TieredOptions, cached};

use crate::Runs;

type Backing = FaultyBackend<MapBackend>;

#[cached(cache = cache, ttl = "1m", prefix = "fact", skip(cache, runs))]
fn fact(cache: &TieredCache<Backing>, runs: &Runs, n: u32) -> usize {
    runs.count() * 100 + n as usize
}

/// A value that the serializer cannot return unchanged, so that it is stored in memory only.
#[cached(cache = cache, ttl = "1m", prefix = "nested", key = "nested")]
fn nested(cache: &TieredCache<Backing>, runs: &Runs) -> Option<Option<u8>> {
    runs.count();
    Some(None)
}

fn backing(clock: &ManualClock) -> Cache<Backing, MessagePack> {
    Cache::with_backend(FaultyBackend::new(MapBackend::with_clock(clock.clone())))
}

#[test]
fn expired_copy_does_not_hide_a_newer_value_of_the_backing_tier() {
    let (clock, runs) = (ManualClock::new(), Runs::new());
    let backing = backing(&clock);
    let (one, other) = (TieredOptions::new().over(&backing), TieredOptions::new().over(&backing));
    assert_eq!((fact(&one, &runs, 7), fact(&other, &runs, 7)), (107, 107));
    clock.advance(Duration::from_secs(60));
    assert_eq!(fact(&other, &runs, 7), 207);
    let key = vayu::Key::new("fact", &(7_u32,)).unwrap();
    assert_eq!(one.get::<usize>(&key).unwrap(), Some(207));
    assert_eq!(fact(&one, &runs, 7), 207, "the other cache has computed it");
    assert_eq!(runs.get(), 2);
}

#[test]
fn copy_expires_with_the_entry_of_the_backing_tier() {
    let (clock, runs) = (ManualClock::new(), Runs::new());
    let backing = backing(&clock);
    let (one, other) = (TieredOptions::new().over(&backing), TieredOptions::new().over(&backing));
    fact(&one, &runs, 7);
    clock.advance(Duration::from_secs(59));
    assert_eq!(
        fact(&other, &runs, 7),
        107,
        "read from the backing tier a second before it expires"
    );
    clock.advance(Duration::from_secs(1));
    assert_eq!(fact(&other, &runs, 7), 207);
}

#[test]
fn memory_hit_does_not_access_the_backing_tier() {
    let (clock, runs) = (ManualClock::new(), Runs::new());
    let backing = backing(&clock);
    let cache = TieredOptions::new().over(&backing);
    fact(&cache, &runs, 7);
    backing.backend().set_fault(Fault::PanicsInReads);
    for _ in 0..10 {
        assert_eq!(fact(&cache, &runs, 7), 107);
    }
    assert_eq!((cache.stats().hits, cache.stats().errors), (10, 0));
}

#[test]
fn value_that_the_backing_tier_cannot_store_is_in_memory() {
    let (clock, runs) = (ManualClock::new(), Runs::new());
    let backing = backing(&clock);
    let cache = TieredOptions::new().over(&backing);
    backing.backend().set_fault(Fault::FailsWrites);
    assert_eq!((fact(&cache, &runs, 7), fact(&cache, &runs, 7)), (107, 107));
    assert_eq!(cache.stats().errors_of(ErrorKind::Backend), 1);
    backing.backend().set_fault(None);
    let runs = Runs::new();
    assert_eq!((nested(&cache, &runs), nested(&cache, &runs)), (Some(None), Some(None)));
    assert_eq!(runs.get(), 1, "memory returns what the format cannot");
    assert_eq!(cache.stats().errors_of(ErrorKind::Encode), 1);
    assert_eq!(nested(&TieredOptions::new().over(&backing), &runs), Some(None));
    assert_eq!(runs.get(), 2, "the backing tier has no value");
}

#[test]
fn writes_reach_the_backing_cache_and_reads_use_it() {
    let clock = ManualClock::new();
    let backing = backing(&clock);
    let cache = TieredOptions::new().over(&backing);
    let (key, minute) = (vayu::Key::from_text("p", "k"), Duration::from_secs(60));
    cache.set(&key, &vec![1_u8, 2], minute).unwrap();
    assert_eq!(backing.get::<Vec<u8>>(&key).unwrap(), Some(vec![1, 2]));
    let other = vayu::Key::from_text("p", "other");
    backing.set(&other, &"text".to_owned(), minute).unwrap();
    assert_eq!(cache.get::<String>(&other).unwrap().as_deref(), Some("text"));
    assert_eq!(cache.get::<String>(&other).unwrap().as_deref(), Some("text"));
    assert_eq!(cache.get::<u64>(&other).unwrap(), None, "it is of another type");
    assert_eq!(cache.backend().tier_stats().hits, 1);
    assert!(cache.remove(&key).unwrap());
    assert_eq!(backing.get::<Vec<u8>>(&key).unwrap(), None);
}

#[cached(cache = cache, ttl = "1m", stale = "1m", prefix = "number", skip(cache, source), handle = number_entry, log = false)]
fn number(cache: &TieredCache<Backing>, n: u32, source: u64) -> u64 {
    source
}

#[cached(cache = cache, ttl = "1m", prefix = "text", skip(cache, source), handle = text_entry, log = false)]
fn text(cache: &TieredCache<Backing>, n: u32, source: &str) -> String {
    source.to_owned()
}

#[cached(cache = cache, ttl = "1m", prefix = "text", skip(cache, source), log = false)]
async fn text_async(cache: &TieredCache<Backing>, n: u32, source: &str) -> String {
    source.to_owned()
}

/// This backing tier has no invalidation feed.
#[test]
fn near_ttl_bounds_how_long_memory_serves_a_copy() {
    let clock = ManualClock::new();
    let backing = backing(&clock);
    let options = || TieredOptions::new().near_ttl(Duration::from_secs(10));
    let (one, other) = (options().over(&backing), TieredOptions::new().over(&backing));
    assert_eq!((number(&one, 7, 1), text(&one, 7, "a")), (1, "a".to_owned()));
    let key = |prefix| vayu::Key::new(prefix, &(7_u32,)).unwrap();
    let (number_key, text_key) = (key("number"), key("text"));
    let minute = Duration::from_secs(60);
    for round in 1..=4_u64 {
        let before = one.backend().tier_stats().hits;
        clock.advance(Duration::from_secs(9));
        for _ in 0..200 {
            assert_eq!(number(&one, 7, 0), round, "also where it is read without a lock");
            assert_eq!(text(&one, 7, "z"), ["a", "b", "c", "d"][round as usize - 1]);
        }
        assert_eq!(one.backend().tier_stats().hits, before, "it is in memory");
        // It does not change the ttl.
        let left = number_entry(&one, 7, 0).ttl_left().unwrap();
        let text_left = text_entry(&one, 7, "z").ttl_left().unwrap();
        let expected = minute - Duration::from_secs(if round == 1 { 9 } else { 10 });
        assert_eq!((left, text_left), (Some(expected), Some(expected)));
        let next = ["b", "c", "d", "e"][round as usize - 1];
        other.set(&number_key, &(round + 1), minute).unwrap();
        other.set(&text_key, &next.to_owned(), minute).unwrap();
        clock.advance(Duration::from_secs(1));
        assert_eq!(number(&one, 7, 0), round + 1);
        assert_eq!(smol::block_on(text_async(&one, 7, "z")), next);
    }
}

#[test]
fn near_ttl_applies_while_the_backing_tier_fails() {
    let clock = ManualClock::new();
    let backing = backing(&clock);
    let cache = TieredOptions::new().near_ttl(Duration::from_secs(10)).over(&backing);
    assert_eq!((number(&cache, 7, 1), text(&cache, 7, "a")), (1, "a".to_owned()));
    backing.backend().set_fault(Fault::FailsReads);
    clock.advance(Duration::from_secs(9));
    assert_eq!((number(&cache, 7, 2), text(&cache, 7, "b")), (1, "a".to_owned()));
    clock.advance(Duration::from_secs(1));
    assert_eq!((number(&cache, 7, 2), text(&cache, 7, "b")), (2, "b".to_owned()));
}

#[test]
fn near_ttl_above_the_ttl_has_no_effect_and_zero_disables_memory() {
    let clock = ManualClock::new();
    let backing = backing(&clock);
    let long = TieredOptions::new().near_ttl(Duration::MAX).over(&backing);
    assert_eq!((text(&long, 1, "a"), number(&long, 1, 1)), ("a".to_owned(), 1));
    clock.advance(Duration::from_secs(59));
    assert_eq!((text(&long, 1, "b"), number(&long, 1, 2)), ("a".to_owned(), 1));
    clock.advance(Duration::from_secs(1));
    assert_eq!(text(&long, 1, "b"), "b");
    let none = TieredOptions::new().near_ttl(Duration::ZERO).over(&backing);
    for _ in 0..5 {
        assert_eq!(text(&none, 1, "c"), "b");
    }
    assert_eq!(none.backend().tier_stats().hits, 5);
}

#[test]
fn update_that_the_backing_tier_refuses_is_not_stored_in_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let files = FileOptions::new().clock(ManualClock::new()).max_entry_bytes(4096);
    let cache = TieredOptions::new().over(&files.open(directory.path()).expect("a cache"));
    let (key, hour) = (Key::from_text("updates", "k"), Duration::from_secs(3600));
    let append = |old: Option<String>| old.unwrap_or_default() + &"x".repeat(3000);
    cache.update_with(&key, hour, append).expect("it is short enough");
    let length = || cache.get::<String>(&key).expect("read").map(|value| value.len());
    for _ in 0..2 {
        let error = cache.update_with(&key, hour, append).expect_err("it is too long");
        assert_eq!((error.kind(), length()), (ErrorKind::Configuration, Some(3000)));
        let update = cache.update_with_async(&key, hour, append);
        let error = smol::block_on(update).expect_err("it is too long");
        assert_eq!((error.kind(), length()), (ErrorKind::Configuration, Some(3000)));
    }
}

#[test]
fn update_that_is_tried_again_after_a_failed_write_takes_effect_once() {
    let backing = backing(&ManualClock::new());
    let cache = TieredOptions::new().over(&backing);
    let (key, hour) = (Key::from_text("updates", "k"), Duration::from_secs(3600));
    let increment = |old: Option<u32>| old.unwrap_or(0) + 1;
    assert_eq!(cache.update_with(&key, hour, increment).expect("updated"), 1);
    backing.backend().set_fault(Fault::FailsWrites);
    cache.update_with(&key, hour, increment).expect_err("the backing tier is down");
    assert_eq!(cache.get::<u32>(&key).expect("read"), Some(1));
    backing.backend().set_fault(None);
    assert_eq!(cache.update_with(&key, hour, increment).expect("updated"), 2);
}

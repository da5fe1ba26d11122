use super::*;
use crate::sync::block_on;

#[test]
fn hit_returns_while_all_locks_of_the_flights_are_held() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let cache = &fixture.cache;
        cache.set(&key("k"), &7_u64, MINUTE).expect("write");
        let locks = cache.engine().flights().lock_all();
        assert_eq!(cache.get_or_insert_with(&key("k"), MINUTE, || 0_u64), 7);
        let key = key("k");
        let hit = cache.get_or_insert_with_async(&key, MINUTE, async { 0_u64 });
        assert_eq!(block_on(hit), 7);
        drop(locks);
        assert_eq!(cache.stats().hits, 2);
    });
}

#[test]
fn calls_are_hits_misses_or_waits() {
    let fixture = Fixture::new();
    for _ in 0..3 {
        fixture.cache.get_or_insert_with(&key("k"), MINUTE, || fixture.run());
    }
    let stats = fixture.cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.coalesced, stats.inserts), (2, 1, 0, 1));
    assert_eq!(stats.calls(), 3);
}

#[test]
fn paused_cache_neither_reads_nor_stores_until_every_pause_has_ended() {
    let fixture = Fixture::new();
    let cache = &fixture.cache;
    let call = || cache.get_or_insert_with(&key("k"), MINUTE, || fixture.run());
    assert_eq!(call(), 1);
    let first = cache.pause();
    let second = cache.pause();
    assert_eq!(call(), 2);
    first.resume();
    assert_eq!(call(), 3);
    drop(second);
    assert_eq!(call(), 1, "what was stored before is still there");
}

#[test]
fn clone_is_the_same_cache() {
    let fixture = Fixture::new();
    fixture.cache.clone().set(&key("k"), &1_u8, MINUTE).expect("write");
    assert_eq!(fixture.cache.get::<u8>(&key("k")).expect("read"), Some(1));
}

#[test]
fn value_of_another_type_under_the_same_key_is_a_miss() {
    let fixture = Fixture::new();
    fixture.cache.set(&key("k"), &1_u8, MINUTE).expect("write");
    assert_eq!(fixture.cache.get_or_insert_with(&key("k"), MINUTE, || "text"), "text");
    assert_eq!(fixture.cache.get::<u8>(&key("k")).expect("read"), None);
}

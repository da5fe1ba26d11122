//! Removal and replacement during a computation.

use super::*;
use crate::sync::block_on;

/// Makes a call whose body runs other code in the middle.
fn call_with(fixture: &Fixture, middle: impl FnOnce()) -> usize {
    fixture.cache.get_or_insert_with(&key("k"), MINUTE, || {
        let run = fixture.run();
        middle();
        run
    })
}

#[test]
fn value_computed_across_a_remove_goes_to_its_callers_and_is_not_stored() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                call_with(&fixture, || {
                    fixture.until_waiting(1);
                    fixture.cache.remove(&key("k")).expect("remove");
                })
            });
            until(|| fixture.cache.stats().in_flight == 1);
            let waiter = scope.spawn(|| call_with(&fixture, || ()));
            assert_eq!(leader.join().expect("the leader"), 1);
            assert_eq!(waiter.join().expect("the waiter"), 1);
        });
        assert_eq!(fixture.cache.get::<usize>(&key("k")).expect("read"), None);
    });
}

#[test]
fn caller_that_comes_after_a_remove_does_not_get_the_older_value() {
    let fixture = Fixture::new();
    let older = call_with(&fixture, || {
        fixture.cache.remove(&key("k")).expect("remove");
        // Inside the body, but the flight of the body is no longer that of the key.
        assert_eq!(call_with(&fixture, || ()), 2);
    });
    assert_eq!(older, 1);
    assert_eq!(call_with(&fixture, || ()), 2, "the older value has not overwritten the newer");
}

#[test]
fn value_that_was_set_during_a_computation_stays() {
    let fixture = Fixture::new();
    call_with(&fixture, || fixture.cache.set(&key("k"), &100_usize, MINUTE).expect("write"));
    assert_eq!(call_with(&fixture, || ()), 100);
    let fixture = Fixture::new();
    call_with(&fixture, || {
        block_on(fixture.cache.set_async(&key("k"), &100_usize, MINUTE)).expect("write");
    });
    assert_eq!(call_with(&fixture, || ()), 100);
}

#[test]
fn clear_reaches_what_is_being_computed() {
    let fixture = Fixture::new();
    call_with(&fixture, || fixture.cache.clear().expect("clear"));
    assert_eq!(fixture.cache.get::<usize>(&key("k")).expect("read"), None);
    call_with(&fixture, || block_on(fixture.cache.clear_async()).expect("clear"));
    assert_eq!(fixture.cache.get::<usize>(&key("k")).expect("read"), None);
}

#[test]
fn remove_returns_whether_there_was_an_entry() {
    let fixture = Fixture::new();
    assert!(!fixture.cache.remove(&key("k")).expect("remove"));
    call_with(&fixture, || ());
    assert!(block_on(fixture.cache.remove_async(&key("k"))).expect("remove"));
    assert!(!block_on(fixture.cache.remove_async(&key("k"))).expect("remove"));
}

/// Tests writers that increase a version and then remove the key: no later read may return an older one.
#[test]
fn nothing_older_than_an_invalidation_is_ever_read_after_it() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let version = AtomicUsize::new(0);
        let rounds = if cfg!(miri) { 10 } else { 5_000 };
        let is_over = std::sync::atomic::AtomicBool::new(false);
        thread::scope(|scope| {
            for is_async in [false, true] {
                let (fixture, version, is_over) = (&fixture, &version, &is_over);
                scope.spawn(move || {
                    while !is_over.load(Ordering::SeqCst) {
                        let compute = || version.load(Ordering::SeqCst);
                        if is_async {
                            let body = async { compute() };
                            let key = key("k");
                            block_on(fixture.cache.get_or_insert_with_async(&key, MINUTE, body));
                        } else {
                            fixture.cache.get_or_insert_with(&key("k"), MINUTE, compute);
                        }
                    }
                });
            }
            for _ in 0..rounds {
                let newest = version.fetch_add(1, Ordering::SeqCst) + 1;
                fixture.cache.remove(&key("k")).expect("remove");
                let stored = fixture.cache.get::<usize>(&key("k")).expect("read");
                assert!(stored.is_none_or(|stored| stored >= newest), "{stored:?} < {newest}");
            }
            is_over.store(true, Ordering::SeqCst);
        });
    });
}

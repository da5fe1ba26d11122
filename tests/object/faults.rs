//! Stores that fail, hang, lie, and hold objects of others: each costs a run of the function, and nothing else.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use vayu::backend::{Backend, BackendExt};
use vayu::testing::{ManualClock, watchdog};
use vayu::{ErrorKind, Key, ObjectCache, ObjectOptions, cached};

use crate::faulty_store::{Fault, FaultyStore};
use crate::{HANG, cache, cache_with, recorder, until};

const HOUR: Duration = Duration::from_secs(3600);

#[cached(cache = cache, ttl = "1h", prefix = "value", skip(cache))]
fn value(cache: &ObjectCache, n: u64) -> String {
    format!("value {n}").repeat(10)
}

fn expected(n: u64) -> String {
    format!("value {n}").repeat(10)
}

/// Opens a cache that waits for a short time, and whose breaker does not open.
fn impatient(store: &Arc<FaultyStore>) -> ObjectCache {
    let options = ObjectOptions::new().timeout(Duration::from_millis(50));
    cache_with(store, options.circuit_breaker(u32::MAX, HOUR))
}

#[test]
fn every_fault_costs_a_run_and_no_value() {
    let faults = [
        Fault::Fails,
        Fault::Denies,
        Fault::Hangs,
        Fault::Panics,
        Fault::BodyFails(20),
        Fault::BodyEnds(0),
        Fault::BodyEnds(20),
        Fault::BodyEnds(90),
        Fault::BodyHangs(20),
        Fault::BodyIsEndless,
        Fault::Announces(0),
        Fault::Announces(10),
        Fault::Announces(1 << 30),
        Fault::Announces(u64::MAX),
        Fault::LosesReplies,
    ];
    for fault in faults {
        watchdog(HANG, move || {
            let store = FaultyStore::new();
            let cache = impatient(&store);
            assert_eq!(value(&cache, 1), expected(1));
            store.set(fault);
            assert_eq!(value(&cache, 1), expected(1), "{fault:?}");
            assert_eq!(value(&cache, 2), expected(2), "{fault:?}");
            store.set(Fault::None);
            assert_eq!(value(&cache, 1), expected(1), "{fault:?}");
            value(&cache, 3);
            let hits = cache.stats().hits;
            assert_eq!(value(&cache, 3), expected(3));
            assert_eq!(cache.stats().hits, hits + 1, "{fault:?}: the cache works again");
        });
    }
}

#[test]
fn timeout_bounds_an_operation_and_the_rest_of_the_call_does_without_the_store() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = impatient(&store);
        store.set(Fault::Hangs);
        let began = Instant::now();
        value(&cache, 1);
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(store.take_requests(), 1);
        let error = cache.backend().read(&Key::from_text("a", "b")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(format!("{error:?}"), "read entry: object store faulty: not done within 50ms");
        for keys in [1, 40] {
            let keys: Vec<_> = (0..keys).map(|n| Key::from_text("a", format!("{n}"))).collect();
            let keys: Vec<_> = keys.iter().collect();
            store.take_requests();
            let results = cache.backend().read_many(&keys);
            assert!(results.iter().all(Result::is_err));
            assert!(
                store.take_requests() <= 16,
                "no further request is sent to a store that hangs"
            );
        }
    });
}

#[test]
fn open_circuit_costs_no_request_and_a_probe_closes_it() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache_with(&store, ObjectOptions::new().circuit_breaker(3, HOUR / 3600));
        store.set(Fault::Fails);
        let key = Key::from_text("a", "b");
        for _ in 0..3 {
            cache.backend().read(&key).unwrap_err();
        }
        assert_eq!(store.take_requests(), 3);
        for _ in 0..100 {
            let error = format!("{:?}", cache.backend().read(&key).unwrap_err());
            assert!(
                error.contains("circuit breaker open") && error.contains("as requested"),
                "{error}"
            );
        }
        assert_eq!(store.take_requests(), 0);
        store.set(Fault::None);
        until("the cooldown is over", || cache.backend().read(&key).is_ok());
    });
}

#[test]
fn refusal_is_an_error_of_its_operation_and_does_not_open_the_circuit() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache(&store);
        let key = Key::from_text("a", "b");
        cache.set(&key, &1_u64, HOUR).unwrap();
        for fault in [Fault::DeniesDeletes, Fault::FailsDeletes] {
            store.set(fault);
            for _ in 0..10 {
                assert_eq!(cache.remove(&key).unwrap_err().kind(), ErrorKind::Backend);
                assert_eq!(cache.clear().unwrap_err().kind(), ErrorKind::Backend);
            }
            assert_eq!(cache.get::<u64>(&key).unwrap(), Some(1));
        }
    });
}

#[test]
fn damaged_moved_and_foreign_objects_are_misses_that_are_counted_and_overwritten() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache(&store);
        value(&cache, 1);
        let first = store.names("/entries/").pop().unwrap();
        let whole = store.bytes(&first);
        value(&cache, 2);
        let second = store.names("/entries/").into_iter().find(|name| *name != first).unwrap();
        // Of another key, every length, every bit of the header, appended bytes, other objects.
        let mut damaged = vec![whole.to_vec()];
        damaged.extend((0..whole.len()).step_by(7).map(|length| whole[..length].to_vec()));
        let own = store.bytes(&second);
        damaged.extend((0..own.len() * 8).step_by(5).map(|bit| {
            let mut bytes = own.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
        damaged.push([&own[..], b"x"].concat());
        damaged.push([&own[..], &own[..]].concat());
        damaged.push(b"<html>not found</html>".to_vec());
        let misses = cache.stats().misses;
        let count = damaged.len() as u64;
        for bytes in damaged {
            store.replace(&second, bytes);
            assert_eq!(value(&cache, 2), expected(2));
            assert_eq!(store.bytes(&second).len(), own.len(), "it is overwritten");
        }
        let stats = cache.stats();
        assert_eq!(stats.misses - misses, count);
        assert_eq!(cache.backend().usage().corrupt_entries, Some(count));
    });
}

#[test]
fn object_that_is_too_long_is_neither_written_nor_read() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let small = cache_with(&store, ObjectOptions::new().max_entry_bytes(200));
        let key = Key::from_text("a", "b");
        let error = small.set(&key, &vec![0_u8; 1000], HOUR).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        cache(&store).set(&key, &vec![0_u8; 1000], HOUR).unwrap();
        assert_eq!(small.get::<Vec<u8>>(&key).unwrap(), None);
        assert_eq!(small.backend().usage().corrupt_entries, Some(1));
        assert_eq!(small.backend().usage().max_entry_bytes, Some(200));
    });
}

#[test]
fn entry_expires_by_its_own_time_whatever_the_store_keeps() {
    watchdog(HANG, || {
        let (store, clock) = (FaultyStore::new(), ManualClock::new());
        let cache = cache_with(&store, ObjectOptions::new().clock(clock.clone()));
        value(&cache, 1);
        clock.advance(HOUR);
        value(&cache, 1);
        assert_eq!(cache.stats().misses, 2);
        assert_eq!(store.names("/entries/").len(), 1);
    });
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

#[test]
fn outage_and_corruption_are_logged_once() {
    watchdog(HANG, || {
        recorder::install(
            |metadata| *metadata.level() <= tracing::Level::INFO,
            |line| {
                if line.contains("faulty and logged") {
                    LINES.lock().unwrap().push(line);
                }
            },
        );
        let logged = || std::mem::take(&mut *LINES.lock().unwrap());
        let store = FaultyStore::named(" and logged");
        let clock = ManualClock::new();
        let cooldown = Duration::from_millis(1);
        let options = ObjectOptions::new().clock(clock.clone()).circuit_breaker(2, cooldown);
        let cache = cache_with(&store, options);
        let key = Key::from_text("a", "b");
        cache.set(&key, &1_u64, HOUR).unwrap();
        let name = store.names("/entries/").pop().unwrap();
        for _ in 0..5 {
            store.replace(&name, "x");
            assert_eq!(cache.get::<u64>(&key).unwrap(), None);
        }
        let lines = logged();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("not an entry of its name"), "{lines:#?}");
        store.set(Fault::Fails);
        for _ in 0..10 {
            value(&cache, 1);
        }
        let lines = logged();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[0].contains("the call goes on without the cache"), "{lines:#?}");
        assert!(lines[1].contains("circuit breaker open for"), "{lines:#?}");
        store.set(Fault::None);
        until("the store is back", || cache.get::<u64>(&key).is_ok());
        let lines = logged();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("is back after"), "{lines:#?}");
    });
}

#[test]
fn first_part_of_clear_closes_the_circuit() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache_with(&store, ObjectOptions::new().circuit_breaker(1, HOUR / 3_600_000));
        let key = Key::from_text("a", "b");
        cache.set(&key, &1_u64, HOUR).unwrap();
        store.set(Fault::Fails);
        cache.backend().read(&key).unwrap_err();
        store.set(Fault::Holds);
        std::thread::scope(|scope| {
            let clear = scope.spawn(|| until("the cooldown is over", || cache.clear().is_ok()));
            until("it deletes", || store.held() > 0);
            cache.backend().read(&key).expect("the store has responded");
            store.resume();
            clear.join().unwrap();
        });
        assert_eq!(cache.get::<u64>(&key).unwrap(), None);
    });
}

#[test]
fn debug_of_a_cache_has_the_name_of_the_store_alone() {
    let store = FaultyStore::named(" and named");
    let cache = cache_with(&store, ObjectOptions::new());
    let shown = format!("{:?}", cache.backend());
    assert!(shown.contains("object store faulty and named"), "{shown}");
    assert!(!shown.contains("InMemory"), "the Debug of a store may contain credentials: {shown}");
}

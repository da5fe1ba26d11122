use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vayu_core::testing::watchdog;
use vayu_core::{
    AnyValue, Backend, InlineValue, Key, Prefix, Record, SerializerId, Timestamp, ValueClass,
};

use crate::seqlock::table::Table;
use crate::{MemoryBackend, MemoryOptions};

const END: Timestamp = Timestamp::NEVER;

fn record<T: Send + Sync + 'static>(value: T) -> Record<AnyValue> {
    Record::new(AnyValue::new(value), Timestamp::default(), END)
}

fn backend(entries: u64) -> MemoryBackend {
    MemoryBackend::with_options(MemoryOptions::new().max_entries(entries))
}

fn key(n: u64) -> Key {
    Key::new("slots", &(n,)).expect("a key")
}

/// A key that is too long for a narrow slot.
fn long_key(n: u64) -> Key {
    Key::new("slots", &("fifteen letters", n)).expect("a key")
}

fn number(record: Option<Record<InlineValue>>) -> Option<u64> {
    record.and_then(|record| record.value().downcast())
}

/// Reads a number in the map.
fn number_in_map(backend: &MemoryBackend, key: &Key) -> Option<u64> {
    let record = backend.read(key).expect("a result")?;
    record.value().downcast_ref().copied()
}

/// Writes an entry, and reads it until it has a slot.
fn promote(backend: &MemoryBackend, key: &Key, record: Record<AnyValue>) {
    backend.write(key, record).expect("it is written");
    for _ in 0..256 {
        read(backend, key);
    }
}

/// Reads an entry in the map.
fn read(backend: &MemoryBackend, key: &Key) {
    let read = backend.read_now(key, ValueClass::Inline, &mut |_| ());
    read.expect("memory does not block").expect("a result");
}

#[test]
fn numbers_by_short_keys_are_found_without_a_lock() {
    let backend = backend(1000);
    for key in [key, long_key] {
        assert!(backend.read_optimistic(&key(1)).is_none(), "nothing was written");
        backend.write(&key(1), record(77_u64)).expect("it is written");
        assert!(backend.read_optimistic(&key(1)).is_none(), "it was not read yet");
        read(&backend, &key(1));
        assert_eq!(number(backend.read_optimistic(&key(1))), Some(77));
        assert!(backend.read_optimistic(&key(2)).is_none());
    }
}

#[test]
fn record_is_found_without_a_lock_as_it_was_written() {
    let backend = backend(1000);
    let [created, expires, stale] = [-5, i64::MAX - 2, i64::MAX - 1].map(Timestamp::from_micros);
    let plain = || Record::new(AnyValue::new(-0.0_f64), created, expires);
    let records = [
        plain(),
        plain().with_compute_time(Duration::from_millis(3)),
        plain().with_schema(u64::MAX),
        plain().with_stale_until(stale),
        plain().with_serializer(SerializerId::user(3)),
        plain().with_weight(3),
    ];
    for (n, record) in records.into_iter().enumerate() {
        for key in [key(n as u64), long_key(n as u64)] {
            promote(&backend, &key, record.clone());
            let found = backend.read_optimistic(&key).expect("it has a slot");
            assert_eq!(found.value().downcast::<f64>().map(f64::to_bits), Some(1 << 63));
            assert_eq!(found.map(|_| ()), record.clone().map(|_| ()));
        }
    }
}

#[test]
fn entry_of_more_than_a_few_words_has_no_slot() {
    let backend = backend(1000);
    let no_number = Key::new("slots", &("no number",)).expect("a key");
    promote(&backend, &no_number, record("text".to_owned()));
    let long = Key::from_text("slots", "more than forty letters and spaces are too many");
    promote(&backend, &long, record(1_u64));
    for key in [no_number, long] {
        assert!(backend.read_optimistic(&key).is_none());
        assert!(backend.read(&key).expect("a result").is_some());
    }
}

#[test]
fn entry_that_is_removed_or_replaced_in_the_map_loses_its_slot() {
    let backend = backend(1000);
    for key in [key(1), long_key(1)] {
        promote(&backend, &key, record(1_u64));
        backend.write(&key, record(2_u64)).expect("it is written");
        assert_eq!(number(backend.read_optimistic(&key)), None);
        promote(&backend, &key, record(3_u64));
        assert_eq!(number(backend.read_optimistic(&key)), Some(3));
        assert!(backend.delete(&key).expect("a result"));
        assert_eq!(number(backend.read_optimistic(&key)), None);
        promote(&backend, &key, record(4_u64));
        assert_eq!(number(backend.read_optimistic(&key)), Some(4));
        backend.clear().expect("it is cleared");
        assert_eq!(number(backend.read_optimistic(&key)), None);
        read(&backend, &key);
        assert_eq!(number(backend.read_optimistic(&key)), None);
    }
}

#[test]
fn key_whose_prefix_is_static_or_owned_has_one_slot() {
    let backend = backend(1000);
    let keys = ["slots".into(), Prefix::from("slots".to_owned())].map(|p| Key::from_text(p, "k"));
    promote(&backend, &keys[0], record(1_u64));
    assert_eq!(keys.each_ref().map(|key| number(backend.read_optimistic(key))), [Some(1); 2]);
    backend.write(&keys[1], record(2_u64)).expect("it is written");
    assert_eq!(keys.each_ref().map(|key| number(backend.read_optimistic(key))), [None; 2]);
}

#[test]
fn keys_with_one_hash_are_distinguished() {
    let table: Table<2> = Table::new(16);
    table.ensure_allocated();
    let entry = |key| super::Payload { words: [key, key * 10], bits: 5 };
    table.try_fill(7, || Some(entry(1)));
    assert_eq!(table.get(7, [1], || ()), Some(entry(1)));
    assert_eq!(table.get(7, [2], || ()), None);
    // Invalidating one invalidates both.
    table.try_fill(7, || Some(entry(2)));
    table.invalidate(7);
    assert_eq!((table.get(7, [1], || ()), table.get(7, [2], || ())), (None, None));
}

#[test]
fn unused_way_is_filled_before_one_whose_entry_was_not_read() {
    let table: Table<2> = Table::new(16);
    table.ensure_allocated();
    // All of them are in the first set.
    let hashes = [4, 8, 12, 16];
    for hash in hashes {
        assert!(table.has_unused_way(hash));
        table.try_fill(hash, || Some(super::Payload { words: [hash, 0], bits: 0 }));
    }
    let one = hashes[0];
    assert!(!table.has_unused_way(one) && !table.has_unused_way(20));
    for hash in hashes {
        assert!(table.get(hash, [hash], || ()).is_some(), "{hash}");
    }
    table.invalidate(one);
    assert!(table.has_unused_way(one), "its own way is empty");
}

#[test]
fn functions_do_not_share_slots() {
    let backend = backend(1000);
    let [one, other] = [Prefix::from("one"), Prefix::from("other")]
        .map(|prefix| Key::new(prefix, &(1_u64,)).expect("a key"));
    promote(&backend, &one, record(1_u64));
    assert_eq!(number(backend.read_optimistic(&one)), Some(1));
    assert!(backend.read_optimistic(&other).is_none());
}

#[test]
fn evicted_entry_has_no_slot_and_the_limit_holds() {
    let backend = backend(64);
    for n in 0..10_000 {
        promote(&backend, &key(n), record(n));
        assert!(backend.usage().entries.expect("a count") <= 64);
    }
    let without_a_lock = (0..10_000).filter(|&n| backend.read_optimistic(&key(n)).is_some());
    let kept = (0..10_000).filter(|&n| backend.read(&key(n)).expect("a result").is_some());
    let (without_a_lock, kept) = (without_a_lock.collect::<Vec<_>>(), kept.collect::<Vec<_>>());
    assert!(!without_a_lock.is_empty());
    assert!(without_a_lock.iter().all(|n| kept.contains(n)), "{without_a_lock:?} of {kept:?}");
}

#[test]
fn entry_that_is_read_only_without_a_lock_is_not_evicted_as_unused() {
    let backend = backend(1000);
    let hot = 0..20;
    for n in hot.clone() {
        promote(&backend, &key(n), record(n));
        let _ = backend.read_optimistic(&key(n));
    }
    for n in 1000..20_000 {
        backend.write(&key(n), record(n)).expect("it is written");
        // The map prefers entries that it has read.
        for _ in 0..2 {
            assert_eq!(number_in_map(&backend, &key(n)), Some(n));
        }
        for n in hot.clone() {
            let _ = backend.read_optimistic(&key(n));
        }
    }
    let left = hot.filter(|&n| backend.read(&key(n)).expect("a result").is_some()).count();
    // Three may compete for the same two ways.
    assert!(left >= 17, "{left} of 20");
}

#[test]
fn cache_with_a_limit_by_weight_has_no_slots() {
    let options = MemoryOptions::new().max_weight(1000, |_, _| 1);
    let backend = MemoryBackend::<AnyValue>::with_options(options);
    promote(&backend, &key(1), record(1_u64));
    assert!(backend.read_optimistic(&key(1)).is_none());
}

/// A thread that has written a value reads it, or a later one, whatever others do in the meantime.
#[test]
fn no_read_returns_an_older_value_than_was_written_before() {
    const KEYS: u64 = 4;
    const TIMES: u64 = 20_000;
    watchdog(Duration::from_secs(60), || {
        let backend = backend(64);
        let last: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
        std::thread::scope(|scope| {
            for writer in 0..2 {
                let (backend, last) = (&backend, &last);
                scope.spawn(move || {
                    for value in 1..=TIMES {
                        let n = value % (KEYS / 2) * 2 + writer;
                        backend.write(&key(n), record(value)).expect("it is written");
                        last[usize::try_from(n).expect("an index")].store(value, Ordering::Release);
                    }
                });
                scope.spawn(move || {
                    for turn in 0..4 * TIMES {
                        let n = turn % KEYS;
                        let before =
                            last[usize::try_from(n).expect("an index")].load(Ordering::Acquire);
                        let without_a_lock = number(backend.read_optimistic(&key(n)));
                        let found = without_a_lock.or_else(|| {
                            read(backend, &key(n));
                            number_in_map(backend, &key(n))
                        });
                        assert!(found.unwrap_or(0) >= before, "{found:?} after {before}");
                    }
                });
            }
        });
    });
}

#[test]
fn cache_without_a_limit_has_no_more_slots_than_one_with_a_large_limit() {
    for entries in [1 << 40, u64::MAX] {
        let backend = backend(entries);
        for key in [key(1), long_key(1)] {
            promote(&backend, &key, record(1_u64));
            assert_eq!(number(backend.read_optimistic(&key)), Some(1));
        }
    }
}

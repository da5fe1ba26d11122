use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use vayu_core::testing::watchdog;
use vayu_core::{
    AnyValue, Backend, BackendExt, InlineValue, Key, Prefix, Record, SerializerId, Timestamp,
    ValueClass,
};

use crate::table::index::{HashPart, Index};
use crate::table::{Limits, Table, Written};
use crate::{MemoryBackend, MemoryOptions};

fn record<T: Send + Sync + 'static>(value: T) -> Record<AnyValue> {
    Record::new(AnyValue::new(value), Timestamp::default(), Timestamp::NEVER)
}

fn backend(entries: u64) -> MemoryBackend {
    MemoryBackend::with_options(MemoryOptions::new().max_entries(entries))
}

fn table(entries: usize) -> Table<AnyValue> {
    Table::new(1, Limits { entries, weight: u64::MAX })
}

/// A key that fits into a slot.
fn key(n: u64) -> Key {
    Key::from_text("p", format!("{n:x}"))
}

/// A key that needs an extension.
fn wide_key(n: u64) -> Key {
    Key::new("p", &("sixteen letters!", n)).expect("a key")
}

/// A key that does not fit into words.
fn long_key(n: u64) -> Key {
    Key::new("p", &("k".repeat(60), n)).expect("a key")
}

const KEYS: [fn(u64) -> Key; 3] = [key, wide_key, long_key];

/// A key of one of these kinds.
fn any_key(n: u64) -> Key {
    KEYS[index(n % 3)](n)
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("a small number")
}

fn number(record: Option<Record<AnyValue>>) -> Option<u64> {
    record.and_then(|record| record.value().downcast_ref().copied())
}

fn read(backend: &MemoryBackend, key: &Key) -> Option<Record<AnyValue>> {
    backend.read(key).expect("memory does not fail")
}

/// Reads without a lock.
fn read_optimistic(backend: &MemoryBackend, key: &Key) -> Option<Record<AnyValue>> {
    backend
        .read_optimistic(key)
        .map(|record| record.map(|value| value.to_value().expect("a value")))
}

fn is_present(table: &Table<AnyValue>, key: &Key) -> bool {
    table.read(key, &mut |_, _| ()).expect("no fork").is_some()
}

/// Writes numbers, each by its key.
fn write(table: &Table<AnyValue>, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        let mut written = Written::new(None);
        table.write(&key(n), &mut Some(record(n)), &mut written).expect("no fork");
    }
}

#[test]
fn numbers_by_short_keys_are_read_without_a_lock() {
    let backend = backend(1000);
    for key in [key, wide_key] {
        assert!(read_optimistic(&backend, &key(1)).is_none(), "nothing was written");
        backend.write(&key(1), record(77_u64)).expect("it is written");
        assert_eq!(number(read_optimistic(&backend, &key(1))), Some(77));
        assert!(read_optimistic(&backend, &key(2)).is_none());
    }
}

/// Reads from an entry that was read never, a few times, and often, since the first reads change its state.
#[test]
fn value_of_another_kind_is_not_read_without_a_lock() {
    let backend = backend(1000);
    let [u64s, others] = [AnyValue::new(0_u64), AnyValue::new(0_u32)]
        .map(|value| value.to_inline().map(InlineValue::kind));
    assert!(u64s.is_some() && others.is_some() && u64s != others);
    for key in [key, wide_key] {
        backend.write(&key(1), record(77_u64)).expect("it is written");
        for _ in 0..9 {
            let read = |kind| backend.read_optimistic_with(&key(1), kind, |record| record);
            let impossible = [15, 16, 1 << 57, u64::MAX].map(Some);
            for kind in impossible.into_iter().chain([others]) {
                assert!(read(kind).is_none(), "{kind:?}");
            }
            for kind in [u64s, None] {
                let value = read(kind).and_then(|record| record.value().downcast());
                assert_eq!(value, Some(77_u64));
            }
        }
        backend.write(&key(1), record("a string".to_owned())).expect("it is written");
        assert!(backend.read_optimistic_with(&key(1), None, |_| ()).is_none());
    }
}

#[test]
fn record_is_read_as_it_was_written() {
    let backend = backend(1000);
    let [created, expires, stale] = [-5, i64::MAX - 2, i64::MAX - 1].map(Timestamp::from_micros);
    let plain = || Record::new((), created, expires);
    let records = [
        plain(),
        plain().with_compute_time(Duration::from_millis(3)),
        plain().with_schema(u64::MAX),
        plain().with_stale_until(stale),
        plain().with_serializer(SerializerId::user(3)),
        plain().with_weight(3),
    ];
    for key in KEYS {
        // Each replaces the one before, in every order of the two kinds of values.
        for (n, record) in records.iter().enumerate() {
            for turn in 0..4 {
                let is_number = turn % 3 == 0;
                let value = if is_number {
                    AnyValue::new(-0.0_f64)
                } else {
                    AnyValue::new(format!("text {n} {turn}"))
                };
                let record = record.clone().map(|()| value);
                backend.write(&key(1), record.clone()).expect("it is written");
                let mut found = vec![read(&backend, &key(1)).expect("it was written")];
                let optimistic = read_optimistic(&backend, &key(1));
                let is_long = read(&backend, &long_key(1)).is_some();
                assert_eq!(optimistic.is_some(), is_number && !is_long);
                found.extend(optimistic);
                for found in found {
                    if is_number {
                        let bits = found.value().downcast_ref::<f64>().map(|n| n.to_bits());
                        assert_eq!(bits, Some(1 << 63));
                    } else {
                        let text = found.value().downcast_ref::<String>();
                        assert_eq!(text, Some(&format!("text {n} {turn}")));
                    }
                    assert_eq!(found.map(|_| ()), record.clone().map(|_| ()));
                }
            }
        }
        backend.clear().expect("it is cleared");
    }
}

#[test]
fn removed_entry_is_gone_and_its_slot_is_used_again() {
    let backend = backend(64);
    for _ in 0..100 {
        for key in KEYS {
            backend.write(&key(1), record(1_u64)).expect("it is written");
            assert!(backend.delete(&key(1)).expect("a result"));
            assert!(!backend.delete(&key(1)).expect("a result"));
            assert!(read(&backend, &key(1)).is_none());
            assert!(read_optimistic(&backend, &key(1)).is_none());
        }
    }
    assert_eq!(backend.usage().entries, Some(0));
    assert_eq!(backend.usage().evictions, Some(0));
}

#[test]
fn keys_are_compared_whole() {
    let backend = backend(1000);
    let prefixes = || [Prefix::from("one"), Prefix::from("other"), Prefix::from("one".to_owned())];
    let texts = ["", "a", "a\0", "b"].map(str::to_owned);
    let long = ["k".repeat(100), "k".repeat(101), "j".repeat(100)];
    let keys: Vec<_> = prefixes()
        .into_iter()
        .flat_map(|prefix| {
            texts.iter().chain(&long).map(move |text| Key::from_text(prefix.clone(), text))
        })
        .collect();
    let distinct = texts.len() + long.len();
    for (n, key) in keys.iter().enumerate() {
        backend.write(key, record(n as u64)).expect("it is written");
    }
    assert_eq!(backend.usage().entries, Some(2 * distinct as u64), "an owned prefix is the same");
    for (n, key) in keys.iter().enumerate() {
        let last = if n < distinct { n + 2 * distinct } else { n };
        assert_eq!(number(read(&backend, key)), Some(last as u64), "{key}");
    }
}

#[test]
fn keys_with_one_hash_part_are_distinguished() {
    // Some of these agree in all bits of the hash that the index uses.
    let backend = backend(1 << 18);
    for n in 0..1 << 17 {
        backend.write(&key(n), record(n)).expect("it is written");
    }
    assert!((0..1 << 17).all(|n| number(read(&backend, &key(n))) == Some(n)));
    assert!((1 << 17..1 << 18).all(|n| read(&backend, &key(n)).is_none()));
}

#[test]
fn index_grows_and_loses_nothing() {
    let table: Table<AnyValue> = Table::new(4, Limits { entries: 1 << 30, weight: u64::MAX });
    let keys: Vec<_> = (0..40_000).map(key).collect();
    for (n, key) in (0..).zip(&keys) {
        write(&table, [n]);
        assert!(is_present(&table, key));
    }
    assert!(keys.iter().all(|key| is_present(&table, key)));
    assert_eq!(table.usage().expect("no fork").0, 40_000);
    for key in &keys {
        assert!(table.remove(key).expect("no fork").0);
        assert!(!is_present(&table, key));
    }
}

#[test]
fn line_that_is_full_continues_in_the_next_of_its_shard() {
    let index = Index::new(2, 40);
    index.grow(index.next_size(0).expect("the first size"));
    let lines = index.current().expect("lines");
    // All in the last line of the first shard, then in its first ones.
    let hash = HashPart::from_bits(0x7fff_fffe);
    let slots = || 0..40;
    let find = |slot| lines.find(hash, |found| (found == slot).then_some(())).is_some();
    slots().for_each(|slot| lines.insert(lines.home(hash), hash, slot));
    assert!(slots().all(find));
    for slot in slots().step_by(3) {
        lines.remove(hash, slot);
    }
    assert!(slots().all(|slot| find(slot) == (slot % 3 != 0)));
    slots().step_by(3).for_each(|slot| lines.insert(lines.home(hash), hash, slot));
    slots().for_each(|slot| lines.remove(hash, slot));
    assert!(!slots().any(find));
    let other = HashPart::from_bits(0xffff_fffe);
    assert!(lines.find(other, Some).is_none(), "the other shard is as it was");
}

#[test]
fn limit_holds_and_evicted_entries_are_gone() {
    for entries in [0, 1, 2, 31, 64, 1000] {
        let backend = backend(entries);
        let limit = backend.usage().max_entries.expect("a limit");
        assert!(limit <= entries && limit + 8 > entries, "{limit} of {entries}");
        for n in 0..5_000 {
            for key in KEYS {
                backend.write(&key(n), record(n)).expect("it is written");
                assert_eq!(read(&backend, &key(n)).is_some(), entries > 0, "the last one stays");
            }
            assert!(backend.usage().entries.expect("a count") <= limit);
        }
        let left = (0..5_000).flat_map(|n| KEYS.map(|key| key(n)));
        let left = left.filter(|key| read(&backend, key).is_some()).count() as u64;
        assert_eq!(Some(left), backend.usage().entries);
        assert_eq!(left, limit, "it is full");
    }
}

#[test]
fn table_that_replaces_another_goes_on_with_its_count_of_evictions() {
    let parent = table(16);
    write(&parent, 0..100);
    let children = [table(16), table(16)];
    children[0].continue_evictions(&parent);
    write(&children[0], 0..50);
    children[1].continue_evictions(&children[0]);
    assert_eq!([&parent, &children[0], &children[1]].map(Table::evictions), [84, 118, 118]);
}

#[test]
fn small_cache_has_as_many_entries_as_its_limit() {
    for entries in [64, 100, 1024] {
        let backend = backend(entries);
        assert_eq!(backend.usage().max_entries, Some(entries));
        for _ in 0..2 {
            for n in 0..entries {
                backend.write(&key(n), record(n)).expect("it is written");
            }
        }
        assert_eq!(backend.usage().evictions, Some(0));
        assert!((0..entries).all(|n| read(&backend, &key(n)).is_some()));
    }
}

#[test]
fn eviction_ends_soon_if_all_entries_were_read_often() {
    let backend = backend(1000);
    for n in 0..1000 {
        backend.write(&key(n), record(n)).expect("it is written");
        (0..9).for_each(|_| drop(read_optimistic(&backend, &key(n))));
    }
    let is_left = |n: &u64| read(&backend, &key(*n)).is_some();
    backend.write(&key(1000), record(1000_u64)).expect("it is written");
    assert_eq!((0..=1000).filter(is_left).count(), 1000);
    assert!(is_left(&1000));
    assert!(is_left(&0), "it was looked at once, and had more references left");
}

#[test]
fn sweep_removes_what_has_expired_and_nothing_else() {
    let table: Table<AnyValue> = Table::new(4, Limits { entries: 1 << 30, weight: u64::MAX });
    let at = Timestamp::from_micros;
    // In a grown index, with several parts of a sweep for each shard.
    let keys: Vec<_> = (0..20_000).map(any_key).collect();
    for (n, key) in (0..).zip(&keys) {
        let value = if n % 2 == 0 { AnyValue::new(n) } else { AnyValue::new(n.to_string()) };
        let record = Record::new(value, at(0), at(1000 + n % 5));
        table.write(key, &mut Some(record), &mut Written::new(None)).expect("no fork");
    }
    let (mut values, mut calls) = (0, 0);
    let mut sweep = |now: i64| {
        let after = |dropped: Vec<AnyValue>, _| {
            values += dropped.len();
            calls += 1;
        };
        table.remove_expired(Some(at(now)), false, after).expect("no fork")
    };
    assert_eq!(sweep(999), (0, at(1000)));
    assert_eq!(sweep(1002), (12_000, at(1003)));
    for (n, key) in (0..).zip(&keys) {
        assert_eq!(is_present(&table, key), n % 5 > 2, "{n}");
    }
    assert_eq!(sweep(2000), (8_000, Timestamp::NEVER));
    // Those by long keys are held, too.
    assert!(values >= 10_000 && calls > 3 * 4 * 2, "{values} in {calls} parts");
    assert_eq!(table.usage().expect("no fork").0, 0);
}

#[test]
fn entries_that_are_read_stay_and_those_of_a_scan_go() {
    let backend = backend(1000);
    let hot = 0..100;
    for n in hot.clone() {
        backend.write(&key(n), record(n)).expect("it is written");
    }
    for n in 1000..50_000 {
        backend.write(&key(n), record(n)).expect("it is written");
        if n % 50 == 0 {
            for n in hot.clone() {
                drop(read_optimistic(&backend, &key(n)));
            }
        }
    }
    let left = hot.filter(|&n| read(&backend, &key(n)).is_some()).count();
    assert_eq!(left, 100);
}

#[test]
fn entry_that_comes_again_soon_stays() {
    for shards in [1, 8] {
        let table: Table<AnyValue> =
            Table::new(shards, Limits { entries: 4_000 / shards, weight: u64::MAX });
        write(&table, 0..8_000);
        // Most leave probation unread, and come again.
        write(&table, 10_000..10_500);
        let gone: Vec<_> = (10_000..10_500).filter(|&n| !is_present(&table, &key(n))).collect();
        assert!(gone.len() > 300, "{}", gone.len());
        write(&table, gone.iter().copied());
        write(&table, 20_000..21_000);
        // A ghost is lost if another hash takes its place.
        let stay = gone.iter().filter(|&&n| is_present(&table, &key(n))).count();
        assert!(stay * 4 >= gone.len() * 3, "{stay} of {} with {shards} shards", gone.len());
    }
}

#[test]
fn limit_by_weight_with_any_number_of_entries_evicts() {
    for entries in [0, 1 << 40, u64::MAX] {
        let options = MemoryOptions::new().max_entries(entries).max_weight(100, |_, _| 1);
        let backend: MemoryBackend = MemoryBackend::with_options(options);
        (0..1000).for_each(|n| backend.write(&key(n), record(n)).expect("it is written"));
        assert_eq!(backend.usage().entries, Some(100));
    }
}

#[test]
fn memory_is_allocated_as_the_table_fills() {
    let table: Table<AnyValue> = Table::new(4, Limits { entries: 1 << 30, weight: u64::MAX });
    assert!(table.index.current().is_none());
    assert_eq!(table.chunks.allocated(), 0);
    write(&table, [0]);
    assert_eq!(table.chunks.allocated(), 1024);
    write(&table, 0..1024);
    assert_eq!(table.chunks.allocated(), 1024);
    write(&table, [1024]);
    assert_eq!(table.chunks.allocated(), 1024 + 2048);
    let few = self::table(100);
    write(&few, [0]);
    assert_eq!(few.chunks.allocated(), 100);
}

#[test]
fn slots_are_one_cache_line() {
    assert_eq!(size_of::<crate::table::slot::Slot>(), 64);
    assert_eq!(size_of::<crate::table::slot::Extension>(), 64);
}

/// Random operations on a table and on a map.
#[test]
fn table_agrees_with_a_map() {
    let backend = backend(100_000);
    let mut map: HashMap<Key, (u64, bool)> = HashMap::new();
    let mut random = 1_u64;
    let mut next = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % limit
    };
    for step in 0..20_000_u64 {
        let key = any_key(next(900));
        match next(8) {
            0 => assert_eq!(backend.delete(&key).expect("a result"), map.remove(&key).is_some()),
            1..4 => {
                let is_number = next(2) == 0;
                let new = if is_number { record(step) } else { record(Arc::new(step)) };
                let new =
                    if next(3) == 0 { new.with_serializer(SerializerId::user(1)) } else { new };
                backend.write(&key, new).expect("it is written");
                map.insert(key, (step, is_number));
            }
            4 if next(500) == 0 => {
                backend.clear().expect("it is cleared");
                map.clear();
            }
            _ => {
                let found = read(&backend, &key).map(|record| {
                    let value = record.value();
                    let held = value.downcast_ref::<Arc<u64>>().map(|number| (**number, false));
                    held.or(value.downcast_ref().map(|&number: &u64| (number, true))).expect("one")
                });
                assert_eq!(found, map.get(&key).copied());
                let optimistic = number(read_optimistic(&backend, &key));
                assert!(optimistic.is_none_or(|number| map.get(&key) == Some(&(number, true))));
            }
        }
        if step % 1000 == 0 {
            assert_eq!(backend.usage().entries, Some(map.len() as u64));
        }
    }
}

#[test]
fn weight_of_all_entries_is_within_the_limit_and_exact() {
    let weigh = |_: &Key, value: &AnyValue| *value.downcast_ref::<u32>().expect("a number");
    let backend: MemoryBackend =
        MemoryBackend::with_options(MemoryOptions::new().max_weight(1000, weigh));
    let mut random = 7_u64;
    let (mut lock_free, mut writes) = (0, 0);
    for step in 0..20_000_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (n, weight) = (random >> 40 & 255, (random >> 33) as u32 % 120 + 1);
        let weight = if step % 100 == 0 { 990 } else { weight };
        let key = any_key(n);
        if step % 7 == 0 {
            backend.delete(&key).expect("a result");
        } else {
            backend.write(&key, record(weight)).expect("it is written");
            let found = read(&backend, &key).expect("it fits");
            assert_eq!(found.value().downcast_ref(), Some(&weight));
            lock_free += u32::from(read_optimistic(&backend, &key).is_some());
            writes += u32::from(n % 3 != 2);
        }
        if step % 64 != 0 {
            continue;
        }
        let sum: u64 = (0..256)
            .filter_map(|n| read(&backend, &any_key(n)))
            .map(|record| u64::from(record.weight()))
            .sum();
        assert_eq!(backend.usage().weight, Some(sum));
        assert!(sum <= 1000, "{sum}");
    }
    assert!(lock_free > writes / 10 * 9, "{lock_free} of {writes}");
}

#[test]
fn values_are_dropped_when_no_lock_is_held() {
    struct Reads(Arc<MemoryBackend>);

    impl Drop for Reads {
        fn drop(&mut self) {
            // Each of these takes all the locks that a writer may hold.
            for n in 0..4 {
                drop(read(&self.0, &key(n)));
                drop(self.0.delete(&wide_key(n)));
            }
            assert!(self.0.usage().entries.is_some());
        }
    }

    watchdog(Duration::from_secs(60), || {
        let backend = Arc::new(backend(8));
        let value = || record(Arc::new(Reads(Arc::clone(&backend))));
        for n in 0..40 {
            for key in KEYS {
                backend.write(&key(n), value()).expect("it is written");
                backend.write(&key(n), value()).expect("it is replaced");
                backend.write(&key(n % 3), record(1_u64)).expect("it is replaced by a number");
            }
        }
        backend.delete(&key(39)).expect("a result");
        backend.clear().expect("it is cleared");
    });
}

/// A thread that has written a value reads it, or a later one, whatever others do in the meantime.
#[test]
fn no_read_returns_an_older_value_than_was_written_before() {
    const TIMES: u64 = if cfg!(miri) { 200 } else { 30_000 };
    watchdog(Duration::from_secs(120), || {
        // With so little room that entries are evicted all the time.
        for entries in [64, 16] {
            let backend = backend(entries);
            let last: [AtomicU64; 24] = [const { AtomicU64::new(0) }; 24];
            std::thread::scope(|scope| {
                for writer in 0..2 {
                    let (backend, last) = (&backend, &last);
                    scope.spawn(move || {
                        for value in 1..=TIMES {
                            let n = value % 12 * 2 + writer;
                            if value % 5 == 0 {
                                backend.delete(&key(n)).expect("it is deleted");
                            }
                            // A number, and a value that is held beside the slot.
                            let new = if value % 2 == 0 {
                                record((n, value))
                            } else {
                                record(n << 32 | value)
                            };
                            backend.write(&key(n), new).expect("it is written");
                            last[index(n)].store(value, Ordering::Release);
                        }
                    });
                    scope.spawn(move || {
                        for turn in 0..4 * TIMES {
                            let n = turn % 24;
                            let before = last[index(n)].load(Ordering::Acquire);
                            let value = |record: Record<AnyValue>| {
                                let pair = record.value().downcast_ref().copied();
                                pair.or_else(|| {
                                    let both = *record.value().downcast_ref::<u64>()?;
                                    Some((both >> 32, both & u64::from(u32::MAX)))
                                })
                            };
                            for found in [read_optimistic(backend, &key(n)), read(backend, &key(n))]
                            {
                                let Some(found) = found.and_then(value) else { continue };
                                assert_eq!(found.0, n, "a value of this key");
                                assert!(found.1 >= before, "{found:?} after {before}");
                            }
                        }
                    });
                }
            });
        }
    });
}

#[test]
fn entry_that_is_there_all_the_time_is_never_missed() {
    watchdog(Duration::from_secs(60), || {
        let backend = backend(1000);
        let is_done = std::sync::atomic::AtomicBool::new(false);
        for key in KEYS {
            backend.write(&key(0), record(1_u64)).expect("it is written");
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..if cfg!(miri) { 100 } else { 20_000 } {
                    // It is replaced, and others come and go around it.
                    for key in KEYS {
                        let new = if n % 2 == 0 { record(n) } else { record(n.to_string()) };
                        backend.write(&key(0), new).expect("it is written");
                        backend.write(&key(n % 64 + 1), record(n)).expect("it is written");
                        backend.delete(&key((n + 32) % 64 + 1)).expect("it is deleted");
                    }
                }
                is_done.store(true, Ordering::Relaxed);
            });
            while !is_done.load(Ordering::Relaxed) {
                for key in KEYS {
                    let mut is_found = false;
                    let visit = &mut |_: Record<&AnyValue>| is_found = true;
                    let read = backend.read_now(&key(0), ValueClass::Plain, visit);
                    read.expect("memory does not block").expect("memory does not fail");
                    assert!(is_found);
                }
            }
        });
    });
}

#[test]
fn readers_of_one_value_do_not_wait_for_each_other() {
    watchdog(Duration::from_secs(60), || {
        let backend = backend(1000);
        for key in KEYS {
            backend.write(&key(1), record("text".to_owned())).expect("it is written");
            let both_read = Barrier::new(2);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        let visit = &mut |_: Record<&AnyValue>| {
                            both_read.wait();
                        };
                        let read = backend.read_now(&key(1), ValueClass::Plain, visit);
                        read.expect("memory does not block").expect("memory does not fail");
                    });
                }
            });
        }
    });
}

#[test]
fn limit_that_no_machine_has_memory_for_costs_nothing() {
    for entries in [1 << 40, u64::MAX] {
        let backend = backend(entries);
        for key in KEYS {
            backend.write(&key(1), record(1_u64)).expect("it is written");
            assert_eq!(number(read(&backend, &key(1))), Some(1));
        }
    }
}

/// Threads that look up, compute and store more keys than there is room for. `VAYU_STRESS_CALLS` in the environment
/// sets the number of calls.
#[test]
fn each_answer_is_that_of_its_key_while_entries_are_evicted_and_removed() {
    let calls =
        std::env::var("VAYU_STRESS_CALLS").map_or(80_000, |calls| calls.parse().expect("a number"));
    let calls = if cfg!(miri) { 400 } else { calls };
    watchdog(Duration::from_secs(600), move || {
        let backend = backend(64);
        let computed = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (backend, computed) = (&backend, &computed);
                scope.spawn(move || {
                    let mut random = thread + 1;
                    for call in 0..calls / 4 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let n = (random >> 33) % 200;
                        let key = any_key(n);
                        if call % 97 == 0 {
                            backend.delete(&key).expect("a result");
                        }
                        // A number in the slot, or a string beside it, by the turn of the thread.
                        let found = read_optimistic(backend, &key).or_else(|| read(backend, &key));
                        let Some(found) = found else {
                            let value = n * 1000 + call % 7;
                            let new = if call % 2 == 0 {
                                record(value)
                            } else {
                                record(value.to_string())
                            };
                            backend.write(&key, new.with_schema(value)).expect("it is written");
                            computed.fetch_add(1, Ordering::Relaxed);
                            continue;
                        };
                        let string = found.value().downcast_ref::<String>();
                        let value = string.map(|string| string.parse().expect("a number"));
                        let value = value.or(found.value().downcast_ref().copied()).expect("one");
                        assert_eq!(
                            (value / 1000, found.schema()),
                            (n, value),
                            "one entry of this key"
                        );
                    }
                });
            }
        });
        let usage = backend.usage();
        let left = (0..200).filter(|&n| read(&backend, &any_key(n)).is_some()).count();
        assert_eq!(usage.entries, Some(left as u64));
        assert!(left <= 64 && computed.into_inner() > usage.evictions.expect("a count"));
    });
}

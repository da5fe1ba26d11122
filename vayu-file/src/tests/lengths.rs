//! Entries whose length has changed since the last read.

use bytes::Bytes;
use vayu_core::testing::ManualClock;
use vayu_core::wire::{self, WireKey};
use vayu_core::{Backend, BackendExt};

use super::{key, open, options, record, value};
use crate::fs::model::{Disk, Fault};

/// Lengths around those at which the way of reading changes.
const LENGTHS: [usize; 8] = [0, 100, 3_900, 4_100, 10_000, 65_350, 65_600, 200_000];

fn bytes(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect()
}

#[test]
fn entry_is_read_after_its_length_has_changed() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    for before in LENGTHS {
        for after in LENGTHS {
            for length in [before, after, after] {
                backend.write(&key("k"), record(&clock, bytes(length))).expect("write");
                assert_eq!(value(&backend, &key("k")), Some(bytes(length)), "{before}, {after}");
            }
        }
    }
    assert_eq!(backend.usage().corrupt_entries, Some(0));
}

#[test]
fn entry_that_was_read_before_is_read_one_byte_at_a_time() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    for length in [5_000, 4_500, 5_500, 5_500] {
        backend.write(&key("k"), record(&clock, bytes(length))).expect("write");
        disk.plan(Fault::Slow);
        assert_eq!(value(&backend, &key("k")), Some(bytes(length)));
        disk.plan(None);
    }
}

#[test]
fn entry_that_was_truncated_or_extended_after_a_read_is_counted_as_corrupt() {
    let clock = ManualClock::new();
    for length in LENGTHS {
        let disk = Disk::default();
        let backend = open(&disk, &options(&clock));
        backend.write(&key("k"), record(&clock, bytes(length))).expect("write");
        let path = disk.names().into_iter().find(|name| name.contains(".v1")).expect("an entry");
        let whole = wire::encode(&WireKey::new(&key("k")), &record(&clock, bytes(length)));
        let cut = &whole[..whole.len() - 1];
        let longer = [&whole[..], b"x"].concat();
        let much_longer = [&whole[..], &whole].concat();
        for (corrupt_entries, damaged) in (1..).zip([cut, &longer, &much_longer]) {
            disk.damage(&path, &whole);
            assert_eq!(value(&backend, &key("k")), Some(bytes(length)));
            disk.damage(&path, damaged);
            assert_eq!(value(&backend, &key("k")), None, "{length}");
            assert_eq!(backend.usage().corrupt_entries, Some(corrupt_entries), "{length}");
        }
    }
}

#[test]
fn second_read_of_a_long_entry_takes_two_operations() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    backend.write(&key("k"), record(&clock, bytes(200_000))).expect("write");
    let operations = [(); 2].map(|()| {
        disk.plan(None);
        value(&backend, &key("k")).expect("a value");
        disk.operations()
    });
    // The first read: open, its beginning, its length, and the rest.
    assert_eq!(operations, [4, 2]);
}

#[test]
fn value_allocates_only_its_own_length_after_a_longer_one() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    for length in [200_000, 5_000] {
        backend.write(&key("k"), record(&clock, bytes(length))).expect("write");
        let value = value(&backend, &key("k")).expect("a value");
        let memory = value.try_into_mut().expect("it is not shared").capacity();
        assert!((length..=length + 1).contains(&memory), "{memory} bytes for {length}");
    }
}

#[test]
fn entry_above_the_length_limit_of_another_cache_is_a_miss_there() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let [generous, strict] =
        [1 << 20, 50_000].map(|limit| open(&disk, &options(&clock).max_entry_bytes(limit)));
    generous.write(&key("k"), record(&clock, bytes(100_000))).expect("write");
    assert!(value(&generous, &key("k")).is_some());
    assert_eq!(value(&strict, &key("k")), None);
}

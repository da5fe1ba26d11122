//! Entries whose files are kept open.

use vayu_core::SingleFlight;
use vayu_core::wire::{self, WireKey};

use super::*;
use crate::errno::Errno;
use crate::fs::FileSystem;
use crate::fs::model::Fault;
use crate::layout::EntryPath;
use crate::options::Durability;

/// The name of an operation, and the operation.
type Operation<'a> = (&'a str, &'a dyn Fn(&FileBackend));

fn path(key: &Key) -> String {
    EntryPath::of(&WireKey::new(key)).as_str().to_owned()
}

fn entry(clock: &ManualClock, key: &Key, value: impl Into<Bytes>) -> Vec<u8> {
    wire::encode(&WireKey::new(key), &record(clock, value))
}

/// Writes an entry and reads it until its file is kept open.
fn keep_open(backend: &FileBackend, clock: &ManualClock, key: &Key) {
    backend.write(key, record(clock, "value")).expect("write");
    for _ in 0..2 {
        assert_eq!(value(backend, key), Some("value".into()));
    }
}

fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|n| key(format!("open {n}"))).collect()
}

#[test]
fn second_read_of_a_thread_keeps_the_file_open_and_the_third_opens_none() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    backend.write(&key("k"), record(&clock, "value")).expect("write");
    let seen = [(); 4].map(|()| {
        disk.plan(None);
        assert_eq!(value(&backend, &key("k")), Some("value".into()));
        (disk.operations(), disk.open_files())
    });
    // Open and read; the same and the status; the status of the name, and read.
    assert_eq!(seen, [(2, 0), (3, 1), (2, 1), (2, 1)]);
}

/// All files of the disk have the same length and time.
#[test]
fn change_of_an_open_entry_by_another_process_is_seen_by_the_next_read() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    let (key, path) = (key("k"), path(&key("k")));
    for n in 0..20 {
        keep_open(&backend, &clock, &key);
        let other = format!("{n:05}");
        disk.replace(&path, &entry(&clock, &key, other.clone()));
        assert_eq!(value(&backend, &key), Some(other.into()));
        assert_eq!(disk.open_files(), 1);
        disk.unlink(&path);
        assert_eq!(value(&backend, &key), None);
        assert_eq!(disk.open_files(), 0, "the file of a removed entry is closed");
    }
    assert_eq!(backend.usage().corrupt_entries, Some(0));
}

#[test]
fn entry_that_is_damaged_while_it_is_open_is_counted_as_corrupt() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    let (key, path) = (key("k"), path(&key("k")));
    let whole = entry(&clock, &key, "value");
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("a byte") ^= 1;
    let (cut, longer) = (&whole[..whole.len() - 1], [&whole[..], b"x"].concat());
    let much_longer = whole.repeat(1_000);
    for (corrupt_entries, damaged) in (1..).zip([&flipped, cut, &[], &longer, &much_longer]) {
        keep_open(&backend, &clock, &key);
        assert_eq!(disk.open_files(), 1);
        disk.damage(&path, damaged);
        assert_eq!(value(&backend, &key), None);
        assert_eq!(
            (backend.usage().corrupt_entries, disk.open_files()),
            (Some(corrupt_entries), 0)
        );
    }
}

#[test]
fn entry_that_was_changed_in_place_while_it_is_open_is_read_again() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    let key = key("k");
    keep_open(&backend, &clock, &key);
    for text in ["other", "longer than it was", ""] {
        disk.damage(&path(&key), &entry(&clock, &key, text));
        assert_eq!(value(&backend, &key), Some(text.into()));
    }
}

#[test]
fn entry_of_another_key_under_the_name_of_an_open_one_is_a_miss() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    keep_open(&backend, &clock, &key("k"));
    disk.damage(&path(&key("k")), &entry(&clock, &key("l"), "value"));
    assert_eq!(value(&backend, &key("k")), None);
}

#[test]
fn open_file_is_closed_by_everything_that_removes_its_entry() {
    let clock = ManualClock::new();
    let changes: [Operation<'_>; 5] = [
        ("write", &|backend| backend.write(&key("k"), record(&clock, "other")).expect("write")),
        ("delete", &|backend| assert!(backend.delete(&key("k")).expect("delete"))),
        ("clear", &|backend| backend.clear().expect("clear")),
        ("eviction", &|backend| {
            while backend.usage().evictions == Some(0) {
                clock.advance(Duration::from_secs(1));
                let key = key(format!("other {:?}", backend.usage().entries));
                backend.write(&key, record(&clock, "other")).expect("write");
            }
        }),
        ("expiry", &|backend| {
            clock.advance(Duration::from_secs(60));
            while backend.usage().expirations == Some(0) {
                backend.write(&key("other"), record(&clock, "other")).expect("write");
            }
        }),
    ];
    for (what, change) in changes {
        let disk = Disk::default();
        let backend = open(&disk, &options(&clock).max_entries(2));
        keep_open(&backend, &clock, &key("k"));
        assert_eq!(disk.open_files(), 1);
        change(&backend);
        assert_eq!(disk.open_files(), 0, "{what}");
    }
}

#[test]
fn number_of_open_files_is_bounded() {
    let clock = ManualClock::new();
    for capacity in [0, 1, 3, 64] {
        let disk = Disk::default();
        let backend = open(&disk, &options(&clock).open_files(capacity));
        let keys = keys(100);
        for key in &keys {
            backend.write(key, record(&clock, "value")).expect("write");
        }
        for _ in 0..50 {
            for key in &keys {
                assert_eq!(value(&backend, key), Some("value".into()));
                assert!(disk.open_files() <= capacity);
            }
        }
        assert_eq!(disk.open_files(), capacity);
        drop(backend);
        assert_eq!(disk.open_files(), 0);
    }
}

#[test]
fn open_files_that_are_not_read_any_more_are_replaced() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock).open_files(3));
    let keys = keys(6);
    for key in &keys {
        keep_open(&backend, &clock, key);
    }
    for (now, before) in [(&keys[3..], &keys[..3]), (&keys[..3], &keys[3..])] {
        for _ in 0..200 {
            for key in now {
                value(&backend, key);
            }
        }
        let is_open = |key: &&Key| backend.store.open_files.get(&WireKey::new(key)).is_some();
        assert_eq!(now.iter().filter(is_open).count(), 3);
        assert_eq!(before.iter().filter(is_open).count(), 0);
    }
}

#[test]
fn open_files_are_kept_in_a_cyclic_scan_larger_than_the_capacity() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock).open_files(32));
    let keys = keys(128);
    for key in &keys {
        keep_open(&backend, &clock, key);
    }
    for round in 0..20 {
        disk.plan(None);
        for key in &keys {
            value(&backend, key);
        }
        assert_eq!(disk.open_files(), 32);
        // Keeping another file open takes a third operation.
        assert!(round < 3 || disk.operations() == 2 * keys.len(), "round {round}");
    }
}

#[test]
fn long_entries_and_entries_on_network_file_systems_are_not_kept_open() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    for _ in 0..3 {
        backend.write(&key("long"), record(&clock, vec![7; 16 * 1024])).expect("write");
        value(&backend, &key("long")).expect("a value");
        assert_eq!(disk.open_files(), 0);
    }
    disk.set_file_system(FileSystem::Network("nfs"));
    let backend = open(&disk, &options(&clock));
    keep_open(&backend, &clock, &key("k"));
    assert_eq!(disk.open_files(), 0);
}

#[test]
fn open_files_are_closed_when_descriptors_run_out() {
    let clock = ManualClock::new();
    let operations: [Operation<'_>; 5] = [
        ("read", &|backend| assert_eq!(value(backend, &key("k")), Some("value".into()))),
        ("write", &|backend| backend.write(&key("new"), record(&clock, "value")).expect("write")),
        ("lease", &|backend| {
            drop(
                backend
                    .capabilities()
                    .leases
                    .expect("leases")
                    .try_acquire(&key("new"))
                    .expect("lease"),
            );
        }),
        ("generation", &|backend| {
            let group = vayu_core::Group::tag("a");
            let generations = backend.capabilities().generations.expect("there are some");
            assert_ne!(generations.generation(group).expect("read"), 0);
        }),
        ("bump", &|backend| {
            let generations = backend.capabilities().generations.expect("there are some");
            generations.bump(vayu_core::Group::tag("b")).expect("bump");
        }),
    ];
    for (what, operation) in operations {
        let disk = Disk::default();
        let options = options(&clock).open_files(3).single_flight(SingleFlight::Everywhere);
        let backend = open(&disk, &options);
        backend.write(&key("k"), record(&clock, "value")).expect("write");
        backend
            .capabilities()
            .generations
            .expect("some")
            .bump(vayu_core::Group::tag("a"))
            .expect("bump");
        for key in &keys(3) {
            keep_open(&backend, &clock, key);
        }
        assert_eq!(disk.open_files(), 3);
        disk.plan(Fault::Full(3));
        operation(&backend);
        assert!(disk.open_files() <= 1, "{what}");
        // No file is left to close.
        disk.plan(Fault::Full(0));
        assert!(backend.write(&key("k"), record(&clock, "value")).is_err());
    }
}

#[test]
fn replaced_value_is_never_read_after_any_failure() {
    let clock = ManualClock::new();
    let key = key("k");
    for errno in [Errno::IO, Errno::MFILE, Errno::ACCESS, Errno::STALE, Errno::NOENT, Errno::LOOP] {
        for fault in [Fault::Once as fn(usize, Errno) -> Fault, Fault::From] {
            for number in 0..6 {
                let disk = Disk::default();
                let backend = open(&disk, &options(&clock));
                keep_open(&backend, &clock, &key);
                disk.replace(&path(&key), &entry(&clock, &key, "other"));
                disk.plan(fault(number, errno));
                for _ in 0..2 {
                    let found = backend.read(&key).ok().flatten().map(Record::into_value);
                    assert!(found.is_none_or(|found| found == "other"), "{errno:?} at {number}");
                }
                disk.plan(None);
                assert_eq!(value(&backend, &key), Some("other".into()), "{errno:?} at {number}");
            }
        }
    }
}

#[test]
fn lock_of_a_thread_that_a_fork_has_lost_blocks_no_caller() {
    vayu_core::testing::watchdog(Duration::from_secs(60), || {
        let clock = ManualClock::new();
        let disk = Disk::default();
        let backend = open(&disk, &options(&clock));
        let key = key("k");
        keep_open(&backend, &clock, &key);
        backend.store.open_files.leak_lock();
        disk.replace(&path(&key), &entry(&clock, &key, "other"));
        for _ in 0..3 {
            assert_eq!(value(&backend, &key), Some("other".into()));
        }
        backend.write(&key, record(&clock, "newer")).expect("write");
        assert_eq!(value(&backend, &key), Some("newer".into()));
        assert!(backend.delete(&key).expect("delete"));
        assert_eq!(value(&backend, &key), None);
        backend.clear().expect("clear");
    });
}

#[test]
fn operations_before_a_lack_of_descriptors_are_not_repeated() {
    let clock = ManualClock::new();
    for number in 0..8 {
        let disk = Disk::default();
        let options = options(&clock).durability(Durability::Synced);
        let backend = open(&disk, &options);
        keep_open(&backend, &clock, &key("k"));
        let entries = backend.usage().entries;
        disk.record();
        disk.plan(Fault::Once(number, Errno::MFILE));
        let deleted = backend.delete(&key("k"));
        disk.plan(None);
        assert!(!matches!(deleted, Ok(false)), "operation {number}");
        if deleted.is_ok() {
            assert_eq!(backend.usage().entries, entries.map(|entries| entries - 1));
            for after in disk.after_power_loss() {
                let found = value(&open(&after, &options), &key("k"));
                assert_eq!(found, None, "operation {number}");
            }
        }
    }
}

//! Entries whose files are held open.

use rustix::io::Errno;
use vayu_core::SingleFlight;
use vayu_core::wire::{self, WireKey};

use super::*;
use crate::fs::model::Fault;
use crate::layout::Place;
use crate::options::Durability;

/// What it is, and it.
type Operation<'a> = (&'a str, &'a dyn Fn(&FileBackend));

fn path(key: &Key) -> String {
    Place::of(&WireKey::new(key)).path().to_owned()
}

fn entry(clock: &ManualClock, key: &Key, value: impl Into<Bytes>) -> Vec<u8> {
    wire::encode(&WireKey::new(key), &record(clock, value))
}

/// Writes an entry and reads it until its file is held.
fn hold(backend: &FileBackend, clock: &ManualClock, key: &Key) {
    backend.write(key, record(clock, "value")).expect("write");
    for _ in 0..2 {
        assert_eq!(value(backend, key), Some("value".into()));
    }
}

fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|n| key(format!("held {n}"))).collect()
}

#[test]
fn second_read_of_a_thread_holds_the_file_and_the_third_opens_none() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    backend.write(&key("k"), record(&clock, "value")).expect("write");
    let seen = [(); 4].map(|()| {
        disk.plan(None);
        assert_eq!(value(&backend, &key("k")), Some("value".into()));
        (disk.operations(), disk.open_files())
    });
    // Open and read; what it is, too; what the name stands for, and read.
    assert_eq!(seen, [(2, 0), (3, 1), (2, 1), (2, 1)]);
}

/// On a disk where all files are of one length and of one time.
#[test]
fn what_others_do_to_a_held_entry_is_seen_by_the_next_read() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    let (key, path) = (key("k"), path(&key("k")));
    for n in 0..20 {
        hold(&backend, &clock, &key);
        let other = format!("{n:05}");
        disk.replace(&path, &entry(&clock, &key, other.clone()));
        assert_eq!(value(&backend, &key), Some(other.into()));
        assert_eq!(disk.open_files(), 1);
        disk.unlink(&path);
        assert_eq!(value(&backend, &key), None);
        assert_eq!(disk.open_files(), 0, "nothing is held of what is gone");
    }
    assert_eq!(backend.usage().corrupt_entries, Some(0));
}

#[test]
fn entry_that_is_damaged_while_it_is_held_is_one_defect() {
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
        hold(&backend, &clock, &key);
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
fn entry_that_was_changed_in_place_while_it_is_held_is_read_anew() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    let key = key("k");
    hold(&backend, &clock, &key);
    for text in ["other", "longer than it was", ""] {
        disk.damage(&path(&key), &entry(&clock, &key, text));
        assert_eq!(value(&backend, &key), Some(text.into()));
    }
}

#[test]
fn entry_of_another_key_under_the_name_of_a_held_one_is_a_miss() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    hold(&backend, &clock, &key("k"));
    disk.damage(&path(&key("k")), &entry(&clock, &key("l"), "value"));
    assert_eq!(value(&backend, &key("k")), None);
}

#[test]
fn held_file_is_let_go_by_whatever_removes_its_entry() {
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
        hold(&backend, &clock, &key("k"));
        assert_eq!(disk.open_files(), 1);
        change(&backend);
        assert_eq!(disk.open_files(), 0, "{what}");
    }
}

#[test]
fn no_more_files_are_held_than_may_be() {
    let clock = ManualClock::new();
    for most in [0, 1, 3, 64] {
        let disk = Disk::default();
        let backend = open(&disk, &options(&clock).open_files(most));
        let keys = keys(100);
        for key in &keys {
            backend.write(key, record(&clock, "value")).expect("write");
        }
        for _ in 0..50 {
            for key in &keys {
                assert_eq!(value(&backend, key), Some("value".into()));
                assert!(disk.open_files() <= most);
            }
        }
        assert_eq!(disk.open_files(), most);
        drop(backend);
        assert_eq!(disk.open_files(), 0);
    }
}

#[test]
fn files_that_are_read_no_more_give_way_to_those_that_are() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock).open_files(3));
    let keys = keys(6);
    for key in &keys {
        hold(&backend, &clock, key);
    }
    for (now, before) in [(&keys[3..], &keys[..3]), (&keys[..3], &keys[3..])] {
        for _ in 0..200 {
            for key in now {
                value(&backend, key);
            }
        }
        let is_held = |key: &&Key| backend.store.held.get(&WireKey::new(key)).is_some();
        assert_eq!(now.iter().filter(is_held).count(), 3);
        assert_eq!(before.iter().filter(is_held).count(), 0);
    }
}

#[test]
fn what_is_held_stays_where_more_is_read_in_turn_than_can_be() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock).open_files(32));
    let keys = keys(128);
    for key in &keys {
        hold(&backend, &clock, key);
    }
    for round in 0..20 {
        disk.plan(None);
        for key in &keys {
            value(&backend, key);
        }
        assert_eq!(disk.open_files(), 32);
        // To hold another is a third operation of a read.
        assert!(round < 3 || disk.operations() == 2 * keys.len(), "round {round}");
    }
}

#[test]
fn neither_a_long_entry_is_held_nor_one_that_others_may_change_unseen() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    for _ in 0..3 {
        backend.write(&key("long"), record(&clock, vec![7; 16 * 1024])).expect("write");
        value(&backend, &key("long")).expect("a value");
        assert_eq!(disk.open_files(), 0);
    }
    disk.make_remote();
    let backend = open(&disk, &options(&clock));
    hold(&backend, &clock, &key("k"));
    assert_eq!(disk.open_files(), 0);
}

#[test]
fn held_files_are_closed_when_another_cannot_be_opened() {
    let clock = ManualClock::new();
    let operations: [Operation<'_>; 5] = [
        ("read", &|backend| assert_eq!(value(backend, &key("k")), Some("value".into()))),
        ("write", &|backend| backend.write(&key("new"), record(&clock, "value")).expect("write")),
        ("claim", &|backend| {
            drop(
                backend.sharing().leases.expect("leases").try_acquire(&key("new")).expect("lease"),
            );
        }),
        ("generation", &|backend| {
            let group = vayu_core::Group::tag("a");
            let generations = backend.sharing().generations.expect("there are some");
            assert_ne!(generations.generation(group).expect("read"), 0);
        }),
        ("renewal", &|backend| {
            let generations = backend.sharing().generations.expect("there are some");
            generations.bump(vayu_core::Group::tag("b")).expect("bump");
        }),
    ];
    for (what, operation) in operations {
        let disk = Disk::default();
        let options = options(&clock).open_files(3).single_flight(SingleFlight::Everywhere);
        let backend = open(&disk, &options);
        backend.write(&key("k"), record(&clock, "value")).expect("write");
        backend
            .sharing()
            .generations
            .expect("some")
            .bump(vayu_core::Group::tag("a"))
            .expect("bump");
        for key in &keys(3) {
            hold(&backend, &clock, key);
        }
        assert_eq!(disk.open_files(), 3);
        disk.plan(Fault::Full(3));
        operation(&backend);
        assert!(disk.open_files() <= 1, "{what}");
        // There is nothing left to close.
        disk.plan(Fault::Full(0));
        assert!(backend.write(&key("k"), record(&clock, "value")).is_err());
    }
}

#[test]
fn old_value_is_never_read_after_it_was_replaced_whatever_fails() {
    let clock = ManualClock::new();
    let key = key("k");
    for errno in [Errno::IO, Errno::MFILE, Errno::ACCESS, Errno::STALE, Errno::NOENT, Errno::LOOP] {
        for fault in [Fault::Once as fn(usize, Errno) -> Fault, Fault::From] {
            for number in 0..6 {
                let disk = Disk::default();
                let backend = open(&disk, &options(&clock));
                hold(&backend, &clock, &key);
                disk.replace(&path(&key), &entry(&clock, &key, "other"));
                disk.plan(fault(number, errno));
                for _ in 0..2 {
                    let found = backend.read(&key).ok().flatten().map(Record::into_value);
                    assert!(found.is_none_or(|found| found == "other"), "{errno} at {number}");
                }
                disk.plan(None);
                assert_eq!(value(&backend, &key), Some("other".into()), "{errno} at {number}");
            }
        }
    }
}

#[test]
fn lock_that_a_fork_has_lost_holds_up_nobody() {
    vayu_core::testing::watchdog(Duration::from_secs(60), || {
        let clock = ManualClock::new();
        let disk = Disk::default();
        let backend = open(&disk, &options(&clock));
        let key = key("k");
        hold(&backend, &clock, &key);
        backend.store.held.lose_the_lock();
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
fn what_was_done_before_a_shortage_is_done_once() {
    let clock = ManualClock::new();
    for number in 0..8 {
        let disk = Disk::default();
        let options = options(&clock).durability(Durability::Synced);
        let backend = open(&disk, &options);
        hold(&backend, &clock, &key("k"));
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

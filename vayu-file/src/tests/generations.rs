//! Generations of groups on a disk that fails.

use vayu_core::{Generations, Group};

use super::*;
use crate::errno::Errno;
use crate::fs::model::Fault;
use crate::layout::EntryPath;
use crate::options::Durability;

const ERRORS: [Errno; 8] = [
    Errno::IO,
    Errno::NOSPC,
    Errno::MFILE,
    Errno::ACCESS,
    Errno::ROFS,
    Errno::STALE,
    Errno::LOOP,
    Errno::NOTDIR,
];

fn generation(backend: &FileBackend, group: Group) -> u64 {
    backend.generation(group).expect("read")
}

#[test]
fn generation_is_zero_until_the_first_bump_and_never_again() {
    let backend = open(&Disk::default(), &options(&ManualClock::new()));
    let (group, other) = (Group::tag("a"), Group::tag("b"));
    let mut seen = vec![generation(&backend, group)];
    assert_eq!(seen, [0]);
    for _ in 0..20 {
        backend.bump(group).expect("bump");
        let new = generation(&backend, group);
        assert!(!seen.contains(&new), "{new} was there before");
        assert_eq!(generation(&backend, group), new);
        seen.push(new);
    }
    assert_eq!(generation(&backend, other), 0);
}

#[test]
fn unreadable_generation_is_an_error_and_not_another_generation() {
    let clock = ManualClock::new();
    let group = Group::tag("a");
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    backend.bump(group).expect("bump");
    let known = generation(&backend, group);
    let mut failures = 0;
    for errno in ERRORS {
        for number in 0..4 {
            disk.plan(Fault::Once(number, errno));
            match backend.generation(group) {
                Ok(found) => assert_eq!(found, known, "{errno:?} at {number}"),
                Err(_) => failures += 1,
            }
        }
    }
    assert!(failures >= 2 * ERRORS.len(), "{failures}");
    disk.plan(Fault::Slow);
    assert_eq!(generation(&backend, group), known);
}

#[test]
fn bump_that_has_not_changed_the_generation_is_an_error() {
    let clock = ManualClock::new();
    let group = Group::tag("a");
    for errno in ERRORS {
        for number in 0.. {
            let disk = Disk::default();
            let backend = open(&disk, &options(&clock));
            backend.bump(group).expect("bump");
            let old = generation(&backend, group);
            disk.plan(Fault::Once(number, errno));
            let result = backend.bump(group);
            let operations = disk.operations();
            disk.plan(None);
            if result.is_ok() {
                assert_ne!(generation(&backend, group), old, "{errno:?} at {number}");
            }
            if operations <= number {
                break;
            }
        }
    }
}

/// Returns whether an entry from before a bump may still be valid.
fn is_outdated_value_there(backend: &FileBackend, group: Group, old: u64) -> bool {
    generation(backend, group) == old && value(backend, &key("0")).is_some()
}

#[test]
fn generation_is_bumped_on_a_full_disk() {
    let clock = ManualClock::new();
    let group = Group::tag("a");
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        for was_bumped in [false, true] {
            for entries in [1, 40] {
                let disk = Disk::default();
                let backend = open(&disk, &options(&clock));
                for n in 0..entries {
                    backend.write(&key(n.to_string()), record(&clock, "value")).expect("write");
                }
                if was_bumped {
                    backend.bump(group).expect("bump");
                }
                let old = generation(&backend, group);
                // No other file can be created.
                disk.plan(Fault::NoSpace(disk.names().len(), errno));
                backend.write(&key("another"), record(&clock, "value")).expect_err("it is full");
                for round in 0..3 {
                    let old = generation(&backend, group);
                    backend.bump(group).expect("bump");
                    assert_ne!(generation(&backend, group), old, "round {round}");
                }
                assert_ne!(generation(&open(&disk, &options(&clock)), group), old);
                let left = backend.sweep().expect("sweep").entries.expect("a count");
                assert!(left >= if was_bumped { entries } else { entries * 3 / 4 }, "{left}");
            }
        }
    }
}

#[test]
fn entries_that_cannot_be_invalidated_are_removed() {
    let clock = ManualClock::new();
    let group = Group::tag("a");
    for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::ACCESS] {
        let disk = Disk::default();
        let backend = open(&disk, &options(&clock));
        for n in 0..40 {
            backend.write(&key(n.to_string()), record(&clock, "value")).expect("write");
        }
        // Another process uses all space that is freed.
        disk.plan(Fault::NoSpace(0, errno));
        backend.bump(group).expect("bump");
        assert!(!is_outdated_value_there(&backend, group, 0), "{errno:?}");
        assert!(disk.names().iter().all(|name| !name.contains(".v1")));
    }
}

#[test]
fn bump_with_any_single_failure_succeeds_and_leaves_no_outdated_value() {
    let clock = ManualClock::new();
    let group = Group::tag("a");
    for errno in [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::ACCESS] {
        for was_bumped in [false, true] {
            for number in 0.. {
                let disk = Disk::default();
                let backend = open(&disk, &options(&clock));
                backend.write(&key("0"), record(&clock, "value")).expect("write");
                if was_bumped {
                    backend.bump(group).expect("bump");
                }
                let old = generation(&backend, group);
                disk.plan(Fault::Once(number, errno));
                let result = backend.bump(group);
                let operations = disk.operations();
                disk.plan(None);
                result.unwrap_or_else(|error| panic!("{errno:?} at {number}: {error}"));
                assert!(!is_outdated_value_there(&backend, group, old), "{errno:?} at {number}");
                if operations <= number {
                    break;
                }
            }
        }
    }
}

#[test]
fn damaged_generation_is_a_different_generation() {
    let disk = Disk::default();
    let backend = open(&disk, &options(&ManualClock::new()));
    let group = Group::tag("a");
    backend.bump(group).expect("bump");
    let old = generation(&backend, group);
    for bytes in [&b""[..], b"x", &[0; 16], &[7; 16]] {
        disk.damage(EntryPath::of_generation(group).as_str(), bytes);
        let found = generation(&backend, group);
        assert!(found != old && found != 0, "{bytes:?}");
    }
}

#[test]
fn synced_bump_survives_a_power_loss() {
    let options = options(&ManualClock::new()).durability(Durability::Synced);
    let disk = Disk::default();
    let backend = open(&disk, &options);
    let group = Group::tag("a");
    disk.record();
    for _ in 0..2 {
        backend.bump(group).expect("bump");
        let new = generation(&backend, group);
        for disk in disk.after_power_loss() {
            assert_eq!(generation(&open(&disk, &options), group), new);
        }
    }
}

#[test]
fn generation_is_neither_cleared_nor_swept_nor_counted() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock).max_entries(1));
    let group = Group::tag("a");
    backend.bump(group).expect("bump");
    let known = generation(&backend, group);
    for n in 0..100 {
        backend.write(&key(n.to_string()), record(&clock, "value")).expect("write");
        clock.advance(Duration::from_secs(3600));
    }
    backend.clear().expect("clear");
    // A new process counts every shard.
    let backend = open(&disk, &options(&clock));
    assert_eq!(backend.sweep().expect("sweep").entries, Some(0));
    assert!(backend.usage().sweeps >= Some(256));
    assert_eq!(generation(&backend, group), known);
}

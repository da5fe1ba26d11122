//! A failure of each operation of the file system, with each kind of error.

use vayu_core::{Generations, Group};

use super::*;
use crate::errno::Errno;
use crate::fs::model::Fault;

const ERRORS: [Errno; 12] = [
    Errno::IO,
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::MFILE,
    Errno::ACCESS,
    Errno::ROFS,
    Errno::XDEV,
    Errno::INTR,
    Errno::STALE,
    Errno::NOENT,
    Errno::LOOP,
    Errno::NOTDIR,
];

/// Returns two keys of one shard.
fn neighbours() -> (Key, Key) {
    let shard = |key: &Key| key.digest()[0];
    let first = key("first");
    let second = (0..10_000).map(|n| key(n.to_string())).find(|key| shard(key) == shard(&first));
    (first.clone(), second.expect("a digest with the same first byte"))
}

/// Calls `operation` on a fresh copy of a disk for each of its file system operations, which fails, and
/// then calls `check`. Returns the number of operations.
fn with_every_fault<T>(
    disk: &Disk,
    fault: impl Fn(usize) -> Fault,
    operation: impl Fn(&FileBackend) -> T,
    check: impl Fn(T, &Disk, usize),
) -> usize {
    let clock = ManualClock::new();
    for number in 0.. {
        let disk = disk.fork();
        let backend = open(&disk, &options(&clock));
        disk.plan(fault(number));
        let result = operation(&backend);
        let operations = disk.operations();
        disk.plan(None);
        check(result, &disk, number);
        if operations <= number {
            return number;
        }
    }
    unreachable!("every operation ends")
}

fn both(mut run: impl FnMut(&dyn Fn(usize) -> Fault)) {
    for errno in ERRORS {
        run(&|number| Fault::Once(number, errno));
        if errno != Errno::INTR {
            run(&|number| Fault::From(number, errno));
        }
    }
}

#[test]
fn failed_write_leaves_the_old_entry_or_the_new_one() {
    let clock = ManualClock::new();
    let (target, neighbour) = neighbours();
    let cold = Disk::default();
    let warm = cold.fork();
    let backend = open(&warm, &options(&clock));
    for key in [&target, &neighbour] {
        backend.write(key, record(&clock, "old")).expect("write");
    }
    let mut operations = 0;
    for (disk, old) in [(&cold, None), (&warm, Some(Bytes::from("old")))] {
        both(|fault| {
            let write = |backend: &FileBackend| backend.write(&target, record(&clock, "new"));
            operations = with_every_fault(disk, fault, write, |result, disk, number| {
                let backend = open(disk, &options(&clock));
                let found = value(&backend, &target);
                if result.is_ok() {
                    assert_eq!(found.as_deref(), Some(&b"new"[..]), "operation {number}");
                } else {
                    assert!(found == old || found == Some("new".into()), "operation {number}");
                }
                assert_eq!(value(&backend, &neighbour), old, "operation {number}");
                backend.write(&target, record(&clock, "newer")).expect("the disk works again");
                assert_eq!(value(&backend, &target), Some("newer".into()));
            });
        });
    }
    assert!(operations >= 6, "{operations} operations of a write were made to fail");
}

#[test]
fn failed_write_leaves_no_temporary_file() {
    let clock = ManualClock::new();
    for errno in ERRORS {
        let fault = |number| Fault::Once(number, errno);
        let write = |backend: &FileBackend| backend.write(&key("k"), record(&clock, "value"));
        with_every_fault(&Disk::default(), fault, write, |_, disk, number| {
            let names = disk.names();
            assert!(
                !names.iter().any(|name| name.contains("tmp")),
                "operation {number}: {names:?}"
            );
        });
    }
}

#[test]
fn failed_read_is_an_error_or_a_miss_and_never_a_wrong_value() {
    let clock = ManualClock::new();
    for length in [10, 70_000] {
        let disk = Disk::default();
        let written = vec![7; length];
        open(&disk, &options(&clock))
            .write(&key("k"), record(&clock, written.clone()))
            .expect("write");
        both(|fault| {
            // The second read keeps the file open, and the third uses it.
            let read = |backend: &FileBackend| [(); 3].map(|()| backend.read(&key("k")));
            with_every_fault(&disk, fault, read, |results, disk, number| {
                for found in results.into_iter().flatten().flatten() {
                    assert_eq!(*found.value(), written, "operation {number}");
                }
                let backend = open(disk, &options(&clock));
                assert_eq!(value(&backend, &key("k")).as_deref(), Some(&written[..]));
            });
        });
    }
}

#[test]
fn failed_deletes_clears_leases_and_sweeps_leave_valid_entries() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    open(&disk, &options(&clock)).write(&key("k"), record(&clock, "value")).expect("write");
    let check = |disk: &Disk, is_deleted: bool, number: usize| {
        let found = value(&open(disk, &options(&clock)), &key("k"));
        assert!(found.is_none() || found.as_deref() == Some(b"value"), "operation {number}");
        assert!(!is_deleted || found.is_none(), "operation {number}: `delete` returned true");
    };
    both(|fault| {
        let delete = |backend: &FileBackend| backend.delete(&key("k"));
        with_every_fault(&disk, fault, delete, |result, disk, number| {
            check(disk, result.is_ok_and(|existed| existed), number);
        });
        // The first shards stand for all.
        let clock = ManualClock::new();
        for number in 0..24 {
            let disk = disk.fork();
            let backend = open(&disk, &options(&clock));
            disk.plan(fault(number));
            let _ = backend.sweep();
            disk.plan(None);
            check(&disk, false, number);
        }
        let lease = |backend: &FileBackend| {
            backend.capabilities().leases.expect("leases").try_acquire(&key("k")).is_ok()
        };
        with_every_fault(&disk, fault, lease, |_, disk, number| check(disk, false, number));
    });
    // A shard that cannot be opened may contain entries: `clear` must not skip it.
    for errno in [Errno::IO, Errno::ACCESS, Errno::MFILE] {
        let clear = |backend: &FileBackend| backend.clear();
        let fault = |number| Fault::Once(number, errno);
        with_every_fault(&disk, fault, clear, |result, disk, number| {
            check(disk, result.is_ok(), number);
        });
    }
}

#[test]
fn failed_open_is_an_error_and_can_be_repeated() {
    let clock = ManualClock::new();
    for errno in ERRORS {
        for number in 0.. {
            let disk = Disk::default();
            disk.plan(Fault::Once(number, errno));
            let result = FileBackend::in_directory(disk.root(), None, &options(&clock));
            let operations = disk.operations();
            disk.plan(None);
            if let Err(error) = result {
                assert_eq!(error.kind(), vayu_core::ErrorKind::Configuration);
            }
            open(&disk, &options(&clock)).write(&key("k"), record(&clock, "v")).expect("write");
            if operations <= number {
                break;
            }
        }
    }
}

#[test]
fn reads_and_writes_may_transfer_one_byte_at_a_time() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    disk.plan(Fault::Slow);
    for length in [0, 1, 300] {
        backend.write(&key("k"), record(&clock, vec![7; length])).expect("write");
        assert_eq!(value(&backend, &key("k")).as_deref(), Some(&vec![7; length][..]));
    }
}

#[test]
fn entry_with_any_flipped_bit_or_wrong_length_is_a_miss_and_is_overwritten() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    backend.write(&key("k"), record(&clock, "value")).expect("write");
    let path = disk.names().into_iter().find(|name| name.contains(".v1")).expect("an entry");
    let bytes = vayu_core::wire::encode(
        &vayu_core::wire::WireKey::new(&key("k")),
        &record(&clock, "value"),
    );
    let flipped = (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    });
    let cut = (0..bytes.len()).map(|length| bytes[..length].to_vec());
    let longer = [[&bytes[..], b"x"].concat(), [&bytes[..], &bytes].concat()];
    for damaged in flipped.chain(cut).chain(longer) {
        disk.damage(&path, &damaged);
        assert_eq!(value(&backend, &key("k")), None);
        backend.write(&key("k"), record(&clock, "value")).expect("write");
        assert_eq!(value(&backend, &key("k")), Some("value".into()));
    }
}

#[test]
fn entry_that_cannot_be_read_is_one_outage_while_generations_can_be_read() {
    let (clock, disk, key, group) =
        (ManualClock::new(), Disk::default(), key("k"), Group::tag("t"));
    let backend = open(&disk, &options(&clock));
    backend.write(&key, record(&clock, "v")).expect("write");
    backend.bump(group).expect("bump");
    let minute = Duration::from_secs(60);
    for _ in 0..5 {
        disk.plan(Fault::From(0, Errno::IO));
        backend.read(&key).expect_err("the disk fails");
        disk.plan(None);
        backend.generation(group).expect("read");
        clock.advance(minute);
    }
    assert_eq!(backend.store.outages.entries.succeeded(), Some(5 * minute));
    for _ in 0..2 {
        disk.plan(Fault::From(0, Errno::IO));
        backend.generation(group).expect_err("the disk fails");
        disk.plan(None);
        backend.read(&key).expect("read");
        clock.advance(minute);
    }
    // A group without a file has a generation, too.
    backend.generation(Group::tag("other")).expect("read");
    assert_eq!(backend.store.outages.generations.succeeded(), None, "it is over");
}

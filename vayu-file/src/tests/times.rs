//! Entries whose times are renewed.

use vayu_core::wire::HEADER_LENGTH;

use super::*;
use crate::errno::Errno;
use crate::fs::model::Fault;
use crate::inspect::{CacheDirectory, Verify};
use crate::layout::EntryPath;

/// A disk with an entry whose value has this length, with its record and one with later times.
fn fixture(length: usize) -> (Disk, FileBackend, Record<Bytes>, Record<Bytes>) {
    let (disk, clock) = (Disk::default(), ManualClock::new());
    let backend = open(&disk, &options(&clock));
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
    let old = record(&clock, vec![7; length]).with_compute_time(Duration::from_millis(12));
    let old = old.with_stale_until(clock.now().saturating_add(hour));
    backend.write(&key("k"), old.clone()).expect("write");
    clock.advance(Duration::from_secs(90));
    let created = clock.now();
    let expires = created.saturating_add(minute);
    let new = old.clone().with_times(created, expires, expires.saturating_add(hour));
    (disk, backend, old, new)
}

fn times(record: &Record<Bytes>) -> Record<()> {
    record.as_ref().map(|_| ())
}

#[test]
fn renewed_value_costs_one_read_and_one_write_of_the_header() {
    let (disk, backend, old, new) = fixture(1 << 20);
    disk.plan(None);
    let found = backend.read(&key("k")).expect("read").expect("an entry");
    let (read, written) = disk.transferred();
    assert!(found == old && written == 0 && read < (1 << 20) + 512, "{read}");
    backend.write_times(&key("k"), &times(&found), new.clone()).expect("write");
    let (read_in_all, written) = disk.transferred();
    // Beside the counts of all shards, and the one that changes.
    let (counts, count) = (256 * 32, 32);
    let read_again = read_in_all - read;
    assert!(read_again < 512 + counts, "header and key: {read_again} bytes");
    assert!(written <= HEADER_LENGTH + 2 * count, "{written} bytes");
    assert_eq!(backend.read(&key("k")).expect("read"), Some(new.clone()));
    let other = open(&disk, &options(&ManualClock::new()));
    assert_eq!(other.read(&key("k")).expect("read"), Some(new), "for other processes, too");
}

#[test]
fn entry_that_was_replaced_in_the_meantime_stays() {
    let (_, backend, old, new) = fixture(100);
    let other = new.clone().map(|_| Bytes::from_static(b"other"));
    backend.write(&key("k"), other.clone()).expect("write");
    backend.write_times(&key("k"), &times(&old), new.clone()).expect("write");
    assert_eq!(backend.read(&key("k")).expect("read"), Some(other));
    backend.delete(&key("k")).expect("delete");
    backend.write_times(&key("k"), &times(&old), new.clone()).expect("write");
    assert_eq!(
        backend.read(&key("k")).expect("read"),
        Some(new),
        "it was evicted: written as a whole"
    );
}

#[test]
fn entry_of_a_later_computation_stays() {
    let (_, backend, old, new) = fixture(100);
    let minute = Duration::from_secs(60);
    // The function ended some seconds ago, and another process has computed since.
    let [ended, later] = [10, 5].map(|seconds| {
        let created = Timestamp::from_micros(new.created().as_micros() - seconds * 1_000_000);
        new.clone().with_times(created, created.saturating_add(minute), new.stale_until())
    });
    let later = later.map(|_| Bytes::from_static(b"later"));
    backend.write(&key("k"), later.clone()).expect("write");
    backend.write_times(&key("k"), &times(&old), ended.clone()).expect("write");
    assert_eq!(backend.read(&key("k")).expect("read"), Some(later.clone()));
    let of_other_type = later.with_schema(old.schema() + 1);
    backend.write(&key("k"), of_other_type).expect("write");
    backend.write_times(&key("k"), &times(&old), ended.clone()).expect("write");
    assert_eq!(
        backend.read(&key("k")).expect("read"),
        Some(ended),
        "no caller is served the other"
    );
}

#[test]
fn entry_that_was_replaced_by_one_that_is_not_fresh_is_written_as_a_whole() {
    let minute = Duration::from_secs(60);
    let (_, backend, old, new) = fixture(100);
    let [later, future] = [old.created(), new.created()].map(|base| {
        let created = base.saturating_add(Duration::from_secs(1));
        let expires = created.saturating_add(minute);
        old.clone().map(|_| Bytes::from_static(b"other")).with_times(created, expires, expires)
    });
    for other in [later, future] {
        backend.write(&key("k"), other).expect("write");
        backend.write_times(&key("k"), &times(&old), new.clone()).expect("write");
        assert_eq!(backend.read(&key("k")).expect("read"), Some(new.clone()));
    }
}

#[test]
fn entry_with_another_form_of_its_key_is_written_as_a_whole() {
    let (disk, _, old, new) = fixture(100);
    let hidden = open(&disk, &options(&ManualClock::new()).hide_arguments());
    hidden.write_times(&key("k"), &times(&old), new.clone()).expect("write");
    assert_eq!(hidden.read(&key("k")).expect("read"), Some(new));
}

#[test]
fn entry_is_the_old_one_or_the_new_one_after_a_failure_of_any_operation() {
    for operation in 0.. {
        let (disk, backend, old, new) = fixture(5_000);
        disk.plan(Fault::Once(operation, Errno::IO));
        let result = backend.write_times(&key("k"), &times(&old), new.clone());
        let has_failed = disk.operations() > operation;
        disk.plan(None);
        let found = backend.read(&key("k")).expect("read").expect("an entry");
        assert!(found == new || found == old && result.is_err(), "operation {operation}");
        if !has_failed {
            assert!(operation > 5 && result.is_ok());
            break;
        }
    }
    let (disk, backend, old, new) = fixture(5_000);
    disk.plan(Fault::Slow);
    backend.write_times(&key("k"), &times(&old), new.clone()).expect("write");
    assert_eq!(backend.read(&key("k")).expect("read"), Some(new));
}

#[test]
fn entry_that_is_read_while_its_times_are_overwritten_is_neither_corrupt_nor_removed() {
    let (disk, backend, old, _) = fixture(100);
    let path = EntryPath::of(&vayu_core::wire::WireKey::new(&key("k")));
    let directory = CacheDirectory::in_directory(disk.root());
    for verify in [Verify::Header, Verify::Full] {
        disk.tear_next_read(path.as_str());
        let entry = directory.entries(verify).next().expect("an entry").expect("a list");
        assert!(entry.details().is_ok(), "{verify:?}");
        disk.tear_next_read(path.as_str());
        assert!(directory.value(&entry).is_ok());
    }
    disk.tear_next_read(path.as_str());
    let usage = backend.sweep().expect("sweep");
    assert_eq!((usage.entries, usage.corrupt_entries), (Some(1), Some(0)));
    assert_eq!(backend.read(&key("k")).expect("read"), Some(old));
}

//! Files that are open, on a disk that follows the rules of Windows.

use vayu_core::{ErrorKind, Generations, Group};

use super::*;
use crate::layout::EntryPath;

/// Opens a backend with an entry, and returns the path of the entry.
fn with_entry() -> (Disk, FileBackend, ManualClock, String) {
    let (disk, clock) = (Disk::default(), ManualClock::new());
    disk.follow_windows();
    let backend = open(&disk, &options(&clock));
    backend.write(&key("k"), record(&clock, "old")).expect("write");
    let path = EntryPath::of(&vayu_core::wire::WireKey::new(&key("k")));
    (disk, backend, clock, path.as_str().to_owned())
}

fn has_temporary_file(disk: &Disk) -> bool {
    disk.names().iter().any(|name| name.contains(".vayu-tmp-"))
}

#[test]
fn entry_that_is_read_is_replaced_and_removed() {
    let (disk, backend, clock, path) = with_entry();
    let reader = disk.root().open(&path).expect("it exists");
    backend.write(&key("k"), record(&clock, "new")).expect("write");
    assert_eq!(value(&backend, &key("k")), Some("new".into()));
    let second = disk.root().open(&path).expect("it exists");
    assert!(backend.delete(&key("k")).expect("delete"));
    assert_eq!(value(&backend, &key("k")), None);
    drop((reader, second));
    assert!(!has_temporary_file(&disk));
}

#[test]
fn entry_that_another_program_holds_is_kept_and_its_change_is_an_error() {
    let (disk, backend, clock, path) = with_entry();
    disk.hold(&path);
    let error = backend.write(&key("k"), record(&clock, "new")).expect_err("it is held");
    assert_eq!(error.kind(), ErrorKind::Backend);
    assert!(backend.delete(&key("k")).is_err());
    assert_eq!(value(&backend, &key("k")), Some("old".into()), "it can be read");
    assert!(!has_temporary_file(&disk));
    disk.release();
    backend.write(&key("k"), record(&clock, "new")).expect("write");
    assert_eq!(value(&backend, &key("k")), Some("new".into()));
}

#[test]
fn entry_stays_if_another_program_holds_the_file_that_is_to_replace_it() {
    let (disk, backend, clock, _) = with_entry();
    disk.hold_next();
    backend.write(&key("k"), record(&clock, "new")).expect_err("its file is held");
    assert_eq!(value(&backend, &key("k")), Some("old".into()));
    disk.release();
    backend.write(&key("k"), record(&clock, "new")).expect("write");
    assert_eq!(value(&backend, &key("k")), Some("new".into()));
}

#[test]
fn group_has_a_generation_at_each_moment_of_an_invalidation_while_its_file_is_read() {
    let (disk, backend, ..) = with_entry();
    let group = Group::tag("t");
    backend.bump(group).expect("invalidate");
    let first = backend.generation(group).expect("a generation");
    let path = EntryPath::of_generation(group);
    let reader = disk.root().open(path.as_str()).expect("it exists");
    disk.record();
    backend.bump(group).expect("invalidate");
    let second = backend.generation(group).expect("a generation");
    assert!(first != second && first != 0 && second != 0);
    for state in disk.after_power_loss() {
        let backend = open(&state, &options(&ManualClock::new()));
        assert_ne!(backend.generation(group).expect("a generation"), 0);
    }
    drop(reader);
}

#[test]
fn invalidation_of_a_generation_that_another_program_holds_removes_the_entries_or_is_an_error() {
    let (disk, backend, _, path) = with_entry();
    let group = Group::tag("t");
    backend.bump(group).expect("invalidate");
    disk.hold(EntryPath::of_generation(group).as_str());
    backend.bump(group).expect("all entries are removed");
    assert_eq!(value(&backend, &key("k")), None);
    disk.release();
    let clock = ManualClock::new();
    backend.write(&key("k"), record(&clock, "new")).expect("write");
    disk.hold(EntryPath::of_generation(group).as_str());
    disk.hold(&path);
    assert!(backend.bump(group).is_err());
}

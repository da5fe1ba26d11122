//! What goes, and when.

use vayu_core::Usage;

use super::*;

fn numbered(n: usize) -> Key {
    key(n.to_string())
}

fn entries(usage: &Usage) -> u64 {
    usage.entries.expect("a count")
}

fn write(backend: &FileBackend, clock: &ManualClock, keys: std::ops::Range<usize>) {
    for n in keys {
        clock.advance(Duration::from_secs(1));
        let end = Timestamp::NEVER;
        backend.write(&numbered(n), Record::new("value".into(), clock.now(), end)).expect("write");
    }
}

#[test]
fn entries_that_were_written_longest_ago_go_first() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock).max_entries(100));
    write(&backend, &clock, 0..1_000);
    let usage = backend.usage();
    assert_eq!(entries(&usage), 100);
    assert_eq!(usage.evictions, Some(900));
    let is_there = |n: &usize| value(&backend, &numbered(*n)).is_some();
    assert_eq!((900..1_000).filter(is_there).count(), 100, "the newest are left");
}

#[test]
fn bytes_are_a_limit_that_is_kept() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock).max_bytes(1 << 20));
    for n in 0..600 {
        clock.advance(Duration::from_secs(1));
        let length = n * 7919 % 30_000;
        let value = record(&clock, vec![7; length]).with_stale_until(Timestamp::NEVER);
        backend.write(&numbered(n), value).expect("write");
        assert!(backend.usage().weight.is_some_and(|bytes| bytes <= 1 << 20), "after write {n}");
    }
    assert!(backend.usage().evictions.is_some_and(|evictions| evictions > 0));
}

#[test]
fn limit_counts_what_was_there_before() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    write(&open(&disk, &options(&clock)), &clock, 0..500);
    let backend = open(&disk, &options(&clock).max_entries(100));
    assert_eq!(entries(&backend.usage()), 500, "what is there is counted");
    write(&backend, &clock, 500..501);
    assert_eq!(entries(&backend.usage()), 100);
    assert!(value(&backend, &numbered(500)).is_some(), "the newest stays");
}

#[test]
fn entry_beyond_a_limit_is_refused_and_nothing_is_lost() {
    let clock = ManualClock::new();
    for options in [
        options(&clock).max_entry_bytes(1_000),
        options(&clock).max_bytes(4_096),
        options(&clock).max_entries(0),
    ] {
        let disk = Disk::default();
        let backend = open(&disk, &options);
        let _ = backend.write(&key("small"), record(&clock, "value"));
        let before = backend.usage();
        let error = backend.write(&key("k"), record(&clock, vec![7; 9_000])).expect_err("too long");
        assert_eq!(error.kind(), vayu_core::ErrorKind::Configuration);
        assert_eq!(backend.usage(), before);
        assert_eq!(value(&backend, &key("k")), None);
    }
}

#[test]
fn expired_entries_are_swept_by_later_writes() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    for n in 0..300 {
        backend.write(&numbered(n), record(&clock, "value")).expect("write");
    }
    clock.advance(Duration::from_secs(60));
    // A write sweeps for a moment only, so this may take a few.
    let mut writes = 0;
    while entries(&backend.usage()) > 1 {
        backend.write(&key("later"), record(&clock, "value")).expect("write");
        writes += 1;
        assert!(writes < 1_000_000, "{:?}", backend.usage());
    }
    assert_eq!(backend.usage().expirations, Some(300));
    assert!(value(&backend, &key("later")).is_some());
}

#[test]
fn counts_follow_overwrites_deletes_and_clears() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    for n in [0, 1, 1, 1] {
        backend.write(&numbered(n), record(&clock, vec![7; 5_000])).expect("write");
    }
    let usage = backend.usage();
    assert_eq!((usage.entries, usage.weight), (Some(2), Some(2 * 8_192)));
    backend.write(&numbered(1), record(&clock, "short")).expect("write");
    assert_eq!(backend.usage().weight, Some(8_192 + 4_096));
    assert!(backend.delete(&numbered(0)).expect("delete"));
    assert!(!backend.delete(&numbered(0)).expect("delete"));
    assert_eq!(entries(&backend.usage()), 1);
    backend.clear().expect("clear");
    let usage = backend.usage();
    assert_eq!((usage.entries, usage.weight), (Some(0), Some(0)));
    assert_eq!(entries(&open(&disk, &options(&clock)).usage()), 0);
}

#[test]
fn entries_of_a_later_version_are_counted_and_left_alone() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    let backend = open(&disk, &options(&clock));
    write(&backend, &clock, 0..3);
    for path in disk.names().into_iter().filter(|name| name.contains(".v1")) {
        disk.damage(
            &path,
            b"\x89VYU\r\n\x1a\n\x02 and whatever comes with the second version, which is \
            longer than a header of this one has to be",
        );
    }
    let backend = open(&disk, &options(&clock).max_entries(2));
    write(&backend, &clock, 3..10);
    let later = entries(&backend.usage());
    assert_eq!(later, 3, "nothing of ours is left to make room, and theirs stays");
}

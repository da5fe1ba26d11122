//! Limits, eviction and expiry.

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
fn oldest_entries_are_evicted_first() {
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
fn limit_of_bytes_is_enforced() {
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
fn limit_includes_entries_that_existed_before() {
    let clock = ManualClock::new();
    let disk = Disk::default();
    write(&open(&disk, &options(&clock)), &clock, 0..500);
    let backend = open(&disk, &options(&clock).max_entries(100));
    assert_eq!(entries(&backend.usage()), 500, "what is there is counted");
    for n in 500..510 {
        write(&backend, &clock, n..n + 1);
        assert!(value(&backend, &numbered(n)).is_some(), "the newest stays");
    }
    assert_eq!(entries(&backend.usage()), 100, "ten writes are enough");
    assert_eq!(entries(&backend.sweep().expect("sweep")), 100);
}

/// Returns the number of entries on the disk, and their bytes.
fn on_disk(disk: &Disk, clock: &ManualClock) -> (u64, u64) {
    let usage = open(disk, &options(clock)).sweep().expect("sweep");
    (entries(&usage), usage.weight.expect("a count"))
}

#[test]
fn limit_is_enforced_by_caches_that_write_once() {
    for length in [10, 16_000, 200_000] {
        let (clock, disk) = (ManualClock::new(), Disk::default());
        let limits = options(&clock).max_bytes(2 << 20).max_entries(300);
        for n in 0..700 {
            clock.advance(Duration::from_secs(1));
            let backend = open(&disk, &limits);
            let value = record(&clock, vec![7; length]).with_stale_until(Timestamp::NEVER);
            backend.write(&numbered(n), value).expect("write");
            assert!(backend.read(&numbered(n)).expect("read").is_some(), "the newest stays");
            let usage = backend.usage();
            assert!(usage.weight <= Some(2 << 20) && usage.entries <= Some(300), "{usage:?}");
        }
        let (entries, bytes) = on_disk(&disk, &clock);
        assert!(entries <= 300 && bytes <= 2 << 20, "{entries} entries of {length}: {bytes}");
        let room = (2_u64 << 20) / (length as u64 + 8_192);
        assert!(entries >= room.min(300) * 9 / 10, "{entries} entries of {length}");
    }
}

#[test]
fn limit_is_enforced_by_several_caches_that_write_in_turn() {
    for length in [10, 16_000] {
        let (clock, disk) = (ManualClock::new(), Disk::default());
        let limits = options(&clock).max_bytes(2 << 20).max_entries(300);
        let backends = [(); 4].map(|()| open(&disk, &limits));
        for n in 0..1_500 {
            clock.advance(Duration::from_secs(1));
            let value = record(&clock, vec![7; length]).with_stale_until(Timestamp::NEVER);
            backends[n % 4].write(&numbered(n), value).expect("write");
            if n % 100 == 0 {
                let (entries, bytes) = on_disk(&disk.fork(), &clock);
                assert!(entries <= 300 && bytes <= 2 << 20, "{entries} entries, {bytes} bytes");
            }
        }
    }
}

#[test]
fn write_to_a_directory_far_above_the_limit_does_a_bounded_amount_of_work() {
    let (clock, disk) = (ManualClock::new(), Disk::default());
    write(&open(&disk, &options(&clock)), &clock, 0..10_000);
    let backend = open(&disk, &options(&clock).max_entries(100));
    let (mut lists, mut writes) = (0, 0);
    while entries(&backend.usage()) > 100 {
        disk.plan(None);
        write(&backend, &clock, 20_000 + writes..20_001 + writes);
        let (listed, opened) = disk.accesses();
        assert!(listed <= 256, "{listed} shards were listed by one write");
        assert!(opened <= 3_000, "{opened} files were opened by one write");
        lists += listed;
        writes += 1;
        assert!(writes < 100, "{:?}", backend.usage());
    }
    assert!(lists <= 4 * 256, "each shard is listed a few times in total: {lists} times");
    assert_eq!(on_disk(&disk, &clock).0, 100);
    // From here on a write evicts one entry.
    disk.plan(None);
    write(&backend, &clock, 30_000..30_001);
    let (listed, opened) = disk.accesses();
    assert!(listed <= 1 && opened <= 30, "{listed} shards, {opened} files");
}

#[test]
fn shard_with_very_many_entries_is_sampled() {
    let (clock, disk) = (ManualClock::new(), Disk::default());
    // All in one shard.
    let digest = |n: usize| numbered(n).digest()[0];
    let numbers: Vec<_> = (0..1_300_000).filter(|&n| digest(n) == 0).take(4_000).collect();
    let backend = open(&disk, &options(&clock));
    for &n in &numbers {
        write(&backend, &clock, n..n + 1);
    }
    let small = open(&disk, &options(&clock).max_entries(1_000));
    let mut writes = 0;
    while entries(&small.usage()) > 1_000 {
        disk.plan(None);
        write(&small, &clock, numbers[0]..numbers[0] + 1);
        let (_, opened) = disk.accesses();
        assert!(opened <= 3_000, "{opened} files were opened by one write");
        writes += 1;
        assert!(writes < 100, "{:?}", small.usage());
    }
    let left = on_disk(&disk, &clock).0;
    assert!((800..=1_000).contains(&left), "{left} entries are left");
}

#[test]
fn long_entry_evicts_as_many_short_ones_as_it_needs() {
    let (clock, disk) = (ManualClock::new(), Disk::default());
    let backend = open(&disk, &options(&clock).max_bytes(16 << 20));
    write(&backend, &clock, 0..4_000);
    for n in 0..12 {
        clock.advance(Duration::from_secs(1));
        let value = record(&clock, vec![7; 1_600_000]).with_stale_until(Timestamp::NEVER);
        backend.write(&key(format!("long {n}")), value).expect("write");
        assert!(value_is_there(&backend, &format!("long {n}")));
        assert!(backend.usage().weight <= Some(16 << 20), "{:?}", backend.usage());
    }
    assert!(on_disk(&disk, &clock).1 <= 16 << 20);
}

fn value_is_there(backend: &FileBackend, text: &str) -> bool {
    value(backend, &key(text)).is_some()
}

#[test]
fn stats_access_no_file_and_a_sweep_counts_everything() {
    let (clock, disk) = (ManualClock::new(), Disk::default());
    let backend = open(&disk, &options(&clock));
    write(&backend, &clock, 0..500);
    let other = open(&disk, &options(&clock));
    backend.delete(&numbered(0)).expect("delete");
    disk.plan(None);
    assert_eq!((backend.usage().entries, other.usage().entries), (Some(499), Some(500)));
    assert_eq!(disk.operations(), 0);
    // Without counts, the usage of a directory is unknown.
    disk.unlink("/counts-1");
    let later = open(&disk, &options(&clock));
    disk.plan(None);
    assert_eq!(later.usage().entries, None);
    assert_eq!(disk.operations(), 0);
    assert_eq!(entries(&later.sweep().expect("sweep")), 499);
    assert_eq!(open(&disk, &options(&clock)).usage().entries, Some(499), "the counts are shared");
}

#[test]
fn damaged_or_missing_counts_are_restored_by_a_few_caches_that_write_once() {
    for bytes in [None, Some(vec![]), Some(vec![7; 8_192]), Some(vec![0; 100_000])] {
        let (clock, disk) = (ManualClock::new(), Disk::default());
        write(&open(&disk, &options(&clock)), &clock, 0..500);
        match &bytes {
            None => disk.unlink("/counts-1"),
            Some(bytes) => disk.damage("/counts-1", bytes),
        }
        let limits = options(&clock).max_entries(100);
        for n in 500..600 {
            write(&open(&disk, &limits), &clock, n..n + 1);
        }
        assert_eq!(entries(&open(&disk, &limits).usage()), 100, "{bytes:?}");
        assert_eq!(on_disk(&disk, &clock).0, 100);
    }
}

#[test]
fn expired_entries_are_removed_from_every_shard_by_caches_that_write_once() {
    let (clock, disk) = (ManualClock::new(), Disk::default());
    let backend = open(&disk, &options(&clock));
    for n in 0..600 {
        backend.write(&numbered(n), record(&clock, "value")).expect("write");
    }
    clock.advance(Duration::from_secs(60));
    for n in 0..300 {
        let backend = open(&disk, &options(&clock));
        backend.write(&key(format!("later {}", n % 2)), record(&clock, "value")).expect("write");
    }
    let left = disk.names().into_iter().filter(|name| name.contains(".v1")).count();
    assert_eq!(left, 2);
}

#[test]
fn entry_above_a_limit_is_refused_and_nothing_is_lost() {
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
    // A write sweeps for a moment only, so this may need several writes.
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
    assert_eq!(entries(&open(&disk, &options(&clock)).sweep().expect("sweep")), 0);
}

#[test]
fn entries_of_a_later_version_are_counted_and_kept() {
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
    backend.sweep().expect("sweep");
    write(&backend, &clock, 3..10);
    let later = entries(&backend.sweep().expect("sweep"));
    assert_eq!(later, 3, "the other entries are evicted, and those of the later version are kept");
}

//! Entries whose files are kept open, while other processes change them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{AtFlags, CWD};
use vayu_core::Key;
use vayu_core::testing::watchdog;
use vayu_file::FileCache;

use crate::fixture::{Fixture, entry, key, keys, options, shard};
use crate::foreign_file::FOREIGN_FILES;
use crate::{HANG, HOUR, size};

/// Returns the number of files in a directory that this process has open.
fn open_files(directory: &Path) -> usize {
    let directory = directory.canonicalize().expect("the directory is there");
    let descriptors = fs::read_dir("/proc/self/fd").expect("Linux has /proc");
    let paths = descriptors.filter_map(|name| fs::read_link(name.ok()?.path()).ok());
    paths.filter(|path| path != &directory && path.starts_with(&directory)).count()
}

fn get(cache: &FileCache, key: &Key) -> Option<String> {
    cache.get(key).expect("read")
}

fn set(cache: &FileCache, key: &Key, value: &str) {
    cache.set(key, &value.to_owned(), HOUR).expect("set");
}

/// Returns a cache that keeps the file of an entry open.
fn cache_with_open_file(fixture: &Fixture, key: &Key) -> FileCache {
    let cache = fixture.open();
    set(&cache, key, "old");
    for _ in 0..3 {
        assert_eq!(get(&cache, key).as_deref(), Some("old"));
    }
    assert_eq!(open_files(fixture.path()), 1, "the file is open");
    cache
}

#[test]
fn entry_that_another_process_replaces_is_seen_at_once() {
    let key = key("first");
    let fixture = Fixture::new(&key);
    let cache = cache_with_open_file(&fixture, &key);
    let other = tempfile::tempdir().expect("a directory");
    for n in 0..20 {
        let value = format!("{n:03}");
        set(&options().open(other.path()).expect("a cache"), &key, &value);
        let mut moving = Command::new("mv");
        moving.arg(entry(other.path(), &key)).arg(entry(fixture.path(), &key));
        assert!(moving.status().expect("the command is there").success());
        for _ in 0..3 {
            assert_eq!(get(&cache, &key).as_deref(), Some(&*value));
        }
        assert_eq!(open_files(fixture.path()), 1);
    }
}

#[test]
fn entry_that_another_cache_replaces_or_removes_is_seen_at_once() {
    let key = key("first");
    let fixture = Fixture::new(&key);
    let (cache, other) = (cache_with_open_file(&fixture, &key), fixture.open());
    for n in 0..100 {
        let value = format!("{n:03}");
        set(&other, &key, &value);
        assert_eq!(get(&cache, &key).as_deref(), Some(&*value));
        assert_eq!(get(&cache, &key).as_deref(), Some(&*value));
        if n % 3 == 0 {
            assert!(other.remove(&key).expect("remove"));
            assert_eq!(get(&cache, &key), None);
        }
    }
}

#[test]
fn foreign_file_in_place_of_an_open_entry_is_a_miss() {
    for foreign in FOREIGN_FILES {
        watchdog(HANG, move || {
            let key = key("first");
            let fixture = Fixture::new(&key);
            let cache = cache_with_open_file(&fixture, &key);
            let at = entry(fixture.path(), &key);
            fs::remove_file(&at).expect("the entry is there");
            if foreign.make(&at, &fixture, &key) {
                let outside = fixture.outside();
                assert_eq!(get(&cache, &key), None, "{foreign:?}");
                assert_eq!(get(&cache, &key), None, "{foreign:?}");
                assert_eq!(open_files(fixture.path()), 0, "{foreign:?}: it was closed");
                assert_eq!(fixture.outside(), outside);
            }
        });
    }
}

#[test]
fn open_entry_that_is_damaged_in_place_is_counted_as_corrupt() {
    let key = key("first");
    let fixture = Fixture::new(&key);
    let at = entry(fixture.path(), &key);
    for (corrupt_entries, damage) in (1..).zip([
        (|bytes| *bytes.last_mut().expect("a byte") ^= 1) as fn(&mut Vec<u8>),
        |bytes| bytes.truncate(90),
        Vec::clear,
        |bytes| bytes.push(0),
        |bytes| bytes.resize(1 << 20, 0),
    ]) {
        let cache = cache_with_open_file(&fixture, &key);
        let mut bytes = fs::read(&at).expect("read");
        damage(&mut bytes);
        // This overwrites the existing file.
        fs::write(&at, bytes).expect("write");
        assert_eq!(get(&cache, &key), None, "{corrupt_entries}");
        assert_eq!(cache.stats().usage.corrupt_entries, Some(1), "{corrupt_entries}");
        drop(cache);
        fs::remove_file(&at).expect("it is there");
    }
}

#[test]
fn shard_of_an_open_entry_that_is_renamed_is_empty() {
    let key = key("first");
    let fixture = Fixture::new(&key);
    let cache = cache_with_open_file(&fixture, &key);
    let (inside, away) = (shard(fixture.path(), &key), fixture.path().join(".away"));
    fs::rename(&inside, &away).expect("the directory is moved");
    assert_eq!(get(&cache, &key), None);
    // The entry there is another file.
    symlink(fixture.outside_shard(), &inside).expect("a link");
    assert_eq!(get(&cache, &key), None);
    fs::remove_file(&inside).expect("the link is there");
    fs::rename(&away, &inside).expect("the directory is moved back");
    for _ in 0..3 {
        assert_eq!(get(&cache, &key).as_deref(), Some("old"));
    }
    // A symbolic link to the open file itself, and never to another one.
    fs::rename(&inside, &away).expect("the directory is moved");
    symlink(&away, &inside).expect("a link");
    assert!(get(&cache, &key).is_none_or(|value| value == "old"));
}

#[test]
fn entry_that_is_renamed_and_renamed_back_is_found_again() {
    let key = key("first");
    let fixture = Fixture::new(&key);
    let cache = cache_with_open_file(&fixture, &key);
    let (at, away) = (entry(fixture.path(), &key), fixture.path().join(".away"));
    fs::rename(&at, &away).expect("the entry is there");
    assert_eq!(get(&cache, &key), None);
    fs::rename(&away, &at).expect("the entry is there");
    assert_eq!(get(&cache, &key).as_deref(), Some("old"));
    // A hard link changes nothing.
    rustix::fs::linkat(CWD, &at, CWD, &away, AtFlags::empty()).expect("a second name");
    assert_eq!(get(&cache, &key).as_deref(), Some("old"));
    set(&fixture.open(), &key, "new");
    assert_eq!(get(&cache, &key).as_deref(), Some("new"));
    fs::rename(&away, &at).expect("the old entry is put back");
    assert_eq!(get(&cache, &key).as_deref(), Some("old"));
}

#[test]
fn descriptors_are_bounded_and_closed() {
    let fixture = Fixture::new(&key("first"));
    let keys = keys(200);
    for max_open in [0, 5, 64] {
        let cache = options().open_files(max_open).open(fixture.path()).expect("a cache");
        for key in &keys {
            set(&cache, key, "value");
        }
        for _ in 0..30 {
            for key in &keys {
                assert_eq!(get(&cache, key).as_deref(), Some("value"));
            }
            assert!(open_files(fixture.path()) <= max_open);
        }
        assert_eq!(open_files(fixture.path()), max_open);
        cache.clear().expect("clear");
        assert_eq!(open_files(fixture.path()), 0);
    }
}

/// The changes of a key that its writer has begun and completed.
#[derive(Debug, Default)]
struct Progress {
    /// The number of the last completed change.
    done: AtomicU64,
    /// The number of the last removal that has begun.
    removal: AtomicU64,
}

#[test]
fn no_read_returns_a_value_that_was_replaced_or_removed_before() {
    const WRITERS: usize = 2;
    let changes = size("VAYU_CHANGES", 3_000) as u64;
    let time = HANG * u32::try_from(changes / 1_000 + 1).unwrap_or(u32::MAX);
    watchdog(time, move || {
        let fixture = Fixture::new(&key("first"));
        let keys = keys(6);
        let progress: Arc<Vec<_>> = Arc::new(keys.iter().map(|_| Progress::default()).collect());
        let writing = Arc::new(AtomicUsize::new(WRITERS));
        let writers = (0..WRITERS).map(|writer| {
            // A cache of its own, like another process.
            let (cache, keys) = (fixture.open(), keys.clone());
            let (progress, writing) = (Arc::clone(&progress), Arc::clone(&writing));
            thread::spawn(move || {
                for number in 1..=changes {
                    for at in (writer..keys.len()).step_by(WRITERS) {
                        if number % 7 == 0 {
                            progress[at].removal.store(number, Ordering::SeqCst);
                            cache.remove(&keys[at]).expect("remove");
                        } else {
                            set(&cache, &keys[at], &format!("{number:08}"));
                        }
                        progress[at].done.store(number, Ordering::SeqCst);
                    }
                }
                writing.fetch_sub(1, Ordering::SeqCst);
            })
        });
        let cache = fixture.open();
        let readers = (0..3).map(|_| {
            let (cache, keys) = (cache.clone(), keys.clone());
            let (progress, writing) = (Arc::clone(&progress), Arc::clone(&writing));
            thread::spawn(move || {
                let (mut hits, mut misses) = (0, 0);
                while writing.load(Ordering::SeqCst) > 0 {
                    for (key, progress) in keys.iter().zip(&*progress) {
                        let done = progress.done.load(Ordering::SeqCst);
                        if let Some(value) = get(&cache, key) {
                            let found: u64 = value.parse().expect("a number");
                            assert!(found >= done, "{found} was read when {done} was done");
                            hits += 1;
                        } else {
                            let removal = progress.removal.load(Ordering::SeqCst);
                            assert!(removal >= done, "nothing was read when {done} was done");
                            misses += 1;
                        }
                    }
                }
                (hits, misses)
            })
        });
        let writers: Vec<_> = writers.collect();
        let readers: Vec<_> = readers.collect();
        for writer in writers {
            writer.join().expect("a writer");
        }
        let seen = readers.into_iter().map(|reader| reader.join().expect("nothing old was read"));
        let (hits, misses) = seen.fold((0, 0), |all, seen| (all.0 + seen.0, all.1 + seen.1));
        println!("{hits} hits and {misses} misses during {changes} changes of each key");
        assert!(hits > 0 && misses > 0);
        assert_eq!(cache.stats().usage.corrupt_entries, Some(0));
    });
}

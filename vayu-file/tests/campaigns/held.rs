//! Entries whose files a cache holds open, and what others do to them meanwhile.

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

use crate::ground::{Ground, entry, key, keys, options, shard};
use crate::thing::THINGS;
use crate::{HANG, HOUR, size};

/// How many files below a directory this process has open.
fn open_files(directory: &Path) -> usize {
    let directory = directory.canonicalize().expect("the directory is there");
    let descriptors = fs::read_dir("/proc/self/fd").expect("this is Linux");
    let paths = descriptors.filter_map(|name| fs::read_link(name.ok()?.path()).ok());
    paths.filter(|path| path != &directory && path.starts_with(&directory)).count()
}

fn get(cache: &FileCache, key: &Key) -> Option<String> {
    cache.get(key).expect("read")
}

fn set(cache: &FileCache, key: &Key, value: &str) {
    cache.set(key, &value.to_owned(), HOUR).expect("set");
}

/// A cache that holds the file of an entry.
fn holding(ground: &Ground, key: &Key) -> FileCache {
    let cache = ground.open();
    set(&cache, key, "old");
    for _ in 0..3 {
        assert_eq!(get(&cache, key).as_deref(), Some("old"));
    }
    assert_eq!(open_files(ground.path()), 1, "the file is held");
    cache
}

#[test]
fn entry_that_another_process_replaces_is_seen_at_once() {
    let key = key("first");
    let ground = Ground::new(&key);
    let cache = holding(&ground, &key);
    let other = tempfile::tempdir().expect("a directory");
    for n in 0..20 {
        let value = format!("{n:03}");
        set(&options().open(other.path()).expect("a cache"), &key, &value);
        let mut moving = Command::new("mv");
        moving.arg(entry(other.path(), &key)).arg(entry(ground.path(), &key));
        assert!(moving.status().expect("the command is there").success());
        for _ in 0..3 {
            assert_eq!(get(&cache, &key).as_deref(), Some(&*value));
        }
        assert_eq!(open_files(ground.path()), 1);
    }
}

#[test]
fn entry_that_another_cache_replaces_or_removes_is_seen_at_once() {
    let key = key("first");
    let ground = Ground::new(&key);
    let (cache, other) = (holding(&ground, &key), ground.open());
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
fn thing_in_the_place_of_a_held_entry_is_a_miss() {
    for thing in THINGS {
        watchdog(HANG, move || {
            let key = key("first");
            let ground = Ground::new(&key);
            let cache = holding(&ground, &key);
            let at = entry(ground.path(), &key);
            fs::remove_file(&at).expect("the entry is there");
            if thing.make(&at, &ground, &key) {
                let outside = ground.outside();
                assert_eq!(get(&cache, &key), None, "{thing:?}");
                assert_eq!(get(&cache, &key), None, "{thing:?}");
                assert_eq!(open_files(ground.path()), 0, "{thing:?}: it was let go");
                assert_eq!(ground.outside(), outside);
            }
        });
    }
}

#[test]
fn held_entry_that_is_damaged_in_place_is_a_defect() {
    let key = key("first");
    let ground = Ground::new(&key);
    let at = entry(ground.path(), &key);
    for (corrupt_entries, damage) in (1..).zip([
        (|bytes| *bytes.last_mut().expect("a byte") ^= 1) as fn(&mut Vec<u8>),
        |bytes| bytes.truncate(90),
        Vec::clear,
        |bytes| bytes.push(0),
        |bytes| bytes.resize(1 << 20, 0),
    ]) {
        let cache = holding(&ground, &key);
        let mut bytes = fs::read(&at).expect("read");
        damage(&mut bytes);
        // That writes to the file that is there.
        fs::write(&at, bytes).expect("write");
        assert_eq!(get(&cache, &key), None, "{corrupt_entries}");
        assert_eq!(cache.stats().usage.corrupt_entries, Some(1), "{corrupt_entries}");
        drop(cache);
        fs::remove_file(&at).expect("it is there");
    }
}

#[test]
fn folder_of_a_held_entry_that_is_moved_away_holds_nothing() {
    let key = key("first");
    let ground = Ground::new(&key);
    let cache = holding(&ground, &key);
    let (inside, away) = (shard(ground.path(), &key), ground.path().join(".away"));
    fs::rename(&inside, &away).expect("the folder is moved");
    assert_eq!(get(&cache, &key), None);
    // The entry there is another file.
    symlink(ground.outside_shard(), &inside).expect("a link");
    assert_eq!(get(&cache, &key), None);
    fs::remove_file(&inside).expect("the link is there");
    fs::rename(&away, &inside).expect("the folder is moved back");
    for _ in 0..3 {
        assert_eq!(get(&cache, &key).as_deref(), Some("old"));
    }
    // A link to the very file that is held, at no time to another one.
    fs::rename(&inside, &away).expect("the folder is moved");
    symlink(&away, &inside).expect("a link");
    assert!(get(&cache, &key).is_none_or(|value| value == "old"));
}

#[test]
fn entry_that_is_renamed_away_and_back_is_there_again() {
    let key = key("first");
    let ground = Ground::new(&key);
    let cache = holding(&ground, &key);
    let (at, away) = (entry(ground.path(), &key), ground.path().join(".away"));
    fs::rename(&at, &away).expect("the entry is there");
    assert_eq!(get(&cache, &key), None);
    fs::rename(&away, &at).expect("the entry is there");
    assert_eq!(get(&cache, &key).as_deref(), Some("old"));
    // A second name changes nothing either.
    rustix::fs::linkat(CWD, &at, CWD, &away, AtFlags::empty()).expect("a second name");
    assert_eq!(get(&cache, &key).as_deref(), Some("old"));
    set(&ground.open(), &key, "new");
    assert_eq!(get(&cache, &key).as_deref(), Some("new"));
    fs::rename(&away, &at).expect("the old entry is put back");
    assert_eq!(get(&cache, &key).as_deref(), Some("old"));
}

#[test]
fn descriptors_are_bounded_and_given_back() {
    let ground = Ground::new(&key("first"));
    let keys = keys(200);
    for most in [0, 5, 64] {
        let cache = options().open_files(most).open(ground.path()).expect("a cache");
        for key in &keys {
            set(&cache, key, "value");
        }
        for _ in 0..30 {
            for key in &keys {
                assert_eq!(get(&cache, key).as_deref(), Some("value"));
            }
            assert!(open_files(ground.path()) <= most);
        }
        assert_eq!(open_files(ground.path()), most);
        cache.clear().expect("clear");
        assert_eq!(open_files(ground.path()), 0);
    }
}

/// What was begun and what was done to a key, by the one who changes it.
#[derive(Debug, Default)]
struct Progress {
    /// The number of the last change that has ended.
    done: AtomicU64,
    /// The number of the last removal that has begun.
    removal: AtomicU64,
}

#[test]
fn no_read_finds_what_was_replaced_or_removed_before_it_began() {
    const WRITERS: usize = 2;
    let changes = size("VAYU_CHANGES", 3_000) as u64;
    let time = HANG * u32::try_from(changes / 1_000 + 1).unwrap_or(u32::MAX);
    watchdog(time, move || {
        let ground = Ground::new(&key("first"));
        let keys = keys(6);
        let progress: Arc<Vec<_>> = Arc::new(keys.iter().map(|_| Progress::default()).collect());
        let writing = Arc::new(AtomicUsize::new(WRITERS));
        let writers = (0..WRITERS).map(|writer| {
            // A cache of its own, as another process has.
            let (cache, keys) = (ground.open(), keys.clone());
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
        let cache = ground.open();
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

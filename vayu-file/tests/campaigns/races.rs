//! Shards and entries that are swapped with symbolic links while they are used.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use vayu_core::Key;
use vayu_core::SingleFlight;
use vayu_core::testing::watchdog;
use vayu_file::{Durability, FileCache, FileOptions};

use crate::fixture::{Fixture, OUTSIDE, entry, keys_of_one_shard, options, shard};
use crate::{HANG, HOUR, progress, size};

/// The number of swaps for one watchdog.
const BATCH: usize = 1_000;

/// The minimum number of reads during a batch.
const READS: usize = 300;

/// The results of the users of the cache.
#[derive(Debug, Default)]
struct Seen {
    hits: AtomicUsize,
    misses: AtomicUsize,
    stores: AtomicUsize,
    failures: AtomicUsize,
}

impl Seen {
    fn reads(&self) -> usize {
        self.hits.load(Ordering::Relaxed) + self.misses.load(Ordering::Relaxed)
    }
}

#[test]
fn shard_swapped_with_a_symbolic_link_is_not_followed() {
    campaign("shards", |fixture, key| {
        let inside = shard(fixture.path(), key);
        let link = fixture.path().join(".link");
        symlink(fixture.outside_shard(), &link).expect("a link to the directory outside");
        move || swap(&link, &inside)
    });
}

#[test]
fn entry_swapped_with_a_symbolic_link_is_not_followed() {
    campaign("entries", |fixture, key| {
        let (inside, outside) = (entry(fixture.path(), key), fixture.outside_entry(key));
        let link = fixture.path().join(".link");
        move || {
            // The entry may be deleted, and the link replaced, at any time.
            let _ = fs::remove_file(&link);
            symlink(&outside, &link).expect("a link to the entry outside");
            let _ = fs::rename(&link, &inside);
        }
    });
}

#[test]
fn shard_that_appears_and_disappears_is_not_followed() {
    campaign("absences", |fixture, key| {
        let inside = shard(fixture.path(), key);
        let [away, link] = [".away", ".link"].map(|name| fixture.path().join(name));
        let outside = fixture.outside_shard();
        move || {
            // A writer may have created the shard again: no link is made then.
            let _ = fs::rename(&inside, &away);
            if symlink(&outside, &link).is_ok() {
                let no_replace = RenameFlags::NOREPLACE;
                let _ = renameat_with(CWD, &link, CWD, &inside, no_replace);
            }
            let _ = fs::remove_file(&link);
            if inside.is_symlink() {
                fs::remove_file(&inside).expect("the link is removed");
            }
            let _ = fs::rename(&away, &inside);
            let _ = fs::remove_dir_all(&away);
        }
    });
}

/// Exchanges two names atomically.
fn swap(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("both exist");
}

/// Uses the keys of one shard with every operation, while the function that `prepare` returns is called
/// repeatedly.
fn campaign<S: FnMut() + Send + 'static>(
    what: &str,
    prepare: impl Fn(&Fixture, &Key) -> S + Send + Clone + 'static,
) {
    let swaps = size("VAYU_SWAPS", 10 * BATCH).next_multiple_of(BATCH);
    let mut seen = Arc::new(Seen::default());
    for batch in 0..swaps / BATCH {
        progress(what, batch, swaps / BATCH);
        let prepare = prepare.clone();
        seen = watchdog(HANG, move || {
            let keys = keys_of_one_shard(3);
            let fixture = Fixture::new(&keys[0]);
            fixture.open().set(&keys[0], &"inside".to_owned(), HOUR).expect("set");
            let before = fixture.outside();
            let has_ended = Arc::new(AtomicBool::new(false));
            let users: Vec<_> = [
                options(),
                options().single_flight(SingleFlight::Everywhere).max_entries(2),
                options().durability(Durability::Synced),
            ]
            .into_iter()
            .map(|options| start(options, &fixture, &keys, &seen, &has_ended))
            .collect();
            let mut swap = prepare(&fixture, &keys[0]);
            let reads = seen.reads();
            for swaps in 0.. {
                swap();
                thread::yield_now();
                if swaps >= BATCH && seen.reads() >= reads + READS {
                    break;
                }
            }
            has_ended.store(true, Ordering::Relaxed);
            for user in users {
                user.join().expect("the user has seen nothing wrong");
            }
            assert_eq!(fixture.outside(), before, "nothing outside was touched");
            seen
        });
    }
    println!("{swaps} {what} or more were swapped: {seen:?}");
    for count in [&seen.hits, &seen.misses, &seen.stores] {
        assert!(count.load(Ordering::Relaxed) > 0, "{seen:?}");
    }
}

fn start(
    options: FileOptions,
    fixture: &Fixture,
    keys: &[Key],
    seen: &Arc<Seen>,
    has_ended: &Arc<AtomicBool>,
) -> thread::JoinHandle<()> {
    let cache = options.open(fixture.path()).expect("a cache").with_max_wait(24 * HOUR);
    let (keys, seen, has_ended) = (keys.to_vec(), Arc::clone(seen), Arc::clone(has_ended));
    thread::spawn(move || {
        for round in 0.. {
            for key in &keys {
                use_once(&cache, key, &seen, round);
            }
            if has_ended.load(Ordering::Relaxed) {
                return;
            }
        }
    })
}

fn use_once(cache: &FileCache, key: &Key, seen: &Seen, round: usize) {
    let count = |counter: &AtomicUsize| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    match cache.get::<String>(key).expect("a link is a miss and no error") {
        Some(value) => {
            assert_ne!(value, OUTSIDE, "the entry outside was served");
            assert_eq!(value, "inside");
            count(&seen.hits);
        }
        None => count(&seen.misses),
    }
    match cache.set(key, &"inside".to_owned(), HOUR) {
        Ok(()) => count(&seen.stores),
        Err(_) => count(&seen.failures),
    }
    assert_eq!(cache.get_or_insert_with(key, HOUR, || "inside".to_owned()), "inside");
    match round % 8 {
        0 => drop(cache.remove(key)),
        4 => drop(cache.clear()),
        _ => {}
    }
    // Fails while a link is in place of a directory.
    if round % 16 == 2 {
        let _ = cache.backend().sweep();
    }
}

//! Whatever else has a name of ours is a miss, is never followed and never waited for.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use vayu_core::SingleFlight;
use vayu_core::testing::watchdog;
use vayu_core::{ErrorKind, Key};
use vayu_file::FileCache;

use crate::ground::{self, Ground, age, entry, key, lock, neighbours, options, picture, shard};
use crate::thing::{THINGS, Thing};
use crate::{HANG, HOUR};

/// What is asked under the entry's name, where something else is.
fn entry_that_is(thing: Thing) {
    watchdog(HANG, move || {
        let key = key("first");
        let ground = Ground::new(&key);
        let at = entry(ground.path(), &key);
        if !thing.make(&at, &ground, &key) {
            println!("{thing:?}: it cannot be made here");
            return;
        }
        let cache = ground.open();
        let (outside, kind) = (ground.outside(), kind(&at));
        assert_eq!(cache.get::<String>(&key).expect("a miss is no error"), None);
        assert_eq!(kind, self::kind(&at), "a read changes nothing");
        assert_eq!(computed(&cache, &key), "computed");
        let stored = cache.get::<String>(&key).expect("read");
        if thing == Thing::Folder {
            assert_eq!(stored, None);
            assert_eq!(cache.stats().errors_of(ErrorKind::Backend), 1, "the write has failed");
            assert!(!cache.remove(&key).expect("it is no entry"));
            assert!(at.join("note").exists());
        } else {
            assert_eq!(stored.as_deref(), Some("computed"));
            assert_eq!(cache.stats().errors, 0);
            assert!(thing.make(&at, &ground, &key));
            assert!(cache.remove(&key).expect("the name is removed"));
        }
        thing.make(&at, &ground, &key);
        cache.clear().expect("the directory is cleared");
        assert!(
            thing == Thing::Folder || at.symlink_metadata().is_err(),
            "the name is one of ours"
        );
        assert_eq!(ground::litter(ground.path()), Vec::<std::path::PathBuf>::new());
        assert_eq!(ground.outside(), outside);
    });
}

fn kind(at: &Path) -> Option<fs::FileType> {
    at.symlink_metadata().ok().map(|metadata| metadata.file_type())
}

fn computed(cache: &FileCache, key: &Key) -> String {
    cache.get_or_insert_with(key, HOUR, || "computed".to_owned())
}

macro_rules! entries {
    ($($test:ident: $thing:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            entry_that_is(Thing::$thing);
        })*
    };
}

entries! {
    entry_that_is_a_pipe_is_a_miss: Pipe,
    entry_that_is_a_socket_is_a_miss: Socket,
    entry_that_is_a_link_to_an_entry_is_a_miss: LinkToEntry,
    entry_that_is_a_link_to_a_folder_is_a_miss: LinkToFolder,
    entry_that_is_a_dangling_link_is_a_miss: DanglingLink,
    entry_that_is_a_looping_link_is_a_miss: LoopingLink,
    entry_that_is_a_folder_is_a_miss: Folder,
    entry_that_is_a_device_is_a_miss: Device,
    entry_that_is_one_of_another_key_is_a_miss: OtherEntry,
}

#[test]
fn pipe_that_somebody_holds_open_is_a_miss() {
    watchdog(HANG, || {
        let key = key("first");
        let ground = Ground::new(&key);
        let at = entry(ground.path(), &key);
        assert!(Thing::Pipe.make(&at, &ground, &key));
        let held = File::options().read(true).write(true).open(&at).expect("the pipe opens");
        let cache = ground.open();
        assert_eq!(computed(&cache, &key), "computed");
        assert!(Thing::Pipe.make(&at, &ground, &key));
        drop(held);
        let held = File::options().read(true).write(true).open(&at).expect("the pipe opens");
        assert_eq!(cache.get::<String>(&key).expect("a miss is no error"), None);
        drop(held);
    });
}

#[test]
fn shard_that_is_something_else_holds_nothing() {
    for thing in THINGS.into_iter().filter(|&thing| thing != Thing::Folder) {
        watchdog(HANG, move || {
            let key = key("first");
            let ground = Ground::new(&key);
            let at = shard(ground.path(), &key);
            let cache = ground.open();
            if !thing.make(&at, &ground, &key) {
                return;
            }
            let (outside, kind) = (ground.outside(), kind(&at));
            assert_eq!(cache.get::<String>(&key).expect("a miss is no error"), None, "{thing:?}");
            assert_eq!(computed(&cache, &key), "computed");
            assert_eq!(cache.stats().errors_of(ErrorKind::Backend), 1, "{thing:?}");
            assert!(!cache.remove(&key).expect("there is nothing"), "{thing:?}");
            cache.clear().expect("the other shards are cleared");
            // Another process finds it there, and counts the entries of all shards.
            assert_eq!(entries(&ground.open()), 0, "{thing:?}");
            assert_eq!(self::kind(&at), kind, "{thing:?}: it stays");
            assert_eq!(ground.outside(), outside, "{thing:?}");
        });
    }
}

#[test]
fn lock_that_is_something_else_does_not_hold_up_a_call() {
    for thing in THINGS {
        watchdog(HANG, move || {
            let key = key("first");
            let ground = Ground::new(&key);
            if !thing.make(&lock(ground.path(), &key), &ground, &key) {
                return;
            }
            let outside = ground.outside();
            let options = options().single_flight(SingleFlight::Everywhere);
            let cache = options.open(ground.path()).expect("a cache").with_max_wait(24 * HOUR);
            assert_eq!(computed(&cache, &key), "computed");
            let stored = cache.get::<String>(&key).expect("read");
            assert_eq!(stored.as_deref(), Some("computed"), "{thing:?}");
            assert_eq!(ground.outside(), outside, "{thing:?}");
        });
    }
}

#[test]
fn marker_that_is_something_else_is_no_licence_to_delete() {
    for thing in THINGS {
        watchdog(HANG, move || {
            let key = key("first");
            let ground = Ground::new(&key);
            let marker = ground.path().join("VAYU");
            if thing == Thing::OtherEntry || !thing.make(&marker, &ground, &key) {
                return;
            }
            let outside = ground.outside();
            // A directory with nothing else in it may be opened or refused.
            match options().open(ground.path()) {
                Ok(cache) => {
                    assert_eq!(computed(&cache, &key), "computed");
                    let error = cache.clear().expect_err("it is not marked");
                    assert_eq!(error.kind(), ErrorKind::Configuration, "{thing:?}");
                    assert_eq!(cache.get(&key).expect("read"), Some("computed".to_owned()));
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Configuration, "{thing:?}"),
            }
            assert_eq!(ground.outside(), outside, "{thing:?}");
        });
    }
}

#[test]
fn nothing_is_cleared_when_the_marker_is_gone() {
    let ground = Ground::new(&key("first"));
    let cache = ground.open();
    assert_eq!(computed(&cache, &key("first")), "computed");
    fs::remove_file(ground.path().join("VAYU")).expect("the marker is removed");
    let before = picture(ground.path());
    let error = cache.clear().expect_err("it is not marked");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let error = options().open(ground.path()).expect_err("it holds files and is no cache");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert_eq!(picture(ground.path()), before);
}

#[test]
fn files_of_other_names_are_never_deleted() {
    watchdog(HANG, || {
        let keys = neighbours(20);
        let ground = Ground::new(&keys[0]);
        let shard = shard(ground.path(), &keys[0]);
        fs::create_dir(&shard).expect("the shard");
        let digits = "0".repeat(38);
        let names = [
            "notes.txt".to_owned(),
            format!("{digits}.v2"),
            format!("{}A.v1", &digits[1..]),
            format!("{digits}0.v1"),
            format!("{digits}.v1~"),
            ".vayu-tmp-short".to_owned(),
            format!(".vayu-tmp-{digits}"),
            format!("{digits}.lock.old"),
        ];
        let mut foreign: Vec<_> = names.iter().map(|name| shard.join(name)).collect();
        foreign.push(shard.join(OsStr::from_bytes(b"\xFF\xFE.v1")));
        foreign.push(ground.path().join("notes.txt"));
        foreign.push(ground.path().join("zz").join(format!("{digits}.v1")));
        fs::create_dir(ground.path().join("zz")).expect("a folder that is no shard");
        for path in &foreign {
            fs::write(path, "to be kept").expect("a file");
            age(path, 2 * HOUR);
        }
        // Links and folders with a name of ours are none of the files that a sweep removes.
        let temporary = format!(".vayu-tmp-{}", &digits[..32]);
        symlink(&foreign[0], shard.join(&temporary)).expect("a link");
        fs::create_dir(shard.join(format!("{digits}.lock"))).expect("a folder");

        let cache = options().max_entries(4).open(ground.path()).expect("a cache");
        let before = picture(ground.path());
        assert_eq!(cache.stats().usage.entries, Some(0), "now the limit is known to be kept");
        for key in &keys {
            assert_eq!(computed(&cache, key), "computed");
        }
        let usage = cache.stats().usage;
        assert!(usage.evictions > Some(0) && usage.sweeps > Some(0), "{usage:?}");
        cache.clear().expect("the directory is cleared");
        // Only the folders' own times have changed.
        let files = |picture: ground::Picture| {
            let is_kept =
                |path: &Path, kind: fs::FileType| !kind.is_dir() && !path.ends_with("counts-1");
            let files = picture.into_iter().filter(|(path, (kind, ..))| is_kept(path, *kind));
            files.collect::<Vec<_>>()
        };
        assert_eq!(files(picture(ground.path())), files(before));
        assert!(shard.join(format!("{digits}.lock")).is_dir());
    });
}

/// What a look at everything counts.
fn entries(cache: &FileCache) -> u64 {
    cache.backend().sweep().expect("sweep").entries.expect("a count")
}

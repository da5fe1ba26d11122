//! Foreign files with a name of the cache are misses, are not followed, and do not block.

use std::fs;
use std::path::Path;

use vayu_core::SingleFlight;
use vayu_core::testing::watchdog;
use vayu_core::{ErrorKind, Key};
use vayu_file::FileCache;

use crate::fixture::{
    self, Fixture, age, entry, key, keys_of_one_shard, lock, options, shard, snapshot,
};
use crate::foreign_file::{FOREIGN_FILES, ForeignFile, symlink};
use crate::{HANG, HOUR};

/// Checks every operation on an entry that is a foreign file.
fn entry_that_is(foreign: ForeignFile) {
    watchdog(HANG, move || {
        let key = key("first");
        let fixture = Fixture::new(&key);
        let at = entry(fixture.path(), &key);
        if !foreign.make(&at, &fixture, &key) {
            println!("{foreign:?}: it cannot be made here");
            return;
        }
        let cache = fixture.open();
        let (outside, kind) = (fixture.outside(), kind(&at));
        assert_eq!(cache.get::<String>(&key).expect("a miss is no error"), None);
        assert_eq!(kind, self::kind(&at), "a read changes nothing");
        assert_eq!(computed(&cache, &key), "computed");
        let stored = cache.get::<String>(&key).expect("read");
        if foreign == ForeignFile::Directory {
            assert_eq!(stored, None);
            assert_eq!(cache.stats().errors_of(ErrorKind::Backend), 1, "the write has failed");
            assert!(!cache.remove(&key).expect("it is no entry"));
            assert!(at.join("note").exists());
        } else {
            assert_eq!(stored.as_deref(), Some("computed"));
            assert_eq!(cache.stats().errors, 0);
            assert!(foreign.make(&at, &fixture, &key));
            assert!(cache.remove(&key).expect("the name is removed"));
        }
        foreign.make(&at, &fixture, &key);
        cache.clear().expect("the directory is cleared");
        assert!(
            foreign == ForeignFile::Directory || at.symlink_metadata().is_err(),
            "the name is one of ours"
        );
        assert_eq!(fixture::temporary_files(fixture.path()), Vec::<std::path::PathBuf>::new());
        assert_eq!(fixture.outside(), outside);
    });
}

fn kind(at: &Path) -> Option<fs::FileType> {
    at.symlink_metadata().ok().map(|metadata| metadata.file_type())
}

fn computed(cache: &FileCache, key: &Key) -> String {
    cache.get_or_insert_with(key, HOUR, || "computed".to_owned())
}

macro_rules! entries {
    ($($test:ident: $foreign:ident),* $(,)?) => {
        $(#[test]
        fn $test() {
            entry_that_is(ForeignFile::$foreign);
        })*
    };
}

entries! {
    entry_that_is_a_pipe_is_a_miss: Pipe,
    entry_that_is_a_socket_is_a_miss: Socket,
    entry_that_is_a_link_to_an_entry_is_a_miss: LinkToEntry,
    entry_that_is_a_link_to_a_directory_is_a_miss: LinkToDirectory,
    entry_that_is_a_dangling_link_is_a_miss: DanglingLink,
    entry_that_is_a_looping_link_is_a_miss: LoopingLink,
    entry_that_is_a_directory_is_a_miss: Directory,
    entry_that_is_a_device_is_a_miss: Device,
    entry_that_is_one_of_another_key_is_a_miss: OtherEntry,
}

#[cfg(unix)]
#[test]
fn pipe_that_another_process_keeps_open_is_a_miss() {
    watchdog(HANG, || {
        let key = key("first");
        let fixture = Fixture::new(&key);
        let at = entry(fixture.path(), &key);
        assert!(ForeignFile::Pipe.make(&at, &fixture, &key));
        let held = fs::File::options().read(true).write(true).open(&at).expect("the pipe opens");
        let cache = fixture.open();
        assert_eq!(computed(&cache, &key), "computed");
        assert!(ForeignFile::Pipe.make(&at, &fixture, &key));
        drop(held);
        let held = fs::File::options().read(true).write(true).open(&at).expect("the pipe opens");
        assert_eq!(cache.get::<String>(&key).expect("a miss is no error"), None);
        drop(held);
    });
}

#[test]
fn shard_that_is_not_a_directory_is_empty() {
    for foreign in FOREIGN_FILES.into_iter().filter(|&foreign| foreign != ForeignFile::Directory) {
        watchdog(HANG, move || {
            let key = key("first");
            let fixture = Fixture::new(&key);
            let at = shard(fixture.path(), &key);
            let cache = fixture.open();
            if !foreign.make(&at, &fixture, &key) {
                return;
            }
            let (outside, kind) = (fixture.outside(), kind(&at));
            assert_eq!(cache.get::<String>(&key).expect("a miss is no error"), None, "{foreign:?}");
            assert_eq!(computed(&cache, &key), "computed");
            assert_eq!(cache.stats().errors_of(ErrorKind::Backend), 1, "{foreign:?}");
            assert!(!cache.remove(&key).expect("there is nothing"), "{foreign:?}");
            cache.clear().expect("the other shards are cleared");
            // A new process finds the foreign file, and counts the entries of all shards.
            assert_eq!(entries(&fixture.open()), 0, "{foreign:?}");
            assert_eq!(self::kind(&at), kind, "{foreign:?}: it stays");
            assert_eq!(fixture.outside(), outside, "{foreign:?}");
        });
    }
}

#[test]
fn lock_that_is_not_a_regular_file_does_not_block_a_call() {
    for foreign in FOREIGN_FILES {
        watchdog(HANG, move || {
            let key = key("first");
            let fixture = Fixture::new(&key);
            if !foreign.make(&lock(fixture.path(), &key), &fixture, &key) {
                return;
            }
            let outside = fixture.outside();
            let options = options().single_flight(SingleFlight::Everywhere);
            let cache = options.open(fixture.path()).expect("a cache").with_max_wait(24 * HOUR);
            assert_eq!(computed(&cache, &key), "computed");
            let stored = cache.get::<String>(&key).expect("read");
            assert_eq!(stored.as_deref(), Some("computed"), "{foreign:?}");
            assert_eq!(fixture.outside(), outside, "{foreign:?}");
        });
    }
}

#[test]
fn nothing_is_deleted_if_the_marker_is_not_a_regular_file() {
    for foreign in FOREIGN_FILES {
        watchdog(HANG, move || {
            let key = key("first");
            let fixture = Fixture::new(&key);
            let marker = fixture.path().join("VAYU");
            if foreign == ForeignFile::OtherEntry || !foreign.make(&marker, &fixture, &key) {
                return;
            }
            let outside = fixture.outside();
            // A directory without other files may be opened or refused.
            match options().open(fixture.path()) {
                Ok(cache) => {
                    assert_eq!(computed(&cache, &key), "computed");
                    let error = cache.clear().expect_err("it is not marked");
                    assert_eq!(error.kind(), ErrorKind::Configuration, "{foreign:?}");
                    assert_eq!(cache.get(&key).expect("read"), Some("computed".to_owned()));
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Configuration, "{foreign:?}"),
            }
            assert_eq!(fixture.outside(), outside, "{foreign:?}");
        });
    }
}

#[test]
fn nothing_is_cleared_without_a_marker() {
    let fixture = Fixture::new(&key("first"));
    let cache = fixture.open();
    assert_eq!(computed(&cache, &key("first")), "computed");
    fs::remove_file(fixture.path().join("VAYU")).expect("the marker is removed");
    let before = snapshot(fixture.path());
    let error = cache.clear().expect_err("it is not marked");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let error = options().open(fixture.path()).expect_err("it holds files and is no cache");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert_eq!(snapshot(fixture.path()), before);
}

#[test]
fn files_with_foreign_names_are_never_deleted() {
    watchdog(HANG, || {
        let keys = keys_of_one_shard(20);
        let fixture = Fixture::new(&keys[0]);
        let shard = shard(fixture.path(), &keys[0]);
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
        #[cfg(unix)]
        foreign.push(
            shard.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(
                b"\xFF\xFE.v1",
            )),
        );
        foreign.push(fixture.path().join("notes.txt"));
        foreign.push(fixture.path().join("zz").join(format!("{digits}.v1")));
        fs::create_dir(fixture.path().join("zz")).expect("a directory that is no shard");
        for path in &foreign {
            fs::write(path, "to be kept").expect("a file");
            age(path, 2 * HOUR);
        }
        // A sweep does not remove symbolic links and directories, even with a name of the cache.
        let temporary = format!(".vayu-tmp-{}", &digits[..32]);
        symlink(&foreign[0], &shard.join(&temporary));
        fs::create_dir(shard.join(format!("{digits}.lock"))).expect("a directory");

        let cache = options().max_entries(4).open(fixture.path()).expect("a cache");
        let before = snapshot(fixture.path());
        assert_eq!(cache.stats().usage.entries, Some(0), "now the limit is known to be kept");
        for key in &keys {
            assert_eq!(computed(&cache, key), "computed");
        }
        let usage = cache.stats().usage;
        assert!(usage.evictions > Some(0) && usage.sweeps > Some(0), "{usage:?}");
        cache.clear().expect("the directory is cleared");
        // Only the modification times of directories have changed.
        let files = |snapshot: fixture::Snapshot| {
            let is_kept =
                |path: &Path, kind: fs::FileType| !kind.is_dir() && !path.ends_with("counts-1");
            let files = snapshot.into_iter().filter(|(path, (kind, ..))| is_kept(path, *kind));
            files.collect::<Vec<_>>()
        };
        assert_eq!(files(snapshot(fixture.path())), files(before));
        assert!(shard.join(format!("{digits}.lock")).is_dir());
    });
}

/// Returns the number of entries that a sweep counts.
fn entries(cache: &FileCache) -> u64 {
    cache.backend().sweep().expect("sweep").entries.expect("a count")
}

//! Permissions of a directory, and calls without permission or without the directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::fs::Mode;
use rustix::process::umask;
use tempfile::TempDir;
use vayu_core::SingleFlight;
use vayu_core::testing::watchdog;
use vayu_core::{ErrorKind, Result};
use vayu_file::FileCache;

use crate::fixture::{key, keys, options, snapshot};
use crate::{HANG, HOUR, child, is_root};

/// A user that owns no file.
const OTHER_USER: u32 = 65534;

#[test]
fn removed_directory_is_a_miss_forever() {
    watchdog(HANG, || {
        for single_flight in [SingleFlight::Process, SingleFlight::Everywhere] {
            let directory = tempfile::tempdir().expect("a directory");
            let path = directory.path().join("cache");
            let cache = options().single_flight(single_flight).open(&path).expect("a cache");
            let keys = keys(4);
            for key in &keys[..2] {
                assert_eq!(computed(&cache, key), "computed");
            }
            fs::remove_dir_all(&path).expect("the directory is removed");
            for (number, key) in keys.iter().enumerate() {
                let before = cache.stats();
                assert_eq!(cache.get::<String>(key).expect("a miss is no error"), None);
                assert_eq!(computed(&cache, key), "computed");
                assert!(!cache.remove(key).expect("there is nothing"));
                let after = cache.stats();
                assert_eq!(after.misses, before.misses + 1, "key {number}");
                assert!(after.errors_of(ErrorKind::Backend) > before.errors_of(ErrorKind::Backend));
            }
            // A new directory with this name is another cache.
            fs::create_dir(&path).expect("a directory");
            assert_eq!(computed(&cache, &keys[0]), "computed");
            assert!(snapshot(&path).is_empty());
            let error = cache.clear().expect_err("the marker is gone");
            assert_eq!(error.kind(), ErrorKind::Configuration);
        }
    });
}

#[test]
fn reader_without_write_permission_has_hits_and_counted_errors() {
    if !is_root() {
        println!("only root can become another user: skipped");
        return;
    }
    watchdog(HANG, || {
        let directory = public_directory();
        let path = directory.path().join("cache");
        let cache = options().allow_shared().open(&path).expect("a cache");
        assert_eq!(computed(&cache, &key("stored")), "computed");
        make_readable(&path);
        let before = snapshot(&path);
        child::run(as_other_user(
            "access::uses_directory_of_other_user",
            &directory,
            &path,
            "reads",
        ));
        assert_eq!(snapshot(&path), before);
    });
}

#[test]
fn directory_without_search_permission_is_refused_by_open() {
    if !is_root() {
        println!("only root can become another user: skipped");
        return;
    }
    watchdog(HANG, || {
        let directory = public_directory();
        let path = directory.path().join("cache");
        assert_eq!(
            computed(&FileCache::open(path.as_path()).expect("a cache"), &key("stored")),
            "computed"
        );
        let before = snapshot(&path);
        child::run(as_other_user(
            "access::uses_directory_of_other_user",
            &directory,
            &path,
            "is refused",
        ));
        // The directory can be opened, but its files are accessible to the owner only.
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("its owner may");
        child::run(as_other_user(
            "access::uses_directory_of_other_user",
            &directory,
            &path,
            "finds nothing",
        ));
        assert_eq!(snapshot(&path), before);
    });
}

/// Uses the cache of another user.
#[test]
fn uses_directory_of_other_user() {
    let Some(task) = child::task() else { return };
    assert!(!is_root());
    let machine = options().single_flight(SingleFlight::Everywhere);
    for options in [options(), options().allow_shared(), machine.allow_shared()] {
        let opened = options.open(&task.directory);
        if task.argument == "is refused" {
            assert_configuration(opened);
            continue;
        }
        let cache = opened.expect("the directory can be opened");
        let found = cache.get_or_insert_with(&key("stored"), HOUR, || "computed here".to_owned());
        let is_found = task.argument == "reads";
        assert_eq!(found, if is_found { "computed" } else { "computed here" });
        let before = cache.stats();
        assert_eq!(before.errors == 0, is_found);
        assert_eq!(computed(&cache, &key("not stored")), "computed");
        let after = cache.stats();
        assert!(after.errors_of(ErrorKind::Backend) > before.errors_of(ErrorKind::Backend));
        assert_eq!((after.misses, after.inserts), (before.misses + 1, 0));
        cache.remove(&key("stored")).expect_err("it may not be removed");
        cache.clear().expect_err("nothing may be removed");
    }
}

#[test]
fn directory_of_another_user_is_refused_without_allow_shared() {
    if !is_root() {
        println!("only root can give a directory away: skipped");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    chown(directory.path(), Some(OTHER_USER), None).expect("root may");
    assert_configuration(FileCache::open(directory.path()));
    assert!(snapshot(directory.path()).is_empty(), "nothing was made in it");
    let cache = options().allow_shared().open(directory.path()).expect("it is shared");
    assert_eq!(computed(&cache, &key("k")), "computed");
    assert_configuration(FileCache::open(directory.path()));
}

#[test]
fn directory_that_other_users_may_write_to_is_refused_without_allow_shared() {
    for mode in [0o770, 0o707, 0o720, 0o702, 0o777, 0o1777] {
        let directory = tempfile::tempdir().expect("a directory");
        let permissions = Permissions::from_mode(mode);
        fs::set_permissions(directory.path(), permissions).expect("its owner may");
        assert_configuration(FileCache::open(directory.path()));
        assert!(snapshot(directory.path()).is_empty(), "nothing was made in it");
        let cache = options().allow_shared().open(directory.path()).expect("it is shared");
        assert_eq!(computed(&cache, &key("k")), "computed");
        assert_configuration(FileCache::open(directory.path()));
    }
}

#[test]
fn files_are_accessible_to_their_owner_only_with_any_umask() {
    for umask in ["0", "22", "77"] {
        let directory = tempfile::tempdir().expect("a directory");
        child::run(child::command("access::creates_files_with_umask", directory.path(), umask));
    }
}

/// Creates files of every kind.
#[test]
fn creates_files_with_umask() {
    let Some(task) = child::task() else { return };
    let mask = u32::from_str_radix(&task.argument, 8).expect("a mask");
    umask(Mode::from_raw_mode(mask));
    let path = task.directory.join("some").join("cache");
    let machine = || options().single_flight(SingleFlight::Everywhere);
    let cache = machine().open(&path).expect("a cache");
    let modes = |path: &Path| {
        snapshot(path).into_keys().map(|path| (mode(&path), path)).collect::<Vec<_>>()
    };
    cache.get_or_insert_with(&key("k"), HOUR, || {
        // The lock file exists at this point.
        let modes = modes(&task.directory);
        assert_eq!(modes.len(), 7, "{modes:?}");
        for (mode, path) in modes {
            assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        }
    });
    assert_eq!(mode(&crate::fixture::entry(&path, &key("k"))), 0o600);

    // In addition to the mode of the parent.
    fs::set_permissions(&task.directory, Permissions::from_mode(0o700)).expect("its owner may");
    let path = task.directory.join("shared");
    let cache = machine().allow_shared().open(&path).expect("a cache");
    assert_eq!(computed(&cache, &key("k")), "computed");
    for (mode, path) in modes(&path) {
        let wanted = if path.is_dir() { 0o777 } else { 0o666 };
        assert_eq!(mode, wanted & !mask, "{}", path.display());
    }
}

#[test]
fn directory_with_other_files_is_refused_and_not_changed() {
    for name in ["notes.txt", "00", "src"] {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join(name), "to be kept").expect("a file");
        fs::write(directory.path().join(".hidden"), "to be kept").expect("a file");
        let before = snapshot(directory.path());
        assert_configuration(FileCache::open(directory.path()));
        assert_configuration(options().allow_shared().open(directory.path()));
        assert_eq!(snapshot(directory.path()), before);
    }
}

fn assert_configuration(opened: Result<FileCache>) {
    assert_eq!(opened.expect_err("it is refused").kind(), ErrorKind::Configuration);
}

fn computed(cache: &FileCache, key: &vayu_core::Key) -> String {
    cache.get_or_insert_with(key, HOUR, || "computed".to_owned())
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("it is there").mode() & 0o7777
}

/// Creates a directory that every user can enter, with a copy of this binary that every user can run.
fn public_directory() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let binary = std::env::current_exe().expect("a test knows its own path");
    // Another process copies it. A program that is open for writing cannot be run, and the children that other tests start
    // meanwhile would hold what this process has open.
    let copied = Command::new("cp").arg(binary).arg(directory.path().join("binary")).status();
    assert!(copied.expect("cp can be started").success(), "the binary is copied");
    make_readable(directory.path());
    directory
}

fn make_readable(directory: &Path) {
    let paths = snapshot(directory).into_keys().chain([directory.to_owned()]);
    for path in paths {
        let is_program = path.is_dir() || path.ends_with("binary");
        let permissions = Permissions::from_mode(if is_program { 0o755 } else { 0o644 });
        fs::set_permissions(path, permissions).expect("the owner may");
    }
}

fn as_other_user(test: &str, public: &TempDir, directory: &Path, argument: &str) -> Command {
    let binary = Command::new(public.path().join("binary"));
    let mut command = child::with_task(binary, test, directory, argument);
    command.uid(OTHER_USER).gid(OTHER_USER).current_dir("/");
    command
}

#[test]
fn users_of_a_group_share_a_directory_with_any_umask() {
    const GROUP: u32 = 4242;
    let has_setpriv = Command::new("setpriv").arg("--version").output().is_ok();
    if !is_root() || !has_setpriv {
        println!("only root can become another user: skipped");
        return;
    }
    for (mode, group) in [(0o2770, GROUP), (0o770, GROUP), (0o2775, GROUP), (0o777, 0)] {
        for umask in ["22", "77"] {
            watchdog(HANG, move || {
                let directory = public_directory();
                let shared = directory.path().join("shared");
                fs::create_dir(&shared).expect("a directory");
                chown(&shared, None, Some(group)).expect("root may");
                fs::set_permissions(&shared, Permissions::from_mode(mode)).expect("root may");
                // The cache creates two more directories.
                let path = shared.join("some").join("cache");
                for (round, user) in [1001, 1002, 1001, 1002].into_iter().enumerate() {
                    let mut command = Command::new("setpriv");
                    command.arg(format!("--reuid={user}")).arg(format!("--regid={user}"));
                    command.arg(format!("--groups={GROUP}")).arg(directory.path().join("binary"));
                    let argument = format!("{umask} {round}");
                    let command = child::with_task(
                        command,
                        "access::uses_shared_directory",
                        &path,
                        &argument,
                    );
                    child::run(command);
                }
            });
        }
    }
}

/// Uses a directory that another user has used, with every operation.
#[test]
fn uses_shared_directory() {
    let Some(task) = child::task() else { return };
    let (mask, round) = task.argument.split_once(' ').expect("two numbers");
    umask(Mode::from_raw_mode(u32::from_str_radix(mask, 8).expect("a mask")));
    let round: u64 = round.parse().expect("a number");
    let clock = vayu_core::testing::ManualClock::new();
    clock.advance(HOUR * u32::try_from(round).expect("a small number"));
    let options = options().allow_shared().single_flight(SingleFlight::Everywhere);
    let cache = options.max_entries(200).clock(clock).open(&task.directory).expect("a cache");
    let keys = keys(60);
    let old = cache.get::<u64>(&keys[0]).expect("what the other user has written can be read");
    assert_eq!(old, None, "what the other user has written has expired, or was removed");
    if round > 0 {
        // The expired entries of the other user.
        let usage = cache.backend().sweep().expect("sweep");
        assert_eq!((usage.entries, usage.expirations), (Some(1), Some(20)));
        assert_eq!(cache.get(&keys[59]).expect("read"), Some(round - 1), "this one is for long");
    }
    for number in 0..2 {
        for key in &keys[..40] {
            cache.set(key, &number, HOUR).expect("set");
        }
    }
    cache.set(&keys[59], &round, HOUR * 100).expect("set");
    assert_eq!(cache.get_or_insert_with(&keys[50], HOUR, || 7_u64), 7);
    for key in &keys[20..40] {
        assert!(cache.remove(key).expect("remove"));
    }
    assert!(cache.remove(&keys[50]).expect("remove"));
    cache.invalidate_tag("t").expect("invalidate");
    cache.invalidate_tag("t").expect("invalidate");
    let mut permissions = snapshot(&task.directory).into_keys().map(|path| (mode(&path), path));
    assert!(permissions.all(|(mode, _)| mode & 0o060 == 0o060), "a group can use all of it");
    if round == 2 {
        cache.clear().expect("clear");
        for key in &keys[..20] {
            cache.set(key, &1_u64, HOUR).expect("set");
        }
        cache.set(&keys[59], &round, HOUR * 100).expect("set");
    }
    assert_eq!(cache.stats().errors, 0);
}

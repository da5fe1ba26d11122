//! Calls return and entries remain valid while descriptors, disk space or inodes run out.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Resource, getrlimit, setrlimit};
use vayu_core::SingleFlight;
use vayu_core::testing::watchdog;
use vayu_core::{ErrorKind, Key};
use vayu_file::FileCache;

use crate::fixture::{keys, options, temporary_files};
use crate::tagged_value::TaggedValue;
use crate::{HANG, HOUR, child};

#[test]
fn calls_return_while_there_are_no_file_descriptors() {
    let directory = tempfile::tempdir().expect("a directory");
    watchdog(HANG, move || {
        child::run(child::command("shortage::without_descriptors", directory.path(), ""));
    });
}

/// Uses the cache with 0 to 5 free descriptors.
#[test]
fn without_descriptors() {
    let Some(task) = child::task() else { return };
    let options = options().single_flight(SingleFlight::Everywhere);
    let cache = options.open(&task.directory).expect("a cache");
    let keys = keys(64);
    let value = |number| TaggedValue { key: number, writer: 0, sequence: 0 }.value();
    cache.set(&keys[0], &value(0), HOUR).expect("set");
    let mut limit = getrlimit(Resource::Nofile);
    let usual = limit;
    limit.current = Some(24);
    setrlimit(Resource::Nofile, limit).expect("a limit may be lowered");
    let mut taken = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        taken.push(file);
    }
    let mut errors = 0;
    for free in 0..6 {
        for (number, key) in keys.iter().enumerate().skip(free * 10).take(10) {
            let found = cache.get_or_insert_with(key, HOUR, || value(number));
            assert_eq!(TaggedValue::of(&found, number).sequence, 0);
            let found = cache.get_or_insert_with(&keys[0], HOUR, || value(0));
            TaggedValue::of(&found, 0);
            let _ = cache.remove(key);
        }
        let stats = cache.stats();
        assert!(free > 0 || stats.errors_of(ErrorKind::Backend) > errors);
        errors = stats.errors;
        drop(taken.pop());
    }
    setrlimit(Resource::Nofile, usual).expect("the limit is lifted");
    let errors = cache.stats().errors;
    cache.set(&keys[0], &value(0), HOUR).expect("set");
    let hits = cache.stats().hits;
    cache.get_or_insert_with::<String>(&keys[0], HOUR, || unreachable!("it is stored"));
    assert_eq!((cache.stats().hits, cache.stats().errors), (hits + 1, errors));
    assert_eq!(temporary_files(&task.directory).len(), 0);
}

#[test]
fn calls_return_while_the_disk_is_full() {
    on_a_disk_of("shortage::without_space", "size=1m");
}

/// Fills the disk, and continues.
#[test]
fn without_space() {
    let Some(task) = child::task() else { return };
    let directory = mount(&task);
    let cache = options().open(&directory).expect("a cache");
    let keys = keys(200);
    let errors = fill(&cache, &directory, &keys);
    assert!(errors > 0, "the disk is full");
    for key in &keys {
        cache.remove(key).expect("what is there can be removed");
    }
    cache.set(&keys[0], &tagged_value(0, 1), HOUR).expect("there is room again");
}

#[test]
fn calls_return_while_there_are_no_inodes() {
    for inodes in 2..10 {
        on_a_disk_of("shortage::without_inodes", &format!("nr_inodes={inodes}"));
    }
}

/// Creates files until there are no inodes, and continues.
#[test]
fn without_inodes() {
    let Some(task) = child::task() else { return };
    let directory = mount(&task);
    match options().single_flight(SingleFlight::Everywhere).open(&directory) {
        Ok(cache) => {
            let errors = fill(&cache, &directory, &keys(20));
            assert!(errors > 0, "there are fewer inodes than keys");
            cache.clear().expect("the directory is cleared");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Configuration),
    }
}

/// Writes each key twice. Returns the number of errors.
fn fill(cache: &FileCache, directory: &Path, keys: &[Key]) -> u64 {
    let mut stored = vec![None; keys.len()];
    for sequence in 0..2 {
        for (number, key) in keys.iter().enumerate() {
            let value = tagged_value(number, sequence);
            if cache.set(key, &value, HOUR).is_ok() {
                stored[number] = Some(sequence);
            }
            let found = cache.get::<String>(key).expect("what is there can be read");
            let found = found.map(|value| TaggedValue::of(&value, number).sequence);
            assert_eq!(found, stored[number], "what was there before stays");
            let result = cache.get_or_insert_with(key, HOUR, || value);
            // The call may have stored its value, if there was space.
            let result = TaggedValue::of(&result, number).sequence;
            let found = cache.get::<String>(key).expect("what is there can be read");
            stored[number] = found.map(|value| TaggedValue::of(&value, number).sequence);
            assert!(stored[number].is_none_or(|stored| stored == result));
        }
        let reopened = options().open(directory).expect("a cache");
        for (number, key) in keys.iter().enumerate() {
            let found = reopened.get::<String>(key).expect("what is there can be read");
            let found = found.map(|value| TaggedValue::of(&value, number).sequence);
            assert_eq!(found, stored[number], "what was there before stays");
        }
        assert_eq!(reopened.stats().usage.corrupt_entries, Some(0), "no entry was damaged");
    }
    assert!(temporary_files(directory).is_empty(), "what could not be written is removed");
    cache.stats().errors
}

fn tagged_value(key: usize, sequence: u64) -> String {
    TaggedValue { key, writer: key as u64, sequence }.value()
}

/// Runs a test in a child that can mount a disk, if the system permits that.
fn on_a_disk_of(test: &str, options: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let options = options.to_owned();
    let test = test.to_owned();
    watchdog(HANG, move || {
        let mut probe = Command::new("unshare");
        probe
            .args(["--mount", "mount", "-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(directory.path());
        probe.stdout(Stdio::null()).stderr(Stdio::null());
        if !probe.status().is_ok_and(|status| status.success()) {
            println!("no disk of `{options}` can be mounted: skipped");
            return;
        }
        let mut command = Command::new("unshare");
        command.arg("--mount").arg(std::env::current_exe().expect("a test knows its own path"));
        child::run(child::with_task(command, &test, directory.path(), &options));
        assert!(fs::read_dir(directory.path()).is_ok_and(|mut names| names.next().is_none()));
    });
}

/// Mounts the disk of this process. Returns its directory.
fn mount(task: &child::Task) -> std::path::PathBuf {
    let mut command = Command::new("mount");
    command.args(["-t", "tmpfs", "-o", &format!("{},mode=700", task.argument), "tmpfs"]);
    let status = command.arg(&task.directory).status().expect("the command is there");
    assert!(status.success(), "it could be mounted a moment ago");
    task.directory.clone()
}

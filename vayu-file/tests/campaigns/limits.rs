//! Limits of a directory that several processes share.

use std::fs;
use std::path::Path;
use std::thread;

use vayu_core::testing::watchdog;
use vayu_file::FileOptions;

use crate::fixture::{key, options};
use crate::{HANG, HOUR, child, size};

const MAX_BYTES: u64 = 2 << 20;

fn limited() -> FileOptions {
    options().max_bytes(MAX_BYTES)
}

fn value(number: usize) -> String {
    format!("{number:016000}")
}

/// Returns the disk space of all entries, in blocks of 4 KiB.
fn on_disk(directory: &Path) -> u64 {
    let shards = fs::read_dir(directory).expect("the directory").filter_map(Result::ok);
    let files = shards.filter_map(|shard| fs::read_dir(shard.path()).ok()).flatten();
    let files = files.filter_map(Result::ok);
    let entries = files.filter(|file| file.file_name().to_string_lossy().ends_with(".v1"));
    let lengths = entries.filter_map(|file| file.metadata().ok()).map(|file| file.len());
    lengths.map(|length| length.next_multiple_of(4096)).sum()
}

#[test]
fn limit_is_enforced_by_processes_that_write_once() {
    let processes = size("VAYU_LIMIT_PROCESSES", 250);
    let directory = tempfile::tempdir().expect("a directory");
    for number in 0..processes {
        let path = directory.path().to_owned();
        watchdog(HANG, move || {
            child::run(child::command("limits::writes_once", &path, &number.to_string()));
            let bytes = on_disk(&path);
            assert!(bytes <= MAX_BYTES, "{bytes} bytes after process {number}");
        });
    }
    assert!(on_disk(directory.path()) > MAX_BYTES * 8 / 10);
}

/// Stores one value.
#[test]
fn writes_once() {
    let Some(task) = child::task() else { return };
    let number: usize = task.argument.parse().expect("a number");
    let cache = limited().open(&task.directory).expect("a cache");
    cache.set(&key(number.to_string()), &value(number), HOUR).expect("set");
    assert!(cache.get::<String>(&key(number.to_string())).expect("read").is_some());
}

#[test]
fn limit_is_enforced_by_concurrent_processes() {
    watchdog(2 * HANG, || {
        let directory = tempfile::tempdir().expect("a directory");
        drop(limited().open(directory.path()).expect("a cache"));
        let writers: Vec<_> = (0..4)
            .map(|writer: usize| {
                let path = directory.path().to_owned();
                thread::spawn(move || {
                    child::run(child::command("limits::writes_on", &path, &writer.to_string()));
                })
            })
            .collect();
        let mut max = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            max = max.max(on_disk(directory.path()));
            thread::yield_now();
        }
        for writer in writers {
            writer.join().expect("the writer ends");
        }
        let end = on_disk(directory.path());
        println!("four writers used {max} bytes at most, and {end} at the end");
        assert!(max <= MAX_BYTES * 5 / 4, "{max} bytes at the worst moment");
        assert!(end <= MAX_BYTES * 11 / 10, "{end} bytes at the end");
    });
}

#[test]
fn writes_on() {
    let Some(task) = child::task() else { return };
    let writer: usize = task.argument.parse().expect("a number");
    let cache = limited().open(&task.directory).expect("a cache");
    for number in 0..1_500 {
        let number = writer * 1_000_000 + number;
        cache.set(&key(number.to_string()), &value(number), HOUR).expect("set");
    }
}

//! A process killed while it writes leaves valid entries, and temporary files that are swept.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::thread;

use tempfile::TempDir;
use vayu_core::testing::watchdog;
use vayu_file::FileCache;

use crate::fixture::{age, keys, options, shard, temporary_files};
use crate::tagged_value::{Random, TaggedValue};
use crate::{HANG, HOUR, child, progress, size};

const KEYS: usize = 5;

/// The number of kills for one watchdog. Processes start slowly on Windows.
const BATCH: usize = if cfg!(windows) { 20 } else { 100 };

/// The values that were found after the last kill.
type Found = [Option<TaggedValue>; KEYS];

#[test]
fn process_killed_at_any_time_leaves_the_last_value_or_the_new_one() {
    let batches = size("VAYU_KILLS", 2_000).div_ceil(BATCH);
    let mut directory = tempfile::tempdir().expect("a directory");
    let mut found = Found::default();
    let mut abandoned = 0;
    for batch in 0..batches {
        progress("batches of kills", batch, batches);
        (directory, found, abandoned) = watchdog(HANG, move || {
            let (mut found, before) = (found, temporary_files(directory.path()).len());
            for number in 0..BATCH {
                let number = u64::try_from(batch * BATCH + number).expect("a number");
                found = kill_one(directory.path(), number + 1, found);
            }
            let left = temporary_files(directory.path()).len();
            assert!(left - before <= BATCH, "a kill leaves at max one file");
            let abandoned = abandoned + left - before;
            // A sweep keeps the directory of a large campaign small.
            let directory = if batch % 20 == 19 { swept(directory) } else { directory };
            (directory, found, abandoned)
        });
    }
    let swept = watchdog(HANG, move || swept(directory));
    let kills = batches * BATCH;
    println!("{kills} kills, {abandoned} of which left a file that was being written");
    assert!(abandoned > 0 || kills < 1_000, "the kills come while an entry is written");
    assert!(found.iter().all(Option::is_some), "entries outlive the kills");
    drop(swept);
}

/// Starts a writer, kills it at some time, and checks the entries that it leaves.
fn kill_one(directory: &Path, writer: u64, before: Found) -> Found {
    let mut random = Random::new(writer);
    let mut child = child::command("kills::writes_forever", directory, &writer.to_string())
        .spawn()
        .expect("the child can be started");
    let mut written = Vec::new();
    let stderr = child.stderr.as_mut().expect("it was asked for");
    let wanted = random.below(2 * KEYS) as u64;
    Read::take(&mut *stderr, wanted).read_to_end(&mut written).expect("the child writes");
    if writer.is_multiple_of(2) {
        let before = unfinished(directory);
        let _ = (0..200).find(|_| unfinished(directory) > before);
    } else {
        for _ in 0..random.below(40) {
            thread::yield_now();
        }
    }
    child.kill().expect("the child is there");
    let stderr = child.stderr.as_mut().expect("it was asked for");
    stderr.read_to_end(&mut written).expect("the pipe ends with the child");
    child.wait().expect("the child is gone");
    assert!(written.iter().all(|&byte| byte == b'.'), "{}", String::from_utf8_lossy(&written));

    let cache = options().open(directory).expect("a cache");
    let mut found = Found::default();
    for (number, key) in keys(KEYS).iter().enumerate() {
        let value = cache.get::<String>(key).expect("read");
        found[number] = value.map(|value| TaggedValue::of(&value, number));
        // The last write of this key that the writer reported before it was killed.
        let reported = (number..written.len()).step_by(KEYS).next_back();
        let reported = reported.map(|sequence| sequence as u64);
        match (found[number], reported) {
            (Some(found), Some(reported)) => {
                assert_eq!(found.writer, writer, "a value that was written is there");
                assert!(found.sequence == reported || found.sequence == reported + KEYS as u64);
            }
            (None, Some(reported)) => panic!("write {reported} was reported, and is lost"),
            (found, None) => {
                let is_first =
                    |tag: TaggedValue| (tag.writer, tag.sequence) == (writer, number as u64);
                assert!(found == before[number] || found.is_some_and(is_first), "{found:?}");
            }
        }
        let result = cache.get_or_insert_with(key, HOUR, || {
            TaggedValue { key: number, writer, sequence: number as u64 }.value()
        });
        found[number] = Some(TaggedValue::of(&result, number));
    }
    let stats = cache.stats();
    assert_eq!((stats.errors, stats.usage.corrupt_entries), (0, Some(0)), "no value was damaged");
    found
}

/// Returns the number of temporary files in the shards of the keys.
fn unfinished(directory: &Path) -> usize {
    let shards = keys(KEYS).into_iter().map(|key| shard(directory, &key));
    let entries = shards.flat_map(fs::read_dir).flatten().filter_map(Result::ok);
    let is_temporary =
        |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes().starts_with(b".vayu-tmp-");
    entries.filter(is_temporary).count()
}

/// Writes to one key after another, and reports each write by a byte.
#[test]
fn writes_forever() {
    let Some(task) = child::task() else { return };
    let writer = task.argument.parse().expect("the number of the process");
    let cache = FileCache::open(&task.directory).expect("a cache");
    let keys = keys(KEYS);
    for sequence in 0.. {
        let number = usize::try_from(sequence).expect("a small number") % KEYS;
        let value = TaggedValue { key: number, writer, sequence }.value();
        cache.set(&keys[number], &value, HOUR).expect("set");
        // Standard error is closed when the test itself was killed.
        if std::io::stderr().write_all(b".").is_err() {
            return;
        }
    }
}

/// Ages the temporary files of a directory, and checks that a sweep removes them.
fn swept(directory: TempDir) -> TempDir {
    let path = directory.path();
    for young in temporary_files(path) {
        age(&young, HOUR * 9 / 10);
    }
    let before = temporary_files(path).len();
    let cache = options().open(path).expect("a cache");
    cache.backend().sweep().expect("sweep");
    assert_eq!(temporary_files(path).len(), before, "what is not an hour old may still be written");
    for old in temporary_files(path) {
        age(&old, HOUR * 11 / 10);
    }
    cache.backend().sweep().expect("sweep");
    assert!(temporary_files(path).is_empty(), "what is an hour old is removed");
    directory
}

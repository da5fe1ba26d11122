//! A cache directory, and a directory outside of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use vayu_core::Key;
use vayu_file::{AsyncIo, FileCache, FileOptions};

use crate::HOUR;

/// A cache directory, and a directory that the cache must not access.
#[derive(Debug)]
pub(crate) struct Fixture {
    directory: TempDir,
    outside: TempDir,
}

/// All files in a directory: type, length, modification time and content.
pub(crate) type Snapshot = BTreeMap<PathBuf, (fs::FileType, u64, SystemTime, Vec<u8>)>;

/// The value of the entry outside.
pub(crate) const OUTSIDE: &str = "from outside";

impl Fixture {
    /// Creates an empty cache. The directory outside contains a shard with an entry of `key` that would
    /// be valid in the cache, and a note.
    pub(crate) fn new(key: &Key) -> Self {
        let tempdir = || tempfile::tempdir().expect("a directory");
        let fixture = Self { directory: tempdir(), outside: tempdir() };
        let elsewhere = tempdir();
        let cache = FileCache::open(elsewhere.path()).expect("a cache");
        cache.set(key, &OUTSIDE.to_owned(), HOUR).expect("the entry is written");
        let shard = fixture.outside_shard();
        fs::create_dir(&shard).expect("a directory outside");
        fs::copy(entry(elsewhere.path(), key), shard.join(entry_name(key))).expect("a copy");
        fs::write(shard.join("note"), "to be kept").expect("a note");
        // Marks the directory.
        drop(fixture.open());
        fixture
    }

    /// Returns the directory of the cache.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the shard outside.
    pub(crate) fn outside_shard(&self) -> PathBuf {
        self.outside.path().join("shard")
    }

    /// Returns the entry outside.
    pub(crate) fn outside_entry(&self, key: &Key) -> PathBuf {
        self.outside_shard().join(entry_name(key))
    }

    /// Returns a snapshot of the directory outside.
    pub(crate) fn outside(&self) -> Snapshot {
        snapshot(self.outside.path())
    }

    /// Opens the cache.
    pub(crate) fn open(&self) -> FileCache {
        options().open(self.path()).expect("a cache")
    }
}

pub(crate) fn options() -> FileOptions {
    FileOptions::new().async_io(AsyncIo::Inline)
}

pub(crate) fn key(text: impl AsRef<str>) -> Key {
    Key::from_text("campaign", text)
}

/// Returns this many keys.
pub(crate) fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|number| key(number.to_string())).collect()
}

/// Returns this many keys of the shard of "first", which is the first of them.
pub(crate) fn keys_of_one_shard(count: usize) -> Vec<Key> {
    let shard = key("first").digest()[0];
    let others = (0..).map(|number: u32| key(number.to_string()));
    let others = others.filter(|key| key.digest()[0] == shard);
    std::iter::once(key("first")).chain(others).take(count).collect()
}

/// Returns the path of the shard of a key.
pub(crate) fn shard(directory: &Path, key: &Key) -> PathBuf {
    directory.join(&name(key)[..2])
}

/// Returns the path of the entry of a key.
pub(crate) fn entry(directory: &Path, key: &Key) -> PathBuf {
    shard(directory, key).join(entry_name(key))
}

/// Returns the path of the lock file of a key.
pub(crate) fn lock(directory: &Path, key: &Key) -> PathBuf {
    shard(directory, key).join(format!("{}.lock", &name(key)[2..]))
}

fn entry_name(key: &Key) -> String {
    format!("{}.v1", &name(key)[2..])
}

fn name(key: &Key) -> String {
    const_hex::encode(&key.digest()[..20])
}

/// Returns the temporary files in all shards.
pub(crate) fn temporary_files(directory: &Path) -> Vec<PathBuf> {
    let is_temporary = |path: &PathBuf| has_name(path, ".vayu-tmp-");
    snapshot(directory).into_keys().filter(is_temporary).collect()
}

/// Returns whether the name of a file begins so.
fn has_name(path: &Path, start: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
}

/// Sets the modification time of a file to this long ago.
pub(crate) fn age(path: &Path, age: Duration) {
    let file = File::options().write(true).open(path).expect("the file is there");
    file.set_modified(SystemTime::now() - age).expect("its time can be set");
}

/// Returns all files in a directory. No symbolic link is followed.
pub(crate) fn snapshot(directory: &Path) -> Snapshot {
    let mut snapshot = Snapshot::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("the directory can be read") {
            let path = entry.expect("an entry of the directory").path();
            // A running process may remove a file at this moment.
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let kind = metadata.file_type();
            let bytes = if kind.is_file() { fs::read(&path).unwrap_or_default() } else { vec![] };
            if kind.is_dir() {
                directories.push(path.clone());
            }
            let modified = metadata.modified().expect("files have times here");
            snapshot.insert(path, (kind, metadata.len(), modified, bytes));
        }
    }
    snapshot
}

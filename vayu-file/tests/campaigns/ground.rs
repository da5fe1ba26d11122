//! A directory for a cache, and what is around it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use vayu_core::Key;
use vayu_file::{AsyncIo, FileCache, FileOptions};

use crate::HOUR;

/// A cache directory, and a directory that the cache must not reach.
#[derive(Debug)]
pub(crate) struct Ground {
    directory: TempDir,
    outside: TempDir,
}

/// Everything below a directory: what it is, and its bytes if it is a file.
pub(crate) type Picture = BTreeMap<PathBuf, (fs::FileType, u64, SystemTime, Vec<u8>)>;

/// The value of the entry outside.
pub(crate) const OUTSIDE: &str = "from outside";

impl Ground {
    /// The cache is empty. Outside is an entry of `key` that would be valid inside, in a folder
    /// that would be its shard, and a note.
    pub(crate) fn new(key: &Key) -> Self {
        let tempdir = || tempfile::tempdir().expect("a directory");
        let ground = Self { directory: tempdir(), outside: tempdir() };
        let elsewhere = tempdir();
        let cache = FileCache::open(elsewhere.path()).expect("a cache");
        cache.set(key, &OUTSIDE.to_owned(), HOUR).expect("the entry is written");
        let shard = ground.outside_shard();
        fs::create_dir(&shard).expect("a folder outside");
        fs::copy(entry(elsewhere.path(), key), shard.join(entry_name(key))).expect("a copy");
        fs::write(shard.join("note"), "to be kept").expect("a note");
        // Marks the directory.
        drop(ground.open());
        ground
    }

    /// The directory of the cache.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The folder outside.
    pub(crate) fn outside_shard(&self) -> PathBuf {
        self.outside.path().join("shard")
    }

    /// The entry outside.
    pub(crate) fn outside_entry(&self, key: &Key) -> PathBuf {
        self.outside_shard().join(entry_name(key))
    }

    /// What is outside now.
    pub(crate) fn outside(&self) -> Picture {
        picture(self.outside.path())
    }

    /// The cache in the directory.
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

/// A number of keys.
pub(crate) fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|number| key(number.to_string())).collect()
}

/// A number of keys whose entries are in one shard, from the one of "first" on.
pub(crate) fn neighbours(count: usize) -> Vec<Key> {
    let shard = key("first").digest()[0];
    let others = (0..).map(|number: u32| key(number.to_string()));
    let others = others.filter(|key| key.digest()[0] == shard);
    std::iter::once(key("first")).chain(others).take(count).collect()
}

/// Where the cache in this directory has the shard of a key.
pub(crate) fn shard(directory: &Path, key: &Key) -> PathBuf {
    directory.join(&name(key)[..2])
}

/// Where it has the entry of a key.
pub(crate) fn entry(directory: &Path, key: &Key) -> PathBuf {
    shard(directory, key).join(entry_name(key))
}

/// Where it has the lock of a key.
pub(crate) fn lock(directory: &Path, key: &Key) -> PathBuf {
    shard(directory, key).join(format!("{}.lock", &name(key)[2..]))
}

fn entry_name(key: &Key) -> String {
    format!("{}.v1", &name(key)[2..])
}

fn name(key: &Key) -> String {
    const_hex::encode(&key.digest()[..20])
}

/// The names of entries that a process has not finished writing, in all shards.
pub(crate) fn litter(directory: &Path) -> Vec<PathBuf> {
    let is_litter = |path: &PathBuf| path.to_string_lossy().contains("/.vayu-tmp-");
    picture(directory).into_keys().filter(is_litter).collect()
}

/// Says that a file was last written this long ago.
pub(crate) fn age(path: &Path, age: Duration) {
    let file = File::options().write(true).open(path).expect("the file is there");
    file.set_modified(SystemTime::now() - age).expect("its time can be set");
}

/// Everything below a directory. No link is followed.
pub(crate) fn picture(directory: &Path) -> Picture {
    let mut picture = Picture::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("an entry of the folder").path();
            // What a process that was killed leaves is stable, but what a live one writes is not.
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let kind = metadata.file_type();
            let bytes = if kind.is_file() { fs::read(&path).unwrap_or_default() } else { vec![] };
            if kind.is_dir() {
                folders.push(path.clone());
            }
            let modified = metadata.modified().expect("files have times here");
            picture.insert(path, (kind, metadata.len(), modified, bytes));
        }
    }
    picture
}

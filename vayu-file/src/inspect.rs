//! A look into a cache directory from outside.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cap_std::fs::Dir;
use vayu_core::wire::{EncodedEntry, ParseError};
use vayu_core::{Error, ErrorKind, Result, SerializerId, Timestamp};

use crate::counts::Counts;
use crate::directory;
use crate::fs::{DiskFolder, File, Folder, Kind, buffer, read_full};
use crate::layout::{Role, SHARDS, shard_name};
use crate::options::Access;

/// A cache directory to look into: which entries it has, whether they are whole, and to remove
/// some. Processes may go on using it.
///
/// # Examples
///
/// ```
/// use vayu_file::{CacheDirectory, Verify};
///
/// # fn main() -> vayu_core::Result<()> {
/// # let place = tempfile::tempdir().unwrap();
/// # let path = place.path();
/// # vayu_file::FileCache::open(path)?
/// #     .set(&vayu_core::Key::from_text("rates", "EUR"), &1.1, std::time::Duration::MAX)?;
/// let directory = CacheDirectory::open(path)?;
/// for entry in directory.entries(Verify::Full) {
///     let entry = entry?;
///     println!("{} {} bytes", entry.key().unwrap_or("?"), entry.length());
/// #   assert_eq!((entry.function(), entry.error()), (Some("rates"), None));
/// }
/// # Ok(())
/// # }
/// ```
pub struct CacheDirectory {
    path: PathBuf,
    root: DiskFolder,
}

/// How closely entries are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// Their headers are read.
    Header,
    /// They are read whole, and every byte is checked.
    Full,
}

/// One entry of a directory.
#[derive(Debug, Clone)]
pub struct EntryInfo {
    shard: usize,
    name: String,
    length: u64,
    content: Result<Content, EntryError>,
}

#[derive(Debug, Clone)]
struct Content {
    function: Option<String>,
    key: Option<String>,
    created: Timestamp,
    expires: Timestamp,
    stale_until: Timestamp,
    serializer: SerializerId,
}

/// Why a file under an entry's name gives no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// It is damaged, or of another version.
    #[error(transparent)]
    Corrupt(#[from] ParseError),
    /// It is no regular file.
    #[error("not a regular file")]
    NotAFile,
    /// It cannot be read.
    #[error("unreadable: {0}")]
    Unreadable(io::ErrorKind),
}

/// As much of an entry as is read to know its key; keys are seldom longer.
const GLANCE: u64 = 4 * 1024;
/// No key that is kept whole is longer.
const LONG_GLANCE: u64 = 128 * 1024;

impl CacheDirectory {
    /// Opens a directory that is a cache.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] when there is none or it is no cache.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let shown = path.as_ref().display();
        let refused = |message: String| Error::new(ErrorKind::Configuration, message);
        let dir = Dir::open_ambient_dir(&path, cap_std::ambient_authority())
            .map_err(|error| refused(format!("open directory `{shown}`")).with_source(error))?;
        let root = DiskFolder::new(dir, Access::OwnerOnly);
        match directory::is_marked(&root) {
            Ok(true) => Ok(Self { path: path.as_ref().to_owned(), root }),
            Ok(false) => Err(refused(format!("the directory `{shown}` is no cache"))),
            Err(error) => Err(refused(format!("look into directory `{shown}`")).with_source(error)),
        }
    }

    /// All entries, in the order of their file names. The memory of no more than a 256th of them
    /// is needed at once. What other processes write or remove meanwhile may be there or not.
    ///
    /// # Errors
    ///
    /// Where a folder cannot be read, one item says so, and the others follow.
    pub fn entries(&self, check: Verify) -> impl Iterator<Item = Result<EntryInfo>> {
        (0..SHARDS).flat_map(move |shard| {
            let (names, error) = match self.names(shard) {
                Ok(names) => (names, None),
                Err(error) => (Vec::new(), Some(failed("list entries", error))),
            };
            let infos = names.into_iter().filter_map(move |name| self.look_at(shard, name, check));
            error.into_iter().map(Err).chain(infos.map(Ok))
        })
    }

    /// How many files there are under entries' names, without looking at them.
    ///
    /// # Errors
    ///
    /// When a folder cannot be read.
    pub fn count(&self) -> Result<u64> {
        (0..SHARDS).try_fold(0, |count, shard| {
            let names = self.names(shard).map_err(|error| failed("list entries", error))?;
            Ok(count + names.len() as u64)
        })
    }

    /// The stored form of an entry's value, as its serializer wrote it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Miss`] when it is gone, [`ErrorKind::Decode`] when it is damaged, and
    /// [`ErrorKind::Backend`] when it cannot be read.
    pub fn value(&self, entry: &EntryInfo) -> Result<Bytes> {
        let bytes = match self.open_entry(entry.shard, &entry.name).and_then(|file| {
            let length = file.status()?.length;
            read_up_to(&*file, length)
        }) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::Miss, "the entry is gone"));
            }
            Err(error) => return Err(failed("read entry", error)),
        };
        match EncodedEntry::parse(&bytes) {
            Ok(whole) => Ok(bytes.slice(whole.value_range())),
            Err(defect) => {
                Err(Error::new(ErrorKind::Decode, "the entry is damaged").with_source(defect))
            }
        }
    }

    /// Removes an entry; whether it was there.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Backend`] when it cannot be removed.
    pub fn remove(&self, entry: &EntryInfo) -> Result<bool> {
        let removed = self
            .root
            .folder(&shard_name(entry.shard))
            .and_then(|folder| folder.remove(&entry.name));
        match removed {
            Ok(()) => {
                // Those who write to the directory count this part of it anew.
                let _ = Counts::open(&self.root).and_then(|mut counts| counts.forget(entry.shard));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove entry", error)),
        }
    }

    /// The names of the entries in a shard, sorted.
    fn names(&self, shard: usize) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        match self.root.folder(&shard_name(shard)) {
            Ok(folder) => folder.list(&mut |name| {
                if Role::of(name) == Role::Entry {
                    names.push(name.to_owned());
                }
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What is under a name, unless it is gone.
    fn look_at(&self, shard: usize, name: String, check: Verify) -> Option<EntryInfo> {
        let (length, content) = match self.read(shard, &name, check) {
            Ok((length, content)) => (length, content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => (0, Err(EntryError::Unreadable(error.kind()))),
        };
        Some(EntryInfo { shard, name, length, content })
    }

    fn read(
        &self,
        shard: usize,
        name: &str,
        check: Verify,
    ) -> io::Result<(u64, Result<Content, EntryError>)> {
        let file = self.open_entry(shard, name)?;
        let status = file.status()?;
        if status.kind != Kind::File {
            return Ok((0, Err(EntryError::NotAFile)));
        }
        let entry = match check {
            Verify::Full => {
                let bytes = read_up_to(&*file, status.length)?;
                EncodedEntry::parse(&bytes).map(|entry| Content::of(&entry))
            }
            Verify::Header => {
                let mut bytes = read_up_to(&*file, status.length.min(GLANCE))?;
                if EncodedEntry::parse_prefix(&bytes).err() == Some(ParseError::LengthMismatch) {
                    bytes = read_up_to(&*file, status.length.min(LONG_GLANCE))?;
                }
                EncodedEntry::parse_prefix(&bytes).and_then(|entry| {
                    let is_whole = entry.header().entry_length() == Some(status.length);
                    if is_whole { Ok(Content::of(&entry)) } else { Err(ParseError::LengthMismatch) }
                })
            }
        };
        Ok((status.length, entry.map_err(EntryError::Corrupt)))
    }

    fn open_entry(&self, shard: usize, name: &str) -> io::Result<Box<dyn File>> {
        self.root.open(&format!("{}/{name}", shard_name(shard)))
    }
}

impl fmt::Debug for CacheDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheDirectory").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Content {
    fn of(entry: &EncodedEntry<'_>) -> Self {
        let header = entry.header();
        Self {
            function: entry.function().map(str::to_owned),
            key: entry.key_text(),
            created: header.created(),
            expires: header.expires(),
            stale_until: header.stale_until(),
            serializer: header.serializer(),
        }
    }
}

impl EntryInfo {
    /// The path of its file in the directory.
    pub fn path(&self) -> String {
        format!("{}/{}", shard_name(self.shard), self.name)
    }

    /// The length of its file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What is wrong with it, if anything.
    pub fn error(&self) -> Option<EntryError> {
        self.content.as_ref().err().copied()
    }

    /// The path of its function, or the prefix in its place; not where the key was longer than
    /// 64 KiB.
    pub fn function(&self) -> Option<&str> {
        self.content().and_then(|content| content.function.as_deref())
    }

    /// Its key as text: the function, and a text or the SHA-256 of the arguments.
    pub fn key(&self) -> Option<&str> {
        self.content().and_then(|content| content.key.as_deref())
    }

    /// When its value was computed.
    pub fn created(&self) -> Option<Timestamp> {
        self.content().map(|content| content.created)
    }

    /// The first instant at which its value is no longer fresh.
    pub fn expires(&self) -> Option<Timestamp> {
        self.content().map(|content| content.expires)
    }

    /// The first instant at which it may be forgotten.
    pub fn stale_until(&self) -> Option<Timestamp> {
        self.content().map(|content| content.stale_until)
    }

    /// The number of the serializer that wrote its value.
    pub fn serializer(&self) -> Option<SerializerId> {
        self.content().map(|content| content.serializer)
    }

    fn content(&self) -> Option<&Content> {
        self.content.as_ref().ok()
    }
}

/// Reads no more than so many bytes, and needs no more memory than there are.
fn read_up_to(file: &dyn File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = buffer(length)?;
    read_full(file, &mut bytes)?;
    Ok(bytes)
}

fn failed(operation: &'static str, error: io::Error) -> Error {
    Error::new(ErrorKind::Backend, operation).with_source(error)
}

//! Inspection of a cache directory: listing, verifying and removing entries.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cap_std::fs::Dir;
use vayu_core::wire::{EncodedEntry, ParseError};
use vayu_core::{Error, ErrorKind, Result, SerializerId, Timestamp};

use crate::counts::Counts;
use crate::directory;
use crate::errno::failed;
use crate::fs::{Directory, DiskDirectory, File, FileType, buffer, read_full};
use crate::layout::{FileKind, SHARDS, shard_name};
use crate::options::Access;

/// A cache directory, opened to list, verify and remove its entries. Other processes may use it at the
/// same time.
///
/// # Examples
///
/// ```
/// use vayu_file::{CacheDirectory, Verify};
///
/// # fn main() -> vayu_core::Result<()> {
/// # let temporary = tempfile::tempdir().unwrap();
/// # let path = temporary.path();
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
    root: DiskDirectory,
}

/// The part of an entry that is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verify {
    /// The header.
    Header,
    /// Every byte, by the checksum.
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

/// The reason why a file with the name of an entry is not a valid entry.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The entry is corrupt, or of another version.
    #[error(transparent)]
    Corrupt(#[from] ParseError),
    /// The file is not a regular file.
    #[error("not a regular file")]
    NotAFile,
    /// The file cannot be read.
    #[error("unreadable: {0}")]
    Unreadable(io::ErrorKind),
}

/// Writes the message, which `unwrap` and `expect` show.
impl fmt::Debug for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of bytes that are read to get the key of an entry; most keys are shorter.
const PREFIX_LENGTH: u64 = 4 * 1024;
/// The most bytes that contain a key: a longer one is stored as a digest.
const LONG_PREFIX_LENGTH: u64 = 128 * 1024;

impl CacheDirectory {
    /// Opens a directory that is a cache.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`] when the directory does not exist or is not a cache.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let shown = path.as_ref().display();
        // The URL of a server may contain a password.
        if path.as_ref().to_string_lossy().contains("://") {
            let message = "a cache directory has a path, not a URL";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        let refused = |message: String| Error::new(ErrorKind::Configuration, message);
        let dir = Dir::open_ambient_dir(&path, cap_std::ambient_authority())
            .map_err(|error| directory::refused_by(format!("open directory `{shown}`"), error))?;
        let root = DiskDirectory::new(dir, Access::OwnerOnly);
        match directory::is_marked(&root) {
            Ok(true) => Ok(Self { path: path.as_ref().to_owned(), root }),
            Ok(false) => Err(refused(format!("the directory `{shown}` is not a cache"))),
            Err(error) => Err(directory::refused_by(format!("read directory `{shown}`"), error)),
        }
    }

    /// Returns all entries, in the order of their file names. At most a 256th of them is in memory at
    /// once. An entry that another process writes or removes in the meantime may be listed or not.
    ///
    /// # Errors
    ///
    /// For a subdirectory that cannot be read, one item is an error, and the others follow.
    pub fn entries(&self, verify: Verify) -> impl Iterator<Item = Result<EntryInfo>> {
        (0..SHARDS).flat_map(move |shard| {
            let (names, error) = match self.names(shard) {
                Ok(names) => (names, None),
                Err(error) => (Vec::new(), Some(failed("list entries", error))),
            };
            let infos = names.into_iter().filter_map(move |name| self.inspect(shard, name, verify));
            error.into_iter().map(Err).chain(infos.map(Ok))
        })
    }

    /// Returns the number of files with the name of an entry, without reading them.
    ///
    /// # Errors
    ///
    /// When a subdirectory cannot be read.
    pub fn count(&self) -> Result<u64> {
        (0..SHARDS).try_fold(0, |count, shard| {
            let names = self.names(shard).map_err(|error| failed("list entries", error))?;
            Ok(count + names.len() as u64)
        })
    }

    /// Reads the stored form of an entry's value, as its serializer wrote it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Miss`] when it was removed, [`ErrorKind::Decode`] when it is corrupt, and
    /// [`ErrorKind::Backend`] when it cannot be read.
    pub fn value(&self, entry: &EntryInfo) -> Result<Bytes> {
        let bytes = match self.open_entry(entry.shard, &entry.name).and_then(|file| {
            let length = file.status()?.length;
            read_up_to(&*file, length)
        }) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::new(ErrorKind::Miss, "the entry was removed"));
            }
            Err(error) => return Err(failed("read entry", error)),
        };
        match EncodedEntry::parse(&bytes) {
            Ok(whole) => Ok(bytes.slice(whole.value_range())),
            Err(error) => {
                Err(Error::new(ErrorKind::Decode, "the entry is corrupt").with_source(error))
            }
        }
    }

    /// Removes an entry. Returns whether it existed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Backend`] when it cannot be removed.
    pub fn remove(&self, entry: &EntryInfo) -> Result<bool> {
        let removed = self
            .root
            .open_directory(&shard_name(entry.shard))
            .and_then(|directory| directory.remove(&entry.name));
        match removed {
            Ok(()) => {
                // The next writer counts the shard again.
                let _ =
                    Counts::open(&self.root).and_then(|mut counts| counts.invalidate(entry.shard));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("remove entry", error)),
        }
    }

    /// Returns the names of the entries in a shard, sorted.
    fn names(&self, shard: usize) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        match self.root.open_directory(&shard_name(shard)) {
            Ok(directory) => directory.list(&mut |name| {
                if FileKind::of(name) == FileKind::Entry {
                    names.push(name.to_owned());
                }
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Inspects an entry. `None` if it was removed.
    fn inspect(&self, shard: usize, name: String, verify: Verify) -> Option<EntryInfo> {
        let (length, content) = match self.read(shard, &name, verify) {
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
        verify: Verify,
    ) -> io::Result<(u64, Result<Content, EntryError>)> {
        let file = self.open_entry(shard, name)?;
        let status = file.status()?;
        if status.file_type != FileType::File {
            return Ok((0, Err(EntryError::NotAFile)));
        }
        let entry = match verify {
            Verify::Full => {
                let bytes = read_up_to(&*file, status.length)?;
                EncodedEntry::parse(&bytes).map(|entry| Content::of(&entry))
            }
            Verify::Header => {
                let mut bytes = read_up_to(&*file, status.length.min(PREFIX_LENGTH))?;
                if EncodedEntry::parse_prefix(&bytes).err() == Some(ParseError::LengthMismatch) {
                    bytes = read_up_to(&*file, status.length.min(LONG_PREFIX_LENGTH))?;
                }
                EncodedEntry::parse_prefix(&bytes).and_then(|entry| {
                    let is_complete = entry.header().entry_length() == Some(status.length);
                    if is_complete {
                        Ok(Content::of(&entry))
                    } else {
                        Err(ParseError::LengthMismatch)
                    }
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
    /// Returns the path of its file, relative to the directory.
    pub fn path(&self) -> String {
        format!("{}/{}", shard_name(self.shard), self.name)
    }

    /// Returns the length of its file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the reason why the entry is invalid, if it is.
    pub fn error(&self) -> Option<EntryError> {
        self.content.as_ref().err().copied()
    }

    /// Returns the path of its function, or the prefix that replaces it. `None` if the key is longer
    /// than 64 KiB.
    pub fn function(&self) -> Option<&str> {
        self.content().and_then(|content| content.function.as_deref())
    }

    /// Returns its key as a string: the function, and the string key or the SHA-256 of the arguments.
    pub fn key(&self) -> Option<&str> {
        self.content().and_then(|content| content.key.as_deref())
    }

    /// Returns when its value was computed.
    pub fn created(&self) -> Option<Timestamp> {
        self.content().map(|content| content.created)
    }

    /// Returns the first instant at which its value is not fresh.
    pub fn expires(&self) -> Option<Timestamp> {
        self.content().map(|content| content.expires)
    }

    /// Returns the first instant at which its value is not served stale either.
    pub fn stale_until(&self) -> Option<Timestamp> {
        self.content().map(|content| content.stale_until)
    }

    /// Returns the identifier of the serializer that wrote its value.
    pub fn serializer(&self) -> Option<SerializerId> {
        self.content().map(|content| content.serializer)
    }

    fn content(&self) -> Option<&Content> {
        self.content.as_ref().ok()
    }
}

/// Reads up to `length` bytes.
fn read_up_to(file: &dyn File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = buffer(length)?;
    read_full(file, &mut bytes)?;
    Ok(bytes)
}

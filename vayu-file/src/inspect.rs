//! Inspection of a cache directory: listing, verifying and removing entries.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cap_std::fs::Dir;
use vayu_core::wire::{EncodedEntry, EntryDetails, ParseError, WireKey};
use vayu_core::{Error, ErrorKind, Invalidation, Result};

use crate::counts::Counts;
use crate::directory;
use crate::errno::failed;
use crate::feed;
use crate::fs::{Directory, DiskDirectory, File, FileType, read_up_to};
use crate::layout::{EntryPath, FileKind, SHARDS, shard_name};
use crate::options::Access;
use crate::prefix::read_prefix;

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
///     match entry.details() {
///         Ok(details) => println!("{} {} bytes", details.call().unwrap_or("?"), entry.length()),
///         Err(error) => println!("{}: {error}", entry.path()),
///     }
/// #   assert_eq!(entry.details().unwrap().call(), Some("rates:EUR"));
/// }
/// # Ok(())
/// # }
/// ```
pub struct CacheDirectory {
    path: PathBuf,
    root: Box<dyn Directory>,
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
    details: Result<EntryDetails, EntryError>,
}

/// The reason why a file with the name of an entry is not a valid entry.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntryError {
    /// The entry is corrupt, or of another version.
    Corrupt(ParseError),
    /// The file is not a regular file.
    NotAFile,
    /// The file cannot be read.
    Unreadable(io::ErrorKind),
}

impl From<ParseError> for EntryError {
    fn from(error: ParseError) -> Self {
        Self::Corrupt(error)
    }
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt(error) => fmt::Display::fmt(error, f),
            Self::NotAFile => f.write_str("not a regular file"),
            Self::Unreadable(kind) => write!(f, "unreadable: {kind}"),
        }
    }
}

impl std::error::Error for EntryError {}

/// Writes the message, which `unwrap` and `expect` show.
impl fmt::Debug for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

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
            Ok(true) => Ok(Self { path: path.as_ref().to_owned(), root: Box::new(root) }),
            Ok(false) => Err(refused(format!(
                "the directory `{shown}` is not a cache, as it has no file `VAYU`; name the directory that \
                 the cache was opened with"
            ))),
            Err(error) => Err(directory::refused_by(format!("read directory `{shown}`"), error)),
        }
    }

    /// Inspects a directory of a test.
    #[cfg(test)]
    pub(crate) fn in_directory(root: Box<dyn Directory>) -> Self {
        Self { path: PathBuf::new(), root }
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

    /// Returns the entries whose path begins with these hex digits, of the [digest](EntryDetails::digest) of the
    /// key. A `/` after the second digit and the end `.v1` may be there. From two digits on one
    /// subdirectory is listed, and no other file is read.
    ///
    /// # Errors
    ///
    /// When a subdirectory cannot be read. A string that is not made of hex digits has no entries.
    pub fn entries_of_digest(&self, digits: &str, verify: Verify) -> Result<Vec<EntryInfo>> {
        let digits = digits.strip_suffix(".v1").unwrap_or(digits);
        let digits = match digits.split_once('/') {
            Some((shard, name)) if shard.len() == 2 => [shard, name].concat(),
            _ => digits.to_owned(),
        };
        // Names have 40 digits of the 64 of a digest.
        let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if digits.is_empty() || digits.len() > 64 || !is_hex {
            return Ok(Vec::new());
        }
        let digits = digits.to_ascii_lowercase();
        let (shard, name) = digits.split_at(digits.len().min(2));
        let name = &name[..name.len().min(38)];
        let mut entries = Vec::new();
        for number in (0..SHARDS).filter(|&number| shard_name(number).starts_with(shard)) {
            let names = self.names(number).map_err(|error| failed("list entries", error))?;
            let names = names.into_iter().filter(|other| other.starts_with(name));
            entries.extend(names.filter_map(|name| self.inspect(number, name, verify)));
        }
        entries.retain(|entry| match entry.details.as_ref().ok().and_then(EntryDetails::digest) {
            Some(digest) => const_hex::encode(digest).starts_with(&digits),
            None => true,
        });
        Ok(entries)
    }

    /// Returns the entry of a key as [`EntryDetails::key`] shows it: `function:string`, or `function:` and the
    /// digest of the key. Only its file is read.
    ///
    /// # Errors
    ///
    /// When a subdirectory cannot be read.
    pub fn entry(&self, key: &str, verify: Verify) -> Result<Option<EntryInfo>> {
        let mut invalid = None;
        for candidate in WireKey::of_displayed_text(key) {
            let path = EntryPath::of(&candidate);
            match self.inspect(path.shard(), path.file_name().to_owned(), verify) {
                Some(entry) if entry.details.is_ok() => return Ok(Some(entry)),
                entry => invalid = invalid.or(entry),
            }
        }
        if invalid.is_some() {
            return Ok(invalid);
        }
        let Some((_, digits)) = key.rsplit_once(':').filter(|(_, digits)| digits.len() == 64)
        else {
            return Ok(None);
        };
        let entries = self.entries_of_digest(digits, verify)?;
        let is_it = |entry: &EntryInfo| entry.details().is_ok_and(|it| it.key() == Some(key));
        Ok(entries.into_iter().find(is_it))
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
        let read = || {
            let file = self.open_entry(entry.shard, &entry.name)?;
            let length = file.status()?.length;
            read_up_to(&*file, length)
        };
        let bytes = match read().and_then(|bytes| {
            // Its times may have been overwritten in the meantime.
            if EncodedEntry::parse(&bytes).is_err() { read() } else { Ok(bytes) }
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

    /// Removes an entry. Returns whether it existed. Copies in the memory of processes are invalidated.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Backend`] when it cannot be removed.
    pub fn remove(&self, entry: &EntryInfo) -> Result<bool> {
        let failed = |error| failed("remove entry", error);
        // Before and after, as for a deletion by a cache.
        let publish = || feed::append(&*self.root, Invalidation::KeySlot(entry.key_slot()));
        publish().map_err(failed)?;
        let removed = self
            .root
            .open_directory(&shard_name(entry.shard))
            .and_then(|directory| directory.remove(&entry.name));
        match removed {
            Ok(()) => {
                publish().map_err(failed)?;
                // The next writer counts the shard again.
                let _ =
                    Counts::open(&*self.root).and_then(|mut counts| counts.invalidate(entry.shard));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
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
        let (length, details) = match self.read(shard, &name, verify) {
            Ok(read) => read,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return None;
            }
            Err(error) => (0, Err(EntryError::Unreadable(error.kind()))),
        };
        Some(EntryInfo { shard, name, length, details })
    }

    /// Reads an entry, and reads it again if it is corrupt: its times may have been overwritten in the meantime.
    fn read(
        &self,
        shard: usize,
        name: &str,
        verify: Verify,
    ) -> io::Result<(u64, Result<EntryDetails, EntryError>)> {
        match self.read_once(shard, name, verify)? {
            (_, Err(EntryError::Corrupt(_))) => self.read_once(shard, name, verify),
            read => Ok(read),
        }
    }

    fn read_once(
        &self,
        shard: usize,
        name: &str,
        verify: Verify,
    ) -> io::Result<(u64, Result<EntryDetails, EntryError>)> {
        let file = self.open_entry(shard, name)?;
        let status = file.status()?;
        if status.file_type != FileType::File {
            return Ok((0, Err(EntryError::NotAFile)));
        }
        let entry = match verify {
            Verify::Full => {
                let bytes = read_up_to(&*file, status.length)?;
                EncodedEntry::parse(&bytes).map(|entry| EntryDetails::of(&entry))
            }
            Verify::Header => {
                let bytes = read_prefix(&*file, status.length)?;
                EncodedEntry::parse_prefix(&bytes).and_then(|entry| {
                    let is_complete = entry.header().entry_length() == Some(status.length);
                    if is_complete {
                        Ok(EntryDetails::of(&entry))
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

impl EntryInfo {
    /// Returns the path of its file, relative to the directory.
    pub fn path(&self) -> String {
        format!("{}/{}", shard_name(self.shard), self.name)
    }

    /// Returns the length of its file in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns its description, which is read from the header and the key.
    ///
    /// # Errors
    ///
    /// The reason why the entry is invalid, if it is.
    pub fn details(&self) -> Result<&EntryDetails, EntryError> {
        self.details.as_ref().map_err(|&error| error)
    }

    /// Returns the first two bytes of its digest, by the name of its file.
    fn key_slot(&self) -> [u8; 2] {
        let second = u8::from_str_radix(&self.name[..2], 16).unwrap_or_default();
        [u8::try_from(self.shard).unwrap_or_default(), second]
    }
}

//! Inspection of a namespace: listing, verifying and removing entries.

use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use vayu_core::wire::{EncodedEntry, EntryDetails, ParseError, WireKey};
use vayu_core::{Error, ErrorKind, Result};

use crate::RedisCache;
use crate::backend::RedisBackend;
use crate::client::run_blocking;
use crate::error::Failure;
use crate::mutation::Mutation;
use crate::options::RedisOptions;
use crate::pubsub::Message;
use crate::request::{self, Request};
use crate::scan;
use crate::sync_connection::SyncConnection;

/// The entries of a namespace on a server, opened to list, verify and remove them. Processes may use them
/// at the same time.
///
/// # Examples
///
/// ```no_run
/// use std::ops::ControlFlow;
/// use vayu_redis::CacheNamespace;
///
/// # fn main() -> vayu_core::Result<()> {
/// let namespace = CacheNamespace::open("redis://127.0.0.1/0?namespace=shop")?;
/// namespace.for_each(false, |entry| {
///     if let Ok(details) = entry.details() {
///         println!("{} {} bytes", details.call().unwrap_or("?"), entry.length());
///     }
///     ControlFlow::Continue(())
/// })?;
/// # Ok(())
/// # }
/// ```
pub struct CacheNamespace {
    cache: RedisCache,
}

/// One entry on a server.
#[derive(Debug, Clone)]
pub struct StoredEntry {
    name: String,
    length: u64,
    details: Result<EntryDetails, StoredEntryError>,
}

/// The reason why a value with the name of an entry is not known to be a valid entry.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoredEntryError {
    /// The entry is corrupt, or of another version.
    #[error(transparent)]
    Corrupt(#[from] ParseError),
    /// The value exceeds the option `max_entry_bytes`, so it was not read. It may be intact.
    #[error("too long to verify; `max_entry_bytes` in the URL sets the limit")]
    TooLong,
    /// The value is a list, a hash or of another type that is not a string.
    #[error("not a string")]
    NotAString,
}

/// Writes the message, which `unwrap` and `expect` show.
impl fmt::Debug for StoredEntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The default timeout, as a long entry takes more time than a call may wait.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The default `max_entry_bytes`: the longest value of a server. The caches of the namespace may have any.
const MAX_ENTRY_BYTES: u64 = 512 << 20;

/// The number of bytes that are read to get the key of an entry; most keys are shorter.
const PREFIX_LENGTH: u64 = 4 * 1024;
/// The most bytes that contain a key: a longer one is stored as a digest.
const LONG_PREFIX_LENGTH: u64 = 128 * 1024;

impl CacheNamespace {
    /// Connects to the server of a URL, as [`RedisOptions::connect`] takes it. Its option `namespace` is
    /// that of the cache. By default a reply may take up to 10 seconds, and an entry may have up to 512 MiB.
    ///
    /// # Errors
    ///
    /// Those of [`RedisOptions::connect`], and when the server does not respond.
    pub fn open(url: &str) -> Result<Self> {
        let options = RedisOptions::new().timeout(TIMEOUT).max_entry_bytes(MAX_ENTRY_BYTES);
        Ok(Self { cache: options.connect_eagerly().connect(url)? })
    }

    /// Calls `visit` for each entry, until it breaks. The server is scanned, a page of its keys at a time
    /// (`SCAN`). An entry that is written or removed in the meantime may be visited or not, and one may be
    /// visited twice. With `is_whole` each value is read and verified, otherwise the header and the key.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached, or a reply takes too long.
    pub fn for_each(
        &self,
        is_whole: bool,
        mut visit: impl FnMut(StoredEntry) -> ControlFlow<()>,
    ) -> Result<()> {
        let backend = self.backend();
        let (client, pattern) = (backend.client(), backend.names().entry_pattern());
        let mut is_over = false;
        let walk = |connection: &mut dyn SyncConnection| {
            if is_over {
                return Ok(());
            }
            scan::for_each_name(
                connection,
                &pattern,
                || client.deadline(),
                |connection, name| {
                    let Some(name) = entry_name(name) else {
                        return Ok(ControlFlow::Continue(()));
                    };
                    let read = |request: &Request<Option<Bytes>>| {
                        connection.execute(request, client.deadline())
                    };
                    let Some(entry) = inspect(name, is_whole, backend.max_entry_bytes(), read)?
                    else {
                        return Ok(ControlFlow::Continue(()));
                    };
                    let flow = visit(entry);
                    is_over = flow.is_break();
                    Ok(flow)
                },
            )
        };
        let walked = client.for_each_master(&redis::cmd("SCAN"), walk);
        walked.map_err(|failure| client.error(failure, "list entries"))
    }

    /// Returns the entry of a key as [`EntryDetails::key`] shows it, of a digest in hex, or of a name on the
    /// server. No other entry is read.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached.
    pub fn entry(&self, key: &str) -> Result<Option<StoredEntry>> {
        let backend = self.backend();
        let by_text = WireKey::of_displayed_text(key);
        let by_text = by_text.iter().map(|key| backend.names().entry(key));
        let digits = key.rsplit(':').next().unwrap_or_default();
        let by_digest =
            is_digest(digits).then(|| backend.names().entry_of(&digits.to_ascii_lowercase()));
        for name in by_text.chain(by_digest) {
            let read = |request: &Request<Option<Bytes>>| backend.client().execute(request);
            let found = inspect(name, false, backend.max_entry_bytes(), read);
            if let Some(entry) =
                found.map_err(|failure| backend.client().error(failure, "read entry"))?
            {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Reads the stored form of an entry's value, as its serializer wrote it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Miss`] when it was removed, [`ErrorKind::Decode`] when it is corrupt, and those of the
    /// server.
    pub fn value(&self, entry: &StoredEntry) -> Result<Bytes> {
        let backend = self.backend();
        let bytes =
            backend.client().execute(&request::read(&entry.name, backend.max_entry_bytes()));
        let bytes = bytes.map_err(|failure| backend.client().error(failure, "read entry"))?;
        let bytes = bytes.ok_or_else(|| Error::new(ErrorKind::Miss, "the entry was removed"))?;
        if bytes.len() as u64 > backend.max_entry_bytes() {
            let message = "the entry is too long; `max_entry_bytes` in the URL sets the limit";
            return Err(Error::new(ErrorKind::Backend, message));
        }
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
    /// When the server cannot be reached or refuses that.
    pub fn remove(&self, entry: &StoredEntry) -> Result<bool> {
        let backend = self.backend();
        let slot = Message::of_name(&entry.name);
        let channel = backend.names().invalidation_channel();
        let mutation = Mutation::delete(&entry.name, channel, &slot);
        let removed = run_blocking(mutation.execute(backend.client().blocking()));
        removed.map_err(|failure| backend.client().error(failure, "remove entry"))
    }

    /// Invalidates the entries with a tag: [`Cache::invalidate_tag`](vayu_core::Cache::invalidate_tag).
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses that.
    pub fn invalidate_tag(&self, tag: &str) -> Result<()> {
        self.cache.invalidate_tag(tag)
    }

    fn backend(&self) -> &RedisBackend {
        self.cache.backend()
    }
}

impl fmt::Debug for CacheNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheNamespace").field("cache", &self.cache).finish()
    }
}

impl StoredEntry {
    /// Returns its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns its description.
    ///
    /// # Errors
    ///
    /// The reason why it is invalid, if it is.
    pub fn details(&self) -> Result<&EntryDetails, StoredEntryError> {
        self.details.as_ref().map_err(|&error| error)
    }
}

/// Returns the name of an entry that the pattern of entries matched, if it ends with a digest. Other names may
/// contain anything.
fn entry_name(name: Vec<u8>) -> Option<String> {
    let name = String::from_utf8(name).ok()?;
    let (_, digits) = name.rsplit_once(':')?;
    is_digest(digits).then_some(name)
}

fn is_digest(digits: &str) -> bool {
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Inspects an entry. `None` if there is none of this name.
fn inspect(
    name: String,
    is_whole: bool,
    max_bytes: u64,
    read: impl FnMut(&Request<Option<Bytes>>) -> Result<Option<Bytes>, Failure>,
) -> Result<Option<StoredEntry>, Failure> {
    match inspect_string(&name, is_whole, max_bytes, read) {
        Ok(None) => Ok(None),
        Ok(Some((length, details))) => Ok(Some(StoredEntry { name, length, details })),
        Err(Failure::Redis(error)) if error.code() == Some("WRONGTYPE") => {
            let details = Err(StoredEntryError::NotAString);
            Ok(Some(StoredEntry { name, length: 0, details }))
        }
        Err(failure) => Err(failure),
    }
}

/// The length of an entry and its description.
type Inspected = (u64, Result<EntryDetails, StoredEntryError>);

fn inspect_string(
    name: &str,
    is_whole: bool,
    max_bytes: u64,
    mut read: impl FnMut(&Request<Option<Bytes>>) -> Result<Option<Bytes>, Failure>,
) -> Result<Option<Inspected>, Failure> {
    let length_of = |number: &Bytes| std::str::from_utf8(number).ok()?.parse().ok();
    if is_whole {
        let Some(bytes) = read(&request::read(name, max_bytes))? else { return Ok(None) };
        let mut length = bytes.len() as u64;
        if length > max_bytes {
            let Some(number) = read(&request_length(name))? else { return Ok(None) };
            length = length_of(&number).unwrap_or(length);
            return Ok(Some((length, Err(StoredEntryError::TooLong))));
        }
        let details = EncodedEntry::parse(&bytes).map(|entry| EntryDetails::of(&entry));
        return Ok(Some((length, details.map_err(StoredEntryError::Corrupt))));
    }
    let Some(mut bytes) = read(&request::read(name, PREFIX_LENGTH - 1))? else { return Ok(None) };
    let mut length = bytes.len() as u64;
    if length == PREFIX_LENGTH {
        let Some(number) = read(&request_length(name))? else { return Ok(None) };
        length = length_of(&number).unwrap_or(length);
        if EncodedEntry::parse_prefix(&bytes).err() == Some(ParseError::LengthMismatch) {
            let Some(longer) = read(&request::read(name, LONG_PREFIX_LENGTH))? else {
                return Ok(None);
            };
            bytes = longer;
        }
    }
    let details = EncodedEntry::parse_prefix(&bytes).and_then(|entry| {
        if entry.header().entry_length() == Some(length) {
            Ok(EntryDetails::of(&entry))
        } else {
            Err(ParseError::LengthMismatch)
        }
    });
    Ok(Some((length, details.map_err(StoredEntryError::Corrupt))))
}

/// Reads the length of a value, as digits.
fn request_length(name: &str) -> Request<Option<Bytes>> {
    let mut command = redis::cmd("STRLEN");
    command.arg(name);
    Request::new(command, |reply| match reply {
        Value::Int(0) => Ok(None),
        Value::Int(length) => Ok(Some(length.to_string().into())),
        _ => Err(Failure::UnexpectedReply),
    })
}

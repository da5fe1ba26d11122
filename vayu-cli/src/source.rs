//! The place of the entries: a directory, or a server.

use std::fmt;
use std::ops::ControlFlow;

use bytes::Bytes;
use vayu_core::__internal::with_causes;
use vayu_core::wire::{EntryDetails, ParseError};
use vayu_core::{Error, ErrorKind, Result, Timestamp};
use vayu_file::__internal::path_of_url;
use vayu_file::{CacheDirectory, EntryError, EntryInfo, FileOptions, Verify};
#[cfg(feature = "redis")]
use vayu_redis::{CacheNamespace, StoredEntry, StoredEntryError};

use crate::args::Limit;
use crate::state::State;

/// The number of entries of a server that are examined without `--limit`.
#[cfg(feature = "redis")]
const SERVER_LIMIT: u64 = 100_000;

/// A directory or a server with entries.
pub(crate) enum Source {
    Directory(CacheDirectory, String),
    #[cfg(feature = "redis")]
    Server(CacheNamespace),
}

/// The result of visiting entries.
pub(crate) struct Visited {
    /// Whether the visit was not ended early.
    pub(crate) is_complete: bool,
    pub(crate) errors: Errors,
}

/// Errors after which a command goes on. It fails at the end.
#[derive(Debug, Default)]
pub(crate) struct Errors {
    pub(crate) count: u64,
    first: Option<String>,
}

impl Errors {
    pub(crate) fn add(&mut self, error: String) {
        self.count += 1;
        self.first.get_or_insert(error);
    }

    /// Adds the errors of a visit.
    pub(crate) fn extend(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
    }

    /// # Errors
    ///
    /// If there were any: the first, with their number.
    pub(crate) fn finish(self) -> Result<(), crate::Failure> {
        match self.first {
            None => Ok(()),
            Some(error) if self.count == 1 => Err(error.into()),
            Some(error) => Err(format!("{} errors; the first: {error}", self.count).into()),
        }
    }
}

/// An entry of either.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// The path of its file in the directory, or its name on the server.
    pub(crate) path: String,
    pub(crate) length: u64,
    pub(crate) details: Result<EntryDetails, Invalid>,
    place: Place,
}

/// The reason why an entry has no details.
#[derive(Debug, Clone)]
pub(crate) struct Invalid {
    state: State,
    pub(crate) reason: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl From<ParseError> for Invalid {
    fn from(error: ParseError) -> Self {
        let state = match error {
            ParseError::TooShort
            | ParseError::BadMagic
            | ParseError::CorruptHeader
            | ParseError::LengthMismatch
            | ParseError::ChecksumMismatch => State::Corrupt,
            // An entry of another release is intact.
            _ => State::Unsupported,
        };
        Self { state, reason: error.to_string() }
    }
}

impl From<EntryError> for Invalid {
    fn from(error: EntryError) -> Self {
        match error {
            EntryError::Corrupt(error) => error.into(),
            error => Self { state: State::Unreadable, reason: error.to_string() },
        }
    }
}

#[cfg(feature = "redis")]
impl From<StoredEntryError> for Invalid {
    fn from(error: StoredEntryError) -> Self {
        match error {
            StoredEntryError::Corrupt(error) => error.into(),
            error => Self { state: State::Unreadable, reason: error.to_string() },
        }
    }
}

#[derive(Debug, Clone)]
enum Place {
    File(EntryInfo),
    #[cfg(feature = "redis")]
    Server(StoredEntry),
}

impl Source {
    /// Opens a directory, or connects to the server of a URL, as `vayu::open` takes it. Of two tiers it is the
    /// one behind memory.
    pub(crate) fn open(cache: &str) -> Result<Self> {
        if let Some(url) = cache.strip_prefix("memory+") {
            return Self::open(&without_options(url, &["memory_max_entries", "near_ttl"]));
        }
        let scheme = cache.split_once(':').map_or("", |(scheme, _)| scheme);
        match scheme.split('+').next().unwrap_or_default() {
            "redis" | "rediss" | "valkey" | "valkeys" | "unix" => {
                Self::connect(&without_options(cache, &["compress", "seal", "seal_context"]))
            }
            "file" => {
                let url = cache.split('?').next().unwrap_or_default();
                Self::open_directory(&path_of_url(url)?)
            }
            "memory" => Err(wrong("the entries of a cache in memory are in its process only")),
            "off" => Err(wrong("a cache that is off has no entries")),
            _ => Self::open_directory(cache),
        }
    }

    fn open_directory(path: &str) -> Result<Self> {
        Ok(Self::Directory(CacheDirectory::open(path)?, path.to_owned()))
    }

    #[cfg(feature = "redis")]
    fn connect(url: &str) -> Result<Self> {
        let scheme = url.split(':').next().unwrap_or_default();
        if scheme.ends_with("+cluster") && !cfg!(feature = "redis-cluster") {
            return Err(built_without("clusters", "redis-cluster"));
        }
        if scheme.ends_with("+sentinel") && !cfg!(feature = "redis-sentinel") {
            return Err(built_without("sentinels", "redis-sentinel"));
        }
        CacheNamespace::open(url).map(Self::Server)
    }

    #[cfg(not(feature = "redis"))]
    fn connect(_url: &str) -> Result<Self> {
        Err(built_without("Redis", "redis"))
    }

    /// Calls `visit` for each entry, until it breaks. A subdirectory that cannot be read is passed over.
    pub(crate) fn for_each(
        &self,
        verify: Verify,
        limit: Option<Limit>,
        mut visit: impl FnMut(Entry) -> Result<ControlFlow<()>, crate::Failure>,
    ) -> Result<Visited, crate::Failure> {
        let limit = limit.map(|limit| limit.limit);
        match self {
            Self::Directory(directory, _) => {
                let limit = limit.flatten().unwrap_or(u64::MAX);
                let (mut count, mut errors) = (0, Errors::default());
                for entry in directory.entries(verify) {
                    let entry = match entry {
                        Ok(entry) => Entry::of_file(entry),
                        Err(error) => {
                            errors.add(with_causes(&error));
                            continue;
                        }
                    };
                    if count == limit || visit(entry)?.is_break() {
                        return Ok(Visited { is_complete: false, errors });
                    }
                    count += 1;
                }
                Ok(Visited { is_complete: true, errors })
            }
            #[cfg(feature = "redis")]
            Self::Server(namespace) => {
                let limit = limit.map_or(u64::MAX, |limit| limit.unwrap_or(SERVER_LIMIT));
                let (mut count, mut result) = (0, Ok(true));
                namespace.for_each(verify == Verify::Full, |entry| {
                    if count == limit {
                        result = Ok(false);
                        return ControlFlow::Break(());
                    }
                    count += 1;
                    match visit(Entry::of_server(entry)) {
                        Ok(ControlFlow::Continue(())) => return ControlFlow::Continue(()),
                        Ok(ControlFlow::Break(())) => result = Ok(false),
                        Err(error) => result = Err(error),
                    }
                    ControlFlow::Break(())
                })?;
                Ok(Visited { is_complete: result?, errors: Errors::default() })
            }
        }
    }

    /// Returns the entries that a key, a part of a digest or a path identifies, without reading others, and
    /// whether the name is whole or has at least 8 digits.
    pub(crate) fn look_up(&self, key: &str) -> Result<(Vec<Entry>, bool)> {
        match self {
            Self::Directory(directory, _) => {
                if let Some(entry) = directory.entry(key, Verify::Header)? {
                    return Ok((vec![Entry::of_file(entry)], true));
                }
                if !is_digest(key) {
                    return Ok((Vec::new(), false));
                }
                let entries = directory.entries_of_digest(key, Verify::Header)?;
                let digits = key.bytes().take_while(|&byte| byte != b'.');
                let is_whole = digits.filter(|&byte| byte != b'/').count() >= FEWEST_DIGITS;
                Ok((entries.into_iter().map(Entry::of_file).collect(), is_whole))
            }
            #[cfg(feature = "redis")]
            Self::Server(namespace) => {
                Ok((namespace.entry(key)?.into_iter().map(Entry::of_server).collect(), true))
            }
        }
    }

    /// Reads the stored form of a value.
    pub(crate) fn value(&self, entry: &Entry) -> Result<Bytes> {
        match (self, &entry.place) {
            (Self::Directory(directory, _), Place::File(info)) => directory.value(info),
            #[cfg(feature = "redis")]
            (Self::Server(namespace), Place::Server(stored)) => namespace.value(stored),
            #[cfg(feature = "redis")]
            _ => Err(Error::new(ErrorKind::Miss, "the entry is elsewhere")),
        }
    }

    /// Deletes an entry. Returns whether it existed.
    pub(crate) fn remove(&self, entry: &Entry) -> Result<bool> {
        match (self, &entry.place) {
            (Self::Directory(directory, _), Place::File(info)) => directory.remove(info),
            #[cfg(feature = "redis")]
            (Self::Server(namespace), Place::Server(stored)) => namespace.remove(stored),
            #[cfg(feature = "redis")]
            _ => Err(Error::new(ErrorKind::Miss, "the entry is elsewhere")),
        }
    }

    /// Invalidates the entries with a tag.
    pub(crate) fn invalidate_tag(&self, tag: &str) -> Result<()> {
        match self {
            Self::Directory(_, path) => {
                FileOptions::new().allow_shared().open(path)?.invalidate_tag(tag)
            }
            #[cfg(feature = "redis")]
            Self::Server(namespace) => namespace.invalidate_tag(tag),
        }
    }
}

fn wrong(message: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

fn built_without(what: &str, feature: &str) -> Error {
    let message = format!(
        "this program was built without {what}; install it with `cargo install vayu-cli --features {feature}`"
    );
    Error::new(ErrorKind::Configuration, message)
}

/// Returns a URL without these options.
fn without_options(url: &str, names: &[&str]) -> String {
    let Some((address, query)) = url.split_once('?') else { return url.to_owned() };
    let is_kept = |option: &&str| !names.contains(&option.split('=').next().unwrap_or_default());
    let options: Vec<_> = query.split('&').filter(is_kept).collect();
    if options.is_empty() { address.to_owned() } else { format!("{address}?{}", options.join("&")) }
}

impl Entry {
    fn of_file(info: EntryInfo) -> Self {
        Self {
            path: info.path(),
            length: info.length(),
            details: info.details().cloned().map_err(Invalid::from),
            place: Place::File(info),
        }
    }

    #[cfg(feature = "redis")]
    fn of_server(stored: StoredEntry) -> Self {
        Self {
            path: stored.name().to_owned(),
            length: stored.length(),
            details: stored.details().cloned().map_err(Invalid::from),
            place: Place::Server(stored),
        }
    }

    pub(crate) fn state(&self, now: Timestamp) -> State {
        match &self.details {
            Ok(details) if now < details.expires() => State::Fresh,
            Ok(details) if now < details.stale_until() => State::Stale,
            Ok(_) => State::Expired,
            Err(invalid) => invalid.state,
        }
    }

    pub(crate) fn function(&self) -> Option<&str> {
        self.details.as_ref().ok().and_then(EntryDetails::function)
    }

    /// Returns whether the entry belongs to a function that is given by its path or the end of it.
    pub(crate) fn is_of(&self, function: &str) -> bool {
        self.function().is_some_and(|path| is_end_of_path(path, function))
    }

    /// Returns whether its digest begins with this string.
    pub(crate) fn has_digest(&self, start: &str) -> bool {
        let digest = self.details.as_ref().ok().and_then(EntryDetails::digest);
        is_digest(start)
            && digest.is_some_and(|digest| {
                const_hex::encode(digest).starts_with(&start.to_ascii_lowercase())
            })
    }

    /// Returns the start of its digest.
    pub(crate) fn short_digest(&self) -> Option<String> {
        let digest = self.details.as_ref().ok()?.digest()?;
        Some(const_hex::encode(&digest[..6]))
    }
}

/// The fewest digits that are taken for the start of a digest.
const FEWEST_DIGITS: usize = 8;

/// Returns whether a string is a path of a file or the start of a digest, and not the name of a function
/// such as `add`.
fn is_digest(key: &str) -> bool {
    key.contains('/') || key.len() >= FEWEST_DIGITS && key.bytes().all(|it| it.is_ascii_hexdigit())
}

/// Returns whether `end` is a path, or what follows one of its `::`.
pub(crate) fn is_end_of_path(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with("::"))
}

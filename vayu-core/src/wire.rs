//! The encoding of records outside of the process, version 1.
//!
//! An entry is a header of 80 bytes, the key and the value. The header has a magic number, the version of
//! the format, flags, the times and lengths, and two checksums: a CRC-32 of the header, by which the
//! times can be trusted without reading the rest, and an XXH3-128 of all other bytes. So every bit is
//! covered by a check. The entry contains its own key, by which a reader detects that it has found the
//! entry of another key. A backend writes what [`encode`] returns, and treats what
//! [`EncodedEntry::parse`] rejects as absent. The format is specified in `docs/format.md`.
//!
//! # Examples
//!
//! ```
//! # mod vayu {
//! #     pub use vayu_core::*;
//! #     pub mod time { pub use vayu_core::*; }
//! #     pub mod backend { pub use vayu_core::*; pub use bytes::Bytes; }
//! # }
//! use vayu::Key;
//! use vayu::backend::wire::{self, EncodedEntry, ParseError, WireKey};
//! use vayu::backend::{Bytes, Record};
//! use vayu::time::Timestamp;
//!
//! let [key, other] =
//!     ["EUR", "USD"].map(|base| WireKey::new(&Key::from_text("rates", base)));
//! let record = Record::new(Bytes::from_static(b"1.1"), Timestamp::from_micros(0), Timestamp::NEVER);
//! let mut bytes = wire::encode(&key, &record);
//!
//! let entry = EncodedEntry::parse(&bytes).unwrap();
//! assert!(entry.is_of(&key) && !entry.is_of(&other));
//! assert_eq!(entry.value(), b"1.1");
//!
//! *bytes.last_mut().unwrap() ^= 1;
//! assert_eq!(EncodedEntry::parse(&bytes).unwrap_err(), ParseError::ChecksumMismatch);
//! ```

mod header;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use twox_hash::xxhash3_128::{RawHasher, SecretBuffer};

pub use self::header::{HEADER_LENGTH, Header};
use crate::key::{DisplayKey, Key};
use crate::record::Record;

/// A key longer than this, in bytes, is written as its SHA-256.
const LONGEST_KEY: usize = 64 * 1024;

/// The position of the checksum, which covers all bytes before and after it.
const CHECKSUM: Range<usize> = 64..80;

/// The reason why bytes are not a valid entry.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The input is shorter than a header.
    #[error("shorter than a header")]
    TooShort,
    /// The magic number is wrong.
    #[error("bad magic number")]
    BadMagic,
    /// The version of the format is not supported.
    #[error("unsupported version of the format")]
    UnsupportedVersion,
    /// A required flag is unknown.
    #[error("unknown required flag")]
    UnknownFlags,
    /// The header is corrupt.
    #[error("corrupt header")]
    CorruptHeader,
    /// The length of the input differs from the header.
    #[error("length differs from the header")]
    LengthMismatch,
    /// The key or the value is corrupt.
    #[error("wrong checksum")]
    ChecksumMismatch,
}

/// Writes the message, which `unwrap` and `expect` show.
impl fmt::Debug for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key as it is stored in an entry.
#[derive(Debug, Clone)]
pub struct WireKey {
    bytes: Vec<u8>,
    digest: [u8; 32],
}

impl WireKey {
    /// Computes the bytes of a key and their digest.
    pub fn new(key: &Key) -> Self {
        let bytes = key.to_bytes();
        let digest = Sha256::digest(&bytes).into();
        Self { bytes, digest }
    }

    /// Returns the SHA-256 of the key, for use in names: [`Key::digest`].
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    fn is_long(&self) -> bool {
        self.bytes.len() > LONGEST_KEY
    }

    /// Returns the bytes that are stored in the entry.
    fn field(&self) -> &[u8] {
        if self.is_long() { &self.digest } else { &self.bytes }
    }
}

/// Encodes the entry of a key and its record.
pub fn encode(key: &WireKey, record: &Record<Bytes>) -> Vec<u8> {
    let value = record.value();
    let header = Header::new(record, key.field(), key.is_long());
    let mut bytes = Vec::with_capacity(HEADER_LENGTH + key.field().len() + value.len());
    bytes.extend_from_slice(&header.to_bytes());
    bytes.extend_from_slice(key.field());
    bytes.extend_from_slice(value);
    let checksum = checksum(&bytes);
    bytes[CHECKSUM].copy_from_slice(&checksum);
    bytes
}

impl Record<Bytes> {
    /// Encodes the record with its key, as a backend outside of the process stores it: in the format of
    /// [`wire`](crate::wire), which later versions read.
    pub fn encode(&self, key: &Key) -> Vec<u8> {
        encode(&WireKey::new(key), self)
    }

    /// Decodes what [`encode`](Self::encode) has returned for this key. Returns `None` for everything else: bytes that
    /// are incomplete or corrupt, or those of another key or of an unsupported version. A backend treats them as absent.
    ///
    /// The value is a part of `bytes`, without a copy.
    pub fn decode(key: &Key, bytes: &Bytes) -> Option<Self> {
        let entry = EncodedEntry::parse(bytes).ok()?;
        let value = || bytes.slice(entry.value_range());
        entry.is_of(&WireKey::new(key)).then(|| entry.record(value()))
    }
}

/// An entry that has passed every check that does not need its key.
#[derive(Debug, Clone, Copy)]
pub struct EncodedEntry<'a> {
    header: Header,
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> EncodedEntry<'a> {
    /// Parses an entry, which is the whole of `bytes`.
    ///
    /// # Errors
    ///
    /// The first check that failed. Cheap ones come first.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let entry = Self::parse_prefix(bytes)?;
        if entry.header.entry_length() != Some(bytes.len() as u64) {
            return Err(ParseError::LengthMismatch);
        }
        if bytes[CHECKSUM] != checksum(bytes) {
            return Err(ParseError::ChecksumMismatch);
        }
        Ok(entry)
    }

    /// Parses the header and the key at the beginning of an entry, which may be incomplete. Neither the
    /// key nor the value is verified.
    ///
    /// # Errors
    ///
    /// The first check that the header failed; [`ParseError::LengthMismatch`] where the key is not whole.
    pub fn parse_prefix(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let header = Header::parse(bytes)?;
        let (key, value) = bytes
            .get(header.length()..)
            .and_then(|rest| rest.split_at_checked(header.key_length()))
            .ok_or(ParseError::LengthMismatch)?;
        Ok(Self { header, key, value })
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns whether this is the entry of this key.
    pub fn is_of(&self, key: &WireKey) -> bool {
        self.header.has_digest() == key.is_long() && self.key == key.field()
    }

    /// Returns the stored form of the value.
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// Returns the range of the value in the bytes of the entry.
    pub fn value_range(&self) -> Range<usize> {
        let start = self.header.length() + self.key.len();
        start..start + self.value.len()
    }

    /// Creates the record with this value: the bytes of [`value`](Self::value).
    pub fn record<V>(&self, value: V) -> Record<V> {
        let header = &self.header;
        Record::new(value, header.created(), header.expires())
            .with_stale_until(header.stale_until())
            .with_schema(header.schema())
            .with_serializer(header.serializer())
            .with_compute_time(header.compute_time())
    }

    /// Returns the function. `None` if only the digest of the key is stored, because it is long.
    pub fn function(&self) -> Option<&'a str> {
        self.display_key().map(|display_key| display_key.prefix)
    }

    /// Returns the key as [`Key`] displays it.
    pub fn key_text(&self) -> Option<String> {
        self.display_key().map(|display_key| display_key.to_string())
    }

    fn display_key(&self) -> Option<DisplayKey<'a>> {
        if self.header.has_digest() { None } else { DisplayKey::parse(self.key) }
    }
}

fn checksum(bytes: &[u8]) -> [u8; 16] {
    let mut hasher = RawHasher::new(SecretBuffer::default());
    hasher.write(&bytes[..CHECKSUM.start]);
    hasher.write(&bytes[CHECKSUM.end..]);
    hasher.finish_128().to_le_bytes()
}

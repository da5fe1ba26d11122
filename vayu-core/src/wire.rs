//! The bytes in which a record leaves the process, version 1.
//!
//! A backend that keeps bytes writes what [`encode`] gives and believes nothing that
//! [`EncodedEntry::parse`] refuses: every bit of an entry is covered by a check, and the entry holds its
//! own key. The format is described in `docs/format.md`.
//!
//! # Examples
//!
//! ```
//! use bytes::Bytes;
//! use vayu_core::wire::{self, EncodedEntry, ParseError, WireKey};
//! use vayu_core::{Key, Record, Timestamp};
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

use std::ops::Range;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use twox_hash::xxhash3_128::{RawHasher, SecretBuffer};

pub use self::header::{HEADER_LENGTH, Header};
use crate::key::{DisplayKey, Key};
use crate::record::Record;

/// A key longer than this, in bytes, is written as its SHA-256.
const LONGEST_KEY: usize = 64 * 1024;

/// Where the checksum stands. It covers what is before and what is behind it.
const CHECKSUM: Range<usize> = 64..80;

/// Why bytes are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// There are fewer bytes than a header has.
    #[error("shorter than a header")]
    TooShort,
    /// They do not begin as an entry does.
    #[error("bad magic number")]
    BadMagic,
    /// The entry is of a version that this one cannot read.
    #[error("unsupported version of the format")]
    UnsupportedVersion,
    /// The entry has a property that must be understood and is not.
    #[error("unknown required flag")]
    UnknownFlags,
    /// The header is damaged.
    #[error("corrupt header")]
    CorruptHeader,
    /// There are more or fewer bytes than the header says.
    #[error("length differs from the header")]
    LengthMismatch,
    /// The key or the value is damaged.
    #[error("wrong checksum")]
    ChecksumMismatch,
}

/// A key as an entry has it.
#[derive(Debug, Clone)]
pub struct WireKey {
    bytes: Vec<u8>,
    digest: [u8; 32],
}

impl WireKey {
    /// The bytes of a key and their digest, each computed once.
    pub fn new(key: &Key) -> Self {
        let bytes = key.to_bytes();
        let digest = Sha256::digest(&bytes).into();
        Self { bytes, digest }
    }

    /// The SHA-256 of the key, to make a name of: [`Key::digest`].
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    fn is_long(&self) -> bool {
        self.bytes.len() > LONGEST_KEY
    }

    /// What is written into the entry.
    fn field(&self) -> &[u8] {
        if self.is_long() { &self.digest } else { &self.bytes }
    }
}

/// The entry of a key and its record.
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

/// An entry that has passed every check that it can be put to without knowing its key.
#[derive(Debug, Clone, Copy)]
pub struct EncodedEntry<'a> {
    header: Header,
    key: &'a [u8],
    value: &'a [u8],
}

impl<'a> EncodedEntry<'a> {
    /// Reads an entry. It is the whole of `bytes`.
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

    /// Reads the header and the key from the beginning of an entry, of which `bytes` need not be
    /// the whole. Neither the key nor what there is of the value has been checked.
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

    /// What is known of it apart from the key and the value.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether it is the entry of this key.
    pub fn is_of(&self, key: &WireKey) -> bool {
        self.header.has_digest() == key.is_long() && self.key == key.field()
    }

    /// The stored form of the value.
    pub fn value(&self) -> &'a [u8] {
        self.value
    }

    /// Where the value stands in the bytes of the entry.
    pub fn value_range(&self) -> Range<usize> {
        let start = self.header.length() + self.key.len();
        start..start + self.value.len()
    }

    /// The record, with this as its value: the bytes of [`value`](Self::value).
    pub fn record<V>(&self, value: V) -> Record<V> {
        let header = &self.header;
        Record::new(value, header.created(), header.expires())
            .with_stale_until(header.stale_until())
            .with_schema(header.schema())
            .with_serializer(header.serializer())
            .with_compute_time(header.compute_time())
    }

    /// The function, as far as the key tells: not where the key was so long that only its digest
    /// is kept.
    pub fn function(&self) -> Option<&'a str> {
        self.display_key().map(|display_key| display_key.prefix)
    }

    /// The key as text, as [`Key`] displays it.
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

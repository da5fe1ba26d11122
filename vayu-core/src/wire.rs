//! The encoding of records outside of the process, version 1.
//!
//! An entry is a header of 80 bytes, the key and the value. The header has a magic number, the version of
//! the format, flags, the times and lengths, and two checksums: a CRC-32 of the header, by which the
//! times can be trusted without reading the rest, and an XXH3-128 of all other bytes. So every bit is
//! covered by a check. The entry contains its own key, by which a reader detects that it has found the
//! entry of another key. Where arguments are secret, the key is written by [`encode_hashed`]: the function
//! and a digest. A backend writes what [`encode`] returns, and treats what
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

mod details;
mod header;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::mem;
use std::ops::{Deref, Range};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use twox_hash::XxHash3_128;
use twox_hash::xxhash3_128::{RawHasher, SecretBuffer};

pub use self::details::EntryDetails;
pub use self::header::{HEADER_LENGTH, Header};
use crate::key::{self, Key, ParsedKey};
use crate::record::Record;

/// A key longer than this, in bytes, is written in its hashed form: the prefix and the SHA-256 of the key.
/// If the prefix alone is longer, the SHA-256 is all that is written.
const LONGEST_KEY: usize = 64 * 1024;

/// The position of the checksum, which covers all bytes before and after it.
const CHECKSUM: Range<usize> = 64..80;

/// The length of what is hashed at once.
const SHORT: usize = 240;

/// The reason why bytes are not a valid entry.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError {
    /// The input is shorter than a header.
    TooShort,
    /// The magic number is wrong.
    BadMagic,
    /// The version of the format is not supported.
    UnsupportedVersion,
    /// A required flag is unknown.
    UnknownFlags,
    /// The header is corrupt.
    CorruptHeader,
    /// The length of the input differs from the header.
    LengthMismatch,
    /// The key or the value is corrupt.
    ChecksumMismatch,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooShort => "shorter than a header",
            Self::BadMagic => "bad magic number",
            Self::UnsupportedVersion => "unsupported version of the format",
            Self::UnknownFlags => "unknown required flag",
            Self::CorruptHeader => "corrupt header",
            Self::LengthMismatch => "length differs from the header",
            Self::ChecksumMismatch => "wrong checksum",
        })
    }
}

impl std::error::Error for ParseError {}

/// Writes the message, which `unwrap` and `expect` show.
impl fmt::Debug for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A key as it is stored in an entry.
#[derive(Debug, Clone)]
pub struct WireKey {
    bytes: KeyBytes,
    prefix_length: usize,
    digest: [u8; 32],
}

/// The bytes of a key, of its own or as a part of those of several keys.
#[derive(Debug, Clone)]
enum KeyBytes {
    Own(Vec<u8>),
    Part(Bytes),
}

impl Deref for KeyBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes,
            Self::Part(bytes) => bytes,
        }
    }
}

impl WireKey {
    /// Computes the bytes of a key and their digest.
    pub fn new(key: &Key) -> Self {
        let (bytes, prefix_length) = key.to_bytes_and_prefix_length();
        Self::of_bytes(KeyBytes::Own(bytes), prefix_length)
    }

    /// Computes the bytes of several keys, in one allocation, and their digests.
    pub fn of_all(keys: &[&Key]) -> Vec<Self> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(keys.len()));
        for key in keys {
            let prefix_length = key.append_bytes(&mut bytes);
            if ends.is_empty() {
                // The others are about as long.
                bytes.reserve(bytes.len() * keys.len());
            }
            ends.push((bytes.len(), prefix_length));
        }
        let (bytes, mut start) = (Bytes::from(bytes), 0);
        let part = |(end, prefix_length)| {
            let part = bytes.slice(mem::replace(&mut start, end)..end);
            Self::of_bytes(KeyBytes::Part(part), prefix_length)
        };
        ends.into_iter().map(part).collect()
    }

    fn of_bytes(bytes: KeyBytes, prefix_length: usize) -> Self {
        let digest = Sha256::digest(&*bytes).into();
        Self { bytes, prefix_length, digest }
    }

    /// Returns the string keys that are displayed so: `function:string` or `function@version:string`. There
    /// may be several, as both parts may have colons in them.
    pub fn of_displayed_text(displayed: &str) -> Vec<Self> {
        key::of_displayed_text(displayed)
            .flat_map(|key| {
                let of_text = Self::new(&key);
                let (mut bytes, prefix_length) = (of_text.bytes.to_vec(), of_text.prefix_length);
                bytes[0] = key::FUNCTION;
                [Self::of_bytes(KeyBytes::Own(bytes), prefix_length), of_text]
            })
            .collect()
    }

    /// Returns the SHA-256 of the key, for use in names: [`Key::digest`].
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    fn prefix(&self) -> &[u8] {
        &self.bytes[..self.prefix_length]
    }

    /// Returns the key as the prefix and the digest, or as the digest alone if the prefix is too long.
    fn hashed(&self) -> KeyField<'_> {
        if self.prefix_length > LONGEST_KEY {
            KeyField { bytes: Cow::Borrowed(&self.digest), is_digest: true }
        } else {
            let bytes = Cow::Owned(key::hashed(self.prefix(), &self.digest));
            KeyField { bytes, is_digest: false }
        }
    }

    /// Returns the form that is stored in an entry.
    fn field(&self) -> KeyField<'_> {
        if self.bytes.len() > LONGEST_KEY {
            self.hashed()
        } else {
            KeyField { bytes: Cow::Borrowed(&self.bytes), is_digest: false }
        }
    }

    /// Returns whether the key in an entry is this one, in any form.
    fn matches(&self, stored: &[u8], is_digest: bool) -> bool {
        if is_digest {
            return stored == self.digest;
        }
        stored == &*self.bytes
            || stored.ends_with(&self.digest)
                && stored == &*key::hashed(self.prefix(), &self.digest)
    }
}

/// The key in an entry.
struct KeyField<'a> {
    bytes: Cow<'a, [u8]>,
    /// True if it is the digest of the key and nothing else.
    is_digest: bool,
}

/// Encodes the entry of a key and its record.
pub fn encode(key: &WireKey, record: &Record<Bytes>) -> Vec<u8> {
    encode_labelled(key, record, None)
}

/// Encodes the entry of a key and its record, with the first 200 bytes of a [label](Key::label) that
/// listings show.
pub fn encode_labelled(key: &WireKey, record: &Record<Bytes>, label: Option<&str>) -> Vec<u8> {
    encode_field(&key.field(), record, label.map(key::cut_label))
}

/// Encodes the entry of a key and its record without the arguments of the call: the key is written as its
/// function and its SHA-256.
pub fn encode_hashed(key: &WireKey, record: &Record<Bytes>) -> Vec<u8> {
    encode_field(&key.hashed(), record, None)
}

fn encode_field(key: &KeyField<'_>, record: &Record<Bytes>, label: Option<&str>) -> Vec<u8> {
    let value = record.value();
    let header = Header::new(record, &key.bytes, key.is_digest, label);
    let mut bytes = Vec::with_capacity(header.length() + key.bytes.len() + value.len());
    bytes.extend_from_slice(&header.to_bytes());
    if let Some(label) = label {
        header::push_label(&mut bytes, label);
        bytes.resize(header.length(), 0);
    }
    bytes.extend_from_slice(&key.bytes);
    bytes.extend_from_slice(value);
    let checksum = checksum(&bytes);
    bytes[CHECKSUM].copy_from_slice(&checksum);
    bytes
}

/// Decodes the entry of a key. Returns its record, with the range of the value in `bytes`, and `None` for everything but what
/// [`encode`] has returned for this key: bytes that are incomplete or corrupt, or those of another key or of an
/// unsupported version. A backend treats them as absent.
///
/// A [sealed](crate::SerializerId::is_sealed) value is not verified here but when it is opened, with its times and stamp:
/// it is not read twice. [`EncodedEntry::parse`] verifies the checksum of every entry.
pub fn decode(key: &WireKey, bytes: &[u8]) -> Option<Record<Range<usize>>> {
    let entry = EncodedEntry::parse_whole(bytes).ok()?;
    let is_verified = || entry.header.serializer().is_sealed() || is_intact(bytes);
    (entry.is_of(key) && is_verified()).then(|| entry.record(entry.value_range()))
}

impl Record<Bytes> {
    /// Encodes the record with its key, as a backend outside of the process stores it: in the format of
    /// [`wire`](crate::wire), which later versions read.
    pub fn encode(&self, key: &Key) -> Vec<u8> {
        encode_labelled(&WireKey::new(key), self, key.label())
    }

    /// Decodes what [`encode`](Self::encode) has returned for this key. Returns `None` for everything else: bytes that
    /// are incomplete or corrupt, or those of another key or of an unsupported version. A backend treats them as absent. As
    /// with [`wire::decode`](crate::wire::decode), a sealed value is verified when it is opened.
    ///
    /// The value is a part of `bytes`, without a copy.
    pub fn decode(key: &Key, bytes: &Bytes) -> Option<Self> {
        decode(&WireKey::new(key), bytes).map(|record| record.map(|value| bytes.slice(value)))
    }
}

/// An entry that has passed every check that does not need its key.
#[derive(Debug, Clone, Copy)]
pub struct EncodedEntry<'a> {
    header: Header,
    /// The bytes after the fixed part of the header.
    extension: &'a [u8],
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
        let entry = Self::parse_whole(bytes)?;
        if is_intact(bytes) { Ok(entry) } else { Err(ParseError::ChecksumMismatch) }
    }

    /// Parses an entry, which is the whole of `bytes`. The header alone is verified.
    fn parse_whole(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let entry = Self::parse_prefix(bytes)?;
        if entry.header.entry_length() == Some(bytes.len() as u64) {
            Ok(entry)
        } else {
            Err(ParseError::LengthMismatch)
        }
    }

    /// Parses the header and the key at the beginning of an entry, which may be incomplete. Neither the
    /// key nor the value is verified.
    ///
    /// # Errors
    ///
    /// The first check that the header failed; [`ParseError::LengthMismatch`] where the key is not whole.
    pub fn parse_prefix(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let header = Header::parse(bytes)?;
        let (extension, key, value) = bytes
            .get(HEADER_LENGTH..)
            .and_then(|rest| rest.split_at_checked(header.length() - HEADER_LENGTH))
            .and_then(|(extension, rest)| {
                let (key, value) = rest.split_at_checked(header.key_length())?;
                Some((extension, key, value))
            })
            .ok_or(ParseError::LengthMismatch)?;
        Ok(Self { header, extension, key, value })
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns whether this is the entry of this key.
    pub fn is_of(&self, key: &WireKey) -> bool {
        key.matches(self.key, self.header.has_digest())
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

    /// Returns the function. `None` if only the digest of the key is stored, because the name of the
    /// function is longer than 64 KiB.
    pub fn function(&self) -> Option<&'a str> {
        self.parsed_key().map(|key| key.prefix)
    }

    /// Returns the key as [`Key`] displays it.
    pub fn key_text(&self) -> Option<String> {
        self.parsed_key().map(|key| key.to_string())
    }

    /// Returns the SHA-256 of the key: [`Key::digest`].
    pub fn key_digest(&self) -> Option<[u8; 32]> {
        if self.header.has_digest() {
            return self.key.try_into().ok();
        }
        self.parsed_key().map(|key| key.digest())
    }

    /// Returns the label that the call was given.
    pub fn label(&self) -> Option<&'a str> {
        self.header.label(self.extension)
    }

    /// Returns the call, for people, in up to `max_bytes`: `rates("EUR", 7)`, the arguments as `{:?}` shows
    /// them; `rates:EUR` for a string key; `rates [EUR]` with a label; and `rates(…)` if the arguments
    /// are not stored. Control characters are escaped.
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use vayu_core::wire::{self, EncodedEntry, WireKey};
    /// use vayu_core::{Key, Record, Timestamp};
    ///
    /// # fn main() -> vayu_core::Result<()> {
    /// let key = Key::new("rates", &("EUR", Some(7)))?;
    /// let record = Record::new(Bytes::new(), Timestamp::from_micros(0), Timestamp::NEVER);
    /// let bytes = wire::encode(&WireKey::new(&key), &record);
    /// let entry = EncodedEntry::parse(&bytes).unwrap();
    /// assert_eq!(entry.call(256).unwrap(), r#"rates("EUR", Some(7))"#);
    /// # Ok(())
    /// # }
    /// ```
    pub fn call(&self, max_bytes: usize) -> Option<String> {
        self.parsed_key().map(|key| key.call(self.label(), max_bytes))
    }

    fn parsed_key(&self) -> Option<ParsedKey<'a>> {
        if self.header.has_digest() { None } else { ParsedKey::parse(self.key) }
    }
}

/// Returns whether the checksum of an entry is right.
fn is_intact(entry: &[u8]) -> bool {
    entry[CHECKSUM] == checksum(entry)
}

/// Returns the XXH3 of everything but the checksum. That of a short entry is computed at once: a hasher for parts has buffers
/// of several hundred bytes.
fn checksum(bytes: &[u8]) -> [u8; 16] {
    let mut short = [0; SHORT];
    if let Some(parts) = short.get_mut(..bytes.len() - CHECKSUM.len()) {
        let (before, after) = parts.split_at_mut(CHECKSUM.start);
        before.copy_from_slice(&bytes[..CHECKSUM.start]);
        after.copy_from_slice(&bytes[CHECKSUM.end..]);
        return XxHash3_128::oneshot(parts).to_le_bytes();
    }
    let mut hasher = RawHasher::new(SecretBuffer::default());
    hasher.write(&bytes[..CHECKSUM.start]);
    hasher.write(&bytes[CHECKSUM.end..]);
    hasher.finish_128().to_le_bytes()
}

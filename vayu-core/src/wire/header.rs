//! The header of an entry.

use std::time::Duration;

use bytes::Bytes;

use super::ParseError;
use crate::clock::Timestamp;
use crate::compact_duration::CompactDuration;
use crate::record::Record;
use crate::serializer::SerializerId;

/// The number of bytes of a header.
pub const HEADER_LENGTH: usize = 80;

/// The magic number. Like that of PNG, it is changed by conversions of line ends or to seven bits.
const MAGIC: [u8; 8] = *b"\x89VYU\r\n\x1a\n";
const MAJOR: u8 = 1;
/// A flag of the upper half must be understood, one of the lower half may be ignored.
const MUST_UNDERSTAND: u16 = 0xff00;
/// The key is the SHA-256 of a long key.
const DIGEST: u16 = 0x0400;
/// A label follows the fixed part of the header.
const LABEL: u16 = 0x0001;

/// The header of an entry, before its key and its value.
///
/// It has a checksum of its own, so that the times can be read without the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    length: u8,
    flags: u16,
    serializer: SerializerId,
    created: Timestamp,
    expires: Timestamp,
    value_length: u64,
    key_length: u32,
    schema: u64,
    stale_micros: u64,
    compute_time: CompactDuration,
}

impl Header {
    /// # Panics
    ///
    /// When the label has more than 200 bytes.
    pub(super) fn new(
        record: &Record<Bytes>,
        key: &[u8],
        is_digest: bool,
        label: Option<&str>,
    ) -> Self {
        let stale = record.stale_for().as_micros();
        let label_length = label.map_or(0, |label| 1 + label.len());
        Self {
            length: u8::try_from((HEADER_LENGTH + label_length).div_ceil(8))
                .expect("a short label"),
            flags: if is_digest { DIGEST } else { 0 } | if label.is_some() { LABEL } else { 0 },
            serializer: record.serializer(),
            created: record.created(),
            expires: record.expires(),
            value_length: record.value().len() as u64,
            key_length: u32::try_from(key.len()).expect("long keys are written as a digest"),
            schema: record.schema(),
            stale_micros: u64::try_from(stale).unwrap_or(u64::MAX),
            compute_time: CompactDuration::new(record.compute_time()),
        }
    }

    /// Returns the bytes of the header, with zeros for the checksum of the entry.
    pub(super) fn to_bytes(self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &[MAJOR, self.length]);
        put(10, &self.flags.to_le_bytes());
        put(12, &self.serializer.as_u16().to_le_bytes());
        put(14, &self.compute_time.to_bits().to_le_bytes());
        put(16, &self.created.as_micros().to_le_bytes());
        put(24, &self.expires.as_micros().to_le_bytes());
        put(32, &self.value_length.to_le_bytes());
        put(40, &self.key_length.to_le_bytes());
        put(48, &self.schema.to_le_bytes());
        put(56, &self.stale_micros.to_le_bytes());
        let checksum = checksum(&bytes);
        bytes[44..48].copy_from_slice(&checksum);
        bytes
    }

    /// Parses the header at the beginning of an entry.
    ///
    /// # Errors
    ///
    /// The first check that failed.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let (header, _) = bytes.split_first_chunk::<HEADER_LENGTH>().ok_or(ParseError::TooShort)?;
        if header[..8] != MAGIC {
            return Err(ParseError::BadMagic);
        }
        if header[8] != MAJOR {
            return Err(ParseError::UnsupportedVersion);
        }
        if header[44..48] != checksum(header) {
            return Err(ParseError::CorruptHeader);
        }
        let parsed = Self {
            length: header[9],
            flags: u16::from_le_bytes(field(header, 10)),
            serializer: SerializerId::from_u16(u16::from_le_bytes(field(header, 12))),
            created: Timestamp::from_micros(i64::from_le_bytes(field(header, 16))),
            expires: Timestamp::from_micros(i64::from_le_bytes(field(header, 24))),
            value_length: u64::from_le_bytes(field(header, 32)),
            key_length: u32::from_le_bytes(field(header, 40)),
            schema: u64::from_le_bytes(field(header, 48)),
            stale_micros: u64::from_le_bytes(field(header, 56)),
            compute_time: CompactDuration::from_bits(u16::from_le_bytes(field(header, 14))),
        };
        if parsed.flags & MUST_UNDERSTAND & !DIGEST != 0 {
            return Err(ParseError::UnknownFlags);
        }
        // A later minor version may have a longer header.
        if parsed.length() < HEADER_LENGTH {
            return Err(ParseError::CorruptHeader);
        }
        Ok(parsed)
    }

    /// Returns the length of the whole entry in bytes, or `None` if it exceeds the address space.
    pub fn entry_length(&self) -> Option<u64> {
        (self.length() as u64)
            .checked_add(u64::from(self.key_length))?
            .checked_add(self.value_length)
            .filter(|&length| isize::try_from(length).is_ok())
    }

    /// Returns the label in the bytes that follow the fixed part of the header.
    pub(super) fn label<'a>(&self, extension: &'a [u8]) -> Option<&'a str> {
        if self.flags & LABEL == 0 {
            return None;
        }
        let (&length, rest) = extension.split_first()?;
        std::str::from_utf8(rest.get(..usize::from(length))?).ok()
    }

    /// Returns the length of the header in bytes.
    pub(super) fn length(&self) -> usize {
        usize::from(self.length) * 8
    }

    pub(super) fn key_length(&self) -> usize {
        self.key_length as usize
    }

    pub(super) fn has_digest(&self) -> bool {
        self.flags & DIGEST != 0
    }

    /// Returns the length of the value's stored form in bytes.
    pub fn value_length(&self) -> u64 {
        self.value_length
    }

    /// Returns when the value was computed.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Returns the first instant at which the value is no longer fresh.
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    /// Returns the first instant at which the entry may be removed.
    pub fn stale_until(&self) -> Timestamp {
        self.expires.saturating_add(Duration::from_micros(self.stale_micros))
    }

    /// Returns the schema stamp.
    pub fn schema(&self) -> u64 {
        self.schema
    }

    /// Returns the time that the function took to compute the value; zero if unknown.
    pub fn compute_time(&self) -> Duration {
        self.compute_time.time()
    }

    /// Returns the serializer of the value's stored form.
    pub fn serializer(&self) -> SerializerId {
        self.serializer
    }
}

/// Appends a label as it follows the fixed part of the header: its length in one byte, and the string.
pub(super) fn push_label(bytes: &mut Vec<u8>, label: &str) {
    bytes.push(u8::try_from(label.len()).expect("a short label"));
    bytes.extend_from_slice(label.as_bytes());
}

/// Returns the CRC-32 of everything but the two checksums.
fn checksum(header: &[u8; HEADER_LENGTH]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..44]);
    hasher.update(&header[48..64]);
    hasher.finalize().to_le_bytes()
}

fn field<const N: usize>(header: &[u8; HEADER_LENGTH], at: usize) -> [u8; N] {
    std::array::from_fn(|index| header[at + index])
}

//! The stored form of sealed values: XAES-256-GCM, with the entry as associated data.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 1 | version, 2 |
//! | 1 | 4 | id of the key |
//! | 5 | 2 | id of the inner serializer |
//! | 7 | 24 | nonce |
//! | 31 | | the encrypted value, and 16 bytes of authentication tag |

use bytes::{Buf, Bytes, BytesMut};

use super::xaes::{Cipher, NONCE, TAG};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::serializer::{EntryContext, SerializerId};

/// Version 1 was XChaCha20-Poly1305.
const VERSION: u8 = 2;
const HEADER: usize = 7 + NONCE;

/// The length of the associated data without a context.
const BINDING: usize = 84;

/// The first bytes of a hash of a key, by which a reader finds it.
pub(super) type KeyId = [u8; 4];

/// The data of an entry that is authenticated with its value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding {
    /// The SHA-256 of the key of the entry.
    pub(crate) digest: [u8; 32],
    pub(crate) schema: u64,
    pub(crate) serializer: SerializerId,
    pub(crate) created: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) stale_until: Timestamp,
}

impl Binding {
    pub(crate) fn of(entry: &EntryContext<'_>) -> Self {
        Self {
            digest: entry.key_digest(),
            schema: entry.schema(),
            serializer: entry.serializer(),
            created: entry.created(),
            expires: entry.expires(),
            stale_until: entry.stale_until(),
        }
    }

    fn to_bytes(self, inner: SerializerId) -> [u8; BINDING] {
        let mut bytes = [0; BINDING];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, b"vayuseal");
        put(8, &self.digest);
        put(40, &self.schema.to_le_bytes());
        put(48, &self.created.as_micros().to_le_bytes());
        put(56, &self.expires.as_micros().to_le_bytes());
        put(64, &self.stale_until.as_micros().to_le_bytes());
        put(72, &self.serializer.as_u16().to_le_bytes());
        put(74, &inner.as_u16().to_le_bytes());
        put(76, &u64::from(VERSION).to_le_bytes());
        bytes
    }
}

/// The associated data: fields of fixed lengths, and the SHA-256 of the context at the end if there is one. So
/// no two entries have the same.
pub(super) struct AssociatedData {
    bytes: [u8; BINDING + 32],
    length: usize,
}

impl AssociatedData {
    pub(super) fn new(inner: SerializerId, binding: &Binding, context: Option<[u8; 32]>) -> Self {
        let (mut bytes, mut length) = ([0; BINDING + 32], BINDING);
        bytes[..BINDING].copy_from_slice(&binding.to_bytes(inner));
        if let Some(context) = context {
            bytes[BINDING..].copy_from_slice(&context);
            length += context.len();
        }
        Self { bytes, length }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Returns the id of the key of a sealed value and that of its inner serializer, if it is one.
pub(super) fn ids(stored: &[u8]) -> Option<(KeyId, SerializerId)> {
    match *stored.first_chunk()? {
        [VERSION, a, b, c, d, low, high] if stored.len() >= HEADER + TAG => {
            let inner = SerializerId::from_u16(u16::from_le_bytes([low, high]));
            Some(([a, b, c, d], inner))
        }
        _ => None,
    }
}

/// Encrypts a value under a random nonce. 24 random bytes are different for any number of values.
pub(super) fn seal(
    cipher: &Cipher,
    id: KeyId,
    plain: &[u8],
    inner: SerializerId,
    data: &AssociatedData,
) -> Result<Bytes> {
    let failed = || Error::new(ErrorKind::Encode, "seal value");
    let mut nonce = [0; NONCE];
    getrandom::fill(&mut nonce).map_err(|error| failed().with_source(error))?;
    let mut bytes = Vec::with_capacity(HEADER + plain.len() + TAG);
    bytes.push(VERSION);
    bytes.extend_from_slice(&id);
    bytes.extend_from_slice(&inner.as_u16().to_le_bytes());
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(plain);
    let tag = cipher.encrypt(&nonce, data.as_bytes(), &mut bytes[HEADER..]).ok_or_else(failed)?;
    bytes.extend_from_slice(&tag);
    Ok(bytes.into())
}

/// Decrypts what [`seal`] has returned for the same entry, in place if it is not shared. `None` for everything else.
pub(super) fn open(cipher: &Cipher, stored: Bytes, data: &AssociatedData) -> Option<Bytes> {
    let mut bytes = BytesMut::from(stored);
    let (header, rest) = bytes.split_first_chunk_mut::<HEADER>()?;
    let (value, tag) = rest.split_last_chunk_mut::<TAG>()?;
    cipher.decrypt(header.last_chunk()?, data.as_bytes(), value, tag)?;
    bytes.truncate(bytes.len() - TAG);
    bytes.advance(HEADER);
    Some(bytes.freeze())
}

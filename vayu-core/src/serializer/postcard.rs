//! Postcard, for entries that are small and quick to read.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::bounded::Bounds;
use crate::serializer::decode_error::{INVALID_UTF8, MISMATCH, UNEXPECTED_END, decode_error};
use crate::serializer::exact::checked_serializer;

/// Postcard: compact, and faster than [`MessagePack`](crate::MessagePack).
///
/// The format is not self-describing: a type under `#[serde(untagged)]`, `#[serde(tag = "..")]`,
/// `#[serde(flatten)]` or `skip_serializing_if`, and `serde_json::Value`, cannot be read back and is
/// refused. Fields are identified by their position, so a type that gains, loses or reorders fields
/// needs another `version`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Postcard;

checked_serializer!(Postcard, POSTCARD);

fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    let bytes = postcard::to_stdvec(value)
        .map_err(|error| Error::new(ErrorKind::Encode, "encode as Postcard").with_source(error))?;
    Ok(bytes.into())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let failed = |error| decode_error::<T>("Postcard", category(&error));
    let mut deserializer = postcard::Deserializer::from_bytes(bytes);
    let bounds = Bounds::for_length(bytes.len());
    let value = T::deserialize(bounds.bound(&mut deserializer)).map_err(failed)?;
    if deserializer.finalize().map_err(failed)?.is_empty() {
        Ok(value)
    } else {
        Err(Error::new(ErrorKind::Decode, "bytes are left after a Postcard value"))
    }
}

/// Returns the category of an error.
fn category(error: &postcard::Error) -> &'static str {
    match error {
        postcard::Error::DeserializeUnexpectedEnd => UNEXPECTED_END,
        postcard::Error::DeserializeBadUtf8 => INVALID_UTF8,
        _ => MISMATCH,
    }
}

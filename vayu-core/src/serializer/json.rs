//! JSON, for entries that people or other programs read.

use std::error::Error as StdError;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::exact::encode_exactly;
use crate::serializer::{Serializer, SerializerId};

/// JSON, for any serde value that JSON can give back exactly.
///
/// Floats keep every bit. What JSON cannot express (NaN, infinities, `Some(None)`, maps whose keys
/// are not text or numbers) is refused.
///
/// With the feature `sonic-json` it runs on sonic-rs; entries of either are read by both. There
/// the sign of `-0.0` is lost in reading, so a value with such a float is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Serializer<T> for Json {
    type Stored = Bytes;

    fn id(&self) -> SerializerId {
        SerializerId::JSON
    }

    fn serialize(&self, value: &T) -> Result<Bytes> {
        encode_exactly(value, encode, |bytes| decode(bytes))
    }

    fn deserialize(&self, stored: &Bytes) -> Result<T> {
        decode(stored)
    }
}

#[cfg(not(feature = "sonic-json"))]
fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(not_encoded)
}

#[cfg(not(feature = "sonic-json"))]
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(not_decoded)
}

#[cfg(feature = "sonic-json")]
fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    sonic_rs::to_vec(value).map(Bytes::from).map_err(not_encoded)
}

#[cfg(feature = "sonic-json")]
fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if !is_shallow(bytes) {
        return Err(Error::new(ErrorKind::Decode, "the JSON value is nested too deep"));
    }
    sonic_rs::from_slice(bytes).map_err(not_decoded)
}

/// Whether brackets are nested no deeper than 128: the parser skips values by recursion.
#[cfg(feature = "sonic-json")]
fn is_shallow(text: &[u8]) -> bool {
    const DEPTH: usize = 128;
    let mut depth = 0_usize;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => loop {
                match bytes.next() {
                    Some(b'\\') => drop(bytes.next()),
                    Some(b'"') | None => break,
                    Some(_) => {}
                }
            },
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH {
            return false;
        }
    }
    true
}

fn not_encoded(error: impl StdError + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Encode, "encode as JSON").with_source(error)
}

fn not_decoded(error: impl StdError + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Decode, "decode JSON").with_source(error)
}

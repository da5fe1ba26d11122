//! JSON, for entries that people or other programs read.

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

fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    let bytes = serde_json::to_vec(value)
        .map_err(|error| Error::new(ErrorKind::Encode, "encode as JSON").with_source(error))?;
    Ok(bytes.into())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::new(ErrorKind::Decode, "decode JSON").with_source(error))
}

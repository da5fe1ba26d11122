//! MessagePack, the default of backends that keep bytes.

use bytes::Bytes;
use rmp_serde::config::BytesMode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::exact::encode_exactly;
use crate::serializer::{Serializer, SerializerId};

/// MessagePack with named fields, for any serde value. It never runs code on read.
///
/// Structs are written as maps, so a type may gain, lose and reorder fields where its
/// `Deserialize` allows that. A value that MessagePack cannot give back exactly, `Some(None)` for
/// instance, is refused. Byte buffers are written one element at a time unless their type says
/// that they are bytes: `bytes::Bytes`, or `serde_bytes` on the field.
#[derive(Debug, Clone, Copy, Default)]
pub struct MessagePack;

/// How deep what is decoded may be nested; the format counts some levels twice.
const DEPTH: usize = 512;

impl<T: Serialize + DeserializeOwned> Serializer<T> for MessagePack {
    type Stored = Bytes;

    fn id(&self) -> SerializerId {
        SerializerId::MESSAGE_PACK
    }

    fn serialize(&self, value: &T) -> Result<Bytes> {
        encode_exactly(value, encode, |bytes| decode(bytes))
    }

    fn deserialize(&self, stored: &Bytes) -> Result<T> {
        decode(stored)
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(128);
    let mut serializer =
        rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_bytes(BytesMode::Normal);
    value.serialize(&mut serializer).map_err(|error| {
        Error::new(ErrorKind::Encode, "encode as MessagePack").with_source(error)
    })?;
    Ok(bytes.into())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut rest = bytes;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(DEPTH);
    let value = T::deserialize(&mut deserializer)
        .map_err(|error| Error::new(ErrorKind::Decode, "decode MessagePack").with_source(error))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(Error::new(ErrorKind::Decode, "bytes are left after a MessagePack value"))
    }
}

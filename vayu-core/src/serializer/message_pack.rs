//! MessagePack, the default of backends that keep bytes.

use std::any::Any;

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
/// instance, is refused.
///
/// A value that is a `Vec<u8>` is written as bytes. Inside of other values, a byte buffer is
/// written one element at a time unless its type says that it is bytes: `bytes::Bytes` with its
/// feature `serde`, or a field under `#[serde(with = "serde_bytes")]`. That is a hundred times
/// faster for large ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct MessagePack;

/// How deep what is decoded may be nested; the format counts some levels twice.
const DEPTH: usize = 512;

impl<T: Serialize + DeserializeOwned + 'static> Serializer<T> for MessagePack {
    type Stored = Bytes;

    fn id(&self) -> SerializerId {
        SerializerId::MESSAGE_PACK
    }

    fn serialize(&self, value: &T) -> Result<Bytes> {
        match (value as &dyn Any).downcast_ref::<Vec<u8>>() {
            Some(buffer) => encode_buffer(buffer),
            None => encode_exactly(value, encode, |bytes| decode(bytes)),
        }
    }

    fn deserialize(&self, stored: &Bytes) -> Result<T> {
        let mut value = None::<T>;
        match (&mut value as &mut dyn Any).downcast_mut::<Option<Vec<u8>>>() {
            Some(buffer) => *buffer = Some(decode_buffer(stored)?),
            None => value = Some(decode(stored)?),
        }
        Ok(value.expect("both arms have set it"))
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

/// A whole value that is a byte buffer is written as bytes, not as a list of numbers.
fn encode_buffer(buffer: &[u8]) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(buffer.len() + 5);
    rmp::encode::write_bin(&mut bytes, buffer).map_err(|error| {
        Error::new(ErrorKind::Encode, "encode as MessagePack").with_source(error)
    })?;
    Ok(bytes.into())
}

fn decode_buffer(mut bytes: &[u8]) -> Result<Vec<u8>> {
    let length = rmp::decode::read_bin_len(&mut bytes)
        .map_err(|error| Error::new(ErrorKind::Decode, "decode MessagePack").with_source(error))?;
    if bytes.len() == length as usize {
        Ok(bytes.to_vec())
    } else {
        Err(Error::new(
            ErrorKind::Decode,
            "the bytes of a MessagePack value are not as long as it says",
        ))
    }
}

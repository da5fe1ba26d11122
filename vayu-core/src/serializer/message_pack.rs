//! MessagePack, the default of backends that store bytes.

use std::any::Any;
use std::mem;

use bytes::{Buf, Bytes};
use rmp::decode::ValueReadError;
use rmp_serde::config::BytesMode;
use rmp_serde::decode;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::decode_error::{
    INVALID_UTF8, MISMATCH, TOO_DEEP, UNEXPECTED_END, decode_error,
};
use crate::serializer::exact::encode_checked;
use crate::serializer::{Serializer, SerializerId};

/// MessagePack with named fields, for any serde value.
///
/// Structs are written as maps, so a type may gain, lose and reorder fields where its
/// `Deserialize` allows that. A value that MessagePack cannot represent exactly, such as
/// `Some(None)`, is refused.
///
/// A value that is a `Vec<u8>` or [`Bytes`] is written as bytes, and comes back as `Bytes` without
/// being copied. Inside of other values, a list of bytes is written as bytes as well, and takes as
/// many, unless the value cannot be read back then, as under `#[serde(tag = "..")]` and
/// `#[serde(flatten)]`: it is then written as a list of numbers. It is read and written one element
/// at a time, unless its type says that it is bytes: `Bytes` with the feature `serde` of its crate, or
/// a field under `#[serde(with = "serde_bytes")]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct MessagePack;

/// The maximum depth of nesting; the format counts some levels twice.
const DEPTH: usize = 512;

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Serializer<T> for MessagePack {
    type Stored = Bytes;

    fn id(&self) -> SerializerId {
        SerializerId::MESSAGE_PACK
    }

    fn serialize(&self, value: &T) -> Result<Bytes> {
        let any = value as &dyn Any;
        if let Some(buffer) = any.downcast_ref::<Vec<u8>>() {
            encode_buffer(buffer)
        } else if let Some(buffer) = any.downcast_ref::<Bytes>() {
            encode_buffer(buffer)
        } else {
            let encode_with = |mode| {
                encode_checked(value, |value| encode(value, mode), |bytes| decode_value(bytes))
            };
            encode_with(BytesMode::ForceIterables).or_else(|_| encode_with(BytesMode::Normal))
        }
    }

    fn deserialize(&self, stored: &Bytes) -> Result<T> {
        self.deserialize_owned(&mut stored.clone())
    }

    fn deserialize_owned(&self, stored: &mut Bytes) -> Result<T> {
        let mut value = None::<T>;
        let any = &mut value as &mut dyn Any;
        if let Some(buffer) = any.downcast_mut::<Option<Vec<u8>>>() {
            *buffer = Some(buffer_of(stored)?.to_vec());
        } else if let Some(buffer) = any.downcast_mut::<Option<Bytes>>() {
            let length = buffer_of(stored)?.len();
            // Splitting it would need another allocation.
            let mut whole = mem::take(stored);
            whole.advance(whole.len() - length);
            *buffer = Some(whole);
        } else {
            value = Some(decode_value(stored)?);
        }
        Ok(value.expect("each arm has set it"))
    }
}

fn encode<T: Serialize>(value: &T, mode: BytesMode) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(128);
    let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map().with_bytes(mode);
    value.serialize(&mut serializer).map_err(|error| {
        Error::new(ErrorKind::Encode, "encode as MessagePack").with_source(error)
    })?;
    Ok(bytes.into())
}

fn decode_value<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(DEPTH);
    let value = T::deserialize(&mut deserializer)
        .map_err(|error| decode_error::<T>("MessagePack", category(&error)))?;
    // At the end there is not even the first byte of another value.
    match IgnoredAny::deserialize(&mut deserializer) {
        Err(decode::Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err(Error::new(ErrorKind::Decode, "bytes are left after a MessagePack value")),
    }
}

/// Encodes a value that is a byte buffer as bytes, not as a list of numbers.
fn encode_buffer(buffer: &[u8]) -> Result<Bytes> {
    let mut bytes = Vec::with_capacity(buffer.len() + 5);
    rmp::encode::write_bin(&mut bytes, buffer).map_err(|error| {
        Error::new(ErrorKind::Encode, "encode as MessagePack").with_source(error)
    })?;
    Ok(bytes.into())
}

/// Returns the category of an error, without its message, which may repeat a part of the value.
fn category(error: &decode::Error) -> &'static str {
    match error {
        decode::Error::InvalidMarkerRead(_) | decode::Error::InvalidDataRead(_) => UNEXPECTED_END,
        decode::Error::Utf8Error(_) => INVALID_UTF8,
        decode::Error::DepthLimitExceeded => TOO_DEEP,
        _ => MISMATCH,
    }
}

fn buffer_of(mut bytes: &[u8]) -> Result<&[u8]> {
    let length = rmp::decode::read_bin_len(&mut bytes).map_err(|error| {
        decode_error::<Bytes>(
            "MessagePack",
            match error {
                ValueReadError::TypeMismatch(_) => MISMATCH,
                _ => UNEXPECTED_END,
            },
        )
    })?;
    if bytes.len() == length as usize {
        Ok(bytes)
    } else {
        Err(Error::new(
            ErrorKind::Decode,
            "the bytes of a MessagePack value are not as long as it says",
        ))
    }
}

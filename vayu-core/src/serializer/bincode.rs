//! Bincode, for programs that use it already.

use std::marker::PhantomData;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bincode::error::DecodeError;
use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer};

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::bounded::Bounds;
use crate::serializer::decode_error::{INVALID_UTF8, MISMATCH, UNEXPECTED_END, decode_error};
use crate::serializer::exact::checked_serializer;

/// Bincode 2 in its standard configuration, for values of up to 16 MiB.
///
/// It is no longer maintained (RUSTSEC-2025-0141): [`Postcard`](crate::Postcard) is as small
/// and as fast. It refuses the same types, and a changed type needs another `version` here, too.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bincode;

/// The maximum number of bytes that decoding may claim.
const LIMIT: usize = 16 << 20;

const CONFIGURATION: Configuration<LittleEndian, Varint, Limit<LIMIT>> =
    bincode::config::standard().with_limit::<LIMIT>();

checked_serializer!(Bincode, BINCODE);

fn encode<T: Serialize>(value: &T) -> Result<Bytes> {
    let bytes = bincode::serde::encode_to_vec(value, CONFIGURATION)
        .map_err(|error| Error::new(ErrorKind::Encode, "encode as Bincode").with_source(error))?;
    Ok(bytes.into())
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let bounds = Bounds::for_length(bytes.len());
    let seed = WithinBounds { bounds: &bounds, value: PhantomData };
    let (value, read) = bincode::serde::seed_decode_from_slice(seed, bytes, CONFIGURATION)
        .map_err(|error| decode_error::<T>("Bincode", category(&error)))?;
    if read == bytes.len() {
        Ok(value)
    } else {
        Err(Error::new(ErrorKind::Decode, "bytes are left after a Bincode value"))
    }
}

/// Returns the category of an error, without its message, which may repeat a part of the value.
fn category(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::UnexpectedEnd { .. } => UNEXPECTED_END,
        DecodeError::LimitExceeded => "the value is larger than 16 MiB",
        DecodeError::Utf8 { .. } => INVALID_UTF8,
        _ => MISMATCH,
    }
}

struct WithinBounds<'b, T> {
    bounds: &'b Bounds,
    value: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for WithinBounds<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::deserialize(self.bounds.bound(deserializer))
    }
}

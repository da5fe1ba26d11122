//! Bincode, for programs that use it already.

use std::marker::PhantomData;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer};

use crate::error::{Error, ErrorKind, Result};
use crate::serializer::bounded::Bounds;
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
        .map_err(|error| Error::new(ErrorKind::Decode, "decode Bincode").with_source(error))?;
    if read == bytes.len() {
        Ok(value)
    } else {
        Err(Error::new(ErrorKind::Decode, "bytes are left after a Bincode value"))
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

//! A round-trip check of encoded values.

use std::collections::HashSet;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Encoder, KeyBytes, OrderMode, RecordedOrders};

/// Encodes a value, decodes the result, and returns the encoded form if both values are the same (a
/// round-trip check): a [`Serializer`](crate::Serializer) that uses this does not change a value.
///
/// Formats lose things: MessagePack and JSON write `Some(None)` as `None`, and JSON has no NaN. Types
/// lose things too: a `Deserialize` may sort a list, and a `SocketAddrV6` writes its scope only where
/// [`is_human_readable`](serde::Serializer::is_human_readable) is true. Both values are compared in
/// the canonical encoding, which keys are made of, and which holds both of serde's forms. Values
/// nested deeper than 128 are refused before they are encoded.
///
/// Sequences and maps must be decoded in the order in which they were written, unless it has no
/// meaning: that of a `HashMap` or `HashSet`, or of another type that decodes the same bytes in another
/// order each time. For these `decode` is called more than once.
///
/// Data that the `Serialize` of a type does not write is not compared: a field under `#[serde(skip)]`,
/// or which of two variants of an untagged enum it was, when both are written alike.
///
/// # Errors
///
/// [`ErrorKind::Encode`] when the two differ, and those of `encode` and `decode`.
///
/// # Examples
///
/// ```
/// # mod vayu { pub use vayu_core::*; pub mod backend { pub use vayu_core::*; } }
/// use vayu::backend::encode_checked;
/// use vayu::{Error, ErrorKind};
///
/// let lossy = |value: &f64| Ok(*value as f32);
/// let back = |stored: &f32| Ok(f64::from(*stored));
/// assert_eq!(encode_checked(&0.5, lossy, back).unwrap(), 0.5_f32);
/// let error: Error = encode_checked(&0.1, lossy, back).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Encode);
/// ```
pub fn encode_checked<T: Serialize, E>(
    value: &T,
    encode: impl FnOnce(&T) -> Result<E>,
    decode: impl Fn(&E) -> Result<T>,
) -> Result<E> {
    let written = canonical(value, OrderMode::AsWritten)?;
    let encoded = encode(value)?;
    let decode = || {
        decode(&encoded).map_err(|error| {
            Error::new(ErrorKind::Encode, "decode the encoded value").with_source(error)
        })
    };
    let decoded = decode()?;
    let is_same = canonical(&decoded, OrderMode::AsWritten)? == written
        || differs_only_in_unstable_order(value, &decoded, decode)?;
    if is_same {
        Ok(encoded)
    } else {
        Err(Error::new(ErrorKind::Encode, "the format does not preserve this value"))
    }
}

/// The number of times that a value is decoded to find two orders of it. Two entries of a hash table
/// come in one order that many times with a chance of 1 in 65,536, and more entries more rarely; the
/// value is then refused.
const TRIES: usize = 16;

/// Returns whether the decoded value differs from the value only in the order of sequences and maps
/// whose order changes each time they are decoded.
fn differs_only_in_unstable_order<T: Serialize>(
    value: &T,
    decoded: &T,
    decode: impl Fn() -> Result<T>,
) -> Result<bool> {
    let (content, orders) = without_order(value)?;
    let (decoded_content, decoded_orders) = without_order(decoded)?;
    let mut changed: Vec<_> = orders.difference(&decoded_orders).copied().collect();
    if content != decoded_content || changed.is_empty() {
        return Ok(false);
    }
    for _ in 0..TRIES {
        let (_, again) = without_order(&decode()?)?;
        let varying: HashSet<_> =
            again.difference(&decoded_orders).map(|(content, _)| content).collect();
        changed.retain(|(content, _)| !varying.contains(content));
        if changed.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn without_order<T: Serialize>(value: &T) -> Result<(KeyBytes, RecordedOrders)> {
    let mut orders = RecordedOrders::new();
    let content = canonical(value, OrderMode::Recorded(&mut orders))?;
    Ok((content, orders))
}

fn canonical<T: Serialize>(value: &T, order: OrderMode<'_>) -> Result<KeyBytes> {
    let mut out = KeyBytes::new();
    Encoder::with_order(&mut out, order).value(value).map_err(|error| {
        Error::new(ErrorKind::Encode, "encode the value for comparison").with_source(error)
    })?;
    Ok(out)
}

/// Implements [`Serializer`](crate::Serializer) for a format by its functions `encode` and `decode`, with a
/// round-trip check.
#[cfg(any(feature = "json", feature = "postcard", feature = "bincode"))]
macro_rules! checked_serializer {
    ($format:ident, $id:ident) => {
        #[diagnostic::do_not_recommend]
        impl<T> crate::Serializer<T> for $format
        where
            T: serde::Serialize + serde::de::DeserializeOwned,
        {
            type Stored = bytes::Bytes;

            fn id(&self) -> crate::SerializerId {
                crate::SerializerId::$id
            }

            fn serialize(&self, value: &T) -> crate::Result<bytes::Bytes> {
                crate::encode_checked(value, encode, |bytes| decode(bytes))
            }

            fn deserialize(&self, stored: &bytes::Bytes) -> crate::Result<T> {
                decode(stored)
            }
        }
    };
}
#[cfg(any(feature = "json", feature = "postcard", feature = "bincode"))]
pub(super) use checked_serializer;

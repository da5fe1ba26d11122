//! Whether a format gave a value back as it was.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Encoder, Material, Sequences};

/// Encodes a value, decodes what came of it, and answers the encoded form if both are the same: a
/// [`Serializer`](crate::Serializer) that goes this way does not change a value.
///
/// Formats lose things: MessagePack and JSON write `Some(None)` as `None`, and JSON has no NaN. The
/// canonical encoding, which keys are made of, tells these apart. The order of a sequence may
/// differ: a set has none, and no format changes the order of a list. Values nested deeper than
/// 128 are refused before they are encoded.
///
/// What the `Serialize` of a type does not tell cannot be seen: a field under `#[serde(skip)]`, or
/// which of two variants of an untagged enum it was, when both are written alike.
///
/// # Errors
///
/// [`ErrorKind::Encode`] when the two differ, and those of `encode` and `decode`.
///
/// # Examples
///
/// ```
/// use vayu_core::{Error, ErrorKind, encode_exactly};
///
/// let lossy = |value: &f64| Ok(*value as f32);
/// let back = |stored: &f32| Ok(f64::from(*stored));
/// assert_eq!(encode_exactly(&0.5, lossy, back).unwrap(), 0.5_f32);
/// let error: Error = encode_exactly(&0.1, lossy, back).unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Encode);
/// ```
pub fn encode_exactly<T: Serialize, E>(
    value: &T,
    encode: impl FnOnce(&T) -> Result<E>,
    decode: impl FnOnce(&E) -> Result<T>,
) -> Result<E> {
    let canonical_value = canonical(value, Sequences::Ordered)?;
    let encoded = encode(value)?;
    let decoded = decode(&encoded).map_err(|error| {
        Error::new(ErrorKind::Encode, "read back what was encoded").with_source(error)
    })?;
    let is_same = canonical(&decoded, Sequences::Ordered)? == canonical_value
        || canonical(&decoded, Sequences::Unordered)? == canonical(value, Sequences::Unordered)?;
    if is_same {
        Ok(encoded)
    } else {
        Err(Error::new(ErrorKind::Encode, "the format cannot give this value back as it is"))
    }
}

fn canonical<T: Serialize>(value: &T, sequences: Sequences) -> Result<Material> {
    let mut out = Material::new();
    value.serialize(&mut Encoder::with_sequences(&mut out, sequences)).map_err(|error| {
        Error::new(ErrorKind::Encode, "encode the value to compare it").with_source(error)
    })?;
    Ok(out)
}

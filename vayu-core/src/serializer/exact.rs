//! Whether a format gave a value back as it was.

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{Encoder, Material, Sequences};

/// Checks that `decoded` is the value that was encoded: a serializer that calls this before it
/// answers never changes a value.
///
/// Formats lose things: MessagePack and JSON write `Some(None)` as `None`, JSON has no NaN, an
/// untagged enum may come back as another variant. The canonical encoding, which keys are made
/// of, tells all these apart. The order of a sequence may differ: a set has none, and no format
/// changes the order of a list.
///
/// # Errors
///
/// [`ErrorKind::Encode`] when the two differ.
pub fn ensure_exact<T: Serialize>(value: &T, decoded: &T) -> Result<()> {
    for sequences in [Sequences::Ordered, Sequences::Unordered] {
        if canonical(value, sequences)? == canonical(decoded, sequences)? {
            return Ok(());
        }
    }
    Err(Error::new(ErrorKind::Encode, "the format cannot give this value back as it is"))
}

fn canonical<T: Serialize>(value: &T, sequences: Sequences) -> Result<Material> {
    let mut out = Material::new();
    value.serialize(&mut Encoder::with_sequences(&mut out, sequences)).map_err(|error| {
        Error::new(ErrorKind::Encode, "compare with what was decoded").with_source(error)
    })?;
    Ok(out)
}

//! Sets as a part of keys.

use serde::ser::Error as _;
use serde::{Serialize, Serializer};

use crate::key::{Encoder, KeyBytes};

/// Serializes a set in an order that depends on its elements alone, for
/// `#[serde(serialize_with = "vayu::sorted_set")]`.
///
/// Serde serializes a `HashSet` as a sequence in iteration order, so two equal sets inside an argument
/// may result in two keys. A set that is itself an argument does not need this.
///
/// # Errors
///
/// Those of the serializer, and of elements that cannot be serialized.
///
/// # Examples
///
/// ```
/// use std::collections::HashSet;
/// use serde::Serialize;
///
/// #[derive(Serialize)]
/// struct Filter {
///     #[serde(serialize_with = "vayu_core::sorted_set")]
///     tags: HashSet<String>,
/// }
/// ```
pub fn sorted_set<'a, C, T, S>(set: &'a C, serializer: S) -> Result<S::Ok, S::Error>
where
    &'a C: IntoIterator<Item = &'a T>,
    T: Serialize + 'a,
    S: Serializer,
{
    let mut sorted: Vec<(KeyBytes, &T)> = Vec::new();
    for element in set {
        let mut encoded = KeyBytes::new();
        Encoder::new(&mut encoded).value(element).map_err(S::Error::custom)?;
        sorted.push((encoded, element));
    }
    // Elements with the same encoding are all kept.
    sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
    serializer.collect_seq(sorted.iter().map(|(_, element)| element))
}

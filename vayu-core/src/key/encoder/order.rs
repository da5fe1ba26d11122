//! The significance of the order in which elements and entries are written.

use std::any::type_name;
use std::collections::HashSet;

/// The sequences and maps whose order is significant.
pub(crate) enum OrderMode<'a> {
    /// Sequences, but not maps: the mode of keys.
    Key,
    /// All that are not hash tables.
    AsWritten,
    /// None. The orders are recorded.
    Recorded(&'a mut RecordedOrders),
}

/// The orders in which the contents of a value were written: for each sequence and map that is not
/// known to be a hash table, a digest of its sorted contents, and one of its contents as written.
pub(crate) type RecordedOrders = HashSet<(u128, u128)>;

impl OrderMode<'_> {
    pub(super) fn reborrow(&mut self) -> OrderMode<'_> {
        match self {
            Self::Key => OrderMode::Key,
            Self::AsWritten => OrderMode::AsWritten,
            Self::Recorded(orders) => OrderMode::Recorded(orders),
        }
    }

    /// Returns whether `I` is a hash table. In a key, where that makes no difference, it returns `false`.
    #[inline]
    pub(super) fn is_table<I>(&self) -> bool {
        !matches!(self, Self::Key) && is_hash_table(type_name::<I>())
    }

    #[inline]
    pub(super) fn is_significant_in_sequence(&self, is_table: bool) -> bool {
        match self {
            Self::Key => true,
            Self::AsWritten => !is_table,
            Self::Recorded(_) => false,
        }
    }

    #[inline]
    pub(super) fn is_significant_in_map(&self, is_table: bool) -> bool {
        matches!(self, Self::AsWritten) && !is_table
    }

    pub(super) fn is_recorded(&self) -> bool {
        matches!(self, Self::Recorded(_))
    }

    pub(super) fn record(&mut self, content: u128, order: u128) {
        if let Self::Recorded(orders) = self {
            orders.insert((content, order));
        }
    }
}

/// Returns whether a type with this name is a hash table: a `HashMap` or `HashSet` of the standard
/// library or of another one, or a reference to one. Types with other names are detected by decoding
/// them repeatedly (see [`encode_checked`](crate::encode_checked)).
fn is_hash_table(name: &str) -> bool {
    let path = name.trim_start_matches('&').split('<').next().unwrap_or_default();
    // A slice, an array or a tuple of hash tables is not one.
    let is_path = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte));
    is_path && matches!(path.rsplit("::").next(), Some("HashMap" | "HashSet"))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;

    #[test]
    fn hash_tables_are_known_by_the_name_of_their_type() {
        assert!(is_hash_table(type_name::<&HashMap<String, Vec<u8>>>()));
        assert!(is_hash_table(type_name::<HashSet<Vec<u8>, foldhash::fast::FixedState>>()));
        assert!(!is_hash_table(type_name::<&BTreeMap<u8, HashSet<u8>>>()));
        assert!(!is_hash_table(type_name::<&[HashSet<u8>]>()));
        assert!(!is_hash_table("linked::LinkedHashMap<u8, u8>"));
    }
}

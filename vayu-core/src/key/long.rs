//! Long keys.

use std::fmt;

use crate::key::{Key, Prefix};

/// A key for backends that store keys which do not fit into words: smaller than a
/// [`Key`], which is optimized for lookups.
#[derive(Clone, PartialEq, Eq)]
pub struct LongKey {
    prefix: Prefix,
    encoded: Box<[u8]>,
}

impl LongKey {
    /// Returns the prefix of the key.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Returns whether this is the same key.
    #[inline]
    pub fn matches(&self, key: &Key) -> bool {
        self.prefix == key.prefix && *self.encoded == *key.encoded
    }
}

impl From<&Key> for LongKey {
    fn from(key: &Key) -> Self {
        Self { prefix: key.prefix.clone(), encoded: (*key.encoded).into() }
    }
}

/// Shows nothing: arguments may be secrets.
impl fmt::Debug for LongKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LongKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_key_is_its_key_and_no_other_one() {
        let texts = ["", "a", "b", "ab", "a\0", "\0"].map(str::to_owned);
        let lengths = [20, 30, 47, 48, 300];
        let long: Vec<_> = lengths.iter().map(|&length| "k".repeat(length)).collect();
        let prefixes = || {
            [
                "p".into(),
                "q".to_owned().into(),
                Prefix::of_body::<[u8; 1]>(),
                Prefix::of_body::<[u8; 2]>(),
            ]
        };
        let keys: Vec<Key> = texts
            .iter()
            .chain(&long)
            .flat_map(|text| prefixes().map(|prefix: Prefix| Key::from_text(prefix, text)))
            .chain([Key::new("p", &("ab",)).expect("a key")])
            .collect();
        for (n, key) in keys.iter().enumerate() {
            let stored = LongKey::from(key);
            for (m, other) in keys.iter().enumerate() {
                assert_eq!(stored.matches(other), n == m, "{key} {other}");
                assert_eq!(stored == LongKey::from(other), n == m, "{key} {other}");
            }
        }
    }

    #[test]
    fn prefix_that_is_static_and_one_that_is_not_are_one() {
        let keys = ["p".into(), Prefix::from("p".to_owned())].map(|p| Key::from_text(p, "k"));
        for key in &keys {
            for other in keys.each_ref().map(LongKey::from) {
                assert!(other.matches(key) && other == key.into());
            }
        }
    }
}

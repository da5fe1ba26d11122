//! Compact keys.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::key::bytes::KeyBytes;
use crate::key::function::FunctionInfo;
use crate::key::hasher::{self, Seeds};
use crate::key::prefix::StaticPrefix;
use crate::key::{Key, Prefix};

/// A key for backends that store many of them: a third as large as a [`Key`], which is optimized for
/// lookups.
///
/// It hashes as the key does, and [`matches`](Self::matches) compares the two.
#[derive(Clone)]
pub struct CompactKey(Repr);

#[derive(Clone)]
enum Repr {
    OfFunction {
        function: &'static FunctionInfo,
        bytes: Short<30>,
    },
    OfText {
        prefix: &'static str,
        bytes: Short<22>,
    },
    /// With a prefix that is not static, or longer bytes.
    Boxed(Box<(Prefix, Box<[u8]>)>),
}

/// A short byte string, padded with zeros.
#[derive(Clone, Copy)]
struct Short<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

impl CompactKey {
    /// Returns whether this is the same key.
    #[inline(always)]
    pub fn matches(&self, key: &Key) -> bool {
        match &self.0 {
            Repr::OfFunction { function, bytes } if key.prefix.is_function(function) => {
                bytes.matches(&key.encoded)
            }
            _ => self.matches_by_content(key),
        }
    }

    /// Compares the contents: the slow path of [`matches`](Self::matches).
    #[inline(never)]
    fn matches_by_content(&self, key: &Key) -> bool {
        match &self.0 {
            Repr::OfFunction { .. } => false,
            Repr::OfText { prefix, bytes } => {
                key.prefix.is_text(prefix) && *bytes.as_slice() == *key.encoded
            }
            Repr::Boxed(parts) => parts.0 == key.prefix && *parts.1 == *key.encoded,
        }
    }
}

impl CompactKey {
    fn encoded(&self) -> &[u8] {
        match &self.0 {
            Repr::OfFunction { bytes, .. } => bytes.as_slice(),
            Repr::OfText { bytes, .. } => bytes.as_slice(),
            Repr::Boxed(parts) => &parts.1,
        }
    }

    /// Calls `code` with the prefix.
    #[inline]
    fn with_prefix<T>(&self, code: impl FnOnce(&Prefix) -> T) -> T {
        match &self.0 {
            Repr::OfFunction { function, .. } => code(&StaticPrefix::Function(function).into()),
            Repr::OfText { prefix, .. } => code(&StaticPrefix::Text(prefix).into()),
            Repr::Boxed(parts) => code(&parts.0),
        }
    }
}

impl PartialEq for CompactKey {
    fn eq(&self, other: &Self) -> bool {
        self.encoded() == other.encoded()
            && self.with_prefix(|prefix| other.with_prefix(|other| prefix == other))
    }
}

impl Eq for CompactKey {}

impl<const N: usize> Short<N> {
    const ITS_WORDS: () = assert!(N == 30 || N == 22, "whole words, and six bytes");

    fn new(bytes: &[u8]) -> Option<Self> {
        const { Self::ITS_WORDS };
        let mut short = Self { length: u8::try_from(bytes.len()).ok()?, bytes: [0; N] };
        short.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(short)
    }

    /// Returns the bytes as words, with zeros after them.
    #[inline(always)]
    fn words(&self) -> [u64; 4] {
        let word = |at: usize| {
            let bytes = self.bytes.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |&bytes| u64::from_le_bytes(bytes))
        };
        // The last six bytes, as the end of a word that begins two bytes earlier.
        let last = word(N - 8) >> 16;
        match N {
            30 => [word(0), word(8), word(16), last],
            _ => [word(0), word(8), last, 0],
        }
    }

    #[inline]
    fn hash(&self, seeds: &Seeds) -> u64 {
        hasher::hash_short(seeds, self.length.into(), self.words())
    }

    #[inline(always)]
    fn matches(&self, encoded: &KeyBytes) -> bool {
        let [first, second, third, last]: [u64; 4] = encoded.words();
        let own = self.words();
        // One after the other: comparing several at once would load more than a word.
        usize::from(self.length) == encoded.len()
            && own[0] == first
            && own[1] == second
            && own[2] == third
            && (N < 30 || own[3] == last)
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

impl From<&Key> for CompactKey {
    fn from(key: &Key) -> Self {
        let short = match key.prefix.as_static() {
            Some(StaticPrefix::Function(function)) => {
                Short::new(&key.encoded).map(|bytes| Repr::OfFunction { function, bytes })
            }
            Some(StaticPrefix::Text(prefix)) => {
                Short::new(&key.encoded).map(|bytes| Repr::OfText { prefix, bytes })
            }
            None => None,
        };
        let boxed = || Repr::Boxed(Box::new((key.prefix.clone(), (*key.encoded).into())));
        Self(short.unwrap_or_else(boxed))
    }
}

impl Hash for CompactKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(match &self.0 {
            Repr::OfFunction { function, bytes } => bytes.hash(function.seeds()),
            Repr::OfText { prefix, bytes } => bytes.hash(&Seeds::of(*prefix)),
            Repr::Boxed(parts) => {
                let mut encoded = KeyBytes::new();
                encoded.extend_from_slice(&parts.1);
                hasher::hash(&parts.0.seeds(), &encoded)
            }
        });
    }
}

/// Shows nothing: arguments may be secrets.
impl fmt::Debug for CompactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CompactKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use crate::key::BuildKeyHasher;

    #[test]
    fn compact_key_is_its_key_and_no_other_one() {
        let texts = ["", "a", "b", "ab", "a\0", "\0"].map(str::to_owned);
        let lengths = [20, 21, 22, 28, 29, 30, 47, 48, 300];
        let few = if cfg!(miri) { &lengths[2..6] } else { &lengths };
        let long: Vec<_> = few.iter().map(|&length| "k".repeat(length)).collect();
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
            let compact = CompactKey::from(key);
            assert_eq!(BuildKeyHasher.hash_one(&compact), BuildKeyHasher.hash_one(key));
            for (m, other) in keys.iter().enumerate() {
                assert_eq!(compact.matches(other), n == m, "{key} {other}");
                assert_eq!(compact == CompactKey::from(other), n == m, "{key} {other}");
            }
        }
    }

    #[test]
    fn prefix_that_is_static_and_one_that_is_not_are_one() {
        let keys = ["p".into(), Prefix::from("p".to_owned())].map(|p| Key::from_text(p, "k"));
        for key in &keys {
            for other in keys.each_ref().map(CompactKey::from) {
                assert!(other.matches(key) && other == key.into());
                assert_eq!(BuildKeyHasher.hash_one(&other), BuildKeyHasher.hash_one(key));
            }
        }
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<CompactKey>(), 40);
    }
}

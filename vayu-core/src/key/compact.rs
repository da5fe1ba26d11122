//! Keys in little room.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::key::{self, Key, Prefix, hasher};

/// A key as a backend keeps many of them: half as large as a [`Key`], which is made to be looked up
/// with.
///
/// It hashes as the key does, and [`is`](Self::is) compares the two.
#[derive(Clone, PartialEq, Eq)]
pub struct CompactKey {
    prefix: Prefix,
    material: Material,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    /// What is past the length is zero.
    Short {
        length: u8,
        bytes: [u8; SHORT],
    },
    Long(Box<[u8]>),
}

/// What fits beside the length in the place of a box.
const SHORT: usize = 22;

impl CompactKey {
    /// Whether this is that key.
    #[inline(always)]
    pub fn is(&self, key: &Key) -> bool {
        self.prefix == key.prefix && self.material.is(&key.material)
    }
}

impl Material {
    #[inline(always)]
    fn is(&self, other: &key::Material) -> bool {
        match self {
            Self::Short { length, bytes } => {
                usize::from(*length) == other.len() && other.first_chunk_and_zeros() == bytes
            }
            Self::Long(bytes) => **bytes == **other,
        }
    }

    #[inline]
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }
}

impl From<&Key> for CompactKey {
    fn from(key: &Key) -> Self {
        let material: &[u8] = &key.material;
        let material = match u8::try_from(material.len()) {
            Ok(length) if material.len() <= SHORT => {
                let mut bytes = [0; SHORT];
                bytes[..material.len()].copy_from_slice(material);
                Material::Short { length, bytes }
            }
            _ => Material::Long(material.into()),
        };
        Self { prefix: key.prefix.clone(), material }
    }
}

impl Hash for CompactKey {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(hasher::hash(&self.prefix, self.material.as_slice()));
    }
}

/// Shows the prefix: arguments may be secrets.
impl fmt::Debug for CompactKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompactKey({})", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;
    use crate::key::KeyHasher;

    #[test]
    fn compact_key_is_its_key_and_no_other_one() {
        let texts = ["", "a", "b", "ab"].map(str::to_owned);
        let long = [20, 21, 22, 47, 48, 300].map(|length| "k".repeat(length));
        let keys: Vec<Key> = texts
            .iter()
            .chain(&long)
            .flat_map(|text| [Key::from_text("p", text), Key::from_text("q", text)])
            .chain([Key::new("p", &("ab",)).expect("a key")])
            .collect();
        for (n, key) in keys.iter().enumerate() {
            let compact = CompactKey::from(key);
            assert_eq!(KeyHasher.hash_one(&compact), KeyHasher.hash_one(key));
            for (m, other) in keys.iter().enumerate() {
                assert_eq!(compact.is(other), n == m, "{key} {other}");
            }
        }
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<CompactKey>(), 48);
    }
}

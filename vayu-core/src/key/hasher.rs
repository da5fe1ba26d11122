//! Hashing keys once.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;

use foldhash::quality::RandomState;

use crate::key::Prefix;

/// The hash function of this process. Its seed is random, so that nobody outside can choose
/// arguments that collide.
#[inline]
pub(crate) fn seeded() -> &'static RandomState {
    static SEEDED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    &SEEDED
}

#[inline]
pub(super) fn hash(prefix: &Prefix, material: &[u8]) -> u64 {
    let mut hasher = seeded().build_hasher();
    prefix.hash(&mut hasher);
    hasher.write(material);
    hasher.finish()
}

/// The hasher for maps from [`Key`](crate::Key): a key is hashed when it is built, and this hands
/// that hash on.
///
/// # Examples
///
/// ```
/// use std::collections::HashMap;
/// use vayu_core::{Key, KeyHasher};
///
/// let mut map: HashMap<Key, u32, KeyHasher> = HashMap::default();
/// map.insert(Key::from_text("prefix", "text"), 7);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHasher;

/// The state of [`KeyHasher`] for one key.
#[derive(Debug, Clone, Copy, Default)]
pub struct PassedOn(u64);

impl BuildHasher for KeyHasher {
    type Hasher = PassedOn;

    #[inline]
    fn build_hasher(&self) -> PassedOn {
        PassedOn::default()
    }
}

impl Hasher for PassedOn {
    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Not reached by a [`Key`](crate::Key), which writes one `u64`.
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

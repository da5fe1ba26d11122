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

#[inline(always)]
pub(super) fn hash(prefix: &Prefix, material: &[u8]) -> u64 {
    let mut hasher = seeded().build_hasher();
    prefix.hash(&mut hasher);
    if material.len() > SHORT {
        hasher.write(material);
    } else {
        write_short(&mut hasher, material);
    }
    hasher.finish()
}

/// Material up to this length, in bytes, is hashed as it was most likely written.
const SHORT: usize = 24;

/// Hashes material that was written just now: its kind, the tag of a tuple and that of its first
/// part, then words. A processor that reads bytes across the bounds at which they were written waits
/// until they are in its cache.
#[inline]
fn write_short(hasher: &mut impl Hasher, material: &[u8]) {
    let (tags, words) = material.split_at(material.len().min(3));
    let mut words = words.chunks_exact(8);
    let mut rest = material.len() as u64;
    for &byte in tags {
        rest = rest << 8 | u64::from(byte);
    }
    for word in &mut words {
        hasher.write_u64(u64::from_le_bytes(word.try_into().unwrap_or_default()));
    }
    hasher.write_u64(rest);
    let last = words.remainder().iter().fold(0, |last, &byte| last << 8 | u64::from(byte));
    hasher.write_u64(last);
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

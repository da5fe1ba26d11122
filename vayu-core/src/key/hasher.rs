//! Hashing of keys, once for each key.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::LazyLock;

use foldhash::quality::RandomState;

use crate::key::KeyBytes;
use crate::key::bytes::SHORT;

/// Returns the hash function of this process. Its seed is random, so that colliding arguments cannot
/// be chosen in advance.
#[inline]
pub(crate) fn seeded() -> &'static RandomState {
    static SEEDED: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    &SEEDED
}

/// Returns the hash of a key with this prefix and these encoded arguments.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn hash(prefix: &impl Hash, encoded: &KeyBytes) -> u64 {
    let length = encoded.len();
    if length <= 16 {
        hash_words(prefix, length, encoded.words::<2>())
    } else if length <= 32 {
        hash_words(prefix, length, encoded.words::<4>())
    } else if length <= SHORT {
        hash_words(prefix, length, encoded.words::<6>())
    } else {
        hash_long(prefix, encoded)
    }
}

/// Returns the same as [`hash`] for up to 32 bytes in words, padded with zeros.
#[inline]
pub(super) fn hash_short(prefix: &impl Hash, length: usize, words: [u64; 4]) -> u64 {
    if length <= 16 {
        let [first, second, ..] = words;
        hash_words(prefix, length, [first, second])
    } else {
        hash_words(prefix, length, words)
    }
}

#[cold]
fn hash_long(prefix: &impl Hash, bytes: &[u8]) -> u64 {
    let mut state = seeded().build_hasher();
    prefix.hash(&mut state);
    state.write(bytes);
    state.finish()
}

#[cfg_attr(not(debug_assertions), inline(always))]
fn hash_words<const N: usize>(prefix: &impl Hash, length: usize, words: [u64; N]) -> u64 {
    let mut state = seeded().build_hasher();
    prefix.hash(&mut state);
    for word in words {
        state.write_u64(word);
    }
    state.write_u64(length as u64);
    state.finish()
}

/// The hasher for maps with [`Key`](crate::Key) keys: a key is hashed when it is built, and this
/// passes that hash through.
///
/// # Examples
///
/// ```
/// use std::collections::HashMap;
/// # mod vayu { pub use vayu_core::*; pub mod backend { pub use vayu_core::*; } }
/// use vayu::Key;
/// use vayu::backend::BuildKeyHasher;
///
/// let mut map: HashMap<Key, u32, BuildKeyHasher> = HashMap::default();
/// map.insert(Key::from_text("prefix", "text"), 7);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct BuildKeyHasher;

/// The state of [`BuildKeyHasher`] for one key.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdentityHasher(u64);

impl BuildHasher for BuildKeyHasher {
    type Hasher = IdentityHasher;

    #[inline]
    fn build_hasher(&self) -> IdentityHasher {
        IdentityHasher::default()
    }
}

impl Hasher for IdentityHasher {
    #[inline]
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Adds bytes to the hash. A [`Key`](crate::Key) does not call this: it writes one `u64`.
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

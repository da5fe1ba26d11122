//! Hashing of keys, once for each key.

use std::hash::{BuildHasher, Hash, Hasher};

#[cfg(vayu_loom)]
use foldhash::quality::FixedState as State;
#[cfg(not(vayu_loom))]
use foldhash::quality::RandomState as State;
use once_cell::race::OnceBox;

use crate::key::KeyBytes;
use crate::key::bytes::SHORT;

/// The random secrets of this process, so that colliding arguments cannot be chosen in advance. A model checker has the same
/// ones in each run: the number of schedules depends on the keys that collide.
struct Secrets {
    state: State,
    word: u64,
    end: u64,
}

/// Returns the secrets of this process. Without a lock, so that a child process may be forked at any time.
#[inline]
fn secrets() -> &'static Secrets {
    static SECRETS: OnceBox<Secrets> = OnceBox::new();
    SECRETS.get_or_init(|| {
        let random = |n: u64| State::default().hash_one(n);
        Box::new(Secrets { state: State::default(), word: random(1), end: random(2) })
    })
}

/// Returns the hash function of this process.
#[inline]
pub(crate) fn seeded() -> &'static State {
    &secrets().state
}

/// The secret numbers that the hashes of the keys with one prefix are seeded with.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Seeds {
    /// A hash of the prefix.
    prefix: u64,
    /// A number of the process. It separates the other two: adjacent ones would be combined with the words
    /// of a key by a single wide load, which stalls (store forwarding).
    end: u64,
    /// A number of the process.
    word: u64,
}

impl Seeds {
    /// Returns the seeds for this prefix.
    #[inline]
    pub(super) fn of(prefix: &(impl Hash + ?Sized)) -> Self {
        let Secrets { state, word, end } = secrets();
        Self { prefix: state.hash_one(prefix), word: *word, end: *end }
    }
}

/// The seed of hashes of numbers with one prefix. It is that of no other prefix, as far as its 64 random bits allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrefixSeed {
    prefix: u64,
    word: u64,
}

impl PrefixSeed {
    #[inline(always)]
    pub(super) fn of(seeds: &Seeds) -> Self {
        Self { prefix: seeds.prefix, word: seeds.word }
    }

    /// Returns a hash of the prefix and a number.
    #[inline(always)]
    pub(crate) fn hash_of(self, number: u64) -> u64 {
        folded_multiply(self.prefix ^ number, self.word)
    }
}

/// Returns the hash of a key with the prefix of these seeds and these encoded arguments.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn hash(seeds: &Seeds, encoded: &KeyBytes) -> u64 {
    let length = encoded.len();
    if length <= 16 {
        hash_words(seeds, length, encoded.words::<2>())
    } else if length <= 32 {
        hash_words(seeds, length, encoded.words::<4>())
    } else if length <= SHORT {
        hash_words(seeds, length, encoded.words::<6>())
    } else {
        hash_long(seeds, encoded)
    }
}

#[cold]
fn hash_long(seeds: &Seeds, bytes: &[u8]) -> u64 {
    let mut state = seeded().build_hasher();
    state.write_u64(seeds.prefix);
    state.write(bytes);
    state.finish()
}

/// Hashes words, two by each multiplication: both factors depend on a secret. The last multiplication
/// mixes what they have in common with the upper bits into the lower ones.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(super) fn hash_words<const N: usize>(seeds: &Seeds, length: usize, words: [u64; N]) -> u64 {
    const { assert!(N.is_multiple_of(2), "pairs") };
    let (pairs, _) = words.as_chunks();
    let hash = pairs
        .iter()
        .fold(seeds.prefix, |hash, [one, other]| folded_multiply(hash ^ one, seeds.word ^ other));
    folded_multiply(hash ^ length as u64, seeds.end)
}

/// Returns the two halves of a product, combined.
#[inline(always)]
fn folded_multiply(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
    let low = product as u64;
    low ^ (product >> 64) as u64
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Key, KeyBuilder};

    /// Returns seeds that are the same in each run.
    fn fixed(n: u64) -> Seeds {
        let seed = |n: u64| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes());
        Seeds { prefix: seed(3 * n), word: seed(3 * n + 1), end: seed(3 * n + 2) }
    }

    /// Checks that hashes are spread over `bins` as random numbers are: chi-square, with a limit that one
    /// in a million random samples exceeds.
    fn are_spread(name: &str, bins: u16, of: impl Iterator<Item = usize>) {
        let mut counts = vec![0_u32; bins.into()];
        let mut number = 0.0;
        for bin in of {
            counts[bin] += 1;
            number += 1.0;
        }
        let expected = number / f64::from(bins);
        let chi: f64 = counts.iter().map(|&n| (f64::from(n) - expected).powi(2) / expected).sum();
        let freedom = f64::from(bins) - 1.0;
        assert!(chi < freedom + 5.0 * (2.0 * freedom).sqrt(), "{name}: {chi} of {freedom}");
    }

    #[test]
    fn hashes_of_similar_keys_are_spread_over_all_bits() {
        let encoded = |add: &dyn Fn(&mut KeyBuilder)| {
            let mut builder = KeyBuilder::arguments();
            add(&mut builder);
            builder.end_arguments();
            builder.key.encoded
        };
        let number = |n: u64| encoded(&|key| key.encode_direct(&n));
        let pair = |n: u64| {
            encoded(&|key| {
                key.encode_direct(&(n % 128));
                key.encode_direct(&(n / 128));
            })
        };
        let text = |n: u64| encoded(&|key| key.encode_direct(&format!("user:{n}")));
        let stride = |n: u64| encoded(&|key| key.encode_direct(&(n << 40)));
        let kinds: [(&str, &dyn Fn(u64) -> KeyBytes); 4] =
            [("numbers", &number), ("pairs", &pair), ("strings", &text), ("strides", &stride)];
        for (name, of) in kinds {
            let (keys, seeds) = if cfg!(miri) { (4_096, 1) } else { (16_384, 8) };
            let keys: Vec<_> = (0..keys).map(of).collect();
            for seeds in (0..seeds).map(fixed) {
                let hashes: Vec<_> = keys.iter().map(|key| hash(&seeds, key)).collect();
                let tag = |hash: &u64| usize::from(hash.to_le_bytes()[0]);
                let line =
                    |hash: &u64, of: u64| usize::try_from(((hash >> 32) * of) >> 32).unwrap();
                are_spread(name, 256, hashes.iter().map(tag));
                are_spread(name, 1000, hashes.iter().map(|hash| line(hash, 1000)));
                let both = |hash| line(hash, 10) * 256 + tag(hash);
                are_spread(name, 2560, hashes.iter().map(both));
            }
        }
    }

    #[test]
    fn hash_depends_on_each_seed() {
        let key = Key::new("p", &(7_u64, "text")).expect("a key").encoded;
        let seeds = fixed(1);
        let whole = hash(&seeds, &key);
        assert_ne!(whole, hash(&Seeds { prefix: 0, ..seeds }, &key));
        assert_ne!(whole, hash(&Seeds { word: 0, ..seeds }, &key));
        assert_ne!(whole, hash(&Seeds { end: 1, ..seeds }, &key));
    }
}

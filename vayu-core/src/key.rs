//! Keys: the identity of calls.

mod builder;
mod bytes;
mod display;
mod encoder;
mod function;
pub(crate) mod hasher;
mod kind;
mod label;
mod literal;
mod long;
mod prefix;
mod recent;
#[cfg(feature = "wire")]
mod render;
mod set;
mod version;
mod words;

use std::hash::{BuildHasher, Hash, Hasher};
use std::{fmt, mem};

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::builder::{CallKeyBuilder, KeyBuilder, KeyError, KeyString};
pub(crate) use self::bytes::KeyBytes;
#[cfg(feature = "wire")]
pub(crate) use self::display::{ParsedKey, hashed, of_displayed_text};
pub(crate) use self::encoder::DirectEncode;
pub(crate) use self::encoder::{Encoder, OrderMode, RecordedOrders};
pub use self::hasher::BuildKeyHasher;
pub(crate) use self::hasher::PrefixSeed;
use self::hasher::Seeds;
#[cfg(feature = "wire")]
pub(crate) use self::label::cut_label;
pub use self::literal::LiteralPrefix;
pub use self::long::LongKey;
#[cfg(feature = "wire")]
pub(crate) use self::prefix::FUNCTION;
use self::prefix::Repr;
pub use self::prefix::{FunctionOf, Prefix};
pub use self::recent::RecentKeys;
pub use self::set::sorted_set;
pub use self::version::KeyVersion;
use self::words::TextWords;
pub(crate) use self::words::prefix_of_words;
use crate::clock::Timestamp;
use crate::error::Result;
use crate::generation::Group;

/// The identity of one cached call: what was called, and with what.
///
/// A key has a [`Prefix`], the function, and a second part, either the canonical encoding of the
/// arguments or a string. Two keys are equal when both parts are, byte by byte. Whether two lists of
/// arguments are the same is decided by their [`Serialize`] form: integers of different width,
/// `1` and `1.0`, `None` and `Some(())`, `0.0` and `-0.0` are all different; maps with the same
/// entries are equal in any order. A value that asks
/// [`is_human_readable`](serde::Serializer::is_human_readable) is compared in both forms. Data that
/// `Serialize` does not write, such as fields under `#[serde(skip)]`, is not part of the key.
///
/// A key may have a [version](Self::with_version), which is part of its identity, and may carry
/// [tags](Self::with_tags), which are not.
///
/// Displayed, a key is `prefix:string`, or `prefix:` and its [digest](Self::digest) in hex; with a
/// version `prefix@version:`, and then the same.
///
/// # Examples
///
/// ```
/// # use vayu_core as vayu;
/// use vayu::Key;
///
/// # fn main() -> vayu::Result<()> {
/// let by_arguments = Key::new("rates", &("EUR", 2026))?;
/// let by_text = Key::from_text("rates", "EUR/2026");
/// assert_ne!(by_arguments, by_text);
/// assert_eq!(by_text.to_string(), "rates:EUR/2026");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Key {
    hash: u64,
    /// The first of its [words](Self::inline_words).
    header: u64,
    prefix: Prefix,
    encoded: KeyBytes,
}

impl Key {
    const EMPTY: Self =
        Self { hash: 0, header: 0, prefix: Prefix::EMPTY, encoded: KeyBytes::new() };

    /// Returns whether the key has memory on the heap.
    #[inline(always)]
    fn needs_drop(&self) -> bool {
        self.prefix.is_owned() || self.encoded.has_rest()
    }

    /// Moves the key out, and leaves one that needs no destructor and is not to be used.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn take(&mut self) -> Self {
        Self {
            hash: self.hash,
            header: self.header,
            prefix: mem::replace(&mut self.prefix, Prefix::EMPTY),
            encoded: self.encoded.take(),
        }
    }

    /// Completes the key, whose arguments are encoded, with its prefix. To be called once.
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn set_prefix(&mut self, prefix: impl Into<Prefix>) {
        let length = self.encoded.len();
        let prefix = if length <= 2 * size_of::<u64>() {
            // The words and their length are read first: they may be constants, or in registers.
            let words = self.encoded.words::<2>();
            let prefix = prefix.into();
            self.complete(&prefix, length, |seeds, _| hasher::hash_words(seeds, length, words));
            prefix
        } else {
            let prefix = prefix.into();
            self.complete(&prefix, length, hasher::hash);
            prefix
        };
        // The empty prefix owns nothing, so it need not be dropped.
        mem::forget(mem::replace(&mut self.prefix, prefix));
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn complete(
        &mut self,
        prefix: &Prefix,
        length: usize,
        hash: impl FnOnce(&Seeds, &KeyBytes) -> u64,
    ) {
        match prefix.repr() {
            Repr::Function(function) => {
                self.header = words::header_of_function(function.number(), length);
                self.hash = hash(function.seeds(), &self.encoded);
            }
            Repr::Literal(literal) => {
                self.hash = hash(&literal.seeds, &self.encoded);
                self.header = words::header_of_text(&literal.words, &mut self.encoded);
            }
            Repr::Text(text) => self.complete_with_text(text),
        }
    }

    #[inline(never)]
    fn complete_with_text(&mut self, prefix: &str) {
        self.hash = hasher::hash(&Seeds::of(prefix), &self.encoded);
        self.header = words::header_of_text(&TextWords::of(prefix), &mut self.encoded);
    }

    /// Creates the key of a call with these arguments.
    ///
    /// A function under `#[cached(prefix = "rates")]` with the arguments `day` and `base` has the
    /// key `Key::new("rates", &(day, base))`: the arguments as a tuple, `(day,)` where it is one,
    /// `()` where there are none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) when the arguments cannot be serialized.
    pub fn new(prefix: impl Into<Prefix>, arguments: &(impl Serialize + ?Sized)) -> Result<Self> {
        let mut builder = KeyBuilder::for_value();
        builder.encode(arguments);
        builder.finish(prefix);
        builder.into_key()
    }

    /// Creates the key of a call that is identified by a string.
    pub fn from_text(prefix: impl Into<Prefix>, text: impl AsRef<str>) -> Self {
        let mut builder = KeyBuilder::text(text.as_ref());
        builder.finish(prefix);
        builder.key
    }

    /// Returns the key of the same call of a function under `#[cached(version = ..)]`: an integer or a
    /// string, as it is written there.
    ///
    /// The version is part of the identity of a key: values of two versions are two entries.
    #[must_use]
    pub fn with_version(self, version: impl KeyVersion) -> Self {
        let encoded = version::replace(&self.encoded, &version.key_version());
        let mut key = Self { encoded, ..Self::EMPTY };
        key.set_prefix(self.prefix);
        key
    }

    /// Returns the same key with the tags of its entry: those that the function under
    /// `#[cached(tags(..))]` gives it, in the same order.
    ///
    /// An entry that a [`Cache`](crate::Cache) reads or stores by such a key is valid until one of the
    /// tags is invalidated. The tags are not part of the identity of the key. A key from
    /// [`Entry::key`](crate::Entry::key) carries the tags of its function.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
    /// # use vayu_core as vayu;
    /// use std::time::Duration;
    /// use vayu::testing::MapBackend;
    /// use vayu::{Cache, Key, MessagePack};
    ///
    /// let cache: Cache<MapBackend, MessagePack> = Cache::new();
    /// let key = Key::from_text("names", "7").with_tags(["user:7"]);
    /// cache.set(&key, &"Ann".to_owned(), Duration::from_secs(60)).unwrap();
    /// assert_eq!(cache.get::<String>(&key).unwrap().as_deref(), Some("Ann"));
    /// cache.invalidate_tag("user:7").unwrap();
    /// assert_eq!(cache.get::<String>(&key).unwrap(), None);
    /// # }
    /// ```
    #[must_use]
    pub fn with_tags<T: fmt::Display>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.encoded.set_tags(tags.into_iter().map(Group::tag).collect());
        self
    }

    /// Returns the tags that the key carries.
    #[inline]
    pub(crate) fn tags(&self) -> &[Group] {
        self.encoded.tags()
    }

    /// Returns the same key with a label: a readable description of the call, of which backends outside of
    /// the process store up to 200 bytes for `vayu-cache ls`. It is not part of the identity of the key.
    #[must_use]
    pub fn with_label(mut self, label: impl fmt::Display) -> Self {
        self.encoded.set_label(Some(label::bounded(&label)));
        self
    }

    /// Returns the label that the key carries, up to 200 bytes.
    #[inline]
    pub fn label(&self) -> Option<&str> {
        self.encoded.label()
    }

    /// Returns whether the key has a version.
    #[inline]
    pub(crate) fn has_version(&self) -> bool {
        version::may_begin(&self.encoded) && version::split(&self.encoded).0.is_some()
    }

    /// Returns the prefix: the function.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// Returns the version, if there is one, and the arguments, in a canonical, injective encoding.
    pub fn encoded_arguments(&self) -> &[u8] {
        &self.encoded
    }

    /// Returns the whole key as bytes, for backends that store it outside of the process: injective, and
    /// the same in every process and on every machine.
    ///
    /// The exceptions are functions whose path is ambiguous (see [`Prefix`]) or that are generic over a
    /// closure type: the name of a closure may be that of another closure in a later build. Keys of such
    /// functions are valid in this process only.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_bytes_and_prefix_length().0
    }

    /// Returns the whole key as bytes, and the number of those that are the prefix.
    pub(crate) fn to_bytes_and_prefix_length(&self) -> (Vec<u8>, usize) {
        let mut bytes = Vec::with_capacity(self.encoded.len() + 64);
        let prefix_length = self.append_bytes(&mut bytes);
        (bytes, prefix_length)
    }

    /// Appends the whole key as bytes, and returns the number of those that are the prefix.
    pub(crate) fn append_bytes(&self, bytes: &mut Vec<u8>) -> usize {
        let start = bytes.len();
        self.prefix.encode(bytes);
        let prefix_length = bytes.len() - start;
        bytes.extend_from_slice(&self.encoded);
        prefix_length
    }

    /// Returns the SHA-256 of [`to_bytes`](Self::to_bytes): a name of fixed length.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.to_bytes()).into()
    }

    /// Returns a hash of the whole key, computed once, seeded at random in each process.
    ///
    /// [`Hash`] feeds it to the hasher, so a map with [`Key`] keys can use [`BuildKeyHasher`], which
    /// passes it through unchanged.
    #[inline]
    pub fn hash_code(&self) -> u64 {
        self.hash
    }

    /// Returns an unpredictable number, a different one for each key and time.
    pub(crate) fn random(&self, time: Timestamp) -> u64 {
        hasher::seeded().hash_one((self.hash, time))
    }
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.prefix == other.prefix && self.encoded == other.encoded
    }
}

impl Eq for Key {}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        display::write(f, self.prefix.as_str(), &self.encoded, || self.digest())
    }
}

/// Shows the prefix and the hash: arguments may be secrets.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}:{:016x})", self.prefix, self.hash)
    }
}

#[cfg(test)]
mod tests;

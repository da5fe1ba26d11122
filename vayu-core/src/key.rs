//! What identifies one call.

mod builder;
mod compact;
mod encoder;
pub(crate) mod hasher;
mod material;
mod named;
mod prefix;
mod set;
mod words;

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

use serde::Serialize;
use sha2::{Digest, Sha256};

pub use self::builder::{KeyBuilder, KeyText, NoKey};
pub use self::compact::CompactKey;
pub(crate) use self::encoder::Simple;
pub(crate) use self::encoder::{Encoder, Order, Orders};
pub use self::hasher::KeyHasher;
pub(crate) use self::material::Material;
pub(crate) use self::named::Named;
pub use self::prefix::{FunctionOf, Prefix};
pub use self::set::sorted_set;
use crate::clock::Timestamp;
use crate::error::Result;

/// The identity of one cached call: what was called, and with what.
///
/// A key has a [`Prefix`], the function, and a second part, either the canonical encoding of the
/// arguments or a text. Two keys are equal when both parts are, byte by byte. Whether two lists of
/// arguments are the same is decided by their [`Serialize`] form: integers of different width,
/// `1` and `1.0`, `None` and `Some(())`, `0.0` and `-0.0` are all different; maps with the same
/// entries are equal in any order. A value that asks
/// [`is_human_readable`](serde::Serializer::is_human_readable) is compared in both forms. What
/// `Serialize` does not write, such as fields under `#[serde(skip)]`, is not part of it.
///
/// As text a key is `prefix:text`, or `prefix:` and the SHA-256 of the encoded arguments in hex.
///
/// # Examples
///
/// ```
/// use vayu_core::Key;
///
/// # fn main() -> vayu_core::Result<()> {
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
    prefix: Prefix,
    material: Material,
}

impl Key {
    /// The key of a call with these arguments.
    ///
    /// A function under `#[cached(prefix = "rates")]` with the arguments `day` and `base` has the
    /// key `Key::new("rates", &(day, base))`: the arguments as a tuple, `(day,)` where it is one,
    /// `()` where there are none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`](crate::ErrorKind::Encode) when the arguments cannot be serialized.
    pub fn new(prefix: impl Into<Prefix>, arguments: &(impl Serialize + ?Sized)) -> Result<Self> {
        let mut builder = KeyBuilder::whole();
        builder.encode(arguments);
        builder.finish(prefix);
        builder.into_key()
    }

    /// The key of a call that is identified by a text.
    pub fn from_text(prefix: impl Into<Prefix>, text: impl AsRef<str>) -> Self {
        let mut builder = KeyBuilder::text(text.as_ref());
        builder.finish(prefix);
        builder.key
    }

    /// What was called.
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// What it was called with: a canonical, injective encoding.
    pub fn material(&self) -> &[u8] {
        &self.material
    }

    /// The whole key as bytes, for backends that keep it outside the process: injective, and the
    /// same in every process and on every machine.
    ///
    /// The exceptions are functions whose path is not theirs alone (see [`Prefix`]) or that are
    /// generic over a closure type: closures have no name that a later build could be trusted to
    /// give to the same closure. Keys of such functions are valid in this process only.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.material.len() + 64);
        self.prefix.encode(&mut bytes);
        bytes.extend_from_slice(&self.material);
        bytes
    }

    /// The SHA-256 of [`to_bytes`](Self::to_bytes): a name of fixed length.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.to_bytes()).into()
    }

    /// A hash of the whole key, computed once, seeded at random in each process.
    ///
    /// It is what [`Hash`] feeds to a hasher, so a map from [`Key`] may use [`KeyHasher`], which
    /// hands it on unchanged.
    #[inline]
    pub fn hash_code(&self) -> u64 {
        self.hash
    }

    /// A number that nobody can guess, another one for each key and time.
    pub(crate) fn random(&self, time: Timestamp) -> u64 {
        hasher::seeded().hash_one((self.hash, time))
    }
}

impl PartialEq for Key {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.prefix == other.prefix && self.material == other.material
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
        Named::of(&self.prefix, &self.material).fmt(f)
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

//! Display of keys.

use std::fmt;

#[cfg(feature = "wire")]
use sha2::{Digest, Sha256};

use crate::key::kind;
use crate::key::version::{self, DisplayVersion};
#[cfg(feature = "wire")]
use crate::key::{Key, prefix, render};

/// Writes a key: the prefix, the version if there is one, and the string or the digest.
pub(super) fn write(
    f: &mut fmt::Formatter<'_>,
    prefix: &str,
    encoded: &[u8],
    digest: impl FnOnce() -> [u8; 32],
) -> fmt::Result {
    let (version, encoded) = version::split(encoded);
    f.write_str(prefix)?;
    if let Some(version) = version {
        write!(f, "@{}", DisplayVersion(version))?;
    }
    if let Some(text) = kind::text_of(encoded) {
        write!(f, ":{text}")
    } else {
        f.write_str(":")?;
        digest().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Returns the string keys under a string prefix that [`write()`] writes so.
#[cfg(feature = "wire")]
pub(crate) fn of_displayed_text(displayed: &str) -> impl Iterator<Item = Key> {
    /// Colons after the first ones are part of the string.
    const MAX_SPLITS: usize = 64;
    displayed.match_indices(':').take(MAX_SPLITS).flat_map(|(at, _)| {
        let (prefix, text) = (&displayed[..at], &displayed[at + 1..]);
        let key = |prefix: &str| Key::from_text(prefix.to_owned(), text);
        let versioned = prefix.rsplit_once('@').map(|(prefix, version)| {
            match version.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
                Some(version) => key(prefix).with_version(version),
                None => key(prefix).with_version(version::Integer(version)),
            }
        });
        [Some(key(prefix)), versioned].into_iter().flatten()
    })
}

/// The first byte of what follows the prefix in the [hashed form](hashed) of a key.
#[cfg(feature = "wire")]
const HASHED: u8 = b'D';

/// Returns the hashed form of a key: its prefix, and its digest in place of the rest.
#[cfg(feature = "wire")]
pub(crate) fn hashed(prefix: &[u8], digest: &[u8; 32]) -> Vec<u8> {
    [prefix, &[HASHED], digest].concat()
}

/// A key that was read from the bytes of an entry: those of [`Key::to_bytes`](crate::Key::to_bytes), or
/// the [hashed form](hashed).
#[cfg(feature = "wire")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ParsedKey<'a> {
    bytes: &'a [u8],
    /// The path of the function, or the string in its place.
    pub(crate) prefix: &'a str,
    encoded: &'a [u8],
}

#[cfg(feature = "wire")]
impl<'a> ParsedKey<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (prefix, encoded) = prefix::split(bytes)?;
        Some(Self { bytes, prefix, encoded })
    }

    /// Returns the SHA-256 of the key.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.hashed_digest().unwrap_or_else(|| Sha256::digest(self.bytes).into())
    }

    /// Returns the digest that takes the place of the arguments, if they are not stored.
    fn hashed_digest(&self) -> Option<[u8; 32]> {
        self.encoded.strip_prefix(&[HASHED])?.try_into().ok()
    }

    /// Returns the call as Rust would write it, with up to this many bytes.
    pub(crate) fn call(&self, label: Option<&str>, max_bytes: usize) -> String {
        let (version, encoded) = version::split(self.encoded);
        render::call(self.prefix, version, encoded, label, max_bytes)
    }
}

#[cfg(feature = "wire")]
impl fmt::Display for ParsedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write(f, self.prefix, self.encoded, || self.digest())
    }
}

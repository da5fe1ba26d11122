//! Versions as a part of keys.
//!
//! In an encoded key, the version comes before everything else.

use std::fmt;

use crate::key::{KeyBytes, kind};

/// The first byte of an encoded key with a version.
const VERSION: u8 = b'V';

/// Longer versions have their length in eight more bytes.
const LONG: u8 = u8::MAX;

/// A version as the attribute takes it: an integer or a string. `2` and `"2"` are two versions.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a version",
    label = "a version is an integer or a string, as in `version = 2`"
)]
pub trait KeyVersion {
    /// Returns the version as it is written in a key: `i` and the digits, or `s` and the string.
    fn key_version(&self) -> String;
}

macro_rules! integer_is_version {
    ($($integer:ty)*) => {$(
        impl KeyVersion for $integer {
            fn key_version(&self) -> String {
                format!("i{self}")
            }
        }
    )*};
}

integer_is_version!(u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize);

impl KeyVersion for str {
    fn key_version(&self) -> String {
        format!("s{self}")
    }
}

impl KeyVersion for String {
    fn key_version(&self) -> String {
        self.as_str().key_version()
    }
}

impl<T: KeyVersion + ?Sized> KeyVersion for &T {
    fn key_version(&self) -> String {
        (**self).key_version()
    }
}

/// An integer as it is written.
#[cfg(feature = "wire")]
pub(super) struct Integer<'a>(pub(super) &'a str);

#[cfg(feature = "wire")]
impl KeyVersion for Integer<'_> {
    fn key_version(&self) -> String {
        format!("i{}", self.0)
    }
}

/// Begins an encoded key with a version.
#[inline(always)]
pub(super) fn begin(encoded: &mut KeyBytes, version: &str) {
    encoded.push(VERSION);
    match u8::try_from(version.len()) {
        Ok(length) if length != LONG => encoded.push(length),
        _ => {
            encoded.push(LONG);
            encoded.extend_from_slice(&(version.len() as u64).to_le_bytes());
        }
    }
    encoded.extend_from_slice(version.as_bytes());
}

/// Returns whether an encoded key may begin with a version.
#[inline]
pub(super) fn may_begin(encoded: &[u8]) -> bool {
    encoded.first() == Some(&VERSION)
}

/// Returns how many bytes [`begin`] appends.
#[inline(always)]
pub(super) const fn length(version: &str) -> usize {
    version.len() + if version.len() < LONG as usize { 2 } else { 10 }
}

/// Splits an encoded key into its version, if it has one, and the rest.
pub(super) fn split(encoded: &[u8]) -> (Option<&str>, &[u8]) {
    let parts = || {
        let (&VERSION, rest) = encoded.split_first()? else { return None };
        let (&length, rest) = rest.split_first()?;
        let (length, rest) = match length {
            LONG => {
                let (length, rest) = rest.split_first_chunk()?;
                (usize::try_from(u64::from_le_bytes(*length)).ok()?, rest)
            }
            length => (usize::from(length), rest),
        };
        let (version, rest) = rest.split_at_checked(length)?;
        Some((std::str::from_utf8(version).ok()?, rest))
    };
    parts().map_or((None, encoded), |(version, rest)| (Some(version), rest))
}

/// Returns the encoded key with this version instead of the one it has, if any.
pub(super) fn replace(encoded: &KeyBytes, version: &str) -> KeyBytes {
    let (_, rest) = split(encoded);
    let mut versioned = KeyBytes::new();
    begin(&mut versioned, version);
    match kind::text_of(rest) {
        Some(text) => kind::push_text_with_length(&mut versioned, text),
        None => versioned.extend_from_slice(rest),
    }
    versioned.set_tags(encoded.tags().to_vec());
    versioned.set_label(encoded.label().map(Into::into));
    versioned
}

/// A version in the form in which it is displayed.
pub(super) struct DisplayVersion<'a>(pub(super) &'a str);

impl fmt::Display for DisplayVersion<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_prefix('s') {
            Some(text) => write!(f, "{text:?}"),
            None => f.write_str(self.0.strip_prefix('i').unwrap_or(self.0)),
        }
    }
}

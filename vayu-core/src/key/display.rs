//! Display of keys.

use std::fmt;

use sha2::{Digest, Sha256};

#[cfg(feature = "wire")]
use crate::key::prefix;
use crate::key::version::{self, DisplayVersion};
use crate::key::{Prefix, builder};

/// A key to display: the prefix, the version if there is one, and the string or the digest of the
/// arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DisplayKey<'a> {
    /// The path of the function, or the string in its place.
    pub(crate) prefix: &'a str,
    encoded: &'a [u8],
}

impl<'a> DisplayKey<'a> {
    pub(super) fn of(prefix: &'a Prefix, encoded: &'a [u8]) -> Self {
        Self { prefix: prefix.as_str(), encoded }
    }

    /// Parses [`Key::to_bytes`](crate::Key::to_bytes).
    #[cfg(feature = "wire")]
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (prefix, encoded) = prefix::split(bytes)?;
        Some(Self { prefix, encoded })
    }
}

impl fmt::Display for DisplayKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, encoded) = version::split(self.encoded);
        f.write_str(self.prefix)?;
        if let Some(version) = version {
            write!(f, "@{}", DisplayVersion(version))?;
        }
        if let Some(text) = builder::text_of(encoded) {
            write!(f, ":{text}")
        } else {
            f.write_str(":")?;
            Sha256::digest(encoded).iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }
}

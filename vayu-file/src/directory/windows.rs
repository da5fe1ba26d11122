//! The directory of a cache on Windows.

use std::io;
use std::path::{Component, Path, Prefix};

use cap_std::fs::Dir;
use vayu_core::Result;

use crate::options::Access;

/// Creates a directory and its parents, unless they exist. Refuses one on a network share.
pub(super) fn create(path: &Path, _: Access) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    // A drive letter may stand for a share. Some file systems cannot be asked.
    let real = path.canonicalize();
    let is_share = real.as_deref().unwrap_or(path).components().next().is_some_and(|first| {
        let Component::Prefix(prefix) = first else { return false };
        matches!(prefix.kind(), Prefix::UNC(..) | Prefix::VerbatimUNC(..))
    });
    if is_share {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "it is on a network share"));
    }
    Ok(())
}

/// Accepts any directory: it has the access control list of its parent, which is not examined.
#[allow(clippy::unnecessary_wraps, reason = "the check of Unix can fail")]
pub(crate) fn check(_: &Dir, _: Access) -> Result<()> {
    Ok(())
}

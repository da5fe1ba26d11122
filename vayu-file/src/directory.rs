//! Opening a directory, checking its permissions, and marking it as a cache.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::path::Path;
use std::{fmt, io};

use cap_std::fs::Dir;
use vayu_core::{Error, ErrorKind, Result};

use crate::fs::{Directory, FileType, write_full};
use crate::layout::{MARKER, MARKER_TEXT, TAG, TAG_TEXT, is_harmless};
use crate::options::Access;

#[cfg(unix)]
use self::unix as system;
#[cfg(unix)]
pub(crate) use self::unix::check;
#[cfg(windows)]
use self::windows as system;
#[cfg(windows)]
pub(crate) use self::windows::check;

/// Opens a directory, and creates it if it does not exist.
pub(crate) fn open(path: &Path, access: Access) -> Result<Dir> {
    let shown = path.display();
    // The URL of a server that was meant for `vayu::open`. It may contain a password.
    if path.to_string_lossy().contains("://") {
        return Err(refused(
            "a cache directory has a path, not a URL; open a URL with `vayu::open`",
        ));
    }
    system::create(path, access)
        .map_err(|error| refused_by(format!("create cache directory `{shown}`"), error))?;
    Dir::open_ambient_dir(path, cap_std::ambient_authority())
        .map_err(|error| refused_by(format!("open cache directory `{shown}`"), error))
}

/// Returns whether the directory is marked as a cache.
pub(crate) fn is_marked(root: &dyn Directory) -> io::Result<bool> {
    match root.status(MARKER) {
        Ok(status) => Ok(status.file_type == FileType::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Marks a directory as a cache. Returns whether it was not marked before, so that it is known to be
/// empty. Refuses a directory that contains other files.
pub(crate) fn mark(root: &dyn Directory) -> Result<bool> {
    let failed = |error| refused_by("mark the cache directory", error);
    if is_marked(root).map_err(failed)? {
        return Ok(false);
    }
    let mut is_empty = true;
    root.list(&mut |name| is_empty &= is_harmless(name)).map_err(failed)?;
    // Another process may have marked it, and written entries, since the first check.
    if is_marked(root).map_err(failed)? {
        return Ok(false);
    }
    if !is_empty {
        return Err(refused(
            "the directory contains other files and is not a cache; use a directory of its own",
        ));
    }
    create(root, TAG, TAG_TEXT).map_err(failed)?;
    create(root, MARKER, MARKER_TEXT).map_err(failed)
}

/// Creates a file, unless it exists. Returns whether it was created.
fn create(root: &dyn Directory, name: &str, text: &str) -> io::Result<bool> {
    match root.create(name) {
        Ok(mut file) => write_full(&mut *file, text.as_bytes()).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns an error with its cause in the message.
pub(crate) fn refused_by(operation: impl fmt::Display, error: io::Error) -> Error {
    refused(format!("{operation}: {error}")).with_source(error)
}

fn refused(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

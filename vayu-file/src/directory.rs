//! Opening a directory, checking its permissions, and marking it as a cache.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _};
use std::path::Path;
use std::{fmt, io};

use cap_std::fs::{Dir, MetadataExt};
use rustix::fs::{Gid, Mode, OFlags};
use vayu_core::{Error, ErrorKind, Result};

use crate::fs::{Directory, FileType, write_full};
use crate::layout::{MARKER, MARKER_TEXT, TAG, TAG_TEXT, is_harmless};
use crate::options::Access;

/// Opens a directory, and creates it if it does not exist.
pub(crate) fn open(path: &Path, access: Access) -> Result<Dir> {
    let shown = path.display();
    // The URL of a server that was meant for `vayu::open`. It may contain a password.
    if path.to_string_lossy().contains("://") {
        return Err(refused(
            "a cache directory has a path, not a URL; open a URL with `vayu::open`",
        ));
    }
    let created = match access {
        Access::OwnerOnly => DirBuilder::new().recursive(true).mode(0o700).create(path),
        Access::Shared => create_shared(path),
    };
    created.map_err(|error| refused_by(format!("create cache directory `{shown}`"), error))?;
    Dir::open_ambient_dir(path, cap_std::ambient_authority())
        .map_err(|error| refused_by(format!("open cache directory `{shown}`"), error))
}

/// Creates a directory and its parents with the mode and the group of the existing parent, and what the
/// umask allows in addition. A parent with the sticky bit, such as `/tmp`, is not copied.
fn create_shared(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    create_shared(parent)?;
    match DirBuilder::new().mode(0o777).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result?,
    }
    let model = std::fs::metadata(parent)?;
    if model.mode() & 0o1000 != 0 {
        return Ok(());
    }
    // Other users may write to the parent: follow no symbolic link.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&directory)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    if stat.st_gid != model.gid() {
        // This fails if the user is not in the group; the permissions of others apply then.
        let _ = rustix::fs::fchown(&directory, None, Some(Gid::from_raw(model.gid())));
    }
    let mode = (stat.st_mode & 0o777) | (model.mode() & 0o2777) | 0o700;
    Ok(rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))?)
}

/// Logs a warning if this user cannot write to a shared directory.
fn check_shared(dir: &Dir) {
    let Ok(metadata) = dir.dir_metadata() else { return };
    let may_write = rustix::fs::accessat(
        dir,
        ".",
        rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK,
        rustix::fs::AtFlags::EACCESS,
    );
    if matches!(may_write, Err(rustix::io::Errno::ACCESS | rustix::io::Errno::ROFS)) {
        tracing::warn!(
            target: "vayu",
            mode = format_args!("{:o}", metadata.mode() & 0o7777),
            "no write permission for the shared cache directory, results are neither stored nor invalidated"
        );
    }
}

/// Refuses a directory in which other users could plant entries.
pub(crate) fn check(dir: &Dir, access: Access) -> Result<()> {
    if access == Access::Shared {
        check_shared(dir);
        return Ok(());
    }
    let metadata =
        dir.dir_metadata().map_err(|error| refused_by("read status of cache directory", error))?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(refused(
            "the cache directory belongs to another user; use one of your own, or `allow_shared` \
             if all users that may write to it are trusted",
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(refused(
            "other users may write to the cache directory; remove that permission (`chmod go-w`), \
             or use `allow_shared` if they are trusted",
        ));
    }
    Ok(())
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

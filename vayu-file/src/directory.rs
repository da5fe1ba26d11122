//! Opening the directory of a cache.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _};
use std::path::Path;

use cap_std::fs::{Dir, MetadataExt};
use rustix::fs::{Gid, Mode, OFlags};
use vayu_core::{Error, ErrorKind, Result};

use crate::fs::{Folder, Kind, write_full};
use crate::layout::{MARKER, MARKER_TEXT, TAG, TAG_TEXT, is_harmless};
use crate::options::Access;

/// Opens the directory, and makes it if it does not exist.
pub(crate) fn open(path: &Path, access: Access) -> Result<Dir> {
    let shown = path.display();
    let made = match access {
        Access::OwnerOnly => DirBuilder::new().recursive(true).mode(0o700).create(path),
        Access::AnyValue => make_shared(path),
    };
    made.map_err(|error| refused(format!("create cache directory `{shown}`")).with_source(error))?;
    Dir::open_ambient_dir(path, cap_std::ambient_authority())
        .map_err(|error| refused(format!("open cache directory `{shown}`")).with_source(error))
}

/// Makes a directory, and those above it, for those who may use the one above: with its mode and its
/// group, and what the umask allows beside that. A directory that everybody may write to and where
/// each owns what is theirs, as `/tmp`, is no model.
fn make_shared(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or_else(|| Path::new("."));
    make_shared(above)?;
    match DirBuilder::new().mode(0o777).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        result => result?,
    }
    let model = std::fs::metadata(above)?;
    if model.mode() & 0o1000 != 0 {
        return Ok(());
    }
    // The path may be in the reach of others: no link is followed.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&folder)?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    if stat.st_gid != model.gid() {
        // Where this user is not in that group, the rights of the others decide.
        let _ = rustix::fs::fchown(&folder, None, Some(Gid::from_raw(model.gid())));
    }
    let mode = (stat.st_mode & 0o777) | (model.mode() & 0o2777) | 0o700;
    Ok(rustix::fs::fchmod(&folder, Mode::from_raw_mode(mode))?)
}

/// Logs a warning where a directory that users share cannot work for this one.
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
            "this user may not write to the shared cache directory: it can neither store nor invalidate"
        );
    }
}

/// Refuses a directory in which others could plant entries.
pub(crate) fn check(dir: &Dir, access: Access) -> Result<()> {
    if access == Access::AnyValue {
        check_shared(dir);
        return Ok(());
    }
    let metadata = dir
        .dir_metadata()
        .map_err(|error| refused("look at the cache directory").with_source(error))?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user && metadata.uid() != 0 {
        return Err(refused(
            "the cache directory belongs to another user; use one of your own, or `allow_shared` \
             if whoever may write to it is to be trusted",
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(refused(
            "other users may write to the cache directory; take that right away (`chmod go-w`), \
             or use `allow_shared` if they are to be trusted",
        ));
    }
    Ok(())
}

/// Whether the directory is marked as a cache.
pub(crate) fn is_marked(root: &dyn Folder) -> io::Result<bool> {
    match root.status(MARKER) {
        Ok(status) => Ok(status.kind == Kind::File),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Marks a directory as a cache, if it is not; whether it was marked just now, so that it is known
/// to be empty. A directory with other things in it is refused.
pub(crate) fn mark(root: &dyn Folder) -> Result<bool> {
    let failed = |error| refused("mark the cache directory").with_source(error);
    if is_marked(root).map_err(failed)? {
        return Ok(false);
    }
    let mut is_empty = true;
    root.list(&mut |name| is_empty &= is_harmless(name)).map_err(failed)?;
    // Another process may have marked it, and begun to use it, since it was looked for.
    if is_marked(root).map_err(failed)? {
        return Ok(false);
    }
    if !is_empty {
        return Err(refused(
            "the directory holds other files and is no cache; give the cache a directory of its own",
        ));
    }
    make(root, TAG, TAG_TEXT).map_err(failed)?;
    make(root, MARKER, MARKER_TEXT).map_err(failed)
}

/// Makes a file, unless it exists; whether it was made.
fn make(root: &dyn Folder, name: &str, text: &str) -> io::Result<bool> {
    match root.create(name) {
        Ok(mut file) => write_full(&mut *file, text.as_bytes()).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn refused(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

//! The directory of a cache on Unix: its owner, its group and its mode.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt as _};
use std::path::Path;

use cap_std::fs::{Dir, MetadataExt};
use rustix::fs::{Gid, Mode, OFlags};
use vayu_core::Result;

use super::{refused, refused_by};
use crate::fs::to_mode;
use crate::options::Access;

/// Creates a directory and its parents, unless they exist.
pub(super) fn create(path: &Path, access: Access) -> io::Result<()> {
    match access {
        Access::OwnerOnly => DirBuilder::new().recursive(true).mode(0o700).create(path),
        Access::Shared => create_shared(path),
    }
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
    let mode = Mode::from_raw_mode(stat.st_mode) & Mode::from_bits_truncate(0o777);
    let shared = Mode::from_bits_truncate(0o2777) & to_mode(model.mode());
    Ok(rustix::fs::fchmod(&directory, mode | shared | Mode::RWXU)?)
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

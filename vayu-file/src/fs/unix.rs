//! [`Directory`] and [`File`] on the file system of Unix.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::{FlockOperation, Gid, Mode, OFlags, RawMode, Stat};

use super::{Directory, File, FileSystem, FileType, Status};
use crate::layout::temporary_name;
use crate::options::Access;
use crate::random::random_bytes;

/// An open directory of the file system.
pub(crate) struct DiskDirectory {
    dir: Dir,
    permissions: Permissions,
}

/// The permissions of new files and directories.
#[derive(Debug, Clone, Copy)]
enum Permissions {
    OwnerOnly,
    /// The mode and the group of the directory of the cache.
    Shared {
        mode: u32,
        group: u32,
    },
}

impl DiskDirectory {
    pub(crate) fn new(dir: Dir, access: Access) -> Self {
        let permissions = match (access, dir.dir_metadata()) {
            (Access::Shared, Ok(metadata)) => {
                Permissions::Shared { mode: metadata.mode(), group: metadata.gid() }
            }
            _ => Permissions::OwnerOnly,
        };
        Self { dir, permissions }
    }

    /// Opens the directory again: an `O_PATH` descriptor can neither be listed nor synced.
    fn reopen(&self) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.dir, ".", ENTER, Mode::empty())?)
    }

    /// Creates a directory under a temporary name, sets its permissions, which the umask may have
    /// reduced, and renames it: other users can use it as soon as it has its name.
    fn create_shared_directory(&self, name: &str) -> io::Result<()> {
        let temporary = temporary_name(random_bytes()?);
        self.dir.create_dir_with(&temporary, DirBuilder::new().mode(0o700))?;
        let named = rustix::fs::openat(&self.dir, &*temporary, ENTER, Mode::empty())
            .map_err(io::Error::from)
            .map(|directory| self.permissions.apply(&directory, self.permissions.directory_mode()))
            .and_then(|()| rename_new(&self.dir, &temporary, name));
        if named.is_err() {
            let _ = self.dir.remove_dir(&temporary);
        }
        named
    }
}

/// Renames a directory, without replacing an existing one.
fn rename_new(dir: &Dir, from: &str, to: &str) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::RenameFlags;
        use rustix::io::Errno;
        match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
            // Not every file system supports it.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            result => return Ok(result?),
        }
    }
    // This replaces an empty directory, at worst one that another process is about to write to.
    dir.rename(from, dir, to)
}

impl Permissions {
    /// Returns the mode of a new file.
    fn file_mode(self) -> u32 {
        match self {
            Self::OwnerOnly => 0o600,
            Self::Shared { mode, .. } => 0o600 | (mode & 0o666),
        }
    }

    /// Returns the mode of a new directory.
    fn directory_mode(self) -> u32 {
        match self {
            Self::OwnerOnly => 0o700,
            Self::Shared { mode, .. } => 0o700 | (mode & 0o2777),
        }
    }

    /// Sets mode and group of a new file, whatever the umask is. Errors are ignored: the file may belong
    /// to another user, or the group may be one that this user is not in.
    fn apply(self, file: impl AsFd + Copy, mode: u32) {
        let Self::Shared { group, .. } = self else { return };
        if rustix::fs::fstat(file).is_ok_and(|stat| stat.st_gid != group) {
            let _ = rustix::fs::fchown(file, None, Some(Gid::from_raw(group)));
        }
        let _ = rustix::fs::fchmod(file, to_mode(mode));
    }
}

/// Converts the bits of a mode, whose type differs between systems.
pub(crate) fn to_mode(bits: u32) -> Mode {
    Mode::from_raw_mode(RawMode::try_from(bits & 0o7777).unwrap_or_default())
}

/// Does not ask the system for the path.
impl fmt::Debug for DiskDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskDirectory")
            .field("permissions", &self.permissions)
            .finish_non_exhaustive()
    }
}

const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

const APPEND: OFlags = OFlags::WRONLY
    .union(OFlags::APPEND)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

const UPDATE: OFlags = OFlags::RDWR
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOCTTY);

const ENTER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Directory for DiskDirectory {
    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(DiskFile::new(open_beneath(&self.dir, path, READ)?)))
    }

    fn open_to_append(&self, path: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(DiskFile::new(open_beneath(&self.dir, path, APPEND)?)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(self.permissions.file_mode());
        let file = self.dir.open_with(name, &options)?.into_std();
        self.permissions.apply(&file, self.permissions.file_mode());
        Ok(Box::new(DiskFile::new(file)))
    }

    fn update(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = rustix::fs::openat(&self.dir, name, UPDATE, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if status(&stat).file_type != FileType::File || stat.st_nlink != 1 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Box::new(DiskFile::new(file)))
    }

    fn try_lock(&self, name: &str) -> io::Result<Option<Box<dyn File>>> {
        // For writing: NFS makes a lock of `fcntl` of this, and grants an exclusive one to such a file only. The file of
        // another user may be readable and no more, and local file systems lock that, too.
        let mode = self.permissions.file_mode();
        let open = |flags: OFlags| {
            rustix::fs::openat(&self.dir, name, flags.union(OFlags::CREATE), to_mode(mode))
        };
        let file = match open(UPDATE) {
            Err(rustix::io::Errno::ACCESS) => open(READ)?,
            result => result?,
        };
        self.permissions.apply(&file, mode);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(DiskFile { file: file.into(), is_locked: true }))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.dir.rename(from, &self.dir, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.dir.remove_file(name)
    }

    fn status(&self, name: &str) -> io::Result<Status> {
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        Ok(status(&rustix::fs::statat(&self.dir, name, flags)?))
    }

    fn list(&self, visit: &mut dyn FnMut(&str)) -> io::Result<()> {
        for entry in rustix::fs::Dir::new(self.reopen()?)? {
            // A name that is not UTF-8 is not one of the cache.
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                visit(name);
            }
        }
        Ok(())
    }

    fn open_directory(&self, name: &str) -> io::Result<Box<dyn Directory>> {
        let directory = rustix::fs::openat(&self.dir, name, ENTER, Mode::empty())?;
        Ok(Box::new(Self {
            dir: Dir::from_std_file(directory.into()),
            permissions: self.permissions,
        }))
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        match self.permissions {
            Permissions::OwnerOnly => self.dir.create_dir_with(name, DirBuilder::new().mode(0o700)),
            Permissions::Shared { .. } => self.create_shared_directory(name),
        }
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::from(self.reopen()?).sync_all()
    }

    fn file_system(&self) -> io::Result<FileSystem> {
        file_system(&self.dir)
    }
}

/// Returns the kind of a file system by its type.
#[cfg(target_os = "linux")]
fn file_system(dir: &Dir) -> io::Result<FileSystem> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "magic numbers have 32 bits, whatever the width of the field is"
    )]
    let number = rustix::fs::fstatfs(dir)?.f_type as u32;
    Ok(kind(number))
}

/// Returns the kind of a file system by its magic number.
#[cfg(target_os = "linux")]
fn kind(number: u32) -> FileSystem {
    const EXT: u32 = 0xEF53;
    const XFS: u32 = 0x5846_5342;
    const BTRFS: u32 = 0x9123_683E;
    const F2FS: u32 = 0xF2F5_2010;
    const ZFS: u32 = 0x2FC1_2FC1;
    const BCACHEFS: u32 = 0xCA45_1A4E;
    const TMPFS: u32 = 0x0102_1994;
    const OVERLAYFS: u32 = 0x794C_7630;
    const NFS: u32 = 0x6969;
    const SMB: u32 = 0x517B;
    const SMB_1: u32 = 0xFF53_4D42;
    const SMB_2: u32 = 0xFE53_4D42;
    const AFS: u32 = 0x5346_414F;
    const PLAN_9: u32 = 0x0102_1997;
    match number {
        EXT | XFS | BTRFS | F2FS | ZFS | BCACHEFS | TMPFS | OVERLAYFS => FileSystem::Local,
        NFS => FileSystem::Network("nfs"),
        SMB | SMB_1 | SMB_2 => FileSystem::Network("smb"),
        AFS => FileSystem::Network("afs"),
        PLAN_9 => FileSystem::Network("9p"),
        _ => FileSystem::Unknown,
    }
}

/// Returns the kind of a file system by its flag for local ones.
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
fn file_system(dir: &Dir) -> io::Result<FileSystem> {
    const MNT_LOCAL: u64 = 0x1000;
    #[allow(clippy::useless_conversion, reason = "the width of the field differs between systems")]
    let flags = u64::from(rustix::fs::fstatfs(dir)?.f_flags);
    let is_local = flags & MNT_LOCAL != 0;
    // Their change time does not detect that a file was replaced.
    Ok(if is_local { FileSystem::Unknown } else { FileSystem::Network("network") })
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple", target_os = "freebsd")))]
fn file_system(_: &Dir) -> io::Result<FileSystem> {
    Ok(FileSystem::Unknown)
}

/// Opens a file in the directory or a subdirectory without following a symbolic link: one system call.
#[cfg(target_os = "linux")]
fn open_beneath(dir: &Dir, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    use rustix::io::Errno;
    const BENEATH: ResolveFlags =
        ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
    match rustix::fs::openat2(dir, path, flags, Mode::empty(), BENEATH) {
        // An old kernel, a sandbox that denies the call, or a concurrent rename.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => open_step_by_step(dir, path, flags),
        result => Ok(result?),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_beneath(dir: &Dir, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    open_step_by_step(dir, path, flags)
}

fn open_step_by_step(dir: &Dir, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    match path.split_once('/') {
        None => Ok(rustix::fs::openat(dir, path, flags, Mode::empty())?),
        Some((directory, name)) => {
            let directory = rustix::fs::openat(dir, directory, ENTER, Mode::empty())?;
            Ok(rustix::fs::openat(directory, name, flags, Mode::empty())?)
        }
    }
}

/// A file of the file system.
#[derive(Debug)]
struct DiskFile {
    file: fs::File,
    is_locked: bool,
}

impl DiskFile {
    fn new(file: impl Into<fs::File>) -> Self {
        Self { file: file.into(), is_locked: false }
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        if self.is_locked {
            // To close the file is not enough while a child process has a copy of its descriptor.
            let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
        }
    }
}

impl File for DiskFile {
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let position = buffer.len() as u64;
        Ok(rustix::io::pread(&self.file, rustix::buffer::spare_capacity(buffer), position)?)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.file, bytes)?)
    }

    fn overwrite(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::pwrite(&self.file, bytes, position)?)
    }

    fn status(&self) -> io::Result<Status> {
        Ok(status(&rustix::fs::fstat(&self.file)?))
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[allow(
    clippy::unnecessary_cast,
    clippy::cast_sign_loss,
    clippy::useless_conversion,
    clippy::unnecessary_fallible_conversions,
    reason = "the types of these fields differ between systems"
)]
fn status(stat: &Stat) -> Status {
    let file_type = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
        rustix::fs::FileType::RegularFile => FileType::File,
        rustix::fs::FileType::Directory => FileType::Directory,
        _ => FileType::Other,
    };
    let modified = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
    let changed = Duration::new(
        u64::try_from(stat.st_ctime).unwrap_or(0),
        u32::try_from(stat.st_ctime_nsec).unwrap_or(0),
    );
    Status {
        file_type,
        length: u64::try_from(stat.st_size).unwrap_or(0),
        modified: SystemTime::UNIX_EPOCH + modified,
        id: (stat.st_dev as u64, stat.st_ino as u64),
        changed: SystemTime::UNIX_EPOCH + changed,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn file_systems_are_recognized_by_their_magic_numbers() {
        let numbers = [0xEF53, 0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x5346_414F, 0x0102_1997];
        let expected = [
            FileSystem::Local,
            FileSystem::Network("nfs"),
            FileSystem::Network("smb"),
            FileSystem::Network("smb"),
            FileSystem::Network("smb"),
            FileSystem::Network("afs"),
            FileSystem::Network("9p"),
        ];
        assert_eq!(numbers.map(kind), expected);
        assert_eq!(kind(0x6573_5546), FileSystem::Unknown, "FUSE");
    }
}

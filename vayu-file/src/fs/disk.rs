//! The file system.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::{FileType, FlockOperation, Gid, Mode, OFlags, Stat};

use super::{File, Folder, Kind, Status};
use crate::layout::temporary_name;
use crate::options::Access;

/// A directory of the file system, held open.
pub(crate) struct DiskFolder {
    dir: Dir,
    rights: Rights,
}

/// Who may use what is made.
#[derive(Debug, Clone, Copy)]
enum Rights {
    OwnerOnly,
    /// Those who may use the directory of the cache: its mode and its group.
    AnyValue {
        mode: u32,
        group: u32,
    },
}

impl DiskFolder {
    pub(crate) fn new(dir: Dir, access: Access) -> Self {
        let rights = match (access, dir.dir_metadata()) {
            (Access::AnyValue, Ok(metadata)) => {
                Rights::AnyValue { mode: metadata.mode(), group: metadata.gid() }
            }
            _ => Rights::OwnerOnly,
        };
        Self { dir, rights }
    }

    /// The directory opened again: a handle for paths only can neither be listed nor synced.
    fn readable(&self) -> io::Result<OwnedFd> {
        Ok(rustix::fs::openat(&self.dir, ".", ENTER, Mode::empty())?)
    }

    /// Makes a folder that others can use as soon as it has its name: the umask may have taken rights
    /// away, so they are given before.
    fn make_shared_folder(&self, name: &str) -> io::Result<()> {
        let mut random = [0; 16];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let temporary = temporary_name(random);
        self.dir.create_dir_with(&temporary, DirBuilder::new().mode(0o700))?;
        let named = rustix::fs::openat(&self.dir, &*temporary, ENTER, Mode::empty())
            .map_err(io::Error::from)
            .map(|folder| self.rights.give(&folder, self.rights.folder()))
            .and_then(|()| rename_new(&self.dir, &temporary, name));
        if named.is_err() {
            let _ = self.dir.remove_dir(&temporary);
        }
        named
    }
}

/// Gives a folder a name that nothing has.
fn rename_new(dir: &Dir, from: &str, to: &str) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::RenameFlags;
        use rustix::io::Errno;
        match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
            // Not every file system can do that.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            result => return Ok(result?),
        }
    }
    // An empty folder is replaced, at worst under the hands of another process that writes to it.
    dir.rename(from, dir, to)
}

impl Rights {
    /// The mode of a new file.
    fn file(self) -> u32 {
        match self {
            Self::OwnerOnly => 0o600,
            Self::AnyValue { mode, .. } => 0o600 | (mode & 0o666),
        }
    }

    /// The mode of a new folder.
    fn folder(self) -> u32 {
        match self {
            Self::OwnerOnly => 0o700,
            Self::AnyValue { mode, .. } => 0o700 | (mode & 0o2777),
        }
    }

    /// Gives what was made to those who are to use it, whatever the umask is. It may belong to another
    /// user, who has done so, or to a group that this user is not in: then it stays as it is.
    fn give(self, file: &OwnedFd, mode: u32) {
        let Self::AnyValue { group, .. } = self else { return };
        if rustix::fs::fstat(file).is_ok_and(|stat| stat.st_gid != group) {
            let _ = rustix::fs::fchown(file, None, Some(Gid::from_raw(group)));
        }
        let _ = rustix::fs::fchmod(file, Mode::from_raw_mode(mode));
    }
}

/// The path of a handle would have to be asked of the system.
impl fmt::Debug for DiskFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskFolder").field("rights", &self.rights).finish_non_exhaustive()
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

impl Folder for DiskFolder {
    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(DiskFile(open_beneath(&self.dir, path, READ)?)))
    }

    fn open_to_append(&self, path: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(DiskFile(open_beneath(&self.dir, path, APPEND)?)))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(self.rights.file());
        let file = self.dir.open_with(name, &options)?.into_std().into();
        self.rights.give(&file, self.rights.file());
        Ok(Box::new(DiskFile(file)))
    }

    fn update(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file = rustix::fs::openat(&self.dir, name, UPDATE, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if status(&stat).kind != Kind::File || stat.st_nlink != 1 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Box::new(DiskFile(file)))
    }

    fn open_lock(&self, name: &str) -> io::Result<Box<dyn File>> {
        let flags = READ.union(OFlags::CREATE);
        let file =
            rustix::fs::openat(&self.dir, name, flags, Mode::from_raw_mode(self.rights.file()))?;
        self.rights.give(&file, self.rights.file());
        Ok(Box::new(DiskFile(file)))
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
        for entry in rustix::fs::Dir::new(self.readable()?)? {
            // A name that is not text is none of ours.
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                visit(name);
            }
        }
        Ok(())
    }

    fn folder(&self, name: &str) -> io::Result<Box<dyn Folder>> {
        let folder = rustix::fs::openat(&self.dir, name, ENTER, Mode::empty())?;
        Ok(Box::new(Self { dir: Dir::from_std_file(folder.into()), rights: self.rights }))
    }

    fn make_folder(&self, name: &str) -> io::Result<()> {
        match self.rights {
            Rights::OwnerOnly => self.dir.create_dir_with(name, DirBuilder::new().mode(0o700)),
            Rights::AnyValue { .. } => self.make_shared_folder(name),
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.readable()?)?)
    }

    fn is_local(&self) -> io::Result<bool> {
        is_local(&self.dir)
    }
}

/// Whether it is one of the file systems that are known to be of this machine alone. A network may
/// tell what was true a while ago.
#[cfg(target_os = "linux")]
fn is_local(dir: &Dir) -> io::Result<bool> {
    const EXT: u32 = 0xEF53;
    const XFS: u32 = 0x5846_5342;
    const BTRFS: u32 = 0x9123_683E;
    const F2FS: u32 = 0xF2F5_2010;
    const ZFS: u32 = 0x2FC1_2FC1;
    const BCACHEFS: u32 = 0xCA45_1A4E;
    const TMPFS: u32 = 0x0102_1994;
    const OVERLAYFS: u32 = 0x794C_7630;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the numbers have 32 bits, and a word of the processor carries them"
    )]
    let number = rustix::fs::fstatfs(dir)?.f_type as u32;
    Ok([EXT, XFS, BTRFS, F2FS, ZFS, BCACHEFS, TMPFS, OVERLAYFS].contains(&number))
}

#[cfg(not(target_os = "linux"))]
fn is_local(_: &Dir) -> io::Result<bool> {
    Ok(false)
}

/// Opens a file below the directory without following any link. Fast: one system call.
#[cfg(target_os = "linux")]
fn open_beneath(dir: &Dir, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    use rustix::io::Errno;
    const BENEATH: ResolveFlags =
        ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
    match rustix::fs::openat2(dir, path, flags, Mode::empty(), BENEATH) {
        // An old kernel, a sandbox that does not know the call, or a rename at that moment.
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
        Some((folder, name)) => {
            let folder = rustix::fs::openat(dir, folder, ENTER, Mode::empty())?;
            Ok(rustix::fs::openat(folder, name, flags, Mode::empty())?)
        }
    }
}

/// A file of the file system.
#[derive(Debug)]
struct DiskFile(OwnedFd);

impl File for DiskFile {
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let position = buffer.len() as u64;
        Ok(rustix::io::pread(&self.0, rustix::buffer::spare_capacity(buffer), position)?)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(&self.0, bytes)?)
    }

    fn overwrite(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::pwrite(&self.0, bytes, position)?)
    }

    fn status(&self) -> io::Result<Status> {
        Ok(status(&rustix::fs::fstat(self.0.as_fd())?))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(&self.0)?)
    }

    fn try_lock(&self) -> io::Result<bool> {
        match rustix::fs::flock(&self.0, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn status(stat: &Stat) -> Status {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Folder,
        _ => Kind::Other,
    };
    let modified = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
    let changed = Duration::new(
        u64::try_from(stat.st_ctime).unwrap_or(0),
        u32::try_from(stat.st_ctime_nsec).unwrap_or(0),
    );
    Status {
        kind,
        length: u64::try_from(stat.st_size).unwrap_or(0),
        modified: SystemTime::UNIX_EPOCH + modified,
        id: (stat.st_dev, stat.st_ino),
        changed: SystemTime::UNIX_EPOCH + changed,
    }
}

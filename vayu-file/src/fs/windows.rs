//! [`Directory`] and [`File`] on the file system of Windows.
//!
//! Every file is opened so that others may read, write, replace and remove it. Other programs, such as virus
//! scanners, open files without that for moments: an operation that fails for this reason is repeated.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::windows::fs::FileExt;
use std::thread;
use std::time::{Duration, SystemTime};

use cap_fs_ext::{DirExt, FollowSymlinks, MetadataExt, OpenOptionsFollowExt};
use cap_std::fs::{Dir, Metadata, MetadataExt as _, OpenOptions, OpenOptionsExt};

use super::{Directory, File, FileSystem, FileType, Status};
use crate::errno::{codes, has_code, is_open_elsewhere, pauses};
use crate::options::Access;

/// An open directory. It cannot be renamed or removed while it is open.
pub(crate) struct DiskDirectory(Dir);

const FILE_SHARE_DELETE: u32 = 4;
const FILE_FLAG_BACKUP_SEMANTICS: u32 = 0x0200_0000;
const FILE_ATTRIBUTE_REPARSE_POINT: u32 = 0x0400;

/// Runs an operation, and repeats it for a sixteenth of a second while another program has the file open.
fn retry<T>(operation: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for pause in pauses() {
        match operation() {
            Err(error) if is_open_elsewhere(&error) => thread::sleep(pause),
            result => return result,
        }
    }
    operation()
}

impl DiskDirectory {
    pub(crate) fn new(dir: Dir, _: Access) -> Self {
        Self(dir)
    }

    /// Runs an operation with the directory of a path and the name in it.
    fn at<T>(&self, path: &str, operation: impl Fn(&Dir, &str) -> io::Result<T>) -> io::Result<T> {
        retry(|| match path.split_once('/') {
            None => operation(&self.0, path),
            Some((directory, name)) => operation(&self.0.open_dir_nofollow(directory)?, name),
        })
    }

    fn open_with(&self, path: &str, options: &OpenOptions) -> io::Result<Box<dyn File>> {
        let file = self.at(path, |dir, name| open(dir, name, options))?;
        Ok(Box::new(DiskFile(file)))
    }
}

/// Opens a file, or a directory of this name. Fails on a symbolic link or a junction.
fn open(dir: &Dir, name: &str, options: &OpenOptions) -> io::Result<fs::File> {
    let mut options = options.clone();
    // Without it, a directory would be an access that is denied.
    options.follow(FollowSymlinks::No).custom_flags(FILE_FLAG_BACKUP_SEMANTICS);
    Ok(dir.open_with(name, &options)?.into_std())
}

impl fmt::Debug for DiskDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskDirectory").finish_non_exhaustive()
    }
}

impl Directory for DiskDirectory {
    fn open(&self, path: &str) -> io::Result<Box<dyn File>> {
        self.open_with(path, OpenOptions::new().read(true))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        self.open_with(name, OpenOptions::new().write(true).create_new(true))
    }

    fn update(&self, name: &str) -> io::Result<Box<dyn File>> {
        let file =
            self.at(name, |dir, name| open(dir, name, OpenOptions::new().read(true).write(true)))?;
        let metadata = Metadata::from_file(&file)?;
        if status(&metadata)?.file_type != FileType::File || metadata.nlink() != 1 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Box::new(DiskFile(file)))
    }

    fn open_to_append(&self, path: &str) -> io::Result<Box<dyn File>> {
        self.open_with(path, OpenOptions::new().append(true))
    }

    /// Opens the file without sharing it with others that would write to it.
    fn try_lock(&self, name: &str) -> io::Result<Option<Box<dyn File>>> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).share_mode(FILE_SHARE_DELETE);
        self.at(name, |dir, name| match open(dir, name, &options) {
            Ok(file) => Ok(Some(Box::new(DiskFile(file)) as Box<dyn File>)),
            Err(error) if has_code(&error, &[codes::SHARING_VIOLATION]) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, &self.0, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        retry(|| match self.0.remove_file(name) {
            // The access to a directory is denied, too.
            Err(error) if is_open_elsewhere(&error) && self.0.is_dir(name) => {
                Err(io::Error::from_raw_os_error(codes::DIRECTORY))
            }
            removed => removed,
        })
    }

    fn status(&self, path: &str) -> io::Result<Status> {
        self.at(path, |dir, name| status(&dir.symlink_metadata(name)?))
    }

    fn list(&self, visit: &mut dyn FnMut(&str)) -> io::Result<()> {
        for entry in self.0.entries()? {
            // A name that is not UTF-8 is not one of the cache.
            if let Ok(name) = entry?.file_name().into_string() {
                visit(&name);
            }
        }
        Ok(())
    }

    fn open_directory(&self, name: &str) -> io::Result<Box<dyn Directory>> {
        self.at(name, |dir, name| Ok(Box::new(Self(dir.open_dir_nofollow(name)?)) as _))
    }

    fn create_directory(&self, name: &str) -> io::Result<()> {
        self.0.create_dir(name)
    }

    /// Returns at once: a program without special rights cannot sync the names in a directory.
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    /// Returns that it is unknown, so that no files are kept open: other programs could not replace them.
    fn file_system(&self) -> io::Result<FileSystem> {
        Ok(FileSystem::Unknown)
    }
}

/// A file of the file system.
#[derive(Debug)]
struct DiskFile(fs::File);

impl File for DiskFile {
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let length = buffer.len();
        buffer.resize(buffer.capacity(), 0);
        let read = self.0.seek_read(&mut buffer[length..], length as u64);
        buffer.truncate(length + read.as_ref().map_or(0, |&read| read));
        read
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn overwrite(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.seek_write(bytes, position)
    }

    fn status(&self) -> io::Result<Status> {
        status(&Metadata::from_file(&self.0)?)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

fn status(metadata: &Metadata) -> io::Result<Status> {
    let file_type = if metadata.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0 {
        FileType::Other
    } else if metadata.is_dir() {
        FileType::Directory
    } else {
        FileType::File
    };
    let changed = metadata.modified()?.into_std();
    let since_epoch = changed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Status {
        file_type,
        length: metadata.len(),
        modified: SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs()),
        id: (metadata.dev(), metadata.ino()),
        changed,
    })
}

//! File system access, as much of it as the backend needs.
//!
//! All access goes through [`Directory`] and [`File`]. Each method is one operation that can fail, so
//! that tests can inject a failure of each.

#[cfg(test)]
pub(crate) mod model;
mod none;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::fmt::Debug;
use std::io;
use std::time::SystemTime;

pub(crate) use self::none::NoDirectory;
#[cfg(unix)]
pub(crate) use self::unix::{DiskDirectory, to_mode};
#[cfg(windows)]
pub(crate) use self::windows::DiskDirectory;

/// An open directory. A name is a single component, a path a name or `directory/name`. No operation
/// leaves the directory or follows a symbolic link.
pub(crate) trait Directory: Debug + Send + Sync {
    /// Opens a file for reading. Does not block.
    fn open(&self, path: &str) -> io::Result<Box<dyn File>>;

    /// Creates a file for writing. It must not exist.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file for reading and for overwriting it in place. It must exist, be a regular file, and
    /// have no other name.
    fn update(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file for appending. Does not block. Concurrent writes do not interleave.
    fn open_to_append(&self, path: &str) -> io::Result<Box<dyn File>>;

    /// Tries to lock a file, and creates it if it does not exist. Does not wait. `None` if it is locked
    /// already. The lock is released when the file is closed, and when the process dies, unless a child process has a copy of
    /// the descriptor then.
    fn try_lock(&self, name: &str) -> io::Result<Option<Box<dyn File>>>;

    /// Renames a file, and replaces a file that has the new name. Some systems replace no open file.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Returns the status of a file, or of a symbolic link itself.
    fn status(&self, path: &str) -> io::Result<Status>;

    /// Calls `visit` with each name.
    fn list(&self, visit: &mut dyn FnMut(&str)) -> io::Result<()>;

    /// Opens a subdirectory.
    fn open_directory(&self, name: &str) -> io::Result<Box<dyn Directory>>;

    /// Creates a subdirectory.
    fn create_directory(&self, name: &str) -> io::Result<()>;

    /// Waits until the names in this directory would survive a power loss.
    fn sync(&self) -> io::Result<()>;

    /// Returns the kind of the file system.
    fn file_system(&self) -> io::Result<FileSystem>;
}

/// The kind of a file system.
#[cfg_attr(
    not(any(test, target_os = "linux")),
    allow(dead_code, reason = "other systems tell fewer kinds apart")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// One that belongs to this machine alone, so that a status is never outdated.
    Local,
    /// One that other machines change, and whose status is cached for seconds or minutes; its type.
    Network(&'static str),
    /// Any other.
    Unknown,
}

/// An open file, closed when it is dropped.
pub(crate) trait File: Debug + Send + Sync {
    /// Reads at the position that is the length of the buffer, and appends up to its spare capacity.
    /// Returns the number of bytes, 0 at the end of the file.
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize>;

    /// Writes at the current position. Returns the number of bytes written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes at a position. Returns the number of bytes written. Overwriting needs no disk space.
    fn overwrite(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Returns the status of the file.
    fn status(&self) -> io::Result<Status>;

    /// Waits until the content would survive a power loss.
    fn sync(&self) -> io::Result<()>;
}

/// The metadata of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) file_type: FileType,
    /// The length in bytes.
    pub(crate) length: u64,
    /// The modification time in whole seconds, by the clock of the file system.
    pub(crate) modified: SystemTime,
    /// The device and the number of the file on it. No other file has the same while this one exists or
    /// is open.
    pub(crate) id: (u64, u64),
    /// The change time: the last write, rename, or change of mode or owner. On Windows, the time of the
    /// last write.
    pub(crate) changed: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileType {
    File,
    Directory,
    /// A symbolic link, a pipe, a socket or a device.
    Other,
}

/// Reads once, and retries when a signal interrupts it.
pub(crate) fn read_some(file: &dyn File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads up to `length` bytes.
pub(crate) fn read_up_to(file: &dyn File, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = buffer(length)?;
    read_full(file, &mut bytes)?;
    Ok(bytes)
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_full(file: &dyn File, buffer: &mut Vec<u8>) -> io::Result<()> {
    while buffer.len() < buffer.capacity() && read_some(file, buffer)? > 0 {}
    Ok(())
}

/// Allocates an empty buffer. A failed allocation is an error.
pub(crate) fn buffer(capacity: u64) -> io::Result<Vec<u8>> {
    let capacity = usize::try_from(capacity).map_err(io::Error::other)?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(capacity)?;
    Ok(buffer)
}

/// Writes all bytes.
pub(crate) fn write_full(file: &mut dyn File, bytes: &[u8]) -> io::Result<()> {
    write_all(bytes, |_, rest| file.write(rest))
}

/// Writes all bytes at a position.
pub(crate) fn overwrite_full(file: &mut dyn File, position: u64, bytes: &[u8]) -> io::Result<()> {
    write_all(bytes, |written, rest| file.overwrite(position + written as u64, rest))
}

/// Calls `write` with the number of bytes that are written and the rest, until there is no rest.
fn write_all(
    bytes: &[u8],
    mut write: impl FnMut(usize, &[u8]) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match write(done, &bytes[done..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => done += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

//! Classification of errors of the file system.

use std::io;
use std::iter;
use std::time::Duration;

use vayu_core::{Error, ErrorKind};

/// The errors of the same name of Unix, on which tests let operations fail.
#[cfg(all(test, unix))]
pub(crate) use rustix::io::Errno;

/// Error codes of Unix.
#[cfg(unix)]
mod codes {
    use rustix::io::Errno;

    /// `SPIPE` is returned by a read of a pipe that another process holds open, `AGAIN` by a device.
    pub(super) const FOREIGN: &[i32] = &[
        Errno::LOOP.raw_os_error(),
        Errno::NXIO.raw_os_error(),
        Errno::XDEV.raw_os_error(),
        Errno::STALE.raw_os_error(),
        Errno::ISDIR.raw_os_error(),
        Errno::NOTDIR.raw_os_error(),
        Errno::SPIPE.raw_os_error(),
        Errno::AGAIN.raw_os_error(),
    ];
    pub(super) const FULL: &[i32] = &[Errno::NOSPC.raw_os_error(), Errno::DQUOT.raw_os_error()];
    pub(super) const OUT_OF_DESCRIPTORS: &[i32] =
        &[Errno::MFILE.raw_os_error(), Errno::NFILE.raw_os_error()];
    /// Returned by file systems of Windows servers.
    pub(super) const OPEN_ELSEWHERE: &[i32] =
        &[Errno::BUSY.raw_os_error(), Errno::TXTBSY.raw_os_error()];
}

/// Error codes of Windows.
#[cfg(windows)]
pub(crate) mod codes {
    /// Returned by a read of a directory.
    const INVALID_FUNCTION: i32 = 1;
    pub(crate) const TOO_MANY_OPEN_FILES: i32 = 4;
    /// Also returned for a file that is open and would be replaced.
    pub(crate) const ACCESS_DENIED: i32 = 5;
    pub(crate) const NOT_SAME_DEVICE: i32 = 17;
    pub(crate) const SHARING_VIOLATION: i32 = 32;
    pub(crate) const LOCK_VIOLATION: i32 = 33;
    const HANDLE_DISK_FULL: i32 = 39;
    pub(crate) const DISK_FULL: i32 = 112;
    pub(crate) const DIRECTORY: i32 = 267;
    /// The file was removed, and is still open.
    pub(crate) const DELETE_PENDING: i32 = 303;
    pub(crate) const STOPPED_ON_SYMLINK: i32 = 681;
    /// The file is mapped into memory, as virus scanners do.
    pub(crate) const USER_MAPPED_FILE: i32 = 1224;
    pub(crate) const DISK_QUOTA_EXCEEDED: i32 = 1295;

    pub(super) const FOREIGN: &[i32] =
        &[INVALID_FUNCTION, NOT_SAME_DEVICE, DIRECTORY, DELETE_PENDING, STOPPED_ON_SYMLINK];
    pub(super) const FULL: &[i32] = &[HANDLE_DISK_FULL, DISK_FULL, DISK_QUOTA_EXCEEDED];
    pub(super) const OUT_OF_DESCRIPTORS: &[i32] = &[TOO_MANY_OPEN_FILES];
    pub(super) const OPEN_ELSEWHERE: &[i32] =
        &[ACCESS_DENIED, SHARING_VIOLATION, LOCK_VIOLATION, DELETE_PENDING, USER_MAPPED_FILE];
}

/// Returns whether the error means that there is no entry: nothing has the name, or something that
/// is not a file of the cache.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || has_code(error, codes::FOREIGN)
}

/// Returns whether the disk, or the quota of the user, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    has_code(error, codes::FULL)
}

/// Returns whether the process or the system has no file descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    has_code(error, codes::OUT_OF_DESCRIPTORS)
}

/// Returns whether the operation may have failed because the file is open, or was removed and is open
/// still. On Windows this is also the error of a missing permission.
pub(crate) fn is_open_elsewhere(error: &io::Error) -> bool {
    has_code(error, codes::OPEN_ELSEWHERE)
}

/// Returns the pauses between attempts of an operation that fails because a file is open: many of length
/// zero, as a reader has it open for microseconds, and then a sixteenth of a second together.
pub(crate) fn pauses() -> impl Iterator<Item = Duration> {
    iter::repeat_n(0, 32).chain([1, 2, 4, 8, 16, 32]).map(Duration::from_millis)
}

/// Returns whether the operating system returned one of these codes.
pub(crate) fn has_code(error: &io::Error, codes: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Converts an error of the file system into one of the backend.
pub(crate) fn failed(operation: &'static str, error: io::Error) -> Error {
    Error::new(ErrorKind::Backend, operation).with_source(error)
}

/// The errors of Windows that mean the same as those of Unix.
#[cfg(all(test, windows))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(i32);

#[cfg(all(test, windows))]
impl Errno {
    pub(crate) const ACCESS: Self = Self(codes::ACCESS_DENIED);
    pub(crate) const BUSY: Self = Self(codes::ACCESS_DENIED);
    pub(crate) const DQUOT: Self = Self(codes::DISK_QUOTA_EXCEEDED);
    pub(crate) const EXIST: Self = Self(80);
    /// `WSAEINTR`, the one code that is interrupted.
    pub(crate) const INTR: Self = Self(10004);
    /// `ERROR_IO_DEVICE`.
    pub(crate) const IO: Self = Self(1117);
    pub(crate) const LOOP: Self = Self(codes::STOPPED_ON_SYMLINK);
    pub(crate) const MFILE: Self = Self(codes::TOO_MANY_OPEN_FILES);
    pub(crate) const NOENT: Self = Self(2);
    pub(crate) const NOSPC: Self = Self(codes::DISK_FULL);
    pub(crate) const NOTDIR: Self = Self(codes::DIRECTORY);
    /// `ERROR_WRITE_PROTECT`.
    pub(crate) const ROFS: Self = Self(19);
    pub(crate) const STALE: Self = Self(codes::DELETE_PENDING);
    pub(crate) const XDEV: Self = Self(codes::NOT_SAME_DEVICE);
}

#[cfg(all(test, windows))]
impl From<Errno> for io::Error {
    fn from(Errno(code): Errno) -> Self {
        Self::from_raw_os_error(code)
    }
}

//! Classification of errors of the file system.

use std::io;

use rustix::io::Errno;
use vayu_core::{Error, ErrorKind};

/// Returns whether the error means that there is no entry: nothing has the name, or something that
/// is not a file of the cache.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    // `SPIPE` is returned by a read of a pipe that another process holds open, `AGAIN` by a device.
    let foreign = [
        Errno::LOOP,
        Errno::NXIO,
        Errno::XDEV,
        Errno::STALE,
        Errno::ISDIR,
        Errno::NOTDIR,
        Errno::SPIPE,
        Errno::AGAIN,
    ];
    error.kind() == io::ErrorKind::NotFound
        || Errno::from_io_error(error).is_some_and(|errno| foreign.contains(&errno))
}

/// Returns whether the disk, or the quota of the user, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

/// Returns whether the process or the system has no file descriptor left.
pub(crate) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Converts an error of the file system into one of the backend.
pub(crate) fn failed(operation: &'static str, error: io::Error) -> Error {
    Error::new(ErrorKind::Backend, operation).with_source(error)
}

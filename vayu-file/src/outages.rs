//! Outages of a directory: logged once when entries cannot be read or written, and once when they can
//! be again.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use vayu_core::__internal::{Outage, display_time};
use vayu_core::{Clock, Error};

use crate::errno::failed;

/// The outages of one directory: of reading entries, of reading generations and of writes.
#[derive(Debug)]
pub(crate) struct Outages {
    /// The path that the directory was opened with, if it was opened by path.
    path: OnceLock<Arc<Path>>,
    pub(crate) entries: Outage,
    pub(crate) generations: Outage,
    writes: Outage,
}

impl Outages {
    pub(crate) fn new(clock: &Arc<dyn Clock>) -> Self {
        let outage = || Outage::new(Arc::clone(clock));
        Self { path: OnceLock::new(), entries: outage(), generations: outage(), writes: outage() }
    }

    /// Sets the path, once.
    pub(crate) fn set_path(&self, path: Arc<Path>) {
        let _ = self.path.set(path);
    }

    /// Logs that the directory is on a network file system of this type.
    pub(crate) fn warn_of_network(&self, name: &str) {
        tracing::warn!(
            target: "vayu",
            "{} is on a network file system ({name}): changes by other machines may be seen late, \
             invalidations too, and locks may not work; use a local directory, or Redis or an object \
             store to share entries among machines",
            self.shown()
        );
    }

    /// Returns the error of reading an entry, and logs it if it begins an outage.
    #[cold]
    pub(crate) fn entry_failed(&self, error: io::Error) -> Error {
        self.read_failed(&self.entries, "read entry", error)
    }

    /// Returns the error of reading a generation, and logs it if it begins an outage.
    #[cold]
    pub(crate) fn generation_failed(&self, error: io::Error) -> Error {
        self.read_failed(&self.generations, "read generation", error)
    }

    fn read_failed(&self, outage: &Outage, operation: &'static str, error: io::Error) -> Error {
        if outage.failed() {
            tracing::warn!(
                target: "vayu",
                "{}: cannot {operation}: {error}; calls go on without the cache",
                self.shown()
            );
        }
        self.error(operation, error).logged_by_backend()
    }

    /// Returns the error of a write, and logs it if it begins an outage.
    #[cold]
    pub(crate) fn write_failed(&self, error: io::Error) -> Error {
        if self.writes.failed() {
            tracing::warn!(
                target: "vayu",
                "{}: cannot write entry: {error}; values are not stored",
                self.shown()
            );
        }
        self.error("write entry", error).logged_by_backend()
    }

    /// Records that an entry was read, or found to be absent.
    #[inline]
    pub(crate) fn entry_read(&self) {
        if let Some(time) = self.entries.succeeded() {
            let time = display_time(time);
            tracing::info!(target: "vayu", "{}: entries are read again after {time}", self.shown());
        }
    }

    /// Records that a generation was read, or found to be absent.
    #[inline]
    pub(crate) fn generation_read(&self) {
        if let Some(time) = self.generations.succeeded() {
            let (shown, time) = (self.shown(), display_time(time));
            tracing::info!(target: "vayu", "{shown}: generations are read again after {time}");
        }
    }

    /// Records that an entry was written.
    pub(crate) fn write_succeeded(&self) {
        if let Some(time) = self.writes.succeeded() {
            let time = display_time(time);
            tracing::info!(target: "vayu", "{}: entries are written again after {time}", self.shown());
        }
    }

    /// Returns the error of an operation on the directory.
    pub(crate) fn error(&self, operation: &'static str, error: io::Error) -> Error {
        failed(operation, io::Error::new(error.kind(), AtDirectory { path: self.shown(), error }))
    }

    fn shown(&self) -> String {
        match self.path.get() {
            Some(path) => format!("cache directory `{}`", path.display()),
            None => "cache directory".to_owned(),
        }
    }
}

/// An error with the path of the directory.
#[derive(Debug)]
struct AtDirectory {
    path: String,
    error: io::Error,
}

impl fmt::Display for AtDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.error)
    }
}

impl std::error::Error for AtDirectory {}

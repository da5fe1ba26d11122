//! Outages of a directory: logged once when entries cannot be read or written, and once when they can
//! be again.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use vayu_core::__internal::{Outage, display_time};
use vayu_core::{Clock, Error};

use crate::errno::failed;

/// The outages of reads and of writes of one directory.
#[derive(Debug)]
pub(crate) struct Outages {
    /// The path that the directory was opened with, if it was opened by path.
    path: OnceLock<Arc<Path>>,
    reads: Outage,
    writes: Outage,
}

impl Outages {
    pub(crate) fn new(clock: &Arc<dyn Clock>) -> Self {
        let outage = || Outage::new(Arc::clone(clock));
        Self { path: OnceLock::new(), reads: outage(), writes: outage() }
    }

    /// Sets the path, once.
    pub(crate) fn set_path(&self, path: Arc<Path>) {
        let _ = self.path.set(path);
    }

    /// Returns the error of a read, and logs it if it begins an outage.
    #[cold]
    pub(crate) fn read_failed(&self, operation: &'static str, error: io::Error) -> Error {
        if self.reads.failed() {
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
    pub(crate) fn read_succeeded(&self) {
        if let Some(time) = self.reads.succeeded() {
            let time = display_time(time);
            tracing::info!(target: "vayu", "{}: entries are read again after {time}", self.shown());
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
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
struct AtDirectory {
    path: String,
    error: io::Error,
}

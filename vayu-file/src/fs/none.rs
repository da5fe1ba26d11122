//! The directory of a cache that is off.

use std::io;

use crate::fs::{Directory, File, FileSystem, Status};

/// A directory that does not exist: every operation fails with [`io::ErrorKind::NotFound`].
#[derive(Debug)]
pub(crate) struct NoDirectory;

fn missing<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotFound.into())
}

impl Directory for NoDirectory {
    fn open(&self, _: &str) -> io::Result<Box<dyn File>> {
        missing()
    }

    fn open_to_append(&self, _: &str) -> io::Result<Box<dyn File>> {
        missing()
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn File>> {
        missing()
    }

    fn update(&self, _: &str) -> io::Result<Box<dyn File>> {
        missing()
    }

    fn try_lock(&self, _: &str) -> io::Result<Option<Box<dyn File>>> {
        missing()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        missing()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        missing()
    }

    fn status(&self, _: &str) -> io::Result<Status> {
        missing()
    }

    fn list(&self, _: &mut dyn FnMut(&str)) -> io::Result<()> {
        missing()
    }

    fn open_directory(&self, _: &str) -> io::Result<Box<dyn Directory>> {
        missing()
    }

    fn create_directory(&self, _: &str) -> io::Result<()> {
        missing()
    }

    fn sync(&self) -> io::Result<()> {
        missing()
    }

    fn file_system(&self) -> io::Result<FileSystem> {
        missing()
    }
}

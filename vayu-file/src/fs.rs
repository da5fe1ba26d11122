//! The files below one directory, as far as the backend needs them.
//!
//! Everything that touches the file system goes through [`Folder`] and [`File`], each method one
//! operation that can fail, so that every failure of each can be had in a test.

mod disk;
#[cfg(test)]
pub(crate) mod model;
mod none;

use std::fmt::Debug;
use std::io;
use std::time::SystemTime;

use rustix::fs::Dev;

pub(crate) use self::disk::DiskFolder;
pub(crate) use self::none::NoFolder;

/// An open directory. Names are single components; nothing outside is ever reached.
pub(crate) trait Folder: Debug + Send + Sync {
    /// Opens a file to read it. The path is a name in this folder, or `folder/name`. No link is
    /// followed, and nothing is waited for.
    fn open(&self, path: &str) -> io::Result<Box<dyn File>>;

    /// Makes a file that must not exist, to write it. Only its owner may read it.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file to read it and to overwrite it in place. It must exist, be a regular file, and
    /// have no other name.
    fn update(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file to append to it. The path is as in [`open`](Self::open); no link is followed, and
    /// nothing is waited for. What is written in one piece stays in one piece, whoever else appends.
    fn open_to_append(&self, path: &str) -> io::Result<Box<dyn File>>;

    /// Opens a file to lock it, and makes it if it does not exist.
    fn open_lock(&self, name: &str) -> io::Result<Box<dyn File>>;

    /// Gives a file another name, in the place of whatever file has it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// What a name in this folder, or `folder/name`, stands for; a link that has the name is not
    /// followed.
    fn status(&self, name: &str) -> io::Result<Status>;

    /// Calls `visit` with each name.
    fn list(&self, visit: &mut dyn FnMut(&str)) -> io::Result<()>;

    /// Opens a folder in this one. No link is followed.
    fn folder(&self, name: &str) -> io::Result<Box<dyn Folder>>;

    /// Makes a folder in this one that only its owner may enter.
    fn make_folder(&self, name: &str) -> io::Result<()>;

    /// Returns once the names in this folder would survive a loss of power.
    fn sync(&self) -> io::Result<()>;

    /// Whether all that is known of the files here is known at once: no other machine, and no
    /// program, may change them behind the back of this system.
    fn is_local(&self) -> io::Result<bool>;
}

/// An open file. It is closed when it is dropped.
pub(crate) trait File: Debug + Send + Sync {
    /// Reads on from where the buffer ends, which holds the beginning of the file, and appends it,
    /// at most as much as that has room for without growing; how many bytes that were, zero at the
    /// end.
    fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize>;

    /// Writes on, as many bytes as the answer says.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes over what is at a position, as many bytes as is returned. That needs no space where
    /// there is something already.
    fn overwrite(&mut self, position: u64, bytes: &[u8]) -> io::Result<usize>;

    /// What it is.
    fn status(&self) -> io::Result<Status>;

    /// Returns once what was written would survive a loss of power.
    fn sync(&self) -> io::Result<()>;

    /// Takes the lock of the file, unless somebody else has it; whether it was taken. It is given
    /// back when the file is closed, and when the process dies.
    fn try_lock(&self) -> io::Result<bool>;
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) kind: Kind,
    /// In bytes.
    pub(crate) length: u64,
    /// The second in which it was last written, by the clock of the file system.
    pub(crate) modified: SystemTime,
    /// The device and its number there. No other file has them while it exists or is held open.
    pub(crate) id: (Dev, u64),
    /// When it was last written, renamed, or given to others, by the clock of the file system.
    pub(crate) changed: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Folder,
    /// A link, a pipe, a socket, a device.
    Other,
}

/// Reads once, unless a signal came in between.
pub(crate) fn read_some(file: &dyn File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match file.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads until the buffer is full or the file ends.
pub(crate) fn read_full(file: &dyn File, buffer: &mut Vec<u8>) -> io::Result<()> {
    while buffer.len() < buffer.capacity() && read_some(file, buffer)? > 0 {}
    Ok(())
}

/// An empty buffer for so many bytes, if there is the memory.
pub(crate) fn buffer(length: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(length)?;
    Ok(buffer)
}

/// Writes all of it.
pub(crate) fn write_full(file: &mut dyn File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

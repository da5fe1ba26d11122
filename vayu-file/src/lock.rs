//! The lock of a key among all processes: the process that has it computes.

use std::io;

use crate::fs::{File, Folder};

/// The lock of one key. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct KeyLock(Option<(Box<dyn File>, LockFile)>);

/// The file that was locked.
#[derive(Debug)]
pub(crate) struct LockFile {
    folder: Box<dyn Folder>,
    name: String,
}

/// How often to try again when the file was removed while it was being locked.
const ATTEMPTS: usize = 8;

/// Takes the lock of this name, if nobody has it.
pub(crate) fn try_lock(folder: Box<dyn Folder>, name: String) -> io::Result<Option<KeyLock>> {
    for _ in 0..ATTEMPTS {
        let lock = folder.open_lock(&name)?;
        if !lock.try_lock()? {
            return Ok(None);
        }
        // Whoever had it before has removed the file: then somebody else may have locked a new one.
        let is_the_file = folder
            .status(&name)
            .is_ok_and(|named| lock.status().is_ok_and(|locked| named.id == locked.id));
        if is_the_file {
            return Ok(Some(KeyLock(Some((lock, LockFile { folder, name })))));
        }
    }
    Ok(None)
}

impl KeyLock {
    /// Gives the lock back without waiting for the disk. The file is left.
    pub(crate) fn unlock(mut self) -> Option<LockFile> {
        let (lock, left) = self.0.take()?;
        drop(lock);
        Some(left)
    }
}

impl LockFile {
    /// Removes the file, unless another caller has the lock by now, which then removes it.
    pub(crate) fn remove(self) {
        drop(try_lock(self.folder, self.name));
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While it is still locked, so that nobody who waits for this file gets the lock of one
        // that is gone without noticing. What cannot be removed is swept later.
        if let Some((lock, left)) = self.0.take() {
            let _ = left.folder.remove(&left.name);
            drop(lock);
        }
    }
}

//! The lock of a key among processes: the process that holds it computes.
//!
//! A lock is a locked file next to the entry: by `flock` on Unix, opened without sharing on Windows. The holder
//! removes the file before it releases the lock, so a process that gets the lock checks that the name still refers to
//! the locked file.

use std::io;

use crate::fs::{Directory, File};

/// The lock of one key, released when it is dropped.
#[derive(Debug)]
pub(crate) struct KeyLock(Option<(Box<dyn File>, LockFile)>);

/// The name of a locked file.
#[derive(Debug)]
pub(crate) struct LockFile {
    shard: Box<dyn Directory>,
    name: String,
}

/// The number of attempts when the file is removed while it is being locked.
const ATTEMPTS: usize = 8;

/// Tries to lock the file of this name. `None` if it is locked already.
pub(crate) fn try_lock(shard: Box<dyn Directory>, name: String) -> io::Result<Option<KeyLock>> {
    for _ in 0..ATTEMPTS {
        let Some(lock) = shard.try_lock(&name)? else { return Ok(None) };
        // The previous holder may have removed the file, and another process locked a new one.
        let is_current = shard
            .status(&name)
            .is_ok_and(|named| lock.status().is_ok_and(|locked| named.id == locked.id));
        if is_current {
            return Ok(Some(KeyLock(Some((lock, LockFile { shard, name })))));
        }
    }
    Ok(None)
}

impl KeyLock {
    /// Releases the lock without waiting for the disk. The file remains.
    pub(crate) fn unlock(mut self) -> Option<LockFile> {
        let (lock, file) = self.0.take()?;
        drop(lock);
        Some(file)
    }
}

impl LockFile {
    /// Removes the file, unless another caller holds the lock by now and will remove it.
    pub(crate) fn remove(self) {
        drop(try_lock(self.shard, self.name));
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Remove first: a process that waits for this file then sees that it was removed. If that
        // fails, a sweep removes the file later.
        if let Some((lock, file)) = self.0.take() {
            let _ = file.shard.remove(&file.name);
            drop(lock);
        }
    }
}

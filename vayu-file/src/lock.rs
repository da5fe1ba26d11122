//! The lock of a key among all processes: whoever has it computes.

use std::io;

use crate::folder::{File, Folder};

/// The lock of one key. It is given back when this is dropped.
#[derive(Debug)]
pub(crate) struct KeyLock {
    folder: Box<dyn Folder>,
    name: String,
    _lock: Box<dyn File>,
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
            return Ok(Some(KeyLock { folder, name, _lock: lock }));
        }
    }
    Ok(None)
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // While it is still locked, so that nobody who waits for this file gets the lock of one
        // that is gone without noticing. What cannot be removed is swept later.
        let _ = self.folder.remove(&self.name);
    }
}

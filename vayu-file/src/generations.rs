//! The generations of groups, each in a file of its own.
//!
//! A generation is 16 random bytes; to bump it replaces the file. On a full disk that can fail, and an
//! invalidation must not: then the file is overwritten in place, oldest entries are evicted, and
//! finally all entries are removed.

use std::io;

use vayu_core::{Group, Invalidation, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::errno::is_full;
use crate::fs::{buffer, overwrite_full, read_full};
use crate::layout::{EntryPath, shard_name};
use crate::offload::CancelFlag;
use crate::options::Durability;
use crate::random::random_bytes;
use crate::store::Store;

/// The number of random bytes of a generation.
pub(crate) const LENGTH: usize = 16;

impl Store {
    /// Returns the generation of a group: a hash of its file, or 0 without one. A damaged file is a
    /// different generation.
    pub(crate) fn generation(&self, group: Group) -> Result<u64> {
        let path = EntryPath::of_generation(group);
        let generation = match self.open_files.with_fd_retry(|| self.read_generation(&path)) {
            Ok(bytes) => xxh3_64(&bytes) | 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(self.outages.generation_failed(error)),
        };
        self.outages.generation_read();
        Ok(generation)
    }

    fn read_generation(&self, path: &EntryPath) -> io::Result<Vec<u8>> {
        let file = self.root.open(path.as_str())?;
        let mut bytes = buffer(LENGTH as u64)?;
        read_full(&*file, &mut bytes)?;
        Ok(bytes)
    }

    /// Bumps the generation of a group, and publishes that.
    pub(crate) fn invalidate(&self, group: Group) -> Result<()> {
        self.publish(Invalidation::Generations)?;
        self.bump(group)?;
        self.publish(Invalidation::Generations)
    }

    /// Bumps the generation of a group. Where there is no space for a new file, it is overwritten in
    /// place, or entries are removed.
    pub(crate) fn bump(&self, group: Group) -> Result<()> {
        let path = EntryPath::of_generation(group);
        let bytes: [u8; LENGTH] =
            random_bytes().map_err(|error| self.outages.error("write generation", error))?;
        let write = || self.replace(&path, &bytes, &CancelFlag::never(), || Ok(())).map(|_| ());
        let Err(mut error) = write() else { return Ok(()) };
        if self.overwrite_generation(&path, &bytes).is_ok() {
            return Ok(());
        }
        while is_full(&error) && self.free_space() {
            match write() {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
        let removed = write().or_else(|_| self.remove_all());
        removed.map_err(|_| self.outages.error("write generation", error))
    }

    /// Overwrites a generation in place, which needs no space. A partial write is a new generation,
    /// too.
    fn overwrite_generation(&self, path: &EntryPath, bytes: &[u8]) -> io::Result<()> {
        let shard = self.root.open_directory(&shard_name(path.shard()))?;
        let mut file = shard.update(path.file_name())?;
        overwrite_full(&mut *file, 0, bytes)?;
        match self.durability {
            Durability::Synced => file.sync(),
            Durability::Relaxed => Ok(()),
        }
    }
}

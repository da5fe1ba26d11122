//! The generations of groups, each in a file of its own.

use std::io;

use async_trait::async_trait;
use rustix::rand::{GetRandomFlags, getrandom};
use vayu_core::{Generations, Group, Invalidation, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::backend::FileBackend;
use crate::counts::overwrite_full;
use crate::fs::{buffer, read_full};
use crate::layout::{Place, shard_name};
use crate::offload::CancelFlag;
use crate::options::Durability;
use crate::store::{Store, failed};

/// How many random bytes a generation has.
pub(crate) const LENGTH: usize = 16;

impl Store {
    /// The generation of a group: what its file holds, as a number. A damaged file is another
    /// generation.
    pub(crate) fn generation(&self, group: Group) -> Result<u64> {
        let place = Place::of_generation(group);
        match self.held.making_room(|| self.read_generation(&place)) {
            Ok(bytes) => Ok(xxh3_64(&bytes) | 1),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(failed("read generation", error)),
        }
    }

    fn read_generation(&self, place: &Place) -> io::Result<Vec<u8>> {
        let file = self.root.open(place.path())?;
        let mut bytes = buffer(LENGTH as u64)?;
        read_full(&*file, &mut bytes)?;
        Ok(bytes)
    }

    /// Gives a group another generation. On a disk that is full, or where the file cannot be
    /// replaced for another reason, it is overwritten in place, or entries go until there is room for
    /// it; at worst all entries go, since they could not be invalidated otherwise.
    pub(crate) fn bump(&self, group: Group) -> Result<()> {
        let place = Place::of_generation(group);
        let mut bytes = [0; LENGTH];
        getrandom(&mut bytes, GetRandomFlags::empty())
            .map_err(|error| failed("write generation", error.into()))?;
        let write = || self.replace(&place, &bytes, &CancelFlag::never(), || Ok(())).map(|_| ());
        let Err(mut error) = write() else { return Ok(()) };
        if self.overwrite_generation(&place, &bytes).is_ok() {
            return Ok(());
        }
        while is_full(&error) && self.make_room() {
            match write() {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
        let removed = write().or_else(|_| self.remove_all());
        removed.map_err(|_| failed("write generation", error))
    }

    /// Renews a group, and records that.
    pub(crate) fn invalidate(&self, group: Group) -> Result<()> {
        self.announce(Invalidation::Generations)?;
        self.bump(group)?;
        self.announce(Invalidation::Generations)
    }

    /// Writes a generation over the one that is there, which needs no space. If only a part of it is
    /// written, that is another generation as well.
    fn overwrite_generation(&self, place: &Place, bytes: &[u8]) -> io::Result<()> {
        let folder = self.root.folder(&shard_name(place.shard()))?;
        let mut file = folder.update(place.name())?;
        overwrite_full(&mut *file, 0, bytes)?;
        match self.durability {
            Durability::Synced => file.sync(),
            Durability::Relaxed => Ok(()),
        }
    }
}

/// Whether the disk, or what its user may take of it, is full.
fn is_full(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

#[async_trait]
impl Generations for FileBackend {
    fn generation(&self, group: Group) -> Result<u64> {
        self.store.generation(group)
    }

    fn bump(&self, group: Group) -> Result<()> {
        self.store.invalidate(group)
    }

    async fn generation_async(&self, group: Group) -> Result<u64> {
        self.offload(move |store, _| store.generation(group)).await
    }

    async fn bump_async(&self, group: Group) -> Result<()> {
        self.offload(move |store, _| store.invalidate(group)).await
    }
}

//! The generations of groups, each in a file of its own.

use std::io;

use async_trait::async_trait;
use rustix::rand::{GetRandomFlags, getrandom};
use vayu_core::{Generations, Group, Result};
use xxhash_rust::xxh3::xxh3_64;

use crate::backend::FileBackend;
use crate::folder::{buffer, read_full};
use crate::layout::Place;
use crate::offload::CancelFlag;
use crate::store::{Store, failed};

/// How many random bytes a generation has.
const LENGTH: usize = 16;

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

    pub(crate) fn renew(&self, group: Group) -> Result<()> {
        let mut bytes = [0; LENGTH];
        getrandom(&mut bytes, GetRandomFlags::empty())
            .map_err(io::Error::from)
            .and_then(|_| self.replace(&Place::of_generation(group), &bytes, &CancelFlag::never()))
            .map_err(|error| failed("write generation", error))?;
        Ok(())
    }
}

#[async_trait]
impl Generations for FileBackend {
    fn generation(&self, group: Group) -> Result<u64> {
        self.store.generation(group)
    }

    fn renew(&self, group: Group) -> Result<()> {
        self.store.renew(group)?;
        self.store.announce()
    }

    async fn generation_async(&self, group: Group) -> Result<u64> {
        self.offload(move |store, _| store.generation(group)).await
    }

    async fn renew_async(&self, group: Group) -> Result<()> {
        let renew = move |store: &Store, _: &CancelFlag| {
            store.renew(group)?;
            store.announce()
        };
        self.offload(renew).await
    }
}

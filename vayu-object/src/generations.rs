//! Generations of groups, each in an object of its own.
//!
//! An invalidation replaces the object by another random generation. It does so by version where the store can: a request
//! that is repeated or late then has no effect after another invalidation, whose generation it would replace by an older
//! one. Where the version is another in the meantime, another invalidation has taken effect, which suffices. A store without
//! conditional requests, however it refuses them, overwrites the object.

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use vayu_core::__internal::block_on;
use vayu_core::__internal::remote::{new_generation, parse_generation};
use vayu_core::{Generations, Group};

use crate::backend::ObjectBackend;
use crate::error::Failure;
use crate::objects::{Conditional, Found, Objects};

/// The size of the largest object that is read as a generation.
const MAX_BYTES: u64 = 1024;

impl ObjectBackend {
    async fn read_generation(&self, group: Group) -> vayu_core::Result<u64> {
        let name = self.names().generation(group);
        let read = self.client().run(|objects| async move {
            let found = objects.get(&name, MAX_BYTES).await?;
            if let Some(generation) = parse(group, &found) {
                return Ok(generation);
            }
            let new: Bytes = new_generation(group)?.into();
            // One that is damaged is replaced as one that is missing: its entries become misses.
            replace(&objects, &name, &found, new).await?;
            let found = objects.get(&name, MAX_BYTES).await?;
            parse(group, &found).ok_or(Failure::UnexpectedObject(name))
        });
        read.await.map_err(|failure| self.client().error(failure, "read generation"))
    }

    async fn bump_generation(&self, group: Group) -> vayu_core::Result<()> {
        let name = self.names().generation(group);
        let bump = self.client().run(|objects| async move {
            let found = objects.get(&name, MAX_BYTES).await?;
            replace(&objects, &name, &found, new_generation(group)?.into()).await
        });
        bump.await.map_err(|failure| self.client().error(failure, "write generation"))
    }
}

fn parse(group: Group, found: &Found) -> Option<u64> {
    match found {
        Found::Object { bytes, .. } => parse_generation(group, bytes),
        Found::Nothing | Found::TooLong => None,
    }
}

/// Replaces what was found under the name of a generation, unless another process has replaced it in the meantime.
async fn replace(objects: &Objects, name: &Path, found: &Found, new: Bytes) -> Result<(), Failure> {
    let replaced = match found {
        Found::Nothing => objects.create(name, new.clone()).await,
        Found::Object { version, .. } => objects.update(name, new.clone(), version.clone()).await,
        Found::TooLong => Ok(Conditional::Unsupported),
    };
    match replaced {
        Ok(Conditional::Done | Conditional::Refused) => Ok(()),
        // Some stores have another error for conditions that they do not support.
        Ok(Conditional::Unsupported) | Err(_) => objects.put(name, new).await,
    }
}

#[async_trait]
impl Generations for ObjectBackend {
    fn generation(&self, group: Group) -> vayu_core::Result<u64> {
        block_on(self.read_generation(group))
    }

    fn bump(&self, group: Group) -> vayu_core::Result<()> {
        block_on(self.bump_generation(group))
    }

    async fn generation_async(&self, group: Group) -> vayu_core::Result<u64> {
        self.read_generation(group).await
    }

    async fn bump_async(&self, group: Group) -> vayu_core::Result<()> {
        self.bump_generation(group).await
    }
}

//! Generations of groups, each in an object of its own.
//!
//! An invalidation replaces the object, whatever is in it: generations are random, so of two invalidations at the same
//! time either result is a generation that the group never had. That needs no conditional request.

use async_trait::async_trait;
use vayu_core::__internal::block_on;
use vayu_core::__internal::remote::{new_generation, parse_generation};
use vayu_core::{Generations, Group, Result};

use crate::backend::ObjectBackend;
use crate::error::Failure;
use crate::objects::{Conditional, Found};

/// The size of the largest object that is read as a generation.
const MAX_BYTES: u64 = 1024;

impl ObjectBackend {
    async fn read_generation(&self, group: Group) -> Result<u64> {
        let name = self.names().generation(group);
        let read = self.client().run(|objects| async move {
            let mut found = objects.get(&name, MAX_BYTES).await?;
            if matches!(found, Found::Nothing) {
                let new = new_generation(group)?.into();
                if objects.create(&name, new).await? == Conditional::Unsupported {
                    // Another process may replace it, which costs recomputations and is otherwise harmless.
                    objects.put(&name, new_generation(group)?.into()).await?;
                }
                found = objects.get(&name, MAX_BYTES).await?;
            }
            match found {
                Found::Object { bytes, .. } => parse_generation(group, &bytes),
                Found::Nothing | Found::TooLong => None,
            }
            .ok_or(Failure::UnexpectedObject)
        });
        read.await.map_err(|failure| self.client().error(failure, "read generation"))
    }

    async fn bump_generation(&self, group: Group) -> Result<()> {
        let name = self.names().generation(group);
        let bump = self
            .client()
            .run(|objects| async move { objects.put(&name, new_generation(group)?.into()).await });
        bump.await.map_err(|failure| self.client().error(failure, "write generation"))
    }
}

#[async_trait]
impl Generations for ObjectBackend {
    fn generation(&self, group: Group) -> Result<u64> {
        block_on(self.read_generation(group))
    }

    fn bump(&self, group: Group) -> Result<()> {
        block_on(self.bump_generation(group))
    }

    async fn generation_async(&self, group: Group) -> Result<u64> {
        self.read_generation(group).await
    }

    async fn bump_async(&self, group: Group) -> Result<()> {
        self.bump_generation(group).await
    }
}

//! Generations of groups, each in a key of its own.

use async_trait::async_trait;
use vayu_core::__internal::remote::{new_generation, parse_generation};
use vayu_core::{Generations, Group, Result};

use crate::backend::RedisBackend;
use crate::client::{Executor, run_blocking};
use crate::error::Failure;
use crate::mutation::Mutation;
use crate::pubsub::Message;
use crate::request::{self, Expiry};

impl RedisBackend {
    async fn read_generation<E: Executor>(&self, executor: E, group: Group) -> Result<u64> {
        let name = self.names().generation(group);
        let read = async {
            let get = request::get(&name);
            let found = match executor.execute(&get).await? {
                Some(found) => found,
                None => {
                    let create =
                        request::set_if_absent(&name, &new_generation(group)?, Expiry::Never);
                    executor.execute(&create).await?;
                    executor.execute(&get).await?.ok_or(Failure::UnexpectedReply)?
                }
            };
            parse_generation(group, &found).ok_or(Failure::UnexpectedReply)
        };
        read.await.map_err(|failure| self.client().error(failure, "read generation"))
    }

    async fn bump_generation<E: Executor>(&self, executor: E, group: Group) -> Result<()> {
        let name = self.names().generation(group);
        let bump = async {
            let (bytes, channel) = (new_generation(group)?, self.names().invalidation_channel());
            let mutation = Mutation::replace(&name, &bytes, channel, &Message::GENERATIONS);
            mutation.execute(executor).await
        };
        bump.await.map(drop).map_err(|failure| self.client().error(failure, "write generation"))
    }
}

#[async_trait]
impl Generations for RedisBackend {
    fn generation(&self, group: Group) -> Result<u64> {
        run_blocking(self.read_generation(self.client().blocking(), group))
    }

    fn bump(&self, group: Group) -> Result<()> {
        run_blocking(self.bump_generation(self.client().blocking(), group))
    }

    async fn generation_async(&self, group: Group) -> Result<u64> {
        self.read_generation(self.client().non_blocking(), group).await
    }

    async fn bump_async(&self, group: Group) -> Result<()> {
        self.bump_generation(self.client().non_blocking(), group).await
    }
}

//! Generations of groups, each in a key of its own.
//!
//! A missing key is not read as zero: the server may have evicted it or lost its data, and entries
//! that were invalidated before must not become valid again. A caller that finds none creates a
//! random one.

use async_trait::async_trait;
use bytes::Bytes;
use vayu_core::{Generations, Group, Result};

use crate::backend::RedisBackend;
use crate::client::{Executor, run_blocking};
use crate::error::Failure;
use crate::mutation::Mutation;
use crate::pubsub::Message;
use crate::random;
use crate::request::{self, Expiry};

/// A generation is the number of its group and a random number, so that the reply to another
/// command is not taken for a generation.
const LENGTH: usize = 16;

fn new(group: Group) -> Result<Vec<u8>, Failure> {
    Ok([(group.number() & 0xffff).to_le_bytes(), random::bytes()?].concat())
}

fn parse(group: Group, bytes: &Bytes) -> Result<u64, Failure> {
    let (of, generation) = bytes.split_first_chunk().ok_or(Failure::UnexpectedReply)?;
    if bytes.len() != LENGTH || u64::from_le_bytes(*of) != group.number() & 0xffff {
        return Err(Failure::UnexpectedReply);
    }
    let generation = generation.try_into().map_err(|_| Failure::UnexpectedReply)?;
    Ok(u64::from_le_bytes(generation))
}

impl RedisBackend {
    async fn read_generation<E: Executor>(&self, executor: E, group: Group) -> Result<u64> {
        let name = self.names().generation(group);
        let read = async {
            let get = request::get(&name);
            let found = match executor.execute(&get).await? {
                Some(found) => found,
                None => {
                    let create = request::set_if_absent(&name, &new(group)?, Expiry::Never);
                    executor.execute(&create).await?;
                    executor.execute(&get).await?.ok_or(Failure::UnexpectedReply)?
                }
            };
            parse(group, &found)
        };
        read.await.map_err(|failure| self.client().error(failure, "read generation"))
    }

    async fn bump_generation<E: Executor>(&self, executor: E, group: Group) -> Result<()> {
        let name = self.names().generation(group);
        let bump = async {
            let (bytes, channel) = (new(group)?, self.names().invalidation_channel());
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reply_of_another_group_is_rejected() {
        let (one, other) = (Group::tag("one"), Group::tag("other"));
        let bytes = Bytes::from(new(one).unwrap());
        assert_ne!(parse(one, &bytes).unwrap(), 0);
        assert!(parse(other, &bytes).is_err());
        for length in 0..LENGTH {
            assert!(parse(one, &bytes.slice(..length)).is_err());
        }
    }

    #[test]
    fn new_generations_differ() {
        let group = Group::tag("one");
        assert_ne!(new(group).unwrap(), new(group).unwrap());
    }
}

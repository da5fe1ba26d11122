//! The generations of groups, each in a key of its own.
//!
//! A key that is not there is not taken for zero: the server may have evicted it, or begun anew, and
//! what was invalidated before must not come back. Whoever finds none makes a new one.

use async_trait::async_trait;
use bytes::Bytes;
use redis::Value;
use vayu_core::{Generations, Group, Result};

use crate::backend::RedisBackend;
use crate::error::Failure;
use crate::mutation::Mutation;
use crate::pubsub::Message;
use crate::random;
use crate::request;

/// The number of the group and a random one, so that an answer to another question is not taken for
/// a generation.
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

#[async_trait]
impl Generations for RedisBackend {
    fn generation(&self, group: Group) -> Result<u64> {
        let name = self.names().generation(group);
        let read = || {
            let get = || request::bytes(self.client().execute(&request::get(&name))?);
            let found = match get()? {
                Some(found) => found,
                None => {
                    self.client().execute(&request::set_if_absent(&name, &new(group)?))?;
                    get()?.ok_or(Failure::UnexpectedReply)?
                }
            };
            parse(group, &found)
        };
        read().map_err(|failure| failure.into_error("read generation"))
    }

    fn bump(&self, group: Group) -> Result<()> {
        let name = self.names().generation(group);
        let bump = || {
            let bytes = new(group)?;
            let mutation = Mutation::replace(
                &name,
                &bytes,
                self.names().invalidation_channel(),
                &Message::GENERATIONS,
            );
            check_stored(&mutation.execute(self.client())?)
        };
        bump().map_err(|failure| failure.into_error("write generation"))
    }

    async fn generation_async(&self, group: Group) -> Result<u64> {
        let name = self.names().generation(group);
        let read = async {
            let (get, make) = (request::get(&name), request::set_if_absent(&name, &new(group)?));
            let found = match request::bytes(self.client().execute_async(&get).await?)? {
                Some(found) => found,
                None => {
                    self.client().execute_async(&make).await?;
                    request::bytes(self.client().execute_async(&get).await?)?
                        .ok_or(Failure::UnexpectedReply)?
                }
            };
            parse(group, &found)
        };
        read.await.map_err(|failure| failure.into_error("read generation"))
    }

    async fn bump_async(&self, group: Group) -> Result<()> {
        let name = self.names().generation(group);
        let bump = async {
            let bytes = new(group)?;
            let mutation = Mutation::replace(
                &name,
                &bytes,
                self.names().invalidation_channel(),
                &Message::GENERATIONS,
            );
            check_stored(&mutation.execute_async(self.client()).await?)
        };
        bump.await.map_err(|failure| failure.into_error("write generation"))
    }
}

fn check_stored(reply: &Value) -> Result<(), Failure> {
    if *reply == Value::Okay { Ok(()) } else { Err(Failure::UnexpectedReply) }
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

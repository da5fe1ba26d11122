//! The generations of groups, each in a key of its own.
//!
//! A key that is not there is not taken for zero: the server may have evicted it, or begun anew, and
//! what was invalidated before must not come back. Whoever finds none makes a new one.

use async_trait::async_trait;
use bytes::Bytes;
use redis::Value;
use vayu_core::{Generations, Group, Result};

use crate::backend::RedisBackend;
use crate::change::Change;
use crate::command;
use crate::error::Failure;
use crate::pubsub::Message;
use crate::random;

/// The number of the group and a random one, so that an answer to another question is not taken for
/// a generation.
const LENGTH: usize = 16;

fn new(group: Group) -> Result<Vec<u8>, Failure> {
    Ok([(group.number() & 0xffff).to_le_bytes(), random::bytes()?].concat())
}

fn parse(group: Group, bytes: &Bytes) -> Result<u64, Failure> {
    let (of, generation) = bytes.split_first_chunk().ok_or(Failure::Answer)?;
    if bytes.len() != LENGTH || u64::from_le_bytes(*of) != group.number() & 0xffff {
        return Err(Failure::Answer);
    }
    let generation = generation.try_into().map_err(|_| Failure::Answer)?;
    Ok(u64::from_le_bytes(generation))
}

#[async_trait]
impl Generations for RedisBackend {
    fn generation(&self, group: Group) -> Result<u64> {
        let name = self.names().generation(group);
        let ask = || {
            let get = || command::bytes(self.asking().ask(&command::get(&name))?);
            let found = match get()? {
                Some(found) => found,
                None => {
                    self.asking().ask(&command::set_if_absent(&name, &new(group)?))?;
                    get()?.ok_or(Failure::Answer)?
                }
            };
            parse(group, &found)
        };
        ask().map_err(|failure| failure.during("read generation"))
    }

    fn bump(&self, group: Group) -> Result<()> {
        let name = self.names().generation(group);
        let renew = || {
            let bytes = new(group)?;
            let change = Change::replace(
                &name,
                &bytes,
                self.names().invalidation_channel(),
                &Message::GROUPS,
            );
            renewed(&change.make(self.asking())?)
        };
        renew().map_err(|failure| failure.during("write generation"))
    }

    async fn generation_async(&self, group: Group) -> Result<u64> {
        let name = self.names().generation(group);
        let ask = async {
            let (get, make) = (command::get(&name), command::set_if_absent(&name, &new(group)?));
            let found = match command::bytes(self.asking().ask_async(&get).await?)? {
                Some(found) => found,
                None => {
                    self.asking().ask_async(&make).await?;
                    command::bytes(self.asking().ask_async(&get).await?)?.ok_or(Failure::Answer)?
                }
            };
            parse(group, &found)
        };
        ask.await.map_err(|failure| failure.during("read generation"))
    }

    async fn bump_async(&self, group: Group) -> Result<()> {
        let name = self.names().generation(group);
        let renew = async {
            let bytes = new(group)?;
            let change = Change::replace(
                &name,
                &bytes,
                self.names().invalidation_channel(),
                &Message::GROUPS,
            );
            renewed(&change.make_async(self.asking()).await?)
        };
        renew.await.map_err(|failure| failure.during("write generation"))
    }
}

fn renewed(answer: &Value) -> Result<(), Failure> {
    if *answer == Value::Okay { Ok(()) } else { Err(Failure::Answer) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_to_another_question_is_no_generation() {
        let (one, other) = (Group::tag("one"), Group::tag("other"));
        let bytes = Bytes::from(new(one).unwrap());
        assert_ne!(parse(one, &bytes).unwrap(), 0);
        assert!(parse(other, &bytes).is_err());
        for length in 0..LENGTH {
            assert!(parse(one, &bytes.slice(..length)).is_err());
        }
    }

    #[test]
    fn new_generation_is_another_one() {
        let group = Group::tag("one");
        assert_ne!(new(group).unwrap(), new(group).unwrap());
    }
}

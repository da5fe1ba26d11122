//! Changes of a key, each with the message that other processes get of it.
//!
//! The server runs both as one script, so that whoever sends it may go away at any moment: either
//! nothing was changed, or the copies in memory elsewhere are given up. A script is one command with one
//! reply, of one key, so it works on every kind of connection, and in a cluster.
//!
//! The message is published first: where that is not permitted, nothing is changed. Copies are
//! outdated before anything else is executed, so the order is of no other importance.

use redis::{Cmd, Value};

use crate::backend::Asking;
use crate::command::{self, Keep};
use crate::error::Failure;
use crate::runtime;

/// A change of one key, and its message.
pub(crate) struct Change<'a> {
    name: &'a str,
    kind: Kind<'a>,
    channel: Vec<u8>,
    message: &'a [u8],
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    /// Stores an entry. Where there was none, there is no message.
    Write(&'a [u8], Keep),
    /// Stores bytes, without expiry.
    Replace(&'a [u8]),
    Delete,
}

/// A server without scripts repeats the first 128 bytes of the arguments in its error. Each script is
/// longer than that, so that nothing comes back that is not text.
const WRITE: &str = "if redis.call('exists', KEYS[1]) == 1 then redis.call('publish', ARGV[1], ARGV[2]) end \
    return redis.call('set', KEYS[1], unpack(ARGV, 3))";
const REPLACE: &str = "--[[ vayu: the message that a key has changed, and then the change ]] \
    redis.call('publish', ARGV[1], ARGV[2]) \
    return redis.call('set', KEYS[1], ARGV[3])";
const DELETE: &str = "--[[ vayu: the message that a key has changed, and then the change ]] \
    redis.call('publish', ARGV[1], ARGV[2]) \
    return redis.call('del', KEYS[1])";

impl<'a> Change<'a> {
    /// Stores an entry, and publishes the message if it takes the place of another one.
    pub(crate) fn write(
        name: &'a str,
        bytes: &'a [u8],
        keep: Keep,
        channel: Vec<u8>,
        message: &'a [u8],
    ) -> Self {
        Self { name, kind: Kind::Write(bytes, keep), channel, message }
    }

    /// Stores bytes without expiry, and publishes the message.
    pub(crate) fn replace(
        name: &'a str,
        bytes: &'a [u8],
        channel: Vec<u8>,
        message: &'a [u8],
    ) -> Self {
        Self { name, kind: Kind::Replace(bytes), channel, message }
    }

    /// Deletes a key, and publishes the message whether it was there or not: copies of it may be.
    pub(crate) fn delete(name: &'a str, channel: Vec<u8>, message: &'a [u8]) -> Self {
        Self { name, kind: Kind::Delete, channel, message }
    }

    /// Returns the reply to `SET` or `DEL`.
    pub(crate) fn make(&self, asking: &Asking) -> Result<Value, Failure> {
        match asking.ask(&self.script()) {
            Err(failure) if failure.refuses_scripts() => {}
            answer => return answer,
        }
        if let Some(add) = self.add() {
            let answer = asking.ask(&add)?;
            if command::done(&answer)? {
                return Ok(answer);
            }
        }
        asking.ask(&self.publish())?;
        let answer = asking.ask(&self.alone())?;
        asking.ask(&self.publish())?;
        Ok(answer)
    }

    /// [`make`](Self::make) for async callers. What was begun is completed when the future is dropped.
    pub(crate) async fn make_async(&self, asking: &Asking) -> Result<Value, Failure> {
        match asking.ask_async(&self.script()).await {
            Err(failure) if failure.refuses_scripts() => {}
            answer => return answer,
        }
        let (add, publish, alone) = (self.add(), self.publish(), self.alone());
        let asking = asking.clone();
        let steps = async move {
            if let Some(add) = add {
                let answer = asking.ask_async(&add).await?;
                if command::done(&answer)? {
                    return Ok(answer);
                }
            }
            asking.ask_async(&publish).await?;
            let answer = asking.ask_async(&alone).await?;
            asking.ask_async(&publish).await?;
            Ok(answer)
        };
        runtime::helper()?.spawn(steps).await.unwrap_or(Err(Failure::Helper))
    }

    /// The change and the message as one command.
    fn script(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        let script = match self.kind {
            Kind::Write(..) => WRITE,
            Kind::Replace(_) => REPLACE,
            Kind::Delete => DELETE,
        };
        command.arg(script).arg(1).arg(self.name).arg(&self.channel).arg(self.message);
        match self.kind {
            Kind::Write(bytes, keep) => {
                command.arg(bytes);
                command::keep(&mut command, keep);
            }
            Kind::Replace(bytes) => {
                command.arg(bytes);
            }
            Kind::Delete => {}
        }
        command
    }

    /// The change of which there is no message, where scripts are refused: an entry that takes the
    /// place of none.
    fn add(&self) -> Option<Cmd> {
        let Kind::Write(bytes, keep) = self.kind else { return None };
        let mut command = command::set_if_absent(self.name, bytes);
        command::keep(&mut command, keep);
        Some(command)
    }

    /// The change without its message. It comes between two messages where scripts are refused: a
    /// process that ends before the second one has sent the first.
    fn alone(&self) -> Cmd {
        match self.kind {
            Kind::Write(bytes, keep) => {
                let mut command = command::set(self.name, bytes);
                command::keep(&mut command, keep);
                command
            }
            Kind::Replace(bytes) => command::set(self.name, bytes),
            Kind::Delete => command::delete(self.name),
        }
    }

    fn publish(&self) -> Cmd {
        command::publish(&self.channel, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_that_repeats_the_arguments_ends_within_the_script() {
        for script in [WRITE, REPLACE, DELETE] {
            assert!(script.len() >= 128, "{script}: {}", script.len());
        }
    }
}

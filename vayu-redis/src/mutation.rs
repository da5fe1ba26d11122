//! Changes of a key, each with the message that other processes get of it.
//!
//! The server runs both as one script, so that whoever sends it may go away at any moment: either
//! nothing was changed, or the copies in memory elsewhere are given up. A script is one command with one
//! reply, of one key, so it works on every kind of connection, and in a cluster.
//!
//! The message is published first: where that is not permitted, nothing is changed. Copies are
//! outdated before anything else is executed, so the order is of no other importance.

use redis::{Cmd, Value};

use crate::backend::Client;
use crate::error::Failure;
use crate::request::{self, Expiry};
use crate::runtime;

/// A change of one key, and its message.
pub(crate) struct Mutation<'a> {
    name: &'a str,
    kind: Kind<'a>,
    channel: Vec<u8>,
    message: &'a [u8],
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    /// Stores an entry. Where there was none, there is no message.
    Write(&'a [u8], Expiry),
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

impl<'a> Mutation<'a> {
    /// Stores an entry, and publishes the message if it takes the place of another one.
    pub(crate) fn write(
        name: &'a str,
        bytes: &'a [u8],
        expiry: Expiry,
        channel: Vec<u8>,
        message: &'a [u8],
    ) -> Self {
        Self { name, kind: Kind::Write(bytes, expiry), channel, message }
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
    pub(crate) fn execute(&self, client: &Client) -> Result<Value, Failure> {
        match client.execute(&self.script_command()) {
            Err(failure) if failure.is_scripting_refused() => {}
            reply => return reply,
        }
        if let Some(add) = self.insert_command() {
            let reply = client.execute(&add)?;
            if request::done(&reply)? {
                return Ok(reply);
            }
        }
        client.execute(&self.publish_command())?;
        let reply = client.execute(&self.plain_command())?;
        client.execute(&self.publish_command())?;
        Ok(reply)
    }

    /// [`make`](Self::make) for async callers. What was begun is completed when the future is dropped.
    pub(crate) async fn execute_async(&self, client: &Client) -> Result<Value, Failure> {
        match client.execute_async(&self.script_command()).await {
            Err(failure) if failure.is_scripting_refused() => {}
            reply => return reply,
        }
        let (add, publish, alone) =
            (self.insert_command(), self.publish_command(), self.plain_command());
        let client = client.clone();
        let steps = async move {
            if let Some(add) = add {
                let reply = client.execute_async(&add).await?;
                if request::done(&reply)? {
                    return Ok(reply);
                }
            }
            client.execute_async(&publish).await?;
            let reply = client.execute_async(&alone).await?;
            client.execute_async(&publish).await?;
            Ok(reply)
        };
        runtime::handle()?.spawn(steps).await.unwrap_or(Err(Failure::RuntimeStopped))
    }

    /// The change and the message as one command.
    fn script_command(&self) -> Cmd {
        let mut command = redis::cmd("EVAL");
        let script = match self.kind {
            Kind::Write(..) => WRITE,
            Kind::Replace(_) => REPLACE,
            Kind::Delete => DELETE,
        };
        command.arg(script).arg(1).arg(self.name).arg(&self.channel).arg(self.message);
        match self.kind {
            Kind::Write(bytes, expiry) => {
                command.arg(bytes);
                request::add_expiry(&mut command, expiry);
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
    fn insert_command(&self) -> Option<Cmd> {
        let Kind::Write(bytes, expiry) = self.kind else { return None };
        let mut command = request::set_if_absent(self.name, bytes);
        request::add_expiry(&mut command, expiry);
        Some(command)
    }

    /// The change without its message. It comes between two messages where scripts are refused: a
    /// process that ends before the second one has sent the first.
    fn plain_command(&self) -> Cmd {
        match self.kind {
            Kind::Write(bytes, expiry) => {
                let mut command = request::set(self.name, bytes);
                request::add_expiry(&mut command, expiry);
                command
            }
            Kind::Replace(bytes) => request::set(self.name, bytes),
            Kind::Delete => request::delete(self.name),
        }
    }

    fn publish_command(&self) -> Cmd {
        request::publish(&self.channel, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_longer_than_what_an_error_repeats() {
        for script in [WRITE, REPLACE, DELETE] {
            assert!(script.len() >= 128, "{script}: {}", script.len());
        }
    }
}

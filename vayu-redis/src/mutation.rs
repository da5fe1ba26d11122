//! Changes of a key, each with the invalidation message for other processes.
//!
//! The server runs both as one script, so that a caller may be cancelled at any moment: either
//! nothing was changed, or in-memory copies in other processes are invalidated. A script is one
//! command with one reply, of one key, so it works on every kind of connection and in a cluster.
//!
//! The message is published first: where that is not permitted, nothing is changed. A script is
//! atomic, so the order does not matter otherwise.

use crate::client::Executor;
use crate::error::Failure;
use crate::request::{self, Expiry, Parse, Request};

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
    /// Stores a value, without expiry.
    Replace(&'a [u8]),
    Delete,
}

/// A server without scripts repeats the first 128 bytes of the arguments in its error. Each script
/// is longer than that, so that the error contains only UTF-8.
const WRITE: &str = "if redis.call('exists', KEYS[1]) == 1 then redis.call('publish', ARGV[1], ARGV[2]) end \
    return redis.call('set', KEYS[1], unpack(ARGV, 3))";
const REPLACE: &str = "--[[ vayu: the message that a key has changed, and then the change ]] \
    redis.call('publish', ARGV[1], ARGV[2]) \
    return redis.call('set', KEYS[1], ARGV[3])";
const DELETE: &str = "--[[ vayu: the message that a key has changed, and then the change ]] \
    redis.call('publish', ARGV[1], ARGV[2]) \
    return redis.call('del', KEYS[1])";

impl<'a> Mutation<'a> {
    /// Stores an entry, and publishes the message if it replaces another one.
    pub(crate) fn write(
        name: &'a str,
        bytes: &'a [u8],
        expiry: Expiry,
        channel: Vec<u8>,
        message: &'a [u8],
    ) -> Self {
        Self { name, kind: Kind::Write(bytes, expiry), channel, message }
    }

    /// Stores a value without expiry, and publishes the message.
    pub(crate) fn replace(
        name: &'a str,
        bytes: &'a [u8],
        channel: Vec<u8>,
        message: &'a [u8],
    ) -> Self {
        Self { name, kind: Kind::Replace(bytes), channel, message }
    }

    /// Deletes a key, and publishes the message even if it did not exist: copies of it may exist.
    pub(crate) fn delete(name: &'a str, channel: Vec<u8>, message: &'a [u8]) -> Self {
        Self { name, kind: Kind::Delete, channel, message }
    }

    /// Returns whether the key was stored, or existed when it was deleted.
    ///
    /// Where scripts are refused, the change is sent between two messages, so that a process that
    /// ends before the second one has sent the first.
    pub(crate) async fn execute<E: Executor>(&self, executor: E) -> Result<bool, Failure> {
        let result = executor.execute(&self.script()).await;
        self.finish(executor, result).await
    }

    /// Returns the result of a mutation whose [`script`](Self::script) had this result.
    pub(crate) async fn finish<E: Executor>(
        &self,
        executor: E,
        result: Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        match result {
            Err(failure) if failure.is_scripting_refused() => {}
            result => return result,
        }
        let (insert, publish, change) = (self.insert(), self.publish(), self.unscripted());
        let steps = executor.clone();
        executor
            .run_to_completion(async move {
                if let Some(insert) = insert
                    && steps.execute(&insert).await?
                {
                    return Ok(true);
                }
                steps.execute(&publish).await?;
                let is_done = steps.execute(&change).await?;
                steps.execute(&publish).await?;
                Ok(is_done)
            })
            .await
    }

    /// Returns the change and the message as one command.
    pub(crate) fn script(&self) -> Request<bool> {
        let (script, parse): (_, Parse<bool>) = match self.kind {
            Kind::Write(..) => (WRITE, request::stored),
            Kind::Replace(_) => (REPLACE, request::stored),
            Kind::Delete => (DELETE, request::done),
        };
        let mut command = redis::cmd("EVAL");
        command.arg(script).arg(1).arg(self.name).arg(&self.channel).arg(self.message);
        match self.kind {
            Kind::Write(bytes, expiry) => expiry.add_to(command.arg(bytes)),
            Kind::Replace(bytes) => {
                command.arg(bytes);
            }
            Kind::Delete => {}
        }
        Request::new(command, parse)
    }

    /// Returns the change that needs no message: an entry that replaces none.
    fn insert(&self) -> Option<Request<bool>> {
        let Kind::Write(bytes, expiry) = self.kind else { return None };
        Some(request::set_if_absent(self.name, bytes, expiry))
    }

    /// Returns the change without its message.
    fn unscripted(&self) -> Request<bool> {
        match self.kind {
            Kind::Write(bytes, expiry) => request::set(self.name, bytes, expiry),
            Kind::Replace(bytes) => request::set(self.name, bytes, Expiry::Never),
            Kind::Delete => request::delete(self.name),
        }
    }

    fn publish(&self) -> Request<()> {
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

//! Requests: a command, and the meaning of its reply. Nothing here does I/O.

use std::time::Duration;

use bytes::Bytes;
use redis::{Arg, Cmd, RedisConnectionInfo, Value};
use vayu_core::wire::WireKey;
use vayu_core::{Record, Timestamp};

use crate::error::Failure;
use crate::key_names::{KeyNames, ReleaseChannels};
use crate::watches::WaiterId;

/// A command, and the function that turns its reply into a value.
///
/// Error replies do not reach the function: connections return them as a [`Failure`].
pub(crate) struct Request<T> {
    command: Cmd,
    parse: Parse<T>,
}

/// The replies to several commands. An error reply that has the scope of its command is a failure of that command
/// alone.
pub(crate) type Replies = Vec<Result<Value, Failure>>;

/// Returns the result of one of several commands, or an error if a reply has failed in a way that all of them
/// would.
pub(crate) fn command_result(
    reply: Result<Value, Failure>,
) -> Result<Result<Value, Failure>, Failure> {
    match reply {
        Err(failure) if !failure.is_command_error() => Err(failure),
        result => Ok(result),
    }
}

/// A function that returns the meaning of a reply.
pub(crate) type Parse<T> = fn(Value) -> Result<T, Failure>;

impl Request<()> {
    /// Creates a request whose reply has no meaning unless it is an error.
    pub(crate) fn without_result(command: Cmd) -> Self {
        Self { command, parse: |_| Ok(()) }
    }
}

impl<T> Request<T> {
    pub(crate) fn new(command: Cmd, parse: Parse<T>) -> Self {
        Self { command, parse }
    }

    pub(crate) fn command(&self) -> &Cmd {
        &self.command
    }

    pub(crate) fn into_parts(self) -> (Cmd, Parse<T>) {
        (self.command, self.parse)
    }

    /// Returns the meaning of a reply.
    pub(crate) fn parse(&self, reply: Value) -> Result<T, Failure> {
        (self.parse)(reply)
    }
}

/// Expiry of an entry on the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    After(Duration),
    Never,
}

/// The server adds the time to its own clock and rejects what overflows.
const MAX_EXPIRY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Expiry {
    /// Returns the expiry of a record: the end of the time for which it may be served stale.
    pub(crate) fn of(record: &Record<Bytes>, now: Timestamp) -> Self {
        let left = record.stale_until().saturating_since(now);
        if record.stale_until() == Timestamp::NEVER || left > MAX_EXPIRY {
            Self::Never
        } else {
            Self::After(left)
        }
    }

    /// Adds the expiry to the arguments of `SET`.
    pub(crate) fn add_to(self, command: &mut Cmd) {
        if let Self::After(time) = self {
            command.arg("PX").arg(milliseconds(time));
        }
    }
}

/// Returns a time as the server takes it, which is never zero.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Reads up to `max_bytes` and one byte more of a value.
pub(crate) fn read(name: &str, max_bytes: u64) -> Request<Option<Bytes>> {
    const NAME: &str = "GETRANGE";
    let numbers = 1 + 20;
    let mut command = Cmd::with_capacity(4, NAME.len() + name.len() + numbers);
    command.arg(NAME).arg(name).arg(0).arg(max_bytes);
    Request::new(command, bytes)
}

/// Reads the values of several entries, none where there is no string. The length of a value is not limited
/// by the command, so the connection must limit it.
pub(crate) fn read_many(names: &KeyNames, keys: &[WireKey]) -> Request<Vec<Option<Bytes>>> {
    let length = keys.len() * names.entry_length();
    let mut command = Cmd::with_capacity(1 + keys.len(), MGET.len() + length);
    command.arg(MGET);
    names.for_each_entry(keys, |name| {
        command.arg(name);
    });
    Request::new(command, |reply| match reply {
        Value::Array(values) => values.into_iter().map(bytes).collect(),
        _ => Err(Failure::UnexpectedReply),
    })
}

const MGET: &str = "MGET";

/// Returns the number of values in the reply to a command, or zero if the reply is not an array.
pub(crate) fn reply_items(command: &Cmd) -> usize {
    let mut arguments = command.args_iter();
    match arguments.next() {
        Some(Arg::Simple(name)) if name == MGET.as_bytes() => arguments.len(),
        _ => 0,
    }
}

/// Reads a value.
pub(crate) fn get(name: &str) -> Request<Option<Bytes>> {
    let mut command = redis::cmd("GET");
    command.arg(name);
    Request::new(command, bytes)
}

fn set_command(name: &str, value: &[u8], expiry: Expiry) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(name).arg(value);
    expiry.add_to(&mut command);
    command
}

/// Stores a value. Returns `true`.
pub(crate) fn set(name: &str, value: &[u8], expiry: Expiry) -> Request<bool> {
    Request::new(set_command(name, value, expiry), stored)
}

/// Stores a value if there is none. Returns whether there was none.
pub(crate) fn set_if_absent(name: &str, value: &[u8], expiry: Expiry) -> Request<bool> {
    let mut command = set_command(name, value, expiry);
    command.arg("NX");
    Request::new(command, done)
}

/// Deletes a key. Returns whether it existed.
pub(crate) fn delete(name: &str) -> Request<bool> {
    let mut command = redis::cmd("DEL");
    command.arg(name);
    Request::new(command, done)
}

/// The number of processes that wait for a lease up to which each gets a message of its own. If there are more, one message
/// goes to all processes.
const MAX_WAITERS: usize = 32;

/// Acquires a lease unless one of another token is held. Returns whether it was acquired. Sending
/// it twice has the effect and the reply of sending it once.
///
/// The id of a process that has to wait is added to the value of the lease.
pub(crate) fn acquire_lease(
    name: &str,
    token: &[u8],
    ttl: Duration,
    waiter: Option<WaiterId>,
) -> Request<bool> {
    const SCRIPT: &str = "if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end \
        local held = redis.call('get', KEYS[1]) \
        if string.sub(held, 1, #ARGV[1]) == ARGV[1] then return 1 end \
        if ARGV[3] and #held <= #ARGV[1] + ARGV[4] and not string.find(held, ARGV[3], #ARGV[1] + 1, true) then \
        redis.call('set', KEYS[1], held .. ARGV[3], 'KEEPTTL') end \
        return 0";
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(1).arg(name).arg(token).arg(milliseconds(ttl));
    if let Some(waiter) = waiter {
        command.arg(waiter.as_bytes()).arg(MAX_WAITERS * WaiterId::LENGTH);
    }
    Request::new(command, done)
}

/// Acquires a lease like [`acquire_lease`], on a server without scripts. If the first of two
/// attempts acquired it, the second one is refused.
pub(crate) fn acquire_lease_unscripted(name: &str, token: &[u8], ttl: Duration) -> Request<bool> {
    set_if_absent(name, token, Expiry::After(ttl))
}

/// Releases a lease that is still held with this token, and notifies the processes that wait for it. Returns whether it was
/// held.
pub(crate) fn release_lease(
    name: &str,
    token: &[u8],
    channels: &ReleaseChannels,
    message: &[u8],
) -> Request<bool> {
    const SCRIPT: &str = "local held = redis.call('get', KEYS[1]) \
        if not held or string.sub(held, 1, #ARGV[1]) ~= ARGV[1] then return 0 end \
        redis.call('del', KEYS[1]) \
        local waiters = string.sub(held, #ARGV[1] + 1) \
        if #waiters > tonumber(ARGV[5]) then redis.pcall('publish', ARGV[2], ARGV[4]) return 1 end \
        for at = 1, #waiters, 8 do redis.pcall('publish', ARGV[3] .. string.sub(waiters, at, at + 7), ARGV[4]) end \
        return 1";
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(1).arg(name).arg(token).arg(&channels.all).arg(&channels.one);
    command.arg(message).arg(MAX_WAITERS * WaiterId::LENGTH);
    Request::new(command, done)
}

/// Publishes a message.
pub(crate) fn publish(channel: &[u8], message: &[u8]) -> Request<()> {
    let mut command = redis::cmd("PUBLISH");
    command.arg(channel).arg(message);
    Request::without_result(command)
}

/// Checks that the server responds.
pub(crate) fn ping() -> Request<()> {
    Request::without_result(redis::cmd("PING"))
}

/// Returns the commands that begin a connection: authentication and the choice of a database.
pub(crate) fn handshake(settings: &RedisConnectionInfo) -> Vec<Cmd> {
    let mut commands = Vec::new();
    if let Some(password) = settings.password() {
        let mut auth = redis::cmd("AUTH");
        auth.arg(settings.username()).arg(password);
        commands.push(auth);
    }
    if settings.db() != 0 {
        let mut select = redis::cmd("SELECT");
        select.arg(settings.db());
        commands.push(select);
    }
    commands
}

/// Parses a value. An empty one is none.
pub(crate) fn bytes(reply: Value) -> Result<Option<Bytes>, Failure> {
    match reply {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) if bytes.is_empty() => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        _ => Err(Failure::UnexpectedReply),
    }
}

/// Parses whether a command had an effect.
#[expect(clippy::needless_pass_by_value, reason = "a `Parse` takes the reply")]
pub(crate) fn done(reply: Value) -> Result<bool, Failure> {
    match reply {
        Value::Okay | Value::Int(1..) => Ok(true),
        Value::Nil | Value::Int(0) => Ok(false),
        _ => Err(Failure::UnexpectedReply),
    }
}

/// Parses the reply to a command that must have an effect.
pub(crate) fn stored(reply: Value) -> Result<bool, Failure> {
    if done(reply)? { Ok(true) } else { Err(Failure::UnexpectedReply) }
}

#[cfg(test)]
mod tests {
    use vayu_core::Key;

    use super::*;

    fn record(stale_until: Timestamp) -> Record<Bytes> {
        Record::new(Bytes::new(), Timestamp::from_micros(0), stale_until)
    }

    #[test]
    fn entry_expires_when_it_may_no_longer_be_served_stale() {
        let second = Timestamp::from_micros(1_000_000);
        let half = Timestamp::from_micros(500_000);
        assert_eq!(Expiry::of(&record(second), half), Expiry::After(Duration::from_millis(500)));
        assert_eq!(Expiry::of(&record(half), second), Expiry::After(Duration::ZERO));
        assert_eq!(Expiry::of(&record(Timestamp::NEVER), half), Expiry::Never);
        let distant = half.saturating_add(Duration::from_secs(u64::MAX / 2_000_000));
        assert_eq!(Expiry::of(&record(distant), half), Expiry::Never, "the server rejects it");
    }

    #[test]
    fn expiry_sent_to_the_server_is_never_zero() {
        let request = set("name", b"value", Expiry::After(Duration::ZERO));
        let packed = request.command().get_packed_command();
        assert!(packed.ends_with(b"$2\r\nPX\r\n$1\r\n1\r\n"));
    }

    #[test]
    fn only_a_batch_of_reads_has_an_array_as_its_reply() {
        let names = KeyNames::new("vayu".to_owned());
        let keys = ["a", "b", "c"].map(|key| WireKey::new(&Key::from_text("p", key)));
        let read_many = || super::read_many(&names, &keys);
        assert_eq!(reply_items(read_many().command()), 3);
        let packed = read_many().command().get_packed_command();
        let mut expected = redis::cmd("MGET");
        for key in &keys {
            expected.arg(names.entry(key));
        }
        assert_eq!(packed, expected.get_packed_command());
        for request in [read("a", 7), get("MGET")] {
            assert_eq!(reply_items(request.command()), 0);
        }
        let reply = Value::Array(vec![Value::Nil, Value::BulkString(b"v".to_vec())]);
        let expected = [None, Some(Bytes::from("v"))];
        assert_eq!(read_many().parse(reply).unwrap(), expected);
        assert!(read_many().parse(Value::Array(vec![Value::Int(1)])).is_err());
        assert!(read_many().parse(Value::Nil).is_err());
    }

    #[test]
    fn reply_of_another_type_is_an_error() {
        assert!(bytes(Value::Okay).is_err() && bytes(Value::Int(1)).is_err());
        assert!(bytes(Value::Nil).unwrap().is_none());
        assert!(done(Value::BulkString(b"1".to_vec())).is_err());
        assert!(done(Value::Int(-1)).is_err());
        assert!(stored(Value::Nil).is_err() && stored(Value::Okay).unwrap());
    }
}

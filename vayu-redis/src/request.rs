//! The commands, and what their answers mean. Nothing here waits for anything.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, RedisConnectionInfo, Value};
use vayu_core::wire::WireKey;
use vayu_core::{Group, Record, Timestamp};

use crate::error::Failure;

/// The names of what is kept on the server.
#[derive(Debug, Clone)]
pub(crate) struct KeyNames {
    namespace: String,
}

impl KeyNames {
    pub(crate) fn new(namespace: String) -> Self {
        Self { namespace }
    }

    pub(crate) fn entry(&self, key: &WireKey) -> String {
        self.for_key(":e:", key)
    }

    /// A pattern for the names of all entries. Of the digest only the length is said, so that an entry
    /// of the namespace `a:e` is none of `a`.
    pub(crate) fn entry_pattern(&self) -> String {
        let mut pattern = String::new();
        for character in self.namespace.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + ":e:" + &"?".repeat(64)
    }

    pub(crate) fn lease(&self, key: &WireKey) -> String {
        self.for_key(":c:", key)
    }

    fn for_key(&self, kind: &str, key: &WireKey) -> String {
        let mut digits = [0; 64];
        let digits = const_hex::encode_to_str(key.digest(), &mut digits).unwrap_or_default();
        [&self.namespace, kind, digits].concat()
    }

    /// Groups with one name are invalidated together.
    pub(crate) fn generation(&self, group: Group) -> String {
        format!("{}:g:{:04x}", self.namespace, group.number() & 0xffff)
    }

    pub(crate) fn invalidation_channel(&self) -> Vec<u8> {
        format!("{}:invalidations", self.namespace).into_bytes()
    }
}

/// What there is of a value that is at most so long; one byte more of a longer one.
pub(crate) fn read(name: &str, max_bytes: u64) -> Cmd {
    const NAME: &str = "GETRANGE";
    let numbers = 1 + 20;
    let mut command = Cmd::with_capacity(4, NAME.len() + name.len() + numbers);
    command.arg(NAME).arg(name).arg(0).arg(max_bytes);
    command
}

/// Adds to `SET` how long the server keeps the value.
pub(crate) fn add_expiry(command: &mut Cmd, expiry: Expiry) {
    if let Expiry::After(time) = expiry {
        command.arg("PX").arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
    }
}

/// How long the server keeps an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    After(Duration),
    Never,
}

/// The server adds the time to its own clock and refuses what does not fit.
const MAX_EXPIRY: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Expiry {
    pub(crate) fn of(record: &Record<Bytes>, now: Timestamp) -> Self {
        let left = record.stale_until().saturating_since(now);
        if record.stale_until() == Timestamp::NEVER || left > MAX_EXPIRY {
            Self::Never
        } else {
            Self::After(left)
        }
    }
}

pub(crate) fn delete(name: &str) -> Cmd {
    let mut command = redis::cmd("DEL");
    command.arg(name);
    command
}

/// Sets a claim unless there is one of another token. Sent a second time it says the same as the first.
pub(crate) fn acquire_lease(name: &str, token: &[u8], time: Duration) -> Cmd {
    const SCRIPT: &str = "if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('get', KEYS[1]) == ARGV[1] then return 1 end return 0";
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(1).arg(name).arg(token);
    command.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
    command
}

/// [`claim`] where the server runs no scripts. A second attempt is refused if the first was granted.
pub(crate) fn acquire_lease_unscripted(name: &str, token: &[u8], time: Duration) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(name).arg(token).arg("NX").arg("PX");
    command.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
    command
}

/// Deletes a claim if it is still that of this token.
pub(crate) fn release_lease(name: &str, token: &[u8]) -> Cmd {
    const SCRIPT: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(1).arg(name).arg(token);
    command
}

pub(crate) fn get(name: &str) -> Cmd {
    let mut command = redis::cmd("GET");
    command.arg(name);
    command
}

pub(crate) fn set(name: &str, bytes: &[u8]) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(name).arg(bytes);
    command
}

pub(crate) fn set_if_absent(name: &str, bytes: &[u8]) -> Cmd {
    let mut command = set(name, bytes);
    command.arg("NX");
    command
}

pub(crate) fn publish(channel: &[u8], message: &[u8]) -> Cmd {
    let mut command = redis::cmd("PUBLISH");
    command.arg(channel).arg(message);
    command
}

pub(crate) fn ping() -> Cmd {
    redis::cmd("PING")
}

/// What is said first on a connection.
pub(crate) fn handshake(settings: &RedisConnectionInfo) -> Vec<Cmd> {
    let mut handshake = Vec::new();
    if let Some(password) = settings.password() {
        let mut auth = redis::cmd("AUTH");
        auth.arg(settings.username()).arg(password);
        handshake.push(auth);
    }
    if settings.db() != 0 {
        let mut select = redis::cmd("SELECT");
        select.arg(settings.db());
        handshake.push(select);
    }
    handshake
}

/// Bytes, or nothing.
pub(crate) fn bytes(answer: Value) -> Result<Option<Bytes>, Failure> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) if bytes.is_empty() => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        _ => Err(Failure::UnexpectedReply),
    }
}

/// Whether something was done.
pub(crate) fn done(answer: &Value) -> Result<bool, Failure> {
    match answer {
        Value::Okay | Value::Int(1..) => Ok(true),
        Value::Nil | Value::Int(0) => Ok(false),
        _ => Err(Failure::UnexpectedReply),
    }
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
        assert_eq!(Expiry::of(&record(distant), half), Expiry::Never, "the server would refuse it");
    }

    #[test]
    fn expiry_sent_to_the_server_is_never_zero() {
        let mut command = set("name", b"value");
        add_expiry(&mut command, Expiry::After(Duration::ZERO));
        let packed = command.get_packed_command();
        assert!(packed.ends_with(b"$2\r\nPX\r\n$1\r\n1\r\n"));
    }

    #[test]
    fn special_characters_of_a_namespace_are_escaped_in_the_pattern() {
        let names = KeyNames::new("a*b[c]".to_owned());
        assert_eq!(names.entry_pattern(), format!("a\\*b\\[c\\]:e:{}", "?".repeat(64)));
        let key = WireKey::new(&Key::from_text("p", "k"));
        assert!(names.entry(&key).starts_with("a*b[c]:e:"));
        assert_ne!(names.entry(&key), names.lease(&key));
    }

    #[test]
    fn reply_of_another_type_is_an_error() {
        assert!(bytes(Value::Okay).is_err() && bytes(Value::Int(1)).is_err());
        assert!(bytes(Value::Nil).unwrap().is_none());
        assert!(done(&Value::BulkString(b"1".to_vec())).is_err());
        assert!(done(&Value::Int(-1)).is_err());
    }
}

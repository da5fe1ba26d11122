//! The commands, and what their answers mean. Nothing here waits for anything.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, RedisConnectionInfo, Value};
use vayu_core::wire::WireKey;
use vayu_core::{Group, Record, Timestamp};

use crate::error::Failure;

/// The names of what is kept on the server.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    namespace: String,
}

impl Names {
    pub(crate) fn new(namespace: String) -> Self {
        Self { namespace }
    }

    pub(crate) fn entry(&self, key: &WireKey) -> String {
        self.of_key(":e:", key)
    }

    /// A pattern for the names of all entries. Of the digest only the length is said, so that an entry
    /// of the namespace `a:e` is none of `a`.
    pub(crate) fn entries(&self) -> String {
        let mut pattern = String::new();
        for character in self.namespace.chars() {
            if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
                pattern.push('\\');
            }
            pattern.push(character);
        }
        pattern + ":e:" + &"?".repeat(64)
    }

    pub(crate) fn claim(&self, key: &WireKey) -> String {
        self.of_key(":c:", key)
    }

    fn of_key(&self, kind: &str, key: &WireKey) -> String {
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
pub(crate) fn keep(command: &mut Cmd, keep: Keep) {
    if let Keep::For(time) = keep {
        command.arg("PX").arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
    }
}

/// How long the server keeps an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    For(Duration),
    Ever,
}

/// The server adds the time to its own clock and refuses what does not fit.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Keep {
    pub(crate) fn of(record: &Record<Bytes>, now: Timestamp) -> Self {
        let left = record.stale_until().saturating_since(now);
        if record.stale_until() == Timestamp::NEVER || left > LONGEST {
            Self::Ever
        } else {
            Self::For(left)
        }
    }
}

pub(crate) fn delete(name: &str) -> Cmd {
    let mut command = redis::cmd("DEL");
    command.arg(name);
    command
}

/// Sets a claim unless there is one of another token. Sent a second time it says the same as the first.
pub(crate) fn claim(name: &str, token: &[u8], time: Duration) -> Cmd {
    const SCRIPT: &str = "if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('get', KEYS[1]) == ARGV[1] then return 1 end return 0";
    let mut command = redis::cmd("EVAL");
    command.arg(SCRIPT).arg(1).arg(name).arg(token);
    command.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
    command
}

/// [`claim`] where the server runs no scripts. A second attempt is refused if the first was granted.
pub(crate) fn claim_plainly(name: &str, token: &[u8], time: Duration) -> Cmd {
    let mut command = redis::cmd("SET");
    command.arg(name).arg(token).arg("NX").arg("PX");
    command.arg(u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1));
    command
}

/// Deletes a claim if it is still that of this token.
pub(crate) fn release(name: &str, token: &[u8]) -> Cmd {
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
pub(crate) fn greetings(settings: &RedisConnectionInfo) -> Vec<Cmd> {
    let mut greetings = Vec::new();
    if let Some(password) = settings.password() {
        let mut auth = redis::cmd("AUTH");
        auth.arg(settings.username()).arg(password);
        greetings.push(auth);
    }
    if settings.db() != 0 {
        let mut select = redis::cmd("SELECT");
        select.arg(settings.db());
        greetings.push(select);
    }
    greetings
}

/// Bytes, or nothing.
pub(crate) fn bytes(answer: Value) -> Result<Option<Bytes>, Failure> {
    match answer {
        Value::Nil => Ok(None),
        Value::BulkString(bytes) if bytes.is_empty() => Ok(None),
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        _ => Err(Failure::Answer),
    }
}

/// Whether something was done.
pub(crate) fn done(answer: &Value) -> Result<bool, Failure> {
    match answer {
        Value::Okay | Value::Int(1..) => Ok(true),
        Value::Nil | Value::Int(0) => Ok(false),
        _ => Err(Failure::Answer),
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
    fn entry_is_kept_until_it_may_not_be_served_stale_any_more() {
        let second = Timestamp::from_micros(1_000_000);
        let half = Timestamp::from_micros(500_000);
        assert_eq!(Keep::of(&record(second), half), Keep::For(Duration::from_millis(500)));
        assert_eq!(Keep::of(&record(half), second), Keep::For(Duration::ZERO));
        assert_eq!(Keep::of(&record(Timestamp::NEVER), half), Keep::Ever);
        let backing = half.saturating_add(Duration::from_secs(u64::MAX / 2_000_000));
        assert_eq!(Keep::of(&record(backing), half), Keep::Ever, "the server would refuse it");
    }

    #[test]
    fn time_to_keep_is_never_zero_for_the_server() {
        let mut command = set("name", b"value");
        keep(&mut command, Keep::For(Duration::ZERO));
        let packed = command.get_packed_command();
        assert!(packed.ends_with(b"$2\r\nPX\r\n$1\r\n1\r\n"));
    }

    #[test]
    fn pattern_of_a_namespace_means_itself() {
        let names = Names::new("a*b[c]".to_owned());
        assert_eq!(names.entries(), format!("a\\*b\\[c\\]:e:{}", "?".repeat(64)));
        let key = WireKey::new(&Key::from_text("p", "k"));
        assert!(names.entry(&key).starts_with("a*b[c]:e:"));
        assert_ne!(names.entry(&key), names.claim(&key));
    }

    #[test]
    fn answers_of_other_commands_are_no_answers() {
        assert!(bytes(Value::Okay).is_err() && bytes(Value::Int(1)).is_err());
        assert!(bytes(Value::Nil).unwrap().is_none());
        assert!(done(&Value::BulkString(b"1".to_vec())).is_err());
        assert!(done(&Value::Int(-1)).is_err());
    }
}

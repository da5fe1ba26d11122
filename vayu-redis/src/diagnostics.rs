//! A configuration that cannot work is logged once, and so is that it works again.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Arg, Cmd};
use vayu_core::{Clock, Timestamp};

use crate::error::Failure;
use crate::error_reply::Misconfiguration;
use crate::options::RedisOptions;

/// What is known of the configuration of one cache.
///
/// One problem is remembered at a time: the first, or that of connecting. It is over when the step that
/// failed succeeds; that another one does says nothing, as a user may have the right to read and not the
/// right to publish.
pub(crate) struct Diagnostics {
    address: String,
    namespace: String,
    clock: Arc<dyn Clock>,
    has_problem: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    problem: Option<Problem>,
    /// When each cause was logged the last time.
    logged: Vec<(Misconfiguration, Timestamp)>,
}

struct Problem {
    operation: String,
    cause: Misconfiguration,
    is_logged: bool,
}

/// What has failed or succeeded.
pub(crate) enum Operation<'a> {
    Connect,
    Subscribe,
    Command(&'a Cmd),
}

/// Connections of one process may differ for a while, as those from before a change of the password. A
/// cause that comes and goes with them is logged this often at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl Diagnostics {
    pub(crate) fn new(address: String, options: &RedisOptions) -> Self {
        Self {
            address,
            namespace: options.namespace.clone(),
            clock: Arc::clone(&options.breaker_clock),
            has_problem: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Notes what came of a step, and logs it if the configuration is the reason or was.
    #[inline]
    pub(crate) fn record(&self, operation: &Operation<'_>, failure: Option<&Failure>) {
        match failure {
            Some(failure) => self.failed(operation, failure),
            None if self.has_problem.load(Ordering::Relaxed) => self.succeeded(operation),
            None => {}
        }
    }

    #[cold]
    fn failed(&self, operation: &Operation<'_>, failure: &Failure) {
        // What was found while connecting has been noted there.
        let is_recorded =
            matches!((operation, failure), (Operation::Command(_), Failure::Connect(_)))
                || operation.is_optional();
        let Some(cause) = failure.misconfiguration().filter(|_| !is_recorded) else { return };
        let name = self.describe(operation);
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { problem, logged } = &mut *state;
        let is_known = match problem {
            Some(known) if known.operation == name => known.cause == cause,
            Some(_) => !matches!(operation, Operation::Connect),
            None => false,
        };
        if !is_known {
            *problem = Some(Problem { operation: name, cause, is_logged: false });
            self.has_problem.store(true, Ordering::Relaxed);
        }
        let Some(problem) = problem.as_mut().filter(|problem| !problem.is_logged) else { return };
        let is_recent = logged.iter().any(|&(known, at)| {
            known == cause && now >= at && now.saturating_since(at) < LOG_INTERVAL
        });
        if problem.cause != cause || is_recent {
            return;
        }
        problem.is_logged = true;
        logged.retain(|&(known, _)| known != cause);
        logged.push((cause, now));
        drop(state);
        tracing::error!(
            target: "vayu",
            "the configuration of the Redis cache at {} cannot work: {failure}; {}",
            self.address,
            cause.hint()
        );
    }

    #[cold]
    fn succeeded(&self, operation: &Operation<'_>) {
        let name = self.describe(operation);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(problem) = state.problem.take_if(|problem| problem.operation == name) else {
            return;
        };
        self.has_problem.store(false, Ordering::Relaxed);
        drop(state);
        if problem.is_logged {
            tracing::info!(target: "vayu", "the Redis cache at {} works again", self.address);
        }
    }

    /// Returns the step with the kind of key that it is about, as rights depend on both.
    fn describe(&self, operation: &Operation<'_>) -> String {
        let command = match operation {
            Operation::Connect => return "connect".to_owned(),
            Operation::Subscribe => return "subscribe".to_owned(),
            Operation::Command(command) => command,
        };
        let mut arguments = command.args_iter().filter_map(|argument| match argument {
            Arg::Simple(bytes) => Some(bytes),
            _ => None,
        });
        let mut name = arguments.next().map(lossy_string).unwrap_or_default();
        let key_kind = |bytes: &[u8]| {
            let kind = bytes.strip_prefix(self.namespace.as_bytes())?.strip_prefix(b":")?;
            Some(lossy_string(kind.get(..1)?))
        };
        if let Some(kind) = arguments.find_map(key_kind) {
            name.push(' ');
            name.push_str(&kind);
        }
        name
    }
}

fn lossy_string(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Operation<'_> {
    /// Returns whether a cache works without this: leases are given back without scripts where the
    /// server refuses them.
    fn is_optional(&self) -> bool {
        let Self::Command(command) = self else { return false };
        matches!(command.args_iter().next(), Some(Arg::Simple(b"EVAL")))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Diagnostics").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use redis::parse_redis_value;
    use vayu_core::testing::ManualClock;

    use super::*;

    fn failure(reply: &str) -> Failure {
        let value = parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
        Failure::from(value.extract_error().unwrap_err())
    }

    #[test]
    fn problem_ends_when_its_operation_succeeds_and_is_logged_at_most_once_a_minute() {
        let clock = ManualClock::new();
        let mut options = RedisOptions::new();
        options.breaker_clock = Arc::new(clock.clone());
        let diagnostics = Diagnostics::new("host:1".to_owned(), &options);
        let is_logged =
            || diagnostics.state.lock().unwrap().problem.as_ref().map(|problem| problem.is_logged);
        let command = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            command
        };
        let (read, write) = (command(&["GET", "vayu:e:1"]), command(&["SET", "vayu:e:1", "x"]));
        let other = command(&["GET", "vayu:g:1"]);
        let refused = failure("NOPERM no");
        diagnostics.record(&Operation::Command(&read), Some(&failure("LOADING soon")));
        assert_eq!(is_logged(), None, "that passes");
        diagnostics.record(&Operation::Command(&read), Some(&refused));
        assert_eq!(is_logged(), Some(true));
        for operation in
            [Operation::Connect, Operation::Command(&write), Operation::Command(&other)]
        {
            diagnostics.record(&operation, None);
            assert_eq!(is_logged(), Some(true), "a user may have some rights and not all");
        }
        diagnostics.record(&Operation::Command(&command(&["GET", "vayu:e:2"])), None);
        assert_eq!(is_logged(), None);
        diagnostics.record(&Operation::Command(&write), Some(&refused));
        assert_eq!(is_logged(), Some(false), "that has been logged just now");
        clock.advance(LOG_INTERVAL);
        diagnostics.record(&Operation::Command(&write), Some(&refused));
        assert_eq!(is_logged(), Some(true));
        let wrong = failure("WRONGPASS no").while_connecting();
        diagnostics.record(&Operation::Connect, Some(&wrong));
        diagnostics.record(&Operation::Command(&write), None);
        assert_eq!(is_logged(), Some(true), "that of connecting takes the place of another");
        diagnostics.record(&Operation::Connect, None);
        assert_eq!(is_logged(), None);
        let script = command(&["EVAL", "return 1", "1", "vayu:c:1"]);
        diagnostics
            .record(&Operation::Command(&script), Some(&failure("ERR unknown command 'EVAL'")));
        assert_eq!(is_logged(), None, "leases do without scripts");
    }
}

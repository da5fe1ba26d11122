//! A configuration that cannot work is logged once, and so is that it works again.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Arg, Cmd};
use vayu_core::{Clock, Timestamp};

use crate::error::Failure;
use crate::options::RedisOptions;
use crate::reply::Cause;

/// What is known of the configuration of one cache.
///
/// One problem is remembered at a time: the first, or that of connecting. It is over when the step that
/// failed succeeds; that another one does says nothing, as a user may have the right to read and not the
/// right to publish.
pub(crate) struct Setup {
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
    logged: Vec<(Cause, Timestamp)>,
}

struct Problem {
    step: String,
    cause: Cause,
    is_logged: bool,
}

/// What has failed or succeeded.
pub(crate) enum Step<'a> {
    Connect,
    Subscribe,
    Command(&'a Cmd),
}

/// Connections of one process may differ for a while, as those from before a change of the password. A
/// cause that comes and goes with them is logged this often at most.
const INTERVAL: Duration = Duration::from_secs(60);

impl Setup {
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
    pub(crate) fn note(&self, step: &Step<'_>, failure: Option<&Failure>) {
        match failure {
            Some(failure) => self.failed(step, failure),
            None if self.has_problem.load(Ordering::Relaxed) => self.succeeded(step),
            None => {}
        }
    }

    #[cold]
    fn failed(&self, step: &Step<'_>, failure: &Failure) {
        // What was found while connecting has been noted there.
        let is_noted = matches!((step, failure), (Step::Command(_), Failure::Connect(_)))
            || step.is_optional();
        let Some(cause) = failure.misconfiguration().filter(|_| !is_noted) else { return };
        let name = self.name(step);
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { problem, logged } = &mut *state;
        let is_known = match problem {
            Some(known) if known.step == name => known.cause == cause,
            Some(_) => !matches!(step, Step::Connect),
            None => false,
        };
        if !is_known {
            *problem = Some(Problem { step: name, cause, is_logged: false });
            self.has_problem.store(true, Ordering::Relaxed);
        }
        let Some(problem) = problem.as_mut().filter(|problem| !problem.is_logged) else { return };
        let is_recent = logged
            .iter()
            .any(|&(known, at)| known == cause && now >= at && now.saturating_since(at) < INTERVAL);
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
            cause.way_out()
        );
    }

    #[cold]
    fn succeeded(&self, step: &Step<'_>) {
        let name = self.name(step);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(problem) = state.problem.take_if(|problem| problem.step == name) else { return };
        self.has_problem.store(false, Ordering::Relaxed);
        drop(state);
        if problem.is_logged {
            tracing::info!(target: "vayu", "the Redis cache at {} works again", self.address);
        }
    }

    /// Returns the step with the kind of key that it is about, as rights depend on both.
    fn name(&self, step: &Step<'_>) -> String {
        let command = match step {
            Step::Connect => return "connect".to_owned(),
            Step::Subscribe => return "subscribe".to_owned(),
            Step::Command(command) => command,
        };
        let mut arguments = command.args_iter().filter_map(|argument| match argument {
            Arg::Simple(bytes) => Some(bytes),
            _ => None,
        });
        let mut name = arguments.next().map(text).unwrap_or_default();
        let of_namespace = |bytes: &[u8]| {
            let kind = bytes.strip_prefix(self.namespace.as_bytes())?.strip_prefix(b":")?;
            Some(text(kind.get(..1)?))
        };
        if let Some(kind) = arguments.find_map(of_namespace) {
            name.push(' ');
            name.push_str(&kind);
        }
        name
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Step<'_> {
    /// Returns whether a cache works without this: leases are given back without scripts where the
    /// server refuses them.
    fn is_optional(&self) -> bool {
        let Self::Command(command) = self else { return false };
        matches!(command.args_iter().next(), Some(Arg::Simple(b"EVAL")))
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("address", &self.address).finish_non_exhaustive()
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
    fn problem_lasts_until_its_own_step_succeeds_and_returns_once_a_minute() {
        let clock = ManualClock::new();
        let mut options = RedisOptions::new();
        options.breaker_clock = Arc::new(clock.clone());
        let setup = Setup::new("host:1".to_owned(), &options);
        let is_logged =
            || setup.state.lock().unwrap().problem.as_ref().map(|problem| problem.is_logged);
        let command = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            command
        };
        let (read, write) = (command(&["GET", "vayu:e:1"]), command(&["SET", "vayu:e:1", "x"]));
        let other = command(&["GET", "vayu:g:1"]);
        let refused = failure("NOPERM no");
        setup.note(&Step::Command(&read), Some(&failure("LOADING soon")));
        assert_eq!(is_logged(), None, "that passes");
        setup.note(&Step::Command(&read), Some(&refused));
        assert_eq!(is_logged(), Some(true));
        for step in [Step::Connect, Step::Command(&write), Step::Command(&other)] {
            setup.note(&step, None);
            assert_eq!(is_logged(), Some(true), "a user may have some rights and not all");
        }
        setup.note(&Step::Command(&command(&["GET", "vayu:e:2"])), None);
        assert_eq!(is_logged(), None);
        setup.note(&Step::Command(&write), Some(&refused));
        assert_eq!(is_logged(), Some(false), "that has been logged just now");
        clock.advance(INTERVAL);
        setup.note(&Step::Command(&write), Some(&refused));
        assert_eq!(is_logged(), Some(true));
        let wrong = failure("WRONGPASS no").connecting();
        setup.note(&Step::Connect, Some(&wrong));
        setup.note(&Step::Command(&write), None);
        assert_eq!(is_logged(), Some(true), "that of connecting takes the place of another");
        setup.note(&Step::Connect, None);
        assert_eq!(is_logged(), None);
        let script = command(&["EVAL", "return 1", "1", "vayu:c:1"]);
        setup.note(&Step::Command(&script), Some(&failure("ERR unknown command 'EVAL'")));
        assert_eq!(is_logged(), None, "leases do without scripts");
    }
}

//! Logging of misconfigurations and outages: once when one is detected, and once when it is over.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::{Arg, Cmd};
use vayu_core::__internal::remote::{Failed, ServerOutages};
use vayu_core::__internal::{Outage, display_time, with_causes};
use vayu_core::{Clock, Timestamp};

use crate::error::Failure;
use crate::error_reply::Misconfiguration;
use crate::options::RedisOptions;
use crate::sync::lock;

/// The configuration problems and the outage of one cache, if there is one.
///
/// One problem is recorded for each cause. It ends when the operation that failed succeeds. The success
/// of another operation does not end it, as a user may have the permission to read and not the
/// permission to publish.
pub(crate) struct Diagnostics {
    address: Arc<str>,
    namespace: String,
    clock: Arc<dyn Clock>,
    outages: ServerOutages,
    /// From when the invalidation feed is lost to when it is restored.
    feed: Outage,
    has_problem: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The problems, one for each cause.
    problems: Vec<Problem>,
    /// Whether a problem was logged since there was none.
    is_logged: bool,
    /// Time at which each cause was last logged.
    logged: Vec<(Misconfiguration, Timestamp)>,
}

struct Problem {
    operation: String,
    cause: Misconfiguration,
    is_logged: bool,
}

/// An operation that has failed or succeeded.
pub(crate) enum Operation<'a> {
    Connect,
    Subscribe,
    Command(&'a Cmd),
}

/// Shortest time between two log lines of one cause. Connections of one process may differ for a
/// while, for example after a change of the password, so a cause may alternate with success.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl Diagnostics {
    pub(crate) fn new(address: String, options: &RedisOptions) -> Self {
        Self {
            outages: ServerOutages::new(
                format!("redis at {address}"),
                &options.remote.breaker_clock,
            ),
            address: address.into(),
            namespace: options.namespace.clone(),
            clock: Arc::clone(&options.remote.breaker_clock),
            feed: Outage::new(Arc::clone(&options.remote.breaker_clock)),
            has_problem: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Returns the address of the server, without credentials.
    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// Logs a failure of the server that begins an outage. A misconfiguration is logged as such.
    #[cold]
    pub(crate) fn record_failure(&self, failure: &Failure, consequence: &Failed) {
        if failure.misconfiguration().is_none() {
            self.outages.failed(failure, consequence);
        }
    }

    /// Logs that an outage is over. The circuit breaker is closed.
    #[inline]
    pub(crate) fn record_success(&self) {
        self.outages.succeeded();
    }

    /// Logs that the connection of the invalidation feed was lost, or could not be established.
    #[cold]
    pub(crate) fn record_lost_feed(&self, failure: &Failure) {
        if failure.misconfiguration().is_none() && self.feed.failed() {
            tracing::warn!(
                target: "vayu",
                "redis at {}: not subscribed to invalidations: {}; in-memory copies may be stale \
                 until they expire",
                self.address,
                with_causes(failure)
            );
        }
    }

    /// Logs that the connection of the invalidation feed is established after an outage.
    pub(crate) fn record_feed(&self) {
        if let Some(time) = self.feed.succeeded() {
            tracing::info!(
                target: "vayu",
                "redis at {}: subscribed to invalidations again after {}",
                self.address,
                display_time(time)
            );
        }
    }

    /// Records the outcome of an operation, and logs it if a misconfiguration began or ended.
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
        // A failure to connect was recorded as such.
        let is_recorded =
            matches!((operation, failure), (Operation::Command(_), Failure::Connect(_)))
                || operation.is_optional();
        let Some(cause) = failure.misconfiguration().filter(|_| !is_recorded) else { return };
        let name = self.describe(operation);
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let State { problems, is_logged, logged } = &mut *state;
        let index = problems.iter().position(|known| known.cause == cause).unwrap_or_else(|| {
            problems.push(Problem { operation: name.clone(), cause, is_logged: false });
            self.has_problem.store(true, Ordering::Relaxed);
            problems.len() - 1
        });
        let problem = &mut problems[index];
        if matches!(operation, Operation::Connect) {
            // Each operation needs a connection.
            problem.operation = name;
        }
        let is_recent =
            logged.iter().any(|&(known, at)| known == cause && now.is_within(at, LOG_INTERVAL));
        if problem.is_logged || is_recent {
            return;
        }
        (problem.is_logged, *is_logged) = (true, true);
        logged.retain(|&(known, _)| known != cause);
        logged.push((cause, now));
        drop(state);
        tracing::error!(
            target: "vayu",
            "invalid configuration of the Redis cache at {}: {failure}; {}",
            self.address,
            cause.hint()
        );
    }

    #[cold]
    fn succeeded(&self, operation: &Operation<'_>) {
        let name = self.describe(operation);
        let mut state = lock(&self.state);
        state.problems.retain(|problem| problem.operation != name);
        if !state.problems.is_empty() {
            return;
        }
        self.has_problem.store(false, Ordering::Relaxed);
        let was_logged = std::mem::take(&mut state.is_logged);
        drop(state);
        if was_logged {
            tracing::info!(target: "vayu", "the Redis cache at {} works again", self.address);
        }
    }

    /// Describes an operation and the kind of its key, as permissions depend on both.
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
    /// Returns whether the cache works without this operation. Where the server refuses scripts,
    /// the commands are sent one by one, and values of a batch are read by one command each.
    fn is_optional(&self) -> bool {
        let Self::Command(command) = self else { return false };
        matches!(command.args_iter().next(), Some(Arg::Simple(b"EVAL" | b"MGET")))
    }
}

impl fmt::Debug for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Diagnostics").field("address", &self.address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Once;

    use redis::parse_redis_value;
    use vayu_core::testing::ManualClock;

    use super::*;

    fn diagnostics() -> (ManualClock, Diagnostics) {
        let clock = ManualClock::new();
        let mut options = RedisOptions::new();
        options.remote.breaker_clock = Arc::new(clock.clone());
        (clock, Diagnostics::new("host:1".to_owned(), &options))
    }

    thread_local! {
        static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    /// Returns the lines that the code logs.
    ///
    /// One subscriber records the lines of all threads: if each thread had its own, a statement that another thread, without
    /// one, executes first would be disabled.
    fn lines(code: impl FnOnce()) -> Vec<String> {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Recorder).expect("the only one"));
        LINES.take();
        code();
        LINES.take()
    }

    struct Recorder;

    impl tracing::Subscriber for Recorder {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            struct Message(String);
            impl tracing::field::Visit for Message {
                fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn fmt::Debug) {
                    self.0 = format!("{value:?}");
                }
            }
            let mut message = Message(event.metadata().level().to_string());
            event.record(&mut message);
            LINES.with_borrow_mut(|lines| lines.push(message.0));
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn outage_below_the_threshold_is_logged_though_its_first_failure_was_not() {
        let (clock, diagnostics) = diagnostics();
        let refused = Failure::QueueFull;
        let fail = |in_a_row| diagnostics.record_failure(&refused, &Failed::Counted { in_a_row });
        let logged = lines(|| {
            fail(1);
            diagnostics.record_success();
            for in_a_row in 1..100 {
                fail(in_a_row);
                clock.advance(Duration::from_secs(1));
            }
        });
        let failures = logged.iter().filter(|line| line.contains("too many pending commands"));
        assert_eq!(failures.count(), 2, "{logged:#?}");
    }

    #[test]
    fn end_of_an_outage_below_the_threshold_is_logged() {
        let (clock, diagnostics) = diagnostics();
        let logged = lines(|| {
            diagnostics.record_failure(&Failure::QueueFull, &Failed::Counted { in_a_row: 1 });
            clock.advance(Duration::from_secs(3));
            diagnostics.record_success();
            diagnostics.record_success();
        });
        assert_eq!(logged.len(), 2, "{logged:#?}");
        assert_eq!(logged[1], "redis at host:1 is back after 3.0 s");
    }

    #[test]
    fn end_of_an_outage_that_opened_the_circuit_is_logged_once() {
        let (clock, diagnostics) = diagnostics();
        let logged = lines(|| {
            let opened = Failed::Opened { cooldown: Duration::from_secs(1) };
            diagnostics.record_failure(&Failure::QueueFull, &Failed::Counted { in_a_row: 1 });
            clock.advance(Duration::from_secs(2));
            diagnostics.record_failure(&Failure::QueueFull, &opened);
            clock.advance(Duration::from_secs(3));
            diagnostics.record_success();
        });
        assert_eq!(logged.len(), 3, "{logged:#?}");
        assert_eq!(logged[2], "redis at host:1 is back after 5.0 s");
    }

    #[test]
    fn each_cause_of_misconfiguration_is_logged() {
        let (_clock, diagnostics) = diagnostics();
        let command = |name| {
            let mut command = redis::cmd(name);
            command.arg("vayu:e:1");
            command
        };
        let (read, write) = (command("GET"), command("SET"));
        let record = |command, failure: Option<&str>| {
            let failure = failure.map(self::failure);
            diagnostics.record(&Operation::Command(command), failure.as_ref());
        };
        let logged = lines(|| {
            for _ in 0..3 {
                record(&read, Some("NOPERM no"));
                record(&write, Some("ERR unknown command 'SET'"));
            }
        });
        assert_eq!(logged.len(), 2, "{logged:#?}");
        assert!(logged[0].contains("ACL SETUSER"), "{logged:#?}");
        assert!(logged[1].contains("rename-command"), "{logged:#?}");
        assert_eq!(lines(|| record(&read, None)), [""; 0], "writes still fail");
        let end = lines(|| record(&write, None));
        assert_eq!(end, ["the Redis cache at host:1 works again"]);
    }

    fn failure(reply: &str) -> Failure {
        let value = parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
        Failure::from(value.extract_error().unwrap_err())
    }

    #[test]
    fn problem_ends_when_its_operation_succeeds_and_is_logged_at_most_once_a_minute() {
        let (clock, diagnostics) = diagnostics();
        let is_logged =
            || diagnostics.state.lock().unwrap().problems.last().map(|problem| problem.is_logged);
        let command = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            command
        };
        let (read, write) = (command(&["GET", "vayu:e:1"]), command(&["SET", "vayu:e:1", "x"]));
        let other = command(&["GET", "vayu:g:1"]);
        let refused = failure("NOPERM no");
        diagnostics.record(&Operation::Command(&read), Some(&failure("LOADING soon")));
        assert_eq!(is_logged(), None, "a transient failure");
        diagnostics.record(&Operation::Command(&read), Some(&refused));
        assert_eq!(is_logged(), Some(true));
        for operation in
            [Operation::Connect, Operation::Command(&write), Operation::Command(&other)]
        {
            diagnostics.record(&operation, None);
            assert_eq!(is_logged(), Some(true), "a user may have some permissions and not all");
        }
        diagnostics.record(&Operation::Command(&command(&["GET", "vayu:e:2"])), None);
        assert_eq!(is_logged(), None);
        diagnostics.record(&Operation::Command(&write), Some(&refused));
        assert_eq!(is_logged(), Some(false), "logged recently");
        clock.advance(LOG_INTERVAL);
        diagnostics.record(&Operation::Command(&write), Some(&refused));
        assert_eq!(is_logged(), Some(true));
        let wrong = failure("WRONGPASS no").while_connecting();
        diagnostics.record(&Operation::Connect, Some(&wrong));
        diagnostics.record(&Operation::Command(&write), None);
        assert_eq!(is_logged(), Some(true), "a failure to connect is another problem");
        diagnostics.record(&Operation::Connect, None);
        assert_eq!(is_logged(), None);
        let script = command(&["EVAL", "return 1", "1", "vayu:c:1"]);
        diagnostics
            .record(&Operation::Command(&script), Some(&failure("ERR unknown command 'EVAL'")));
        assert_eq!(is_logged(), None, "scripts are optional");
    }
}

//! Log events of caches.

use std::sync::Mutex;
use std::time::Duration;

use tracing::Span;
use tracing::level_filters::LevelFilter;

use crate::bounded_map::BoundedMap;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::key::Prefix;
use crate::outcome::CallOutcome;
use crate::sync::IgnorePoison;

/// Returns whether calls are logged at all.
#[inline]
pub(crate) fn is_enabled() -> bool {
    // Most programs log less, and every hit checks this.
    LevelFilter::current() >= LevelFilter::DEBUG && has_subscriber()
}

#[cold]
fn has_subscriber() -> bool {
    tracing::enabled!(target: "vayu", tracing::Level::DEBUG)
}

/// Returns whether the reasons of misses are logged.
#[inline]
pub(crate) fn has_reasons() -> bool {
    LevelFilter::current() >= LevelFilter::TRACE
        && tracing::enabled!(target: "vayu", tracing::Level::TRACE)
}

/// Logs at trace level why a stored record is not returned, or that there is none.
#[cold]
pub(crate) fn log_reason(function: &Prefix, reason: &'static str) {
    tracing::trace!(target: "vayu", function = function.as_str(), reason, "miss");
}

/// Creates the span of a run of a function, which the log has at debug level.
pub(crate) fn run_span(function: &Prefix, reason: &'static str) -> Span {
    tracing::debug_span!(target: "vayu", "vayu.run", function = function.as_str(), reason)
}

/// [`run_span`] for a run of a batch function, with the number of its elements.
pub(crate) fn batch_span(function: &Prefix, reason: &'static str, elements: usize) -> Span {
    let function = function.as_str();
    tracing::debug_span!(target: "vayu", "vayu.run", function, reason, elements)
}

/// Logs a call at debug level, and records its outcome in the current span, if that has the fields. Arguments and values
/// are never logged.
pub(crate) fn log_call(function: &Prefix, outcome: CallOutcome, age: Option<Duration>) {
    let (function, outcome) = (function.as_str(), outcome.as_str());
    let span = Span::current();
    span.record("vayu.outcome", outcome);
    if let Some(age) = age {
        span.record("vayu.age", age.as_secs_f64());
    }
    match age {
        Some(age) => tracing::debug!(target: "vayu", function, outcome, ?age),
        None => tracing::debug!(target: "vayu", function, outcome),
    }
}

/// Warnings of errors, up to one a minute for each function, operation and kind.
#[derive(Debug)]
pub(crate) struct Warnings(Mutex<BoundedMap<WarningKey, Timestamp>>);

/// The function, the kind, and the message unless it was formatted.
type WarningKey = (String, ErrorKind, Option<&'static str>);

const INTERVAL: Duration = Duration::from_secs(60);
/// The maximum number of functions, operations and kinds whose last warning is tracked.
const MAX_TRACKED: usize = 1024;

impl Default for Warnings {
    fn default() -> Self {
        Self(Mutex::new(BoundedMap::new(MAX_TRACKED)))
    }
}

impl Warnings {
    /// Logs an error of a call, unless the backend logs its cause.
    pub(crate) fn warn(&self, function: &str, error: &Error, now: Timestamp) {
        if !error.is_logged_by_backend() && self.is_due(function, error, now) {
            let consequence = match error.kind() {
                ErrorKind::Miss => "a stale value is served while there is one",
                _ => "the call goes on without the cache",
            };
            tracing::warn!(target: "vayu", function, "{error:?}; {consequence}");
        }
    }

    fn is_due(&self, function: &str, error: &Error, now: Timestamp) -> bool {
        let mut last = self.0.lock().ignore_poison();
        // A formatted message may differ at each call.
        let key = (function.to_owned(), error.kind(), error.static_message());
        let is_due = last.get(&key).is_none_or(|&last| !now.is_within(last, INTERVAL));
        if is_due {
            last.insert(key, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(operation: &'static str) -> Error {
        Error::new(ErrorKind::Backend, operation)
    }

    #[test]
    fn one_function_warns_once_a_minute_of_each_operation_and_kind() {
        let warnings = Warnings::default();
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let encode = Error::new(ErrorKind::Encode, "write");
        assert!(warnings.is_due("f", &error("read"), at(0)));
        assert!(!warnings.is_due("f", &error("read"), at(59)));
        assert!(warnings.is_due("f", &error("write"), at(59)));
        assert!(warnings.is_due("f", &encode, at(59)));
        assert!(warnings.is_due("g", &error("read"), at(59)));
        assert!(warnings.is_due("f", &error("read"), at(60)));
    }

    #[test]
    fn messages_with_varying_numbers_share_one_limit() {
        let warnings = Warnings::default();
        let too_long = |length: usize| {
            Error::new(ErrorKind::Configuration, format!("the entry has {length} bytes"))
        };
        let logged = (0..2 * MAX_TRACKED)
            .filter(|&length| warnings.is_due("f", &too_long(length), Timestamp::from_micros(0)));
        assert_eq!(logged.count(), 1);
        assert!(warnings.is_due("g", &too_long(1), Timestamp::from_micros(0)));
    }

    #[test]
    fn clock_that_was_set_back_does_not_silence_warnings() {
        let warnings = Warnings::default();
        assert!(warnings.is_due("f", &error("read"), Timestamp::from_micros(1_000_000_000)));
        assert!(warnings.is_due("f", &error("read"), Timestamp::from_micros(0)));
    }
}

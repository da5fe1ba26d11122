//! What a cache tells the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::key::Prefix;
use crate::observer::CallOutcome;

/// Whether calls are logged at all.
#[inline]
pub(crate) fn is_enabled() -> bool {
    // Most programs log less, and a hit asks this.
    LevelFilter::current() >= LevelFilter::DEBUG && has_subscriber()
}

#[cold]
fn has_subscriber() -> bool {
    tracing::enabled!(target: "vayu", tracing::Level::DEBUG)
}

/// Tells of one call, at debug level. Arguments and values are never told.
pub(crate) fn log_call(function: &Prefix, outcome: CallOutcome, age: Option<Duration>) {
    let (function, outcome) = (function.as_str(), outcome.as_str());
    match age {
        Some(age) => tracing::debug!(target: "vayu", function, outcome, ?age),
        None => tracing::debug!(target: "vayu", function, outcome),
    }
}

/// Warns of faults, once a minute at most for each function and kind.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<HashMap<(String, ErrorKind), Timestamp>>);

const INTERVAL: Duration = Duration::from_secs(60);
/// Functions whose last warning is remembered. Past that all are forgotten, and may warn again.
const MAX_TRACKED: usize = 1024;

impl Warnings {
    pub(crate) fn warn(&self, function: &str, error: &Error, now: Timestamp) {
        if self.is_due(function, error.kind(), now) {
            let source = std::error::Error::source(error).map(tracing::field::display);
            tracing::warn!(target: "vayu", function, source, "{error}; the call goes on without the cache");
        }
    }

    fn is_due(&self, function: &str, kind: ErrorKind, now: Timestamp) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (function.to_owned(), kind);
        let is_due =
            last.get(&key).is_none_or(|&last| now < last || now.saturating_since(last) >= INTERVAL);
        if is_due {
            if last.len() >= MAX_TRACKED {
                last.clear();
            }
            last.insert(key, now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_function_warns_once_a_minute_of_each_kind() {
        let warnings = Warnings::default();
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        assert!(warnings.is_due("f", ErrorKind::Backend, at(0)));
        assert!(!warnings.is_due("f", ErrorKind::Backend, at(59)));
        assert!(warnings.is_due("f", ErrorKind::Encode, at(59)));
        assert!(warnings.is_due("g", ErrorKind::Backend, at(59)));
        assert!(warnings.is_due("f", ErrorKind::Backend, at(60)));
    }

    #[test]
    fn clock_that_was_set_back_does_not_silence_warnings() {
        let warnings = Warnings::default();
        assert!(warnings.is_due("f", ErrorKind::Backend, Timestamp::from_micros(1_000_000_000)));
        assert!(warnings.is_due("f", ErrorKind::Backend, Timestamp::from_micros(0)));
    }
}

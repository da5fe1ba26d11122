//! Events of caches, recorded to the `metrics` facade.

use metrics::{Label, Unit, counter, describe_counter, describe_histogram, histogram};
use vayu_core::{CallEvent, CallOutcome, EndCause, Error, Observer};

/// An [`Observer`] that records to the [`metrics`](https://docs.rs/metrics) facade, and so to the recorder
/// that the program has installed. Names and units follow the
/// [conventions of OpenTelemetry](https://opentelemetry.io/docs/specs/semconv/general/metrics/).
///
/// | metric | kind, unit | labels |
/// |---|---|---|
/// | `vayu.call.count` | counter | `vayu.function`, `vayu.outcome`: `hit`, `miss`, `coalesced`, `stale`, `refresh` or `error_hit` |
/// | `vayu.computation.duration` | histogram, seconds | `vayu.function` |
/// | `vayu.saved.duration` | counter, microseconds of computation that hits saved | `vayu.function` |
/// | `vayu.insert.count` | counter | `vayu.function` |
/// | `vayu.end.count` | counter | `vayu.function`, `vayu.cause`: `evicted`, `expired`, `replaced`, `invalidated` |
/// | `vayu.error.count` | counter, errors of the cache that its callers did not see | `vayu.function`, `error.type` |
/// | `vayu.refresh.failed.count` | counter | `vayu.function` |
///
/// ```
/// # #[cfg(feature = "memory")]
/// vayu::mem_cache().observe(vayu::telemetry::Metrics::new());
/// ```
#[derive(Debug, Clone)]
pub struct Metrics(());

const CALLS: &str = "vayu.call.count";
const COMPUTATION: &str = "vayu.computation.duration";
const SAVED: &str = "vayu.saved.duration";
const ENDS: &str = "vayu.end.count";
const INSERTS: &str = "vayu.insert.count";
const ERRORS: &str = "vayu.error.count";
const FAILED_REFRESHES: &str = "vayu.refresh.failed.count";

impl Metrics {
    /// Creates an observer, and describes its metrics to the recorder of the program, which should be
    /// installed before.
    pub fn new() -> Self {
        describe_counter!(CALLS, Unit::Count, "Calls of cached functions");
        describe_histogram!(COMPUTATION, Unit::Seconds, "Run time of cached functions");
        describe_counter!(
            SAVED,
            Unit::Microseconds,
            "Run time of cached functions that hits saved"
        );
        describe_counter!(INSERTS, Unit::Count, "Values that were inserted");
        describe_counter!(ENDS, Unit::Count, "Entries that have left a cache");
        describe_counter!(ERRORS, Unit::Count, "Errors of caches that callers did not see");
        describe_counter!(
            FAILED_REFRESHES,
            Unit::Count,
            "Failed refreshes of a value past its ttl"
        );
        Self(())
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Observer for Metrics {
    fn on_call(&self, call: &CallEvent<'_>) {
        let function = label(call.function);
        let outcome = Label::from_static_parts("vayu.outcome", call.outcome.as_str());
        counter!(CALLS, vec![function.clone(), outcome]).increment(1);
        match call.outcome {
            CallOutcome::Miss | CallOutcome::Refresh => {
                histogram!(COMPUTATION, vec![function]).record(call.compute_time);
            }
            _ => {
                let micros = u64::try_from(call.compute_time.as_micros()).unwrap_or(u64::MAX);
                counter!(SAVED, vec![function]).increment(micros);
            }
        }
    }

    fn on_insert(&self, function: &str) {
        counter!(INSERTS, vec![label(function)]).increment(1);
    }

    fn on_end(&self, function: &str, cause: EndCause) {
        let cause = Label::from_static_parts("vayu.cause", cause.as_str());
        counter!(ENDS, vec![label(function), cause]).increment(1);
    }

    fn on_error(&self, function: &str, error: &Error) {
        let kind = Label::new("error.type", format!("{:?}", error.kind()).to_lowercase());
        counter!(ERRORS, vec![label(function), kind]).increment(1);
    }

    fn on_refresh_error(&self, function: &str, _: Option<&str>) {
        counter!(FAILED_REFRESHES, vec![label(function)]).increment(1);
    }
}

fn label(function: &str) -> Label {
    Label::new("vayu.function", function.to_owned())
}

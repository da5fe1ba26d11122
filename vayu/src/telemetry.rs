//! Observers of a cache: events for each call, counters per function, and the `metrics` facade.

#[cfg(feature = "metrics")]
mod metrics;

pub use vayu_core::{
    CallEvent, CallOutcome, EndCause, EndCounts, FunctionStats, Observer, PerFunctionStats,
};
#[cfg(feature = "tiered")]
pub use vayu_tiered::TierStats;

#[cfg(feature = "metrics")]
pub use self::metrics::Metrics;

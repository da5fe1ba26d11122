//! Cache statistics for the page, and for health checks.

use serde::Serialize;
use vayu::CacheInfo;
use vayu::telemetry::FunctionStats;

/// The statistics of one function.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    function: String,
    calls: u64,
    hits: u64,
    misses: u64,
    coalesced: u64,
    stale: u64,
    refreshes: u64,
    error_hits: u64,
    failed_refreshes: u64,
    errors: u64,
    /// The share of calls that did not run the function, from 0 to 1.
    hit_ratio: f64,
    saved_seconds: f64,
}

impl From<FunctionStats> for Line {
    #[expect(clippy::cast_precision_loss, reason = "only displayed")]
    fn from(found: FunctionStats) -> Self {
        let stats = found.stats;
        let spared = stats.hits + stats.coalesced + stats.stale + stats.error_hits;
        Self {
            function: short_name(&found.function).to_owned(),
            calls: stats.calls(),
            hits: stats.hits,
            misses: stats.misses,
            coalesced: stats.coalesced,
            stale: stats.stale,
            refreshes: stats.refreshes,
            error_hits: stats.error_hits,
            failed_refreshes: stats.failed_refreshes,
            errors: stats.errors,
            hit_ratio: spared as f64 / stats.calls().max(1) as f64,
            saved_seconds: found.time_saved.as_secs_f64(),
        }
    }
}

/// The state of one cache.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    name: String,
    entries: Option<u64>,
    errors: u64,
    /// The error for which the cache is off.
    off: Option<String>,
}

impl From<CacheInfo> for Health {
    fn from(cache: CacheInfo) -> Self {
        let stats = cache.stats;
        Self {
            name: cache.name,
            entries: stats.usage.entries,
            errors: stats.errors,
            off: stats.off,
        }
    }
}

/// Returns the last part of a path.
pub(crate) fn short_name(function: &str) -> &str {
    function.rsplit("::").next().unwrap_or(function)
}

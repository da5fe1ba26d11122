//! Cache statistics for the page, and for health checks.

use serde::Serialize;
use vayu::CacheInfo;
use vayu::telemetry::{EndCounts, FunctionStats};

use crate::catalogue::Catalogue;

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
    ended: Ended,
}

/// The number of entries that have left their cache, by cause.
#[derive(Debug, Serialize)]
struct Ended {
    evicted: u64,
    expired: u64,
    replaced: u64,
    invalidated: u64,
}

/// The statistics of all functions and caches.
#[derive(Debug, Serialize)]
pub(crate) struct Overview {
    functions: Vec<Line>,
    caches: Vec<Health>,
    /// The number of reports that were found in each tier, the fastest first.
    report_hits: [u64; 2],
}

impl Overview {
    pub(crate) fn of(catalogue: &Catalogue) -> Self {
        Self {
            functions: catalogue.function_stats().functions().into_iter().map(Line::from).collect(),
            caches: vayu::caches().into_iter().map(Health::from).collect(),
            report_hits: catalogue.report_hits(),
        }
    }
}

impl From<FunctionStats> for Line {
    #[expect(clippy::cast_precision_loss, reason = "only displayed")]
    fn from(found: FunctionStats) -> Self {
        let stats = found.stats;
        let EndCounts { evicted, expired, replaced, invalidated, .. } = found.ends;
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
            ended: Ended { evicted, expired, replaced, invalidated },
        }
    }
}

/// The state of one cache.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    name: String,
    entries: Option<u64>,
    max_entries: Option<u64>,
    evictions: Option<u64>,
    expirations: Option<u64>,
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
            max_entries: stats.usage.max_entries,
            evictions: stats.usage.evictions,
            expirations: stats.usage.expirations,
            errors: stats.errors,
            off: stats.off,
        }
    }
}

/// Returns the last part of a path.
pub(crate) fn short_name(function: &str) -> &str {
    function.rsplit("::").next().unwrap_or(function)
}

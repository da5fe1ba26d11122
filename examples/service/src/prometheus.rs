//! Cache statistics in the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::{Display, Write};

use vayu::CacheInfo;
use vayu::telemetry::FunctionStats;

use crate::stats::short_name;

/// Formats the statistics of functions and caches.
///
/// The metrics of functions have the names that `vayu::telemetry::Metrics` gives them with the recorder of
/// [`metrics-exporter-prometheus`](https://docs.rs/metrics-exporter-prometheus) and its recommended naming, so the dashboard
/// in `grafana.json` is for both.
pub(crate) fn text(functions: &[FunctionStats], caches: &[CacheInfo]) -> String {
    let mut text = Text(String::new());
    let of_functions = || functions.iter().map(|found| (function(&found.function), found));

    text.metric("vayu_call_count_total", "counter");
    for (function, found) in of_functions() {
        let stats = &found.stats;
        for (outcome, count) in [
            ("hit", stats.hits),
            ("miss", stats.misses),
            ("coalesced", stats.coalesced),
            ("stale", stats.stale),
            ("refresh", stats.refreshes),
            ("error_hit", stats.error_hits),
        ] {
            let labels = format!("{function},vayu_outcome=\"{outcome}\"");
            text.sample("vayu_call_count_total", &labels, count);
        }
    }
    text.metric("vayu_saved_duration_microseconds_total", "counter");
    for (function, found) in of_functions() {
        let micros = found.time_saved.as_micros();
        text.sample("vayu_saved_duration_microseconds_total", &function, micros);
    }
    text.metric("vayu_insert_count_total", "counter");
    for (function, found) in of_functions() {
        text.sample("vayu_insert_count_total", &function, found.stats.inserts);
    }
    text.metric("vayu_end_count_total", "counter");
    for (function, found) in of_functions() {
        let ends = &found.ends;
        for (cause, count) in [
            ("evicted", ends.evicted),
            ("expired", ends.expired),
            ("replaced", ends.replaced),
            ("invalidated", ends.invalidated),
        ] {
            let labels = format!("{function},vayu_cause=\"{cause}\"");
            text.sample("vayu_end_count_total", &labels, count);
        }
    }
    text.metric("vayu_error_count_total", "counter");
    for (function, found) in of_functions() {
        text.sample("vayu_error_count_total", &function, found.stats.errors);
    }
    text.metric("vayu_refresh_failed_count_total", "counter");
    for (function, found) in of_functions() {
        text.sample("vayu_refresh_failed_count_total", &function, found.stats.failed_refreshes);
    }

    text.metric("vayu_cache_entries", "gauge");
    for cache in caches {
        text.known("vayu_cache_entries", cache, cache.stats.usage.entries);
    }
    text.metric("vayu_cache_eviction_count_total", "counter");
    for cache in caches {
        text.known("vayu_cache_eviction_count_total", cache, cache.stats.usage.evictions);
    }
    text.metric("vayu_cache_expiration_count_total", "counter");
    for cache in caches {
        text.known("vayu_cache_expiration_count_total", cache, cache.stats.usage.expirations);
    }
    text.0
}

struct Text(String);

impl Text {
    fn metric(&mut self, name: &str, kind: &str) {
        writeln!(self.0, "# TYPE {name} {kind}").expect("a string takes everything");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        writeln!(self.0, "{name}{{{labels}}} {value}").expect("a string takes everything");
    }

    /// Adds a number of a cache, if its backend knows it.
    fn known(&mut self, name: &str, cache: &CacheInfo, value: Option<u64>) {
        if let Some(value) = value {
            self.sample(name, &format!("vayu_cache=\"{}\"", escaped(&cache.name)), value);
        }
    }
}

fn function(path: &str) -> String {
    format!("vayu_function=\"{}\"", escaped(short_name(path)))
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

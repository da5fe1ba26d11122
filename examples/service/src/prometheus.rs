//! Cache statistics in the text format of Prometheus
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::Write;

use vayu::telemetry::FunctionStats;

use crate::stats::short_name;

/// Formats the statistics. A program with a recorder for the `metrics` facade would observe its caches
/// with `vayu::telemetry::Metrics` instead.
pub(crate) fn text(functions: &[FunctionStats]) -> String {
    let mut text = String::from("# TYPE vayu_calls_total counter\n");
    for found in functions {
        let (function, stats) = (label(&found.function), &found.stats);
        for (outcome, count) in [
            ("hit", stats.hits),
            ("miss", stats.misses),
            ("coalesced", stats.coalesced),
            ("stale", stats.stale),
            ("refresh", stats.refreshes),
            ("error_hit", stats.error_hits),
        ] {
            line(
                &mut text,
                "vayu_calls_total",
                &format!("{function},outcome=\"{outcome}\""),
                count,
            );
        }
    }
    text.push_str("# TYPE vayu_inserts_total counter\n");
    for found in functions {
        line(&mut text, "vayu_inserts_total", &label(&found.function), found.stats.inserts);
    }
    text.push_str("# TYPE vayu_errors_total counter\n");
    for found in functions {
        line(&mut text, "vayu_errors_total", &label(&found.function), found.stats.errors);
    }
    text.push_str("# TYPE vayu_saved_seconds_total counter\n");
    for found in functions {
        let saved = found.time_saved.as_secs_f64();
        line(&mut text, "vayu_saved_seconds_total", &label(&found.function), saved);
    }
    text
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    writeln!(text, "{name}{{{labels}}} {value}").expect("a string takes everything");
}

fn label(function: &str) -> String {
    let name = short_name(function).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("function=\"{name}\"")
}

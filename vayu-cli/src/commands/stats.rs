//! `vayu-cache stats`: the entries of each function, and the time that they save.

use std::collections::BTreeMap;
use std::io::{Write, stdout};
use std::ops::ControlFlow;
use std::time::Duration;

use comfy_table::{CellAlignment, Table};
use serde_json::json;
use vayu_core::wire::EntryDetails;
use vayu_file::Verify;

use super::Outcome;
use crate::Verdict;
use crate::args::Stats;
use crate::output::{duration, escaped_json, now, size};
use crate::progress::Progress;
use crate::source::{Entry, Source};
use crate::state::State;

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    entries: u64,
    bytes: u64,
    fresh: u64,
    stale: u64,
    expired: u64,
    corrupt: u64,
    unreadable: u64,
    unsupported: u64,
    /// The time that the fresh and stale values took to compute.
    saved: Duration,
}

impl Count {
    fn add(&mut self, entry: &Entry, state: State) {
        self.entries += 1;
        self.bytes += entry.length;
        match state {
            State::Fresh => self.fresh += 1,
            State::Stale => self.stale += 1,
            State::Expired => self.expired += 1,
            State::Corrupt => self.corrupt += 1,
            State::Unreadable => self.unreadable += 1,
            State::Unsupported => self.unsupported += 1,
        }
        if matches!(state, State::Fresh | State::Stale) {
            let time = entry.details.as_ref().map(EntryDetails::compute_time);
            self.saved = self.saved.saturating_add(time.unwrap_or_default());
        }
    }
}

pub(crate) fn run(arguments: &Stats) -> Outcome {
    let source = Source::open(&arguments.target.cache)?;
    let now = now();
    let mut functions: BTreeMap<String, Count> = BTreeMap::new();
    let mut total = Count::default();
    let mut progress = Progress::new();
    let visited = source.for_each(Verify::Header, Some(arguments.limit), |entry| {
        progress.advance(&entry);
        let state = entry.state(now);
        let function = entry.function().unwrap_or("(unknown)");
        match functions.get_mut(function) {
            Some(count) => count.add(&entry, state),
            None => functions.entry(function.to_owned()).or_default().add(&entry, state),
        }
        total.add(&entry, state);
        Ok(ControlFlow::Continue(()))
    })?;
    progress.finish();
    if !visited.is_complete {
        eprintln!("vayu-cache: stopped at the limit; `--limit` sets it");
    }
    let mut out = stdout().lock();
    if arguments.target.json {
        for (function, count) in functions {
            writeln!(out, "{}", escaped_json(&as_json(&function, count).to_string()))?;
        }
        visited.errors.finish()?;
        return Ok(Verdict::Success);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "FUNCTION", "ENTRIES", "SIZE", "FRESH", "STALE", "EXPIRED", "CORRUPT", "OTHER", "SAVED",
    ]);
    for (function, count) in &functions {
        table.add_row(row(&function.escape_debug().to_string(), *count));
    }
    table.add_row(row("all", total));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(out, "{table}")?;
    eprintln!(
        "SAVED is the compute time of the values: what one hit of each entry saves. Headers only, \
         `vayu-cache verify` reads everything"
    );
    visited.errors.finish()?;
    Ok(Verdict::Success)
}

fn row(function: &str, count: Count) -> [String; 9] {
    [
        function.to_owned(),
        count.entries.to_string(),
        size(count.bytes),
        count.fresh.to_string(),
        count.stale.to_string(),
        count.expired.to_string(),
        count.corrupt.to_string(),
        (count.unreadable + count.unsupported).to_string(),
        duration(count.saved),
    ]
}

fn as_json(function: &str, count: Count) -> serde_json::Value {
    json!({
        "function": function,
        "entries": count.entries,
        "bytes": count.bytes,
        "fresh": count.fresh,
        "stale": count.stale,
        "expired": count.expired,
        "corrupt": count.corrupt,
        "unreadable": count.unreadable,
        "unsupported": count.unsupported,
        "compute_time_us": u64::try_from(count.saved.as_micros()).unwrap_or(u64::MAX),
    })
}

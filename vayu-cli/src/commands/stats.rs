//! `vayu-cache stats`: the number and size of the entries of each function.

use std::collections::BTreeMap;
use std::io::{Write, stdout};

use comfy_table::{CellAlignment, Table};
use serde_json::json;
use vayu_file::{CacheDirectory, Verify};

use super::Outcome;
use crate::Verdict;
use crate::args::Stats;
use crate::output::{State, now, progress, size};

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    entries: u64,
    bytes: u64,
    fresh: u64,
    expired: u64,
    corrupt: u64,
}

impl Count {
    fn add(&mut self, bytes: u64, state: State) {
        self.entries += 1;
        self.bytes += bytes;
        match state {
            State::Fresh | State::Stale => self.fresh += 1,
            State::Expired => self.expired += 1,
            State::Corrupt => self.corrupt += 1,
        }
    }
}

pub(crate) fn run(arguments: &Stats) -> Outcome {
    let directory = CacheDirectory::open(&arguments.target.directory)?;
    let bar = progress(&directory)?;
    let now = now();
    let mut functions: BTreeMap<String, Count> = BTreeMap::new();
    let mut total = Count::default();
    for entry in bar.wrap_iter(directory.entries(Verify::Header)) {
        let entry = entry?;
        let state = State::of(&entry, now);
        let function = entry.function().unwrap_or("(unknown)");
        functions.entry(function.to_owned()).or_default().add(entry.length(), state);
        total.add(entry.length(), state);
    }
    bar.finish_and_clear();
    let mut out = stdout().lock();
    if arguments.target.json {
        for (function, count) in functions {
            writeln!(out, "{}", as_json(&function, count))?;
        }
        return Ok(Verdict::Success);
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["FUNCTION", "ENTRIES", "SIZE", "FRESH", "EXPIRED", "CORRUPT"]);
    for (function, count) in &functions {
        table.add_row(row(&function.escape_debug().to_string(), *count));
    }
    table.add_row(row("all", total));
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    writeln!(out, "{table}")?;
    Ok(Verdict::Success)
}

fn row(function: &str, count: Count) -> [String; 6] {
    [
        function.to_owned(),
        count.entries.to_string(),
        size(count.bytes),
        count.fresh.to_string(),
        count.expired.to_string(),
        count.corrupt.to_string(),
    ]
}

fn as_json(function: &str, count: Count) -> serde_json::Value {
    json!({
        "function": function,
        "entries": count.entries,
        "bytes": count.bytes,
        "fresh": count.fresh,
        "expired": count.expired,
        "corrupt": count.corrupt,
    })
}

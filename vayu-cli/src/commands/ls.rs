//! `vayu-cache ls`: a line for each entry, printed while the directory is read.

use std::io::{BufWriter, Write, stdout};

use vayu_file::{CacheDirectory, Verify};

use super::Outcome;
use crate::Verdict;
use crate::args::Ls;
use crate::output::{State, age, entry_json, is_of, now, size, time_left};

pub(crate) fn run(arguments: &Ls) -> Outcome {
    let directory = CacheDirectory::open(&arguments.target.directory)?;
    let now = now();
    let mut out = BufWriter::new(stdout().lock());
    if !arguments.target.json {
        writeln!(out, "{:<8} {:>12} {:>14} {:>14}  KEY", "STATE", "SIZE", "AGE", "LEFT")?;
    }
    for entry in directory.entries(Verify::Header) {
        let entry = entry?;
        if arguments.function.as_ref().is_some_and(|function| !is_of(&entry, function)) {
            continue;
        }
        if arguments.target.json {
            writeln!(out, "{}", entry_json(&entry, now))?;
            continue;
        }
        let path = entry.path();
        writeln!(
            out,
            "{:<8} {:>12} {:>14} {:>14}  {}",
            State::of(&entry, now).name(),
            size(entry.length()),
            age(&entry, now),
            time_left(&entry, now),
            entry.key().unwrap_or(&path).escape_debug(),
        )?;
    }
    out.flush()?;
    Ok(Verdict::Success)
}

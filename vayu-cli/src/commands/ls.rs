//! `vayu-cache ls`: a line for each entry, printed while the entries are read.

use std::io::{BufWriter, Write, stdout};
use std::ops::ControlFlow;

use vayu_file::Verify;

use super::Outcome;
use crate::Verdict;
use crate::args::Ls;
use crate::output::{HEADING, entry_json, entry_line, escaped_json, now, size};
use crate::progress::Progress;
use crate::source::Source;

pub(crate) fn run(arguments: &Ls) -> Outcome {
    let target = &arguments.target;
    let source = Source::open(&target.cache)?;
    let now = now();
    let mut out = BufWriter::new(stdout());
    if !target.json {
        writeln!(out, "{HEADING}")?;
    }
    let mut progress = Progress::new();
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    let visited = source.for_each(Verify::Header, Some(arguments.limit), |entry| {
        progress.advance(&entry);
        if arguments.function.as_ref().is_some_and(|function| !entry.is_of(function)) {
            return Ok(ControlFlow::Continue(()));
        }
        entries += 1;
        bytes += entry.length;
        let line = if target.json {
            escaped_json(&entry_json(&entry, now, target.redact).to_string())
        } else {
            entry_line(&entry, now, target.redact)
        };
        progress.suspend(|| writeln!(out, "{line}"))?;
        Ok(ControlFlow::Continue(()))
    })?;
    progress.finish();
    out.flush()?;
    if !visited.is_complete {
        eprintln!("vayu-cache: stopped at the limit; `--limit` sets it");
    }
    if !target.json {
        let size = size(bytes);
        eprintln!("{entries} entries, {size}; headers only, `vayu-cache verify` reads everything");
    }
    visited.errors.finish()?;
    Ok(Verdict::Success)
}

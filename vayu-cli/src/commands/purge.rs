//! `vayu-cache purge`: removes entries.

use std::io::{Write, stdout};

use serde_json::json;
use vayu_core::Timestamp;
use vayu_file::{CacheDirectory, EntryInfo, Verify};

use super::Outcome;
use crate::Verdict;
use crate::args::{Filter, Purge};
use crate::output::{State, is_of, now, progress, size};

pub(crate) fn run(arguments: &Purge) -> Outcome {
    let directory = CacheDirectory::open(&arguments.target.directory)?;
    let bar = progress(&directory)?;
    let now = now();
    // A corrupt value is found by reading all of it.
    let check = if arguments.filter.corrupt { Verify::Full } else { Verify::Header };
    let (mut entries, mut bytes) = (0_u64, 0_u64);
    for entry in bar.wrap_iter(directory.entries(check)) {
        let entry = entry?;
        if !matches(&arguments.filter, &entry, now) {
            continue;
        }
        if arguments.dry_run || directory.remove(&entry)? {
            entries += 1;
            bytes += entry.length();
        }
    }
    bar.finish_and_clear();
    let mut out = stdout().lock();
    if arguments.target.json {
        let removed = !arguments.dry_run;
        writeln!(out, "{}", json!({ "entries": entries, "bytes": bytes, "removed": removed }))?;
    } else {
        let verb = if arguments.dry_run { "would remove" } else { "removed" };
        writeln!(out, "{verb} {entries} entries, {}", size(bytes))?;
    }
    Ok(Verdict::Success)
}

fn matches(filter: &Filter, entry: &EntryInfo, now: Timestamp) -> bool {
    let state = State::of(entry, now);
    let is_older = |age| entry.created().is_some_and(|created| now.saturating_since(created) > age);
    filter.function.as_ref().is_none_or(|function| is_of(entry, function))
        && filter.older_than.is_none_or(is_older)
        && (!filter.expired || state == State::Expired)
        && (!filter.corrupt || state == State::Corrupt)
}

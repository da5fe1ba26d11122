//! `vayu-cache purge`: removes entries.

use std::io::{Write, stdout};
use std::ops::ControlFlow;

use serde_json::json;
use vayu_core::__internal::with_causes;
use vayu_core::Timestamp;
use vayu_file::Verify;

use super::Outcome;
use crate::Verdict;
use crate::args::{Filter, Purge};
use crate::find::{Accept, find_one};
use crate::output::{escaped, escaped_json, now, size};
use crate::progress::Progress;
use crate::source::{Entry, Errors, Source};
use crate::state::State;

pub(crate) fn run(arguments: &Purge) -> Outcome {
    let target = &arguments.target;
    let source = Source::open(&target.cache)?;
    if let Some(tag) = &arguments.filter.tag {
        return invalidate_tag(&source, tag, arguments);
    }
    let mut removed = Removed {
        source: &source,
        is_dry_run: arguments.dry_run,
        entries: 0,
        bytes: 0,
        errors: Errors::default(),
    };
    if let Some(key) = &arguments.filter.key {
        let Some(entry) = find_one(&source, key, Accept::Whole, None, target.redact)? else {
            return Ok(Verdict::Failure);
        };
        removed.remove(&entry);
    } else {
        let now = now();
        // A corrupt value is found by reading all of it.
        let verify = if arguments.filter.corrupt { Verify::Full } else { Verify::Header };
        let mut progress = Progress::new();
        let visited = source.for_each(verify, None, |entry| {
            progress.advance(&entry);
            if matches(&arguments.filter, &entry, now) {
                removed.remove(&entry);
            }
            Ok(ControlFlow::Continue(()))
        });
        progress.finish();
        // The entries that were removed before an error are counted.
        match visited {
            Ok(visited) => removed.errors.extend(visited.errors),
            Err(error) => removed.errors.add(with_causes(&*error)),
        }
    }
    let errors = removed.errors;
    let (entries, bytes) = (removed.entries, removed.bytes);
    let mut out = stdout().lock();
    if target.json {
        let is_removed = !arguments.dry_run;
        writeln!(
            out,
            "{}",
            json!({ "entries": entries, "bytes": bytes, "failed": errors.count, "removed": is_removed })
        )?;
    } else {
        let verb = if arguments.dry_run { "would remove" } else { "removed" };
        writeln!(out, "{verb} {entries} entries, {}", size(bytes))?;
    }
    errors.finish()?;
    Ok(Verdict::Success)
}

/// The entries that were removed, or would be.
struct Removed<'a> {
    source: &'a Source,
    is_dry_run: bool,
    entries: u64,
    bytes: u64,
    errors: Errors,
}

impl Removed<'_> {
    fn remove(&mut self, entry: &Entry) {
        let removed = if self.is_dry_run { Ok(true) } else { self.source.remove(entry) };
        match removed {
            Ok(true) => {
                self.entries += 1;
                self.bytes += entry.length;
            }
            Ok(false) => {}
            Err(error) => {
                self.errors.add(format!("{}: {}", escaped(&entry.path), with_causes(&error)));
            }
        }
    }
}

fn invalidate_tag(source: &Source, tag: &str, arguments: &Purge) -> Outcome {
    if !arguments.dry_run {
        source.invalidate_tag(tag)?;
    }
    let mut out = stdout().lock();
    if arguments.target.json {
        let line = json!({ "tag": tag, "invalidated": !arguments.dry_run }).to_string();
        writeln!(out, "{}", escaped_json(&line))?;
    } else {
        let verb = if arguments.dry_run { "would invalidate" } else { "invalidated" };
        writeln!(out, "{verb} the entries with the tag `{}`", tag.escape_debug())?;
    }
    Ok(Verdict::Success)
}

fn matches(filter: &Filter, entry: &Entry, now: Timestamp) -> bool {
    let state = entry.state(now);
    let is_older = |age| {
        let details = entry.details.as_ref();
        details.is_ok_and(|details| now.saturating_since(details.created()) > age)
    };
    filter.function.as_ref().is_none_or(|function| entry.is_of(function))
        && filter.older_than.is_none_or(is_older)
        && (!filter.expired || state == State::Expired)
        && (!filter.corrupt || state == State::Corrupt)
}

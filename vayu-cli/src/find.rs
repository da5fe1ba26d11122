//! Finding the entry that an argument names.

use std::collections::HashSet;
use std::ops::ControlFlow;

use vayu_file::Verify;

use crate::Failure;
use crate::args::Limit;
use crate::output::{HEADING, entry_line, now};
use crate::progress::Progress;
use crate::source::{Entry, Source, is_end_of_path};

/// The number of candidates that are listed.
const LISTED: usize = 20;

/// How well an entry matches. A better match hides those that are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Match {
    /// The name begins the call or the label.
    Start,
    /// The name is the function.
    Function,
    /// The name is the call, the key, or the label.
    Whole,
}

/// The names that find an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accept {
    /// Every name that one entry matches best, also its function and the start of a name.
    Start,
    /// A whole key, call, label or path, or 8 digits of a key.
    Whole,
}

/// Returns the entry with this name. If there is none or several, prints that to standard error.
pub(crate) fn find_one(
    source: &Source,
    name: &str,
    accept: Accept,
    limit: Option<Limit>,
    is_redacted: bool,
) -> Result<Option<Entry>, Failure> {
    let (mut candidates, is_whole) = source.look_up(name)?;
    let mut count = candidates.len();
    let mut best = if is_whole { Match::Whole } else { Match::Start };
    let mut is_complete = true;
    if candidates.is_empty() {
        (candidates, count, best, is_complete) = search(source, name, limit)?;
    }
    let is_accepted = accept == Accept::Start || best == Match::Whole;
    if count == 1 && is_accepted {
        return Ok(candidates.pop());
    }
    if count == 0 {
        let scope = if is_complete { "" } else { " up to the limit; `--limit` sets it" };
        eprintln!("vayu-cache: entry `{name}` not found{scope}; `vayu-cache ls` lists the entries");
        return Ok(None);
    }
    let now = now();
    if is_accepted {
        eprintln!("vayu-cache: {count} entries match `{name}`; name one by its key");
    } else {
        eprintln!(
            "vayu-cache: entry `{name}` not found; write a whole key, call, label or path, or 8 digits of the \
             key. Entries that begin with it or have this function:"
        );
    }
    eprintln!("{HEADING}");
    for entry in &candidates[..candidates.len().min(LISTED)] {
        eprintln!("{}", entry_line(entry, now, is_redacted));
    }
    if count > LISTED {
        eprintln!("and {} more", count - LISTED);
    }
    Ok(None)
}

/// Searches all entries. Returns the first of those that match best, their number, how well they match,
/// and whether all entries were read.
fn search(
    source: &Source,
    name: &str,
    limit: Option<Limit>,
) -> Result<(Vec<Entry>, usize, Match, bool), Failure> {
    let mut progress = Progress::new();
    let mut matches = Matches::new();
    let visited = source.for_each(Verify::Header, limit, |entry| {
        progress.advance(&entry);
        if let Some(matched) = matched(&entry, name) {
            matches.add(matched, entry.path.clone(), entry);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    progress.finish();
    visited.errors.finish()?;
    Ok((matches.found, matches.paths.len(), matches.best, visited.is_complete))
}

/// The entries that match best.
struct Matches<E> {
    best: Match,
    /// A server may list a name twice.
    paths: HashSet<String>,
    /// The first of them.
    found: Vec<E>,
}

impl<E> Matches<E> {
    fn new() -> Self {
        Self { best: Match::Start, paths: HashSet::new(), found: Vec::new() }
    }

    fn add(&mut self, matched: Match, path: String, entry: E) {
        if matched < self.best {
            return;
        }
        if matched > self.best {
            *self = Self { best: matched, ..Self::new() };
        }
        if self.paths.insert(path) && self.found.len() < LISTED {
            self.found.push(entry);
        }
    }
}

fn matched(entry: &Entry, name: &str) -> Option<Match> {
    if entry.path == name {
        return Some(Match::Whole);
    }
    let details = entry.details.as_ref().ok()?;
    let call = details.call().unwrap_or_default();
    let function = details.function().unwrap_or_default();
    // The call without the modules of the function.
    let module = function.rfind("::").map_or(0, |at| at + 2);
    let short_call = call.get(module..).unwrap_or(call);
    let starts = [Some(call), Some(short_call), details.label(), details.key()];
    let starts = || starts.iter().flatten();
    if starts().any(|&start| start == name) || entry.has_digest(name) {
        Some(Match::Whole)
    } else if !name.is_empty() && is_end_of_path(function, name) {
        Some(Match::Function)
    } else if !name.is_empty() && starts().any(|start| start.starts_with(name)) {
        Some(Match::Start)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_that_is_listed_twice_counts_once() {
        let mut matches = Matches::new();
        for (matched, path) in
            [(Match::Start, "a"), (Match::Whole, "b"), (Match::Function, "c"), (Match::Whole, "b")]
        {
            matches.add(matched, path.to_owned(), path);
        }
        assert_eq!(
            (matches.found, matches.paths.len(), matches.best),
            (vec!["b"], 1, Match::Whole)
        );
    }
}

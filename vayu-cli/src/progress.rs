//! Progress of commands that read many entries, on a terminal.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::source::Entry;

/// The time after which progress is shown.
const DELAY: Duration = Duration::from_secs(1);

/// The number of subdirectories, in the order of which the entries of a directory are visited.
const SHARDS: u64 = 256;

/// The progress of a command: a bar on standard error once the command has run for a second, if that is a
/// terminal.
pub(crate) struct Progress {
    began: Instant,
    is_terminal: bool,
    entries: u64,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), is_terminal: stderr().is_terminal(), entries: 0, bar: None }
    }

    /// Counts an entry that was read.
    pub(crate) fn advance(&mut self, entry: &Entry) {
        self.entries += 1;
        if !self.is_terminal || !self.entries.is_multiple_of(64) {
            return;
        }
        if self.bar.is_none() && self.began.elapsed() >= DELAY {
            self.bar = Some(bar(entry));
        }
        if let Some(bar) = &self.bar {
            if let Some(shard) = shard(entry) {
                bar.set_position(shard);
            }
            bar.set_message(format!("{} entries", self.entries));
        }
    }

    /// Runs code that prints, without the bar in the way.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(entry: &Entry) -> ProgressBar {
    let (bar, template) = match shard(entry) {
        Some(_) => (ProgressBar::new(SHARDS), "{bar:40} {percent}% {msg}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is valid"))
}

/// Returns the number of the subdirectory of an entry in a directory.
fn shard(entry: &Entry) -> Option<u64> {
    let (shard, _) = entry.path.split_once('/')?;
    u64::from_str_radix(shard, 16).ok().filter(|&shard| shard < SHARDS)
}

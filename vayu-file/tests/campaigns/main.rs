//! The file backend on a real file system: killed processes, foreign files, permissions, limits and
//! clocks.
//!
//! Some tests run this binary again as a child process with a single test; see [`child`].

#![cfg(any(target_os = "linux", windows))]

#[cfg(unix)]
mod access;
mod at_rest;
mod child;
mod clocks;
mod fixture;
mod foreign;
mod foreign_file;
mod kills;
mod limits;
#[cfg(unix)]
mod open_files;
mod processes;
#[cfg(unix)]
mod races;
#[cfg(unix)]
mod shortage;
#[cfg(unix)]
mod syscalls;
mod tagged_value;

use std::time::Duration;

/// The time after which a test hangs. Processes start slowly on Windows.
const HANG: Duration = Duration::from_secs(if cfg!(windows) { 240 } else { 60 });

/// Longer than any test.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// Returns the size of a campaign: `usual`, or the value of the environment variable.
fn size(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("`{variable}` must be a number")),
        Err(_) => usual,
    }
}

/// Prints the progress of a long campaign to standard error at each tenth.
fn progress(what: &str, done: usize, all: usize) {
    if all >= 10 && done > 0 && (done * 10 / all) > ((done - 1) * 10 / all) {
        eprintln!("{what}: {done} of {all}");
    }
}

/// Returns whether this process runs as root, which some tests need.
#[cfg(unix)]
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

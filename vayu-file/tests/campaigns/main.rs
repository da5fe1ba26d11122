//! The file backend on a real file system: processes that are killed, things that are none of
//! ours, rights, limits and clocks.
//!
//! Some tests run this binary again as a child, with one test of it alone; see [`child`].

#![cfg(target_os = "linux")]

mod access;
mod child;
mod clocks;
mod foreign;
mod ground;
mod held;
mod kills;
mod limits;
mod processes;
mod races;
mod shortage;
mod stamp;
mod syscalls;
mod thing;

use std::time::Duration;

/// After this a test hangs.
const HANG: Duration = Duration::from_secs(60);

/// Longer than any test.
const HOUR: Duration = Duration::from_secs(60 * 60);

/// How large a campaign is: `usual`, or what the environment says.
fn size(variable: &str, usual: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("`{variable}` must be a number")),
        Err(_) => usual,
    }
}

/// Says on standard error how far a long campaign is, at each tenth of it.
fn progress(what: &str, done: usize, all: usize) {
    if all >= 10 && done > 0 && (done * 10 / all) > ((done - 1) * 10 / all) {
        eprintln!("{what}: {done} of {all}");
    }
}

/// Whether this process may do everything, which some things can only be made with.
fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Look into the cache directories of vayu.
#[derive(Debug, Parser)]
#[command(name = "vayu", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the entries of a directory.
    Ls(Ls),
    /// Show one entry, and its value where it is MessagePack or JSON.
    Show(Show),
    /// Count the entries of each function.
    Stats(Stats),
    /// Read every entry and check every byte; exits with 1 if one is damaged.
    Verify(Verify),
    /// Remove entries.
    Purge(Purge),
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Only entries of this function: its path, or the end of it after `::`.
    #[arg(long, value_name = "PATH")]
    pub(crate) function: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The key as `ls` lists it, or the path of the file in the directory.
    pub(crate) entry: String,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    pub(crate) place: Place,
    /// What is to go. Where several are given, entries to which all of them apply.
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// Say what would go, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Choice {
    /// Entries of this function: its path, or the end of it after `::`.
    #[arg(long, value_name = "PATH")]
    pub(crate) function: Option<String>,
    /// Entries that were written longer ago than this, `7d` or `12h 30m`. Units: ms, s, m, h, d, w, and
    /// words like months.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    /// Entries that have expired.
    #[arg(long)]
    pub(crate) expired: bool,
    /// Entries that are damaged.
    #[arg(long)]
    pub(crate) damaged: bool,
    /// Every entry.
    #[arg(long, conflicts_with_all = ["function", "older_than", "expired", "damaged"])]
    pub(crate) all: bool,
}

fn age(text: &str) -> Result<Duration, String> {
    vayu_core::duration::parse(text).map_err(|error| match &error.suggestions[..] {
        [] => error.reason,
        instead => format!("{}; write `{}`", error.reason, instead.join("` or `")),
    })
}

/// What all commands are told.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The cache directory.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Write JSON, one object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

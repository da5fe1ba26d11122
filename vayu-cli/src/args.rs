//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Inspect cache directories of vayu.
#[derive(Debug, Parser)]
#[command(name = "vayu-cache", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the entries of a directory.
    Ls(Ls),
    /// Show one entry, with its value if it is MessagePack or JSON.
    Show(Show),
    /// Count the entries of each function.
    Stats(Stats),
    /// Verify the checksum of every entry; exits with 1 if one is corrupt.
    Verify(Verify),
    /// Remove entries.
    Purge(Purge),
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) target: Target,
    /// List entries of this function only: its path, or the end of it after `::`.
    #[arg(long, value_name = "PATH")]
    pub(crate) function: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The key as printed by `ls`, or the path of the file in the directory.
    pub(crate) entry: String,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The entries to remove. With several filters, those that match all of them.
    #[command(flatten)]
    pub(crate) filter: Filter,
    /// Print what would be removed, and remove nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Filter {
    /// Entries of this function: its path, or the end of it after `::`.
    #[arg(long, value_name = "PATH")]
    pub(crate) function: Option<String>,
    /// Entries older than this, such as `7d` or `12h 30m`. Units: ms, s, m, h, d, w, and words such as
    /// months.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    /// Entries that have expired.
    #[arg(long)]
    pub(crate) expired: bool,
    /// Entries that are corrupt.
    #[arg(long)]
    pub(crate) corrupt: bool,
    /// Every entry.
    #[arg(long, conflicts_with_all = ["function", "older_than", "expired", "corrupt"])]
    pub(crate) all: bool,
}

fn age(value: &str) -> Result<Duration, String> {
    vayu_core::duration::parse(value).map_err(|error| match &error.suggestions[..] {
        [] => error.reason,
        suggestions => format!("{}; write `{}`", error.reason, suggestions.join("` or `")),
    })
}

/// The arguments of all commands.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The cache directory.
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
    /// Print JSON, one object per line.
    #[arg(long)]
    pub(crate) json: bool,
}

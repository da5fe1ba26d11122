//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Inspect cache directories of vayu, and its entries on Redis servers.
#[derive(Debug, Parser)]
#[command(name = "vayu-cache", version)]
#[command(
    after_help = "CACHE is a cache directory, or the URL of a Redis server with the namespace of \
                        the cache: redis://host/0?namespace=shop\n\nExample: vayu-cache ls /var/cache/app"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the entries, by their headers.
    ///
    /// A line shows the state, size, age, time left and key of an entry, and its call. The key is the
    /// first part of a digest; `show` and `purge --key` take it. The call is the function with its
    /// arguments, `f(1, "a")`; with its string key, `f:key`; or with its label, `f [label]`.
    ///
    /// Only headers are read: an entry that is listed as fresh may still have a corrupt value. `verify`
    /// reads everything.
    #[command(after_help = ls_help())]
    Ls(Ls),
    /// Show one entry, with its value if it is MessagePack or JSON, compressed or not.
    #[command(after_help = show_help())]
    Show(Show),
    /// Count the entries of each function, and the compute time that they save.
    ///
    /// SAVED is the time that the function took to compute the values that are fresh or stale: what one
    /// hit of each of these entries saves. How often an entry was hit is not recorded. OTHER entries are
    /// unreadable, or in an unsupported version of the format.
    #[command(after_help = stats_help())]
    Stats(Stats),
    /// Read all entries and verify their checksums; exits with 1 if one is corrupt or cannot be verified.
    #[command(after_help = "Example: vayu-cache verify /var/cache/app && echo intact")]
    Verify(Verify),
    /// Remove entries.
    ///
    /// `--key`, `--function`, `--older-than`, `--expired`, `--corrupt` and `--all` delete entries and free
    /// their space. `--tag` invalidates the entries with a tag, as `Cache::invalidate_tag` does: they
    /// are misses from now on, and their space is freed as they are overwritten, expire or are evicted.
    ///
    /// Entries that cannot be read or removed are skipped: the exit code is then 2.
    #[command(after_help = purge_help())]
    Purge(Purge),
}

fn ls_help() -> &'static str {
    "With --json a line is an object:\n  \
     key, digest        the key as vayu displays it, and its SHA-256 in hex\n  \
     function, call     the path of the function or its prefix; the call as a string\n  \
     label              the label of the call, or null\n  \
     path               the file in the directory, or the name on the server\n  \
     bytes              the size of the entry\n  \
     created, expires, stale_until\n                     \
     times in RFC 3339, and in microseconds since 1970 as created_us ..;\n                     \
     expires and stale_until are null if the entry never expires; they are\n                     \
     null too before 1970 and more than 100 years ahead, where expires_us\n                     \
     and stale_until_us have the time\n  \
     compute_time_us    the time that its function took\n  \
     serializer, state  MessagePack ..; fresh, stale, expired, corrupt, unreadable or\n                     \
     unsupported (of another version of the format)\n  \
     error              the reason why it is corrupt, unreadable or unsupported, or null\n\n\
     Example: vayu-cache ls /var/cache/app --function rates --json | jq -r .call"
}

fn show_help() -> &'static str {
    "With --json the object is that of `ls --json`, and has one more field:\n  \
     value              the value as JSON, if its serializer is MessagePack or JSON.\n                     \
     Byte strings in it are {\"base64\": \"..\"}, and NaN is null\n  \
     value_base64       otherwise the bytes of the value\n  \
     value_error        the reason why a sealed or compressed value has neither\n\n\
     Examples:\n  \
     vayu-cache show /var/cache/app 2d4fe63a765e\n  \
     vayu-cache show /var/cache/app 'rates(\"EUR\", 7)'\n  \
     vayu-cache show /var/cache/app shop::rates:EUR --json | jq .value"
}

fn stats_help() -> &'static str {
    "With --json a line is an object: function, entries, bytes, fresh, stale, expired, corrupt, unreadable, \
     unsupported, and compute_time_us, the time that the fresh and stale values took.\n\n\
     Example: vayu-cache stats /var/cache/app"
}

fn purge_help() -> &'static str {
    "With several filters, entries that match all of them are removed.\n\n\
     Examples:\n  \
     vayu-cache purge /var/cache/app --function rates --older-than 7d --dry-run\n  \
     vayu-cache purge /var/cache/app --key 2d4fe63a765e\n  \
     vayu-cache purge /var/cache/app --tag user:7"
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    #[command(flatten)]
    pub(crate) target: Target,
    /// List entries of this function only: its path, or the end of it after `::`.
    #[arg(long, value_name = "PATH")]
    pub(crate) function: Option<String>,
    #[command(flatten)]
    pub(crate) limit: Limit,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) target: Target,
    /// The entry: its key or call as printed by `ls`, its label, its path, its function, or the start of
    /// one of these; of the key at least 8 digits.
    ///
    /// A key or path is looked up in one file. For the others, and for what is not found, all entries
    /// are searched. If several match, they are listed.
    pub(crate) entry: String,
    /// The keys of sealed values, in an environment variable: `env:CACHE_KEY`. The option `seal` of a URL is
    /// the same.
    #[arg(long, value_name = "env:NAME")]
    pub(crate) seal: Option<String>,
    /// The context of sealed values, as the option `seal_context` of a URL.
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) seal_context: Option<String>,
    /// The longest entry that is read, and the longest value that is unpacked, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20)]
    pub(crate) max_bytes: u64,
    #[command(flatten)]
    pub(crate) limit: Limit,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) limit: Limit,
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) limit: Limit,
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
    /// The entry with this key, call, label or path, or whose key begins with these digits, at least 8.
    /// Other names are to be whole. Nothing is removed if several match.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["function", "older_than", "expired", "corrupt"])]
    pub(crate) key: Option<String>,
    /// Entries of this function: its path, or the end of it after `::`.
    #[arg(long, value_name = "PATH")]
    pub(crate) function: Option<String>,
    /// Invalidate the entries with this tag: they are misses from now on. Their space is freed later.
    #[arg(long, value_name = "TAG", conflicts_with_all = ["key", "function", "older_than", "expired", "corrupt", "all"])]
    pub(crate) tag: Option<String>,
    /// Entries older than this, such as `7d` or `12h 30m`. Units: ms, s, m, h, d, w, and words such as
    /// months.
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    /// Entries that have expired.
    #[arg(long)]
    pub(crate) expired: bool,
    /// Entries that are corrupt. Those that are unreadable or unsupported are kept.
    #[arg(long)]
    pub(crate) corrupt: bool,
    /// Every entry.
    #[arg(long, conflicts_with_all = ["key", "function", "older_than", "expired", "corrupt"])]
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
    /// The cache: its directory, `redis://host/0?namespace=NAME`, or another URL that `vayu::open` takes. Of
    /// `memory+redis:` and `memory+file:` the entries behind memory are read.
    #[arg(value_name = "CACHE")]
    pub(crate) cache: String,
    /// Print JSON, one object per line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Hide arguments, string keys, labels and values. Functions are shown.
    #[arg(long)]
    pub(crate) redact: bool,
}

/// The limit of commands that read many entries.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Limit {
    /// Stop after examining this many entries. The default is 100,000 on a server, and no limit in a
    /// directory.
    #[arg(long, value_name = "ENTRIES")]
    pub(crate) limit: Option<u64>,
}

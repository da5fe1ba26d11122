//! A directory: results outlive the process. Run it twice.
//!
//! The directory is the first argument, or `vayu-example` in the directory for temporary files.

use std::env;
use std::path::PathBuf;
use std::sync::LazyLock;

use vayu::{FileCache, cached};

static REPORTS: LazyLock<FileCache> = LazyLock::new(|| {
    let default = || env::temp_dir().join("vayu-example");
    FileCache::open_or_off(env::args_os().nth(1).map_or_else(default, PathBuf::from))
});

#[cached(cache = REPORTS, ttl = "1d", key = format!("{year}"))]
fn report(year: u32) -> String {
    println!("computing the report of {year}");
    format!("all of {year}")
}

fn main() {
    println!("{}", report(2026));
    let stats = REPORTS.stats();
    println!("{} read from the directory, {} computed", stats.hits, stats.misses);
    if let Some(why) = stats.off {
        println!("the cache is off: {why}");
    }
}

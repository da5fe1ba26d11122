//! A report on Rust sources whose parts are cached in a directory: the second run reads them from disk.
//!
//! ```text
//! cargo run --release --example report [DIRECTORY]
//! ```
//!
//! It reads this workspace, or the given directory. The part of a file is valid for a day, and as long as
//! the file does not change.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use vayu::{FileCache, cached};

static PARTS: LazyLock<FileCache> = LazyLock::new(|| FileCache::open_or_off(cache_directory()));

/// The part of one file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Part {
    lines: usize,
    comments: usize,
    functions: usize,
    /// Passages of eight words that occur more than once.
    repeats: usize,
}

/// Computes the part of a file. Its modification time and length are arguments to be part of the key.
#[cached(cache = PARTS, ttl = "1d")]
fn part(path: &Path, _modified: Duration, _length: u64) -> io::Result<Part> {
    let text = fs::read_to_string(path)?;
    let mut part = Part::default();
    for line in text.lines().map(str::trim_start) {
        part.lines += 1;
        part.comments += usize::from(line.starts_with("//"));
        part.functions += usize::from(line.split_whitespace().take(4).any(|word| word == "fn"));
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut passages: BTreeMap<&[&str], usize> = BTreeMap::new();
    for passage in words.windows(8) {
        *passages.entry(passage).or_default() += 1;
    }
    part.repeats = passages.values().filter(|&&times| times > 1).count();
    Ok(part)
}

fn main() -> Result<(), Box<dyn Error>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let root = env::args_os().nth(1).map_or(workspace, PathBuf::from).canonicalize()?;
    let started = Instant::now();
    let mut all = Part::default();
    let mut files = 0;
    visit(&root, &mut |path, metadata| {
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let part = part(path, modified, metadata.len())?;
        files += 1;
        all.lines += part.lines;
        all.comments += part.comments;
        all.functions += part.functions;
        all.repeats += part.repeats;
        Ok(())
    })?;
    let elapsed = started.elapsed();

    println!("{files} files below {}", root.display());
    println!("{:>9} lines, {} of them comments", all.lines, all.comments);
    println!("{:>9} functions", all.functions);
    println!("{:>9} passages of eight words that occur again in their file", all.repeats);
    let stats = PARTS.stats();
    println!(
        "\n{} parts came from {}, {} were computed, in {:.1} ms",
        stats.hits,
        cache_directory().display(),
        stats.misses,
        elapsed.as_secs_f64() * 1e3,
    );
    Ok(())
}

/// Returns a directory in the user's cache directory.
fn cache_directory() -> PathBuf {
    let home = || env::home_dir().map(|home| home.join(".cache"));
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    base.unwrap_or_else(|| PathBuf::from("target")).join("vayu-report")
}

fn visit(
    directory: &Path,
    file: &mut impl FnMut(&Path, &fs::Metadata) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                visit(&path, file)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            file(&path, &entry.metadata()?)?;
        }
    }
    Ok(())
}

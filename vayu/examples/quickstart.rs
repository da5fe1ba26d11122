//! Cached functions on the sources of this workspace: sync, async and methods, in memory and in files,
//! first cold, then warm, then with 64 concurrent callers.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use vayu::backend::Backend;
use vayu::{Cache, FileCache, FileOptions, MemoryCache, Stats, cached};

/// The number of occurrences of each word.
type Words = HashMap<String, u32>;

static COUNTS: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);
static NEAREST: LazyLock<MemoryCache> = LazyLock::new(MemoryCache::new);

/// Reads a file and counts its words. Only `Ok` is cached, and a hit clones the `Arc`.
#[cached(cache = COUNTS, ttl = "5m")]
fn word_counts(path: &Path) -> io::Result<Arc<Words>> {
    let text = std::fs::read_to_string(path)?;
    let mut words = Words::new();
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| word.len() > 2) {
        *words.entry(word.to_lowercase()).or_default() += 1;
    }
    Ok(Arc::new(words))
}

/// Returns the file of `others` whose words are most similar to those of `path`, and the similarity.
/// `others` are always the same here, so they are not part of the key.
#[cached(cache = NEAREST, ttl = "5m", skip(others))]
async fn nearest(path: &Path, others: &[PathBuf]) -> io::Result<(PathBuf, f64)> {
    let own = word_counts(path)?;
    let mut best = (PathBuf::new(), 0.0);
    for other in others.iter().filter(|other| *other != path) {
        let similarity = cosine(&own, &*word_counts(other)?);
        if similarity > best.1 {
            best = (other.clone(), similarity);
        }
        tokio::task::yield_now().await;
    }
    Ok(best)
}

/// Counts the pairs of adjacent words in a file. The result is cached in a directory.
#[cached(cache = cache, ttl = "5m", skip(cache))]
fn word_pairs(cache: &FileCache, path: &Path) -> io::Result<HashMap<String, u32>> {
    let text = std::fs::read_to_string(path)?;
    let mut pairs = HashMap::new();
    let mut words = text.split_whitespace().map(str::to_lowercase);
    let mut last = words.next().unwrap_or_default();
    for word in words {
        *pairs.entry(format!("{last} {word}")).or_default() += 1;
        last = word;
    }
    Ok(pairs)
}

/// A set of files with its own cache.
struct Library {
    files: Vec<PathBuf>,
    cache: MemoryCache,
}

impl Library {
    /// Returns the words that occur in the most files. `self` is not part of the key: each library uses
    /// its own cache.
    #[cached(cache = self.cache, ttl = 60)]
    fn most_common(&self, how_many: usize) -> io::Result<Vec<(String, u32)>> {
        let mut spread = Words::new();
        for file in &self.files {
            for word in word_counts(file)?.keys() {
                *spread.entry(word.clone()).or_default() += 1;
            }
        }
        let mut ranking: Vec<_> = spread.into_iter().collect();
        ranking.sort_unstable_by(|one, two| two.1.cmp(&one.1).then_with(|| one.0.cmp(&two.0)));
        ranking.truncate(how_many);
        Ok(ranking)
    }

    /// Counts the distinct words, read from disk again without blocking the runtime.
    #[cached(cache = self.cache, ttl = 60)]
    async fn vocabulary(&self) -> io::Result<usize> {
        let mut vocabulary = HashSet::new();
        for file in self.files.clone() {
            let read = move || std::fs::read_to_string(file);
            let text = tokio::task::spawn_blocking(read).await??;
            vocabulary.extend(text.split_whitespace().map(str::to_owned));
        }
        Ok(vocabulary.len())
    }

    /// Returns the two most similar files, by comparing every pair.
    #[cached(cache = self.cache, ttl = 60)]
    fn closest_pair(&self) -> io::Result<(PathBuf, PathBuf, f64)> {
        let mut best = (PathBuf::new(), PathBuf::new(), 0.0);
        for (index, one) in self.files.iter().enumerate() {
            let words = word_counts(one)?;
            for two in &self.files[index + 1..] {
                let similarity = cosine(&words, &*word_counts(two)?);
                if similarity > best.2 {
                    best = (one.clone(), two.clone(), similarity);
                }
            }
        }
        Ok(best)
    }
}

fn cosine(one: &Words, two: &Words) -> f64 {
    let norm = |words: &Words| words.values().map(|n| f64::from(*n).powi(2)).sum::<f64>().sqrt();
    let product: f64 =
        one.iter().filter_map(|(word, n)| Some(f64::from(*n) * f64::from(*two.get(word)?))).sum();
    product / (norm(one) * norm(two)).max(f64::MIN_POSITIVE)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    let mut files = Vec::new();
    find_sources(&root, &mut files)?;
    files.sort_unstable();
    let library = Arc::new(Library { files, cache: MemoryCache::new() });
    println!("{} source files below {}\n", library.files.len(), root.display());

    head();
    call_in_memory(&library)?;
    let before = NEAREST.stats();
    let cold = time_nearest(&library.files).await?;
    let warm = time_nearest(&library.files).await?;
    row("nearest (async)", &before, &NEAREST.stats(), cold, warm);
    call_with_files(&library)?;

    println!("\n64 concurrent callers of a key that is not cached:\n");
    head();
    let crowd = Library { files: library.files.clone(), cache: MemoryCache::new() };
    let cold = threads_at_once(64, &crowd)?;
    let warm = threads_at_once(64, &crowd)?;
    row("64 threads, closest_pair", &Stats::default(), &crowd.cache.stats(), cold, warm);
    let crowd = Arc::new(Library { files: library.files.clone(), cache: MemoryCache::new() });
    let cold = tasks_at_once(64, &crowd).await?;
    let warm = tasks_at_once(64, &crowd).await?;
    row("64 tasks, vocabulary", &Stats::default(), &crowd.cache.stats(), cold, warm);

    print_results(&root, &library)?;
    println!("\nNext, run this twice; the second time, it reads its results from files:");
    println!("    cargo run --release --example report");
    Ok(())
}

/// Calls sync functions and methods whose results are cached in memory.
fn call_in_memory(library: &Library) -> io::Result<()> {
    twice("word_counts (sync)", &COUNTS, || {
        library.files.iter().try_for_each(|file| word_counts(file).map(drop))
    })?;
    twice("Library::most_common (method)", &library.cache, || {
        (1..=20).try_for_each(|n| library.most_common(n).map(drop))
    })
}

/// Calls a function whose results are cached in files.
fn call_with_files(library: &Library) -> Result<(), Box<dyn Error>> {
    let directory = std::env::temp_dir().join(format!("vayu-quickstart-{}", std::process::id()));
    let disk = FileOptions::new().open(&directory)?;
    twice("word_pairs (files)", &disk, || {
        library.files.iter().try_for_each(|file| word_pairs(&disk, file).map(drop))
    })?;
    // Opened again, as by the next process.
    let disk = FileOptions::new().open(&directory)?;
    twice("word_pairs (opened again)", &disk, || {
        library.files.iter().try_for_each(|file| word_pairs(&disk, file).map(drop))
    })?;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

fn print_results(root: &Path, library: &Library) -> Result<(), Box<dyn Error>> {
    let (one, two, similarity) = library.closest_pair()?;
    println!("\nMost common words: {:?}", library.most_common(5)?);
    println!(
        "Most similar files: {} and {} ({similarity:.2})",
        one.strip_prefix(root)?.display(),
        two.strip_prefix(root)?.display(),
    );
    Ok(())
}

async fn time_nearest(files: &[PathBuf]) -> io::Result<Duration> {
    let started = Instant::now();
    for file in files {
        nearest(file, files).await?;
    }
    Ok(started.elapsed())
}

/// Returns the time until all of several threads, which start together, have the result.
fn threads_at_once(callers: usize, library: &Library) -> io::Result<Duration> {
    let barrier = Barrier::new(callers + 1);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..callers)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    library.closest_pair()
                })
            })
            .collect();
        barrier.wait();
        let started = Instant::now();
        for thread in threads {
            thread.join().expect("no caller panics")?;
        }
        Ok(started.elapsed())
    })
}

async fn tasks_at_once(callers: usize, library: &Arc<Library>) -> Result<Duration, Box<dyn Error>> {
    let started = Instant::now();
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let library = Arc::clone(library);
            tokio::spawn(async move { library.vocabulary().await })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(started.elapsed())
}

fn find_sources(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                find_sources(&entry.path(), files)?;
            }
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn head() {
    println!(
        "{:<30} {:>6} {:>6} {:>6} {:>9} {:>11} {:>11} {:>8}",
        "function", "calls", "hits", "misses", "coalesced", "cold", "warm", "speed-up"
    );
}

/// Does some work twice, and prints a row with the times and the statistics of the cache.
fn twice<B: Backend, S>(
    name: &str,
    cache: &Cache<B, S>,
    work: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let before = cache.stats();
    let time = || {
        let started = Instant::now();
        work().map(|()| started.elapsed())
    };
    let (cold, warm) = (time()?, time()?);
    row(name, &before, &cache.stats(), cold, warm);
    Ok(())
}

fn row(name: &str, before: &Stats, after: &Stats, cold: Duration, warm: Duration) {
    println!(
        "{name:<30} {:>6} {:>6} {:>6} {:>9} {:>8.2} ms {:>8.2} ms {:>7.0}x",
        after.calls() - before.calls(),
        after.hits - before.hits,
        after.misses - before.misses,
        after.coalesced - before.coalesced,
        cold.as_secs_f64() * 1e3,
        warm.as_secs_f64() * 1e3,
        cold.as_secs_f64() / warm.as_secs_f64(),
    );
}

//! Stack use of a level of cached recursion, beyond that of the function. `.ci/instructions` checks a build
//! with optimizations.

use std::pin::Pin;
use std::sync::Mutex;

use vayu::{FileCache, cached};
use vayu_instructions::now;

/// The addresses of a local variable of each level, outermost first.
static LEVELS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn mark() {
    let here = 0_u8;
    LEVELS.lock().expect("not poisoned").push(std::ptr::from_ref(&here).addr());
}

const DEPTH: u64 = 40;

/// The first levels, which are not measured: they do other things as well.
const FIRST: usize = 4;

/// Returns the bytes of stack from one level to the next, after the first few.
fn bytes_a_level<T>(run: impl FnOnce() -> T) -> usize {
    LEVELS.lock().expect("not poisoned").clear();
    std::hint::black_box(run());
    let levels = LEVELS.lock().expect("not poisoned");
    let (first, last) = (levels[FIRST], levels[levels.len() - 1]);
    (first - last) / (levels.len() - 1 - FIRST)
}

fn plain(n: u64) -> u64 {
    mark();
    if n == 0 { 0 } else { std::hint::black_box(plain(n - 1)) + 1 }
}

fn plain_string(n: u64) -> String {
    mark();
    if n == 0 { String::new() } else { std::hint::black_box(plain_string(n - 1)) + "x" }
}

#[cached(ttl = "1h")]
fn number(n: u64) -> u64 {
    mark();
    if n == 0 { 0 } else { std::hint::black_box(number(n - 1)) + 1 }
}

#[cached(ttl = "1h")]
fn text(n: u64) -> String {
    mark();
    if n == 0 { String::new() } else { std::hint::black_box(text(n - 1)) + "x" }
}

#[cached(ttl = "1h")]
fn fallible(n: u64) -> Result<String, String> {
    mark();
    if n == 0 { Ok(String::new()) } else { Ok(std::hint::black_box(fallible(n - 1))? + "x") }
}

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn file(cache: &FileCache, n: u64) -> String {
    mark();
    if n == 0 { String::new() } else { std::hint::black_box(file(cache, n - 1)) + "x" }
}

fn plain_boxed(n: u64) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move {
        mark();
        if n == 0 { 0 } else { plain_boxed(n - 1).await + 1 }
    })
}

#[cached(ttl = "1h")]
async fn boxed(n: u64) -> u64 {
    mark();
    if n == 0 { 0 } else { Box::pin(boxed(n - 1)).await + 1 }
}

/// Limits in bytes, with and without optimizations.
fn at_most(form: &str, level: usize, own: usize, optimized: usize, unoptimized: usize) {
    let limit = if cfg!(debug_assertions) { unoptimized } else { optimized };
    let added = level - own;
    println!("{form}: {added} bytes a level");
    assert!(added <= limit, "{form}: {added} bytes a level, at most {limit}");
}

#[test]
fn level_of_a_cached_recursion_takes_a_bounded_part_of_the_stack() {
    let place = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(place.path().join("cache")).expect("a cache");
    let own = bytes_a_level(|| plain(DEPTH));
    let own_string = bytes_a_level(|| plain_string(DEPTH));
    let own_boxed = bytes_a_level(|| now(plain_boxed(DEPTH)));
    at_most("a number", bytes_a_level(|| number(DEPTH)), own, 800, 3_300);
    at_most("a string", bytes_a_level(|| text(DEPTH)), own_string, 1_000, 3_150);
    at_most("a result", bytes_a_level(|| fallible(DEPTH)), own_string, 1_100, 3_400);
    at_most("a string in a file", bytes_a_level(|| file(&cache, DEPTH)), own_string, 850, 3_300);
    at_most("a boxed future", bytes_a_level(|| now(boxed(DEPTH))), own_boxed, 1_500, 5_300);
}

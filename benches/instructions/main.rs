//! Instruction counts of the hot paths, by callgrind: equal on all machines with the same compiler,
//! except for the effects of the random seed of the hash function.
//!
//! Each benchmark makes a thousand calls. Its limit, also for a thousand calls, is a twentieth more than was
//! counted when it was last set. A change that makes a path shorter lowers it.

#![allow(missing_docs, reason = "the macros make modules without any")]

use std::hint::black_box;
use std::path::PathBuf;

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use vayu::backend::FileBackend;
use vayu::{Cache, Compressed, FileCache, MessagePack};
use vayu_instructions::{
    compressed, file, now, number, number_after_invalidation, number_async, number_of_many,
    number_of_many_async, number_with_idle, number_with_prefix, numbers, pair, shared, string,
};

const CALLS: u64 = 1000;
const MANY: u64 = 100_000;

/// Returns a configuration with a limit in thousands of instructions.
fn at_most(limit: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, limit * 1000)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// Makes a call for each key.
#[inline(always)]
fn each<T>(keys: &[u64], call: impl Fn(u64) -> T) {
    for &key in keys {
        drop(black_box(call(black_box(key))));
    }
}

/// Makes all calls until the caches are warm, and returns their keys: the first call computes, and four more
/// are counted as references of the entry.
fn called<T>(keys: Vec<u64>, call: impl Fn(u64) -> T) -> Vec<u64> {
    for _ in 0..5 {
        each(&keys, &call);
    }
    keys
}

fn few() -> Vec<u64> {
    (0..CALLS).collect()
}

#[library_benchmark(config = at_most(212))]
#[bench::of(called(few(), number))]
fn hit(keys: Vec<u64>) {
    each(&keys, number);
}

#[library_benchmark(config = at_most(310))]
#[bench::of(called(few(), number_with_prefix))]
fn hit_with_prefix(keys: Vec<u64>) {
    each(&keys, number_with_prefix);
}

#[library_benchmark(config = at_most(250))]
#[bench::of(called(few(), number_with_idle))]
fn hit_with_idle(keys: Vec<u64>) {
    each(&keys, number_with_idle);
}

// Each key far from the one before. Most of the time is spent on memory, not on instructions: see the cache
// misses.
#[library_benchmark(config = at_most(252))]
#[bench::of({ called((0..MANY).collect(), number); (0..CALLS).map(|n| n * 7919 % MANY).collect() })]
fn hit_among_100_000(keys: Vec<u64>) {
    each(&keys, number);
}

#[library_benchmark(config = at_most(233))]
#[bench::of(called(few(), number_after_invalidation))]
fn hit_after_an_invalidation(keys: Vec<u64>) {
    each(&keys, number_after_invalidation);
}

#[library_benchmark(config = at_most(228))]
#[bench::of({ for _ in 0..5 { numbers(&few()); } few() })]
fn hit_of_a_batch(keys: Vec<u64>) {
    drop(black_box(numbers(black_box(&keys))));
}

const WORD: &str = "sixteen letters!";

#[library_benchmark(config = at_most(400))]
#[bench::of(called(few(), |key| pair(WORD, key)))]
fn hit_by_string_and_number(keys: Vec<u64>) {
    each(&keys, |key| pair(black_box(WORD), key));
}

#[library_benchmark(config = at_most(448))]
#[bench::of(called(few(), string))]
fn hit_of_string(keys: Vec<u64>) {
    each(&keys, string);
}

#[library_benchmark(config = at_most(266))]
#[bench::of(called(few(), shared))]
fn hit_of_shared_bytes(keys: Vec<u64>) {
    each(&keys, shared);
}

#[library_benchmark(config = at_most(279))]
#[bench::of(called(few(), |key| now(number_async(key))))]
fn hit_async(keys: Vec<u64>) {
    each(&keys, |key| now(number_async(key)));
}

// Into a full cache, so that each call evicts an entry.
#[library_benchmark(config = at_most(1540))]
#[bench::of({ called((MANY..2 * MANY).collect(), number_of_many); few() })]
fn miss(keys: Vec<u64>) {
    each(&keys, number_of_many);
}

#[library_benchmark(config = at_most(2257))]
#[bench::of({ called((MANY..2 * MANY).collect(), |key| now(number_of_many_async(key))); few() })]
fn miss_async(keys: Vec<u64>) {
    each(&keys, |key| now(number_of_many_async(key)));
}

fn directory() -> (PathBuf, FileCache) {
    let place = tempfile::tempdir().expect("a directory").keep();
    let cache = FileCache::open(place.join("cache")).expect("a cache");
    (place, cache)
}

fn files() -> (PathBuf, FileCache) {
    let (place, cache) = directory();
    file(&cache, 100);
    (place, cache)
}

// Without instructions of the kernel.
#[library_benchmark(config = at_most(3300))]
#[bench::of(args = (files()), teardown = remove)]
fn hit_in_file((place, cache): (PathBuf, FileCache)) -> PathBuf {
    each(&few(), |_| file(&cache, 100));
    place
}

fn compressed_files() -> (PathBuf, Cache<FileBackend, Compressed<MessagePack>>) {
    let (place, cache) = directory();
    let cache = cache.with_serializer(Compressed::lz4(MessagePack));
    compressed(&cache, 256);
    (place, cache)
}

// Without instructions of the kernel. Most of them decompress 10 KiB.
#[library_benchmark(config = at_most(51600))]
#[bench::of(args = (compressed_files()), teardown = remove)]
fn hit_of_lz4_in_file(
    (place, cache): (PathBuf, Cache<FileBackend, Compressed<MessagePack>>),
) -> PathBuf {
    each(&few(), |_| compressed(&cache, 256));
    place
}

fn remove(place: PathBuf) {
    std::fs::remove_dir_all(place).expect("it is removed");
}

library_benchmark_group!(
    name = paths,
    benchmarks = [
        hit,
        hit_with_prefix,
        hit_with_idle,
        hit_of_a_batch,
        hit_among_100_000,
        hit_after_an_invalidation,
        hit_by_string_and_number,
        hit_of_string,
        hit_of_shared_bytes,
        hit_async,
        miss,
        miss_async,
        hit_in_file,
        hit_of_lz4_in_file
    ]
);
main!(library_benchmark_groups = paths);

//! Hits and writes of files.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use cached::macros::concurrent_cached;
use vayu::{FileCache, Key};

use crate::comparison::{Contender, Role, Schedule, compare};
use crate::report::{Limit, Report};

#[vayu::cached(cache = cache, ttl = "1h", skip(cache, length), log = false)]
fn vayu(cache: &FileCache, key: u64, length: usize) -> Bytes {
    vec![key as u8; length].into()
}

#[concurrent_cached(disk = true, ttl_secs = 3600, map_error = |error| format!("{error:?}"))]
fn redb_small(key: u64) -> Result<Vec<u8>, String> {
    Ok(vec![key as u8; 100])
}

#[concurrent_cached(disk = true, ttl_secs = 3600, map_error = |error| format!("{error:?}"))]
fn redb_medium(key: u64) -> Result<Vec<u8>, String> {
    Ok(vec![key as u8; 10 * 1024])
}

#[concurrent_cached(disk = true, ttl_secs = 3600, map_error = |error| format!("{error:?}"))]
fn redb_large(key: u64) -> Result<Vec<u8>, String> {
    Ok(vec![key as u8; 1 << 20])
}

const KEYS: u64 = 64;

/// A title, the length of a value, the function of another crate, and the limits.
type Work = (&'static str, usize, fn(u64) -> Result<Vec<u8>, String>, Vec<Limit<'static>>);

fn next(key: &mut u64) -> u64 {
    *key = (*key + 1) % KEYS;
    *key
}

fn temp_and_rename(directory: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = directory.join("temporary");
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, directory.join(name))
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let place = tempfile::tempdir()?;
    let cache = FileCache::open(place.path().join("vayu"))?;
    let other = place.path().join("cacache");
    let plain = place.path().join("plain");
    fs::create_dir(&plain)?;
    // cached keeps its files below the cache directory of the user.
    let works: [Work; 3] = [
        (
            "hit, 100 B",
            100,
            redb_small,
            vec![Limit::of("std::fs::read", 0.8), Limit::of("cacache", 0.3)],
        ),
        (
            "hit, 10 KiB",
            10 * 1024,
            redb_medium,
            vec![Limit::of("std::fs::read", 1.0), Limit::of("cacache", 0.3)],
        ),
        (
            "hit, 1 MiB",
            1 << 20,
            redb_large,
            vec![Limit::of("cacache", 0.2), Limit::of("cached, redb", 1.1)],
        ),
    ];
    for (work, length, redb, limits) in works {
        for key in 0..KEYS {
            cache.remove(&Key::new("unused", &key)?)?;
            fs::write(plain.join(key.to_string()), vec![key as u8; length])?;
            cacache::write_sync(&other, key.to_string(), vec![key as u8; length])?;
        }
        let (mut first, mut second, mut third, mut fourth) = (0, 0, 0, 0);
        let names: Vec<_> = (0..KEYS).map(|key| plain.join(key.to_string())).collect();
        let keys: Vec<_> = (0..KEYS).map(|key| key.to_string()).collect();
        let spread = length as u64 * 1000;
        let measurements = compare(
            Schedule::SHORT.warm(KEYS),
            vec![
                Contender::new("vayu", Role::Vayu, |times| {
                    (0..times).for_each(|_| {
                        drop(black_box(vayu(&cache, spread + next(&mut first), length)));
                    });
                }),
                Contender::new("std::fs::read", Role::Baseline, |times| {
                    (0..times).for_each(|_| {
                        drop(black_box(fs::read(&names[next(&mut second) as usize])));
                    });
                })
                .note("no check, no ttl"),
                Contender::new("cacache", Role::Partial, |times| {
                    for _ in 0..times {
                        black_box(
                            cacache::read_sync(&other, &keys[next(&mut third) as usize])
                                .expect("it is there"),
                        );
                    }
                })
                .note("no ttl"),
                Contender::new("cached, redb", Role::Unbounded, |times| {
                    (0..times).for_each(|_| drop(black_box(redb(next(&mut fourth)))));
                })
                .note("one process only"),
            ],
        );
        report.comparison(work, &measurements, &limits);
    }

    let value = vec![7_u8; 100];
    let hour = Duration::from_hours(1);
    let (mut first, mut second) = (0_u64, 0_u64);
    let measurements = compare(
        Schedule::SHORT,
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                for _ in 0..times {
                    first += 1;
                    let key = Key::from_text("new", first.to_string());
                    cache.set(&key, &value, hour).expect("it is stored");
                }
            }),
            Contender::new("temp + rename", Role::Baseline, |times| {
                for _ in 0..times {
                    second += 1;
                    temp_and_rename(&plain, &format!("new{second}"), &value)
                        .expect("it is written");
                }
            })
            .note("one directory"),
        ],
    );
    report.comparison(
        "write of a new key, 100 B",
        &measurements,
        &[Limit::of("temp + rename", 1.2)],
    );
    let (mut first, mut second) = (0, 0);
    let measurements = compare(
        Schedule::LONG,
        vec![
            Contender::new("vayu", Role::Vayu, |times| {
                for _ in 0..times {
                    let key = Key::from_text("same", next(&mut first).to_string());
                    cache.set(&key, &value, hour).expect("it is stored");
                }
            }),
            Contender::new("temp + rename", Role::Baseline, |times| {
                for _ in 0..times {
                    let name = format!("same{}", next(&mut second));
                    temp_and_rename(&plain, &name, &value).expect("it is written");
                }
            }),
        ],
    );
    report.comparison("overwrite, 100 B", &measurements, &[Limit::of("temp + rename", 1.2)]);
    Ok(())
}

//! Hits in memory.

pub(super) mod contenders;

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use self::contenders::{Limits, bytes, number, pair, text};
use crate::comparison::{Contender, Role, Schedule, compare};
use crate::keys::{Cycle, uniform, zipf};
use crate::report::{Limit, Report};

const HOUR: u64 = 3600;

/// Runs a call with keys in a cycle.
fn hits<'a, T>(keys: &'a [u64], mut call: impl FnMut(u64) -> T + 'a) -> impl FnMut(u64) + 'a {
    let mut cycle = Cycle::new(keys);
    move |times| {
        for _ in 0..times {
            black_box(call(black_box(cycle.next())));
        }
    }
}

/// The same on two threads at once; their time counts once.
fn hits_of_two<'a, T>(
    keys: &'a [u64],
    call: impl Fn(u64) -> T + Sync + 'a,
) -> impl FnMut(u64) + 'a {
    move |times| {
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let call = &call;
                scope.spawn(move || {
                    let mut cycle = Cycle::new(keys);
                    (0..thread * 97).for_each(|_| drop(cycle.next()));
                    for _ in 0..times {
                        black_box(call(black_box(cycle.next())));
                    }
                });
            }
        });
    }
}

/// The contenders of `number`, each run by the given function.
macro_rules! numbers {
    ($run:ident, $keys:expr, $limits:expr) => {{
        let limits = $limits;
        vec![
            Contender::new("vayu", Role::Vayu, $run($keys, number::vayu)),
            Contender::new("cached, ttl", Role::Peer, $run($keys, number::cached_ttl)),
            Contender::new("cached, ttl, by_key", Role::Peer, $run($keys, number::cached_by_key)),
            Contender::new(
                "cached, max_size, ttl",
                Role::Peer,
                $run($keys, number::cached_bounded),
            ),
            Contender::new(
                "cached, concurrent, ttl",
                Role::Peer,
                $run($keys, number::cached_concurrent),
            ),
            Contender::new("cached", Role::Partial, $run($keys, number::cached_plain))
                .note("no ttl, no bound"),
            Contender::new("memoize, shared, ttl", Role::Peer, $run($keys, number::memoized)),
            Contender::new("cachelito, ttl", Role::Peer, $run($keys, number::cachelito)),
            Contender::new("moka, ttl, get", Role::Peer, $run($keys, |key| limits.moka.get(&key))),
            Contender::new(
                "moka, ttl, get_with",
                Role::Peer,
                $run($keys, |key| limits.moka.get_with(key, || key)),
            ),
            Contender::new(
                "moka, Expiry, get",
                Role::Peer,
                $run($keys, |key| limits.moka_expiry.get(&key)),
            ),
            Contender::new(
                "foyer, get",
                Role::Partial,
                $run($keys, |key| limits.foyer.get(&key).map(|entry| *entry.value())),
            )
            .note("no ttl"),
            Contender::new(
                "quick_cache, deadline",
                Role::Baseline,
                $run($keys, |key| limits.quick(key)),
            )
            .note("no function, no single flight"),
            Contender::new(
                "RwLock<HashMap> in 16, deadline",
                Role::Baseline,
                $run($keys, |key| limits.map(key)),
            )
            .note("no bound"),
        ]
    }};
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let keys = uniform(1000, 1 << 14, 1);
    let limits = Limits::of(1000);
    let measurements = compare(Schedule::SHORT, numbers!(hits, &keys, &limits));
    let quick = "quick_cache, deadline";
    report.comparison(
        "u64 -> u64, 1,000 keys, 1 thread",
        &measurements,
        &[Limit::of_best_peer(0.70), Limit::of(quick, 1.8)],
    );
    let measurements = compare(Schedule::LONG, numbers!(hits_of_two, &keys, &limits));
    report.comparison(
        "u64 -> u64, 1,000 keys, 2 threads",
        &measurements,
        &[Limit::of_best_peer(0.60)],
    );

    let keys = zipf(100_000, 0.9, 1 << 18, 2);
    let limits = Limits::of(100_000);
    // cachelito scans all keys on a hit, and the map of memoize has the same number.
    let measurements = compare(Schedule::SHORT.warm(1 << 20), large(&keys, &limits));
    report.comparison(
        "u64 -> u64, 100,000 keys, zipf 0.9, 1 thread",
        &measurements,
        &[Limit::of_best_peer(0.80)],
    );
    let measurements = compare(Schedule::LONG.warm(1 << 18), large_of_two(&keys, &limits));
    report.comparison(
        "u64 -> u64, 100,000 keys, zipf 0.9, 2 threads",
        &measurements,
        &[Limit::of_best_peer(0.80)],
    );

    let keys = uniform(1000, 1 << 14, 3);
    let words: Vec<_> = (0..1000).map(|n| format!("{n:016}")).collect();
    let word = |key: u64| words[key as usize].as_str();
    let measurements = compare(
        Schedule::SHORT,
        vec![
            Contender::new("vayu", Role::Vayu, hits(&keys, |key| pair::vayu(word(key), key))),
            Contender::new(
                "cached, ttl",
                Role::Peer,
                hits(&keys, |key| pair::cached_ttl(word(key), key)),
            ),
            Contender::new(
                "cached, max_size, ttl",
                Role::Peer,
                hits(&keys, |key| pair::cached_bounded(word(key), key)),
            ),
            Contender::new(
                "cached, concurrent, ttl",
                Role::Peer,
                hits(&keys, |key| pair::cached_concurrent(word(key), key)),
            ),
            Contender::new("moka, ttl, get", Role::Peer, pair::moka(&keys, &words)),
        ],
    );
    report.comparison(
        "(&str of 16 bytes, u64) -> u64",
        &measurements,
        &[Limit::of_best_peer(0.60)],
    );

    let measurements = compare(
        Schedule::SHORT,
        vec![
            Contender::new("vayu", Role::Vayu, hits(&keys, text::vayu)),
            Contender::new("cached, ttl", Role::Peer, hits(&keys, text::cached_ttl)),
            Contender::new("cached, max_size, ttl", Role::Peer, hits(&keys, text::cached_bounded)),
            Contender::new(
                "cached, concurrent, ttl",
                Role::Peer,
                hits(&keys, text::cached_concurrent),
            ),
            Contender::new("moka, ttl, get", Role::Peer, text::moka(&keys)),
        ],
    );
    report.comparison("u64 -> String of 64 bytes", &measurements, &[Limit::of_best_peer(0.90)]);

    let measurements = compare(
        Schedule::SHORT,
        vec![
            Contender::new(
                "vayu",
                Role::Vayu,
                hits(&keys, |key| -> Arc<[u8]> { bytes::vayu(key) }),
            ),
            Contender::new("cached, ttl", Role::Peer, hits(&keys, bytes::cached_ttl)),
            Contender::new("cached, max_size, ttl", Role::Peer, hits(&keys, bytes::cached_bounded)),
            Contender::new(
                "cached, concurrent, ttl",
                Role::Peer,
                hits(&keys, bytes::cached_concurrent),
            ),
            Contender::new("moka, ttl, get", Role::Peer, bytes::moka(&keys)),
        ],
    );
    report.comparison("u64 -> Arc<[u8]>", &measurements, &[Limit::of_best_peer(0.90)]);
    Ok(())
}

fn large<'a>(keys: &'a [u64], limits: &'a Limits) -> Vec<Contender<'a>> {
    large_with(keys, limits, |keys, call| Box::new(hits(keys, call)))
}

fn large_of_two<'a>(keys: &'a [u64], limits: &'a Limits) -> Vec<Contender<'a>> {
    large_with(keys, limits, |keys, call| Box::new(hits_of_two(keys, call)))
}

type Run<'a> = Box<dyn FnMut(u64) + 'a>;
type Call<'a> = Box<dyn Fn(u64) -> u64 + Sync + 'a>;

fn large_with<'a>(
    keys: &'a [u64],
    limits: &'a Limits,
    run: fn(&'a [u64], Call<'a>) -> Run<'a>,
) -> Vec<Contender<'a>> {
    let of = |call: Call<'a>| run(keys, call);
    vec![
        Contender::new("vayu", Role::Vayu, of(Box::new(number::vayu_large))),
        Contender::new("cached, ttl", Role::Peer, of(Box::new(number::cached_ttl_large))),
        Contender::new(
            "cached, max_size, ttl",
            Role::Peer,
            of(Box::new(number::cached_bounded_large)),
        ),
        Contender::new(
            "cached, concurrent, ttl",
            Role::Peer,
            of(Box::new(number::cached_concurrent_large)),
        ),
        Contender::new(
            "moka, ttl, get",
            Role::Peer,
            of(Box::new(|key| limits.moka.get(&key).unwrap_or(0))),
        ),
        Contender::new(
            "quick_cache, deadline",
            Role::Baseline,
            of(Box::new(|key| limits.quick(key).unwrap_or(0))),
        ),
        Contender::new(
            "RwLock<HashMap> in 16, deadline",
            Role::Baseline,
            of(Box::new(|key| limits.map(key).unwrap_or(0))),
        ),
    ]
}

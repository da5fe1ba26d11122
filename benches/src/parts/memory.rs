//! Hits in memory.

pub(super) mod contenders;

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use self::contenders::{
    Many, Maps, MoreMaps, bytes, hundred_thousand, long, million, number, pair, text,
};
use crate::comparison::{Contender, Role, Schedule, compare};
use crate::keys::{Cycle, uniform, zipf};
use crate::quick;
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

/// The same, where each key depends on the last value, so that a call begins when the last one has ended.
fn chained<'a, T: Digest>(
    keys: &'a [u64],
    mut call: impl FnMut(u64) -> T + 'a,
) -> impl FnMut(u64) + 'a {
    let mut cycle = Cycle::new(keys);
    // The compiler does not know that it is zero.
    let mask = black_box(0);
    move |times| {
        let mut last = 0;
        for _ in 0..times {
            last = call(black_box(cycle.next() ^ (last & mask))).digest();
        }
        black_box(last);
    }
}

/// A value of which a key can depend.
pub(crate) trait Digest {
    /// Returns a number that depends on all that a caller waits for.
    fn digest(&self) -> u64;
}

impl Digest for u64 {
    #[inline]
    fn digest(&self) -> u64 {
        *self
    }
}

impl Digest for String {
    #[inline]
    fn digest(&self) -> u64 {
        self.bytes().next_back().map_or(0, u64::from)
    }
}

impl Digest for Arc<[u8]> {
    #[inline]
    fn digest(&self) -> u64 {
        self.last().copied().map_or(0, u64::from)
    }
}

impl<T: Digest> Digest for Option<T> {
    #[inline]
    fn digest(&self) -> u64 {
        self.as_ref().map_or(0, Digest::digest)
    }
}

/// Runs independent calls on two threads at once; their time counts once.
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
    ($run:ident, $keys:expr, $maps:expr, $more:expr) => {{
        let (maps, more) = ($maps, $more);
        vec![
            Contender::new("vayu", Role::Vayu, $run($keys, number::vayu)),
            Contender::new("cached, ttl", Role::Unbounded, $run($keys, number::cached_ttl)),
            Contender::new(
                "cached, ttl, by_key",
                Role::Unbounded,
                $run($keys, number::cached_by_key),
            ),
            Contender::new(
                "cached, max_size, ttl",
                Role::Bounded,
                $run($keys, number::cached_bounded),
            ),
            Contender::new(
                "cached, concurrent, ttl",
                Role::Unbounded,
                $run($keys, number::cached_concurrent),
            ),
            Contender::new("cached", Role::Partial, $run($keys, number::cached_plain))
                .note("no ttl, no bound"),
            Contender::new("memoize, shared, ttl", Role::Bounded, $run($keys, number::memoized)),
            Contender::new("cachelito, ttl", Role::Bounded, $run($keys, number::cachelito)),
            Contender::new("moka, ttl, get", Role::Bounded, $run($keys, |key| maps.moka.get(&key))),
            Contender::new(
                "moka, ttl, get_with",
                Role::Bounded,
                $run($keys, |key| maps.moka.get_with(key, || key)),
            ),
            Contender::new(
                "moka, Expiry, get",
                Role::Bounded,
                $run($keys, |key| more.moka_expiry.get(&key)),
            ),
            Contender::new(
                "foyer, get",
                Role::Partial,
                $run($keys, |key| more.foyer.get(&key).map(|entry| *entry.value())),
            )
            .note("no ttl"),
            Contender::new(QUICK, Role::Baseline, $run($keys, |key| maps.quick(key)))
                .note("no function, no single flight"),
            Contender::new(
                "RwLock<HashMap> in 16, deadline",
                Role::Baseline,
                $run($keys, |key| maps.map(key)),
            )
            .note("no bound"),
        ]
    }};
}

/// The contenders of a module of functions, each run by the given function.
macro_rules! functions {
    ($run:ident, $keys:expr, $of:ident, $moka:expr $(, $arguments:expr)?) => {
        vec![
            Contender::new("vayu", Role::Vayu, $run($keys, call!($of::vayu $(, $arguments)?))),
            Contender::new(
                "cached, ttl",
                Role::Unbounded,
                $run($keys, call!($of::cached_ttl $(, $arguments)?)),
            ),
            Contender::new(
                "cached, max_size, ttl",
                Role::Bounded,
                $run($keys, call!($of::cached_bounded $(, $arguments)?)),
            ),
            Contender::new(
                "cached, concurrent, ttl",
                Role::Unbounded,
                $run($keys, call!($of::cached_concurrent $(, $arguments)?)),
            ),
            Contender::new("moka, ttl, get", Role::Bounded, $run($keys, $moka)),
        ]
    };
}

macro_rules! call {
    ($function:path) => {
        $function
    };
    ($function:path, $words:expr) => {
        |key| $function($words[key as usize].as_str(), key)
    };
}

const QUICK: &str = "quick_cache, deadline";

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let keys = uniform(1000, 1 << 14, 1);
    let (maps, more) = (Maps::of(1000), MoreMaps::of(1000));
    report.write(&format!("\n{METHOD}\n"));
    report.comparison(
        "u64 -> u64, 1,000 keys, 1 thread",
        &compare(Schedule::SHORT, numbers!(hits, &keys, &maps, &more)),
        &[Limit::of_best_peer(0.70), Limit::of(QUICK, 1.8)],
    );
    report.comparison(
        "u64 -> u64, 1,000 keys, 1 thread, latency",
        &compare(Schedule::SHORT, numbers!(chained, &keys, &maps, &more)),
        &[],
    );
    report.comparison(
        "u64 -> u64, 1,000 keys, 2 threads",
        &compare(Schedule::LONG, numbers!(hits_of_two, &keys, &maps, &more)),
        &[Limit::of_best_peer(0.60)],
    );
    // cachelito scans all keys on a hit, and the map of memoize has the same number.
    let count = quick::or(100_000, 1000);
    many(
        report,
        "u64 -> u64, 100,000 keys, zipf 0.9",
        &zipf(count, 0.9, 1 << 18, 2),
        count,
        hundred_thousand::MANY,
        true,
        &[Limit::of_best_peer(0.80)],
    );
    let count = quick::or(1_000_000, 1000);
    many(
        report,
        "u64 -> u64, 1,000,000 keys, uniform",
        &uniform(count, 1 << 20, 2),
        count,
        million::MANY,
        false,
        &[Limit::of_best_peer(1.0), Limit::of(QUICK, 1.0)],
    );

    let keys = uniform(1000, 1 << 14, 3);
    let words: Vec<_> = (0..1000).map(|n| format!("{n:016}")).collect();
    let (words, title) = (&words, "(&str of 16 bytes, u64) -> u64");
    let measurements =
        compare(Schedule::SHORT, functions!(hits, &keys, pair, pair::moka(words), words));
    report.comparison(title, &measurements, &[Limit::of_best_peer(0.60)]);
    let measurements =
        compare(Schedule::SHORT, functions!(chained, &keys, pair, pair::moka(words), words));
    report.comparison(&format!("{title}, latency"), &measurements, &[]);

    let title = "u64 -> String of 64 bytes";
    let measurements = compare(Schedule::SHORT, functions!(hits, &keys, text, text::moka()));
    report.comparison(title, &measurements, &[Limit::of_best_peer(0.90)]);
    let measurements = compare(Schedule::SHORT, functions!(chained, &keys, text, text::moka()));
    report.comparison(&format!("{title}, latency"), &measurements, &[]);

    let title = "u64 -> Arc<[u8]>";
    let measurements = compare(Schedule::SHORT, functions!(hits, &keys, bytes, bytes::moka()));
    report.comparison(title, &measurements, &[Limit::of_best_peer(0.90)]);
    let measurements = compare(Schedule::SHORT, functions!(chained, &keys, bytes, bytes::moka()));
    report.comparison(&format!("{title}, latency"), &measurements, &[]);
    long_argument(report);
    Ok(())
}

const METHOD: &str = "Independent calls in a loop, where a processor may begin a call before the last one has ended; \
    in tables with \"latency\" each key depends on the last value. Peers are crates that honour a ttl and \
    share their entries between threads: bounded ones have a maximum number of entries, as vayu has, and unbounded \
    ones never evict.";

/// Compares functions with many keys, on one thread and on two.
fn many(
    report: &mut Report,
    title: &str,
    keys: &[u64],
    count: u64,
    functions: Many,
    on_two_threads: bool,
    limits: &[Limit<'_>],
) {
    let maps = Maps::of(count);
    let Many { vayu, cached_ttl, cached_bounded, cached_concurrent } = functions;
    for key in 0..count {
        for call in [vayu, cached_ttl, cached_bounded, cached_concurrent] {
            call(key);
        }
    }
    let schedule = Schedule::SHORT.warm(1 << 20);
    let measurements = compare(
        schedule,
        many_with(keys, &maps, functions, |keys, call| Box::new(hits(keys, call))),
    );
    report.comparison(&format!("{title}, 1 thread"), &measurements, limits);
    let measurements = compare(
        schedule,
        many_with(keys, &maps, functions, |keys, call| Box::new(chained(keys, call))),
    );
    report.comparison(&format!("{title}, 1 thread, latency"), &measurements, &[]);
    if on_two_threads {
        let schedule = Schedule::LONG.warm(1 << 18);
        let measurements = compare(
            schedule,
            many_with(keys, &maps, functions, |keys, call| Box::new(hits_of_two(keys, call))),
        );
        report.comparison(&format!("{title}, 2 threads"), &measurements, limits);
    }
}

type Run<'a> = Box<dyn FnMut(u64) + 'a>;
type Call<'a> = Box<dyn Fn(u64) -> u64 + Sync + 'a>;

fn many_with<'a>(
    keys: &'a [u64],
    maps: &'a Maps,
    functions: Many,
    run: fn(&'a [u64], Call<'a>) -> Run<'a>,
) -> Vec<Contender<'a>> {
    let of = |call: Call<'a>| run(keys, call);
    let Many { vayu, cached_ttl, cached_bounded, cached_concurrent } = functions;
    vec![
        Contender::new("vayu", Role::Vayu, of(Box::new(vayu))),
        Contender::new("cached, ttl", Role::Unbounded, of(Box::new(cached_ttl))),
        Contender::new("cached, max_size, ttl", Role::Bounded, of(Box::new(cached_bounded))),
        Contender::new("cached, concurrent, ttl", Role::Unbounded, of(Box::new(cached_concurrent))),
        Contender::new(
            "moka, ttl, get",
            Role::Bounded,
            of(Box::new(|key| maps.moka.get(&key).unwrap_or(0))),
        ),
        Contender::new(QUICK, Role::Baseline, of(Box::new(|key| maps.quick(key).unwrap_or(0))))
            .note("no function, no single flight"),
        Contender::new(
            "RwLock<HashMap> in 16, deadline",
            Role::Baseline,
            of(Box::new(|key| maps.map(key).unwrap_or(0))),
        )
        .note("no bound"),
    ]
}

/// Compares calls with an argument of 1 MiB. The keys of `cached` are owned, so a `Vec<u8>` is passed on by value.
fn long_argument(report: &mut Report) {
    let bytes = vec![b'a'; quick::or(1 << 20, 1 << 10)];
    let text = String::from_utf8(bytes.clone()).expect("it is ASCII");
    let bounded = "cached, max_size, ttl";
    let repeat = |mut call: Box<dyn FnMut() -> u64>| {
        move |times| (0..times).for_each(|_| drop(black_box(call())))
    };
    let cloned = |call: fn(Vec<u8>) -> u64| {
        let bytes = bytes.clone();
        repeat(Box::new(move || call(bytes.clone())))
    };
    let slice = bytes.clone();
    let measurements = compare(
        Schedule::SHORT,
        vec![
            Contender::new("vayu, Vec<u8>", Role::Vayu, cloned(long::vayu)),
            Contender::new(bounded, Role::Bounded, cloned(long::cached_bounded)),
            Contender::new(
                "cached, concurrent, ttl",
                Role::Unbounded,
                cloned(long::cached_concurrent),
            ),
            Contender::new(
                "vayu, &[u8]",
                Role::Baseline,
                repeat(Box::new(move || long::vayu_slice(black_box(&slice)))),
            ),
            Contender::new(
                STR,
                Role::Baseline,
                repeat(Box::new(move || long::vayu_str(black_box(&text)))),
            ),
            Contender::new(
                "clone of the argument",
                Role::Baseline,
                cloned(|bytes| black_box(bytes).len() as u64),
            ),
        ],
    );
    let limits = [Limit::of(STR, 2.0), Limit::of_best_peer(1.0)];
    report.comparison("Vec<u8> of 1 MiB -> u64, 1 key", &measurements, &limits);
}

const STR: &str = "vayu, &str";

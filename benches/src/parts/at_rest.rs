//! Hits of files whose values are compressed or sealed, next to plain ones.

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use bytes::Bytes;
use vayu::backend::{FileBackend, Serializer};
use vayu::{Cache, Compressed, FileCache, MessagePack, SealKeys, Sealed, cached};

use crate::comparison::{Contender, Role, Schedule, compare};
use crate::keys::Random;
use crate::report::{Limit, Report};

#[cached(cache = cache, ttl = "1h", skip(cache, value), log = false)]
fn page<S>(cache: &Cache<FileBackend, S>, key: u64, value: &Bytes) -> Bytes
where
    S: Serializer<Bytes, Stored = Bytes> + Clone,
{
    value.clone()
}

const KEYS: u64 = 32;
const LENGTH: usize = 10 * 1024;

/// Batches so short that few of them are interrupted: a sealed hit takes several times as long as a plain one.
const SCHEDULE: Schedule =
    Schedule { batches: 401, batch: Duration::from_micros(200), warm: 4 * KEYS };

/// Returns the rows of a table as JSON.
fn json() -> Bytes {
    let mut random = Random::new(21);
    let mut text = String::new();
    while text.len() < LENGTH {
        let (id, day, price) = (random.next() % (1 << 20), random.next() % 28, random.fraction());
        let _ = write!(
            text,
            "{{\"id\":{id},\"name\":\"customer {id}\",\"created\":\"2026-11-{day:02}T08:00:00Z\",\"price\":{price:.2}}},"
        );
    }
    text.truncate(LENGTH);
    text.into()
}

/// Returns bytes that compression does not make shorter, as those of an image.
fn noise() -> Bytes {
    let mut random = Random::new(22);
    (0..LENGTH).map(|_| (random.next() >> 32) as u8).collect()
}

pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let place = tempfile::tempdir()?;
    let open = |name: &str| FileCache::open(place.path().join(name));
    let keys = || SealKeys::new([7; 32]);
    for (kind, value) in [("JSON", json()), ("random bytes", noise())] {
        let plain = open(&format!("{kind} plain"))?;
        let lz4 = open(&format!("{kind} LZ4"))?.with_serializer(Compressed::lz4(MessagePack));
        let sealed = open(&format!("{kind} sealed"))?;
        let sealed = sealed.with_serializer(Sealed::new(keys(), MessagePack));
        let both = open(&format!("{kind} both"))?;
        let both = both.with_serializer(Sealed::new(keys(), Compressed::lz4(MessagePack)));
        let of_lz4 = contenders("LZ4", &lz4, &plain, &value);
        let of_sealed = contenders("sealed", &sealed, &plain, &value);
        let of_both = contenders("LZ4, sealed", &both, &plain, &value);
        for (name, contenders, limit) in
            [("LZ4", of_lz4, 1.2), ("sealed", of_sealed, 1.5), ("LZ4, sealed", of_both, 1.5)]
        {
            let work = format!("hit, 10 KiB of {kind}, {name}");
            let measurements = compare(SCHEDULE, contenders);
            report.comparison(&work, &measurements, &[Limit::of("plain", limit)]);
        }
    }
    let packed = Compressed::lz4(MessagePack).serialize(&json())?;
    let (short, value) = (open("short")?, json().slice(..packed.len()));
    let measurements = compare(
        SCHEDULE,
        vec![
            Contender::new("reading", Role::Vayu, |times| {
                hits(times, |key| page(&short, key, &value));
            })
            .note("a plain value that is as short"),
            Contender::new("unpacking", Role::Baseline, |times| {
                hits(times, |_| -> vayu::Result<Bytes> {
                    Compressed::lz4(MessagePack).deserialize(black_box(&packed))
                });
            })
            .note("in memory, nothing else"),
        ],
    );
    report.comparison("parts of a hit, 10 KiB of JSON, LZ4", &measurements, &[]);
    Ok(())
}

/// Returns hits of a cache, and those of a plain one. They have different keys, since a thread remembers the length of the
/// last entry of a key, in whichever directory it was.
fn contenders<'a, S>(
    name: &'static str,
    cache: &'a Cache<FileBackend, S>,
    plain: &'a FileCache,
    value: &'a Bytes,
) -> Vec<Contender<'a>>
where
    S: Serializer<Bytes, Stored = Bytes> + Clone,
{
    vec![
        Contender::new(name, Role::Vayu, |times| hits(times, |key| page(cache, key, value))),
        Contender::new("plain", Role::Baseline, |times| {
            hits(times, |key| page(plain, KEYS + key, value))
        }),
    ]
}

fn hits<T>(times: u64, hit: impl Fn(u64) -> T) {
    (0..times).for_each(|time| drop(black_box(hit(time % KEYS))));
}

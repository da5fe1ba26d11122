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
        compare_with_plain(report, kind, "LZ4", &lz4, &plain, &value, 1.2);
        compare_with_plain(report, kind, "sealed", &sealed, &plain, &value, 1.5);
        compare_with_plain(report, kind, "LZ4, sealed", &both, &plain, &value, 1.5);
    }
    Ok(())
}

/// Compares hits of a cache with those of a plain one.
fn compare_with_plain<S>(
    report: &mut Report,
    kind: &str,
    name: &'static str,
    cache: &Cache<FileBackend, S>,
    plain: &FileCache,
    value: &Bytes,
    limit: f64,
) where
    S: Serializer<Bytes, Stored = Bytes> + Clone,
{
    let hits = |times: u64, hit: &dyn Fn(u64) -> Bytes| {
        (0..times).for_each(|time| drop(black_box(hit(time % KEYS))));
    };
    let measurements = compare(
        SCHEDULE,
        vec![
            Contender::new(name, Role::Vayu, |times| hits(times, &|key| page(cache, key, value))),
            Contender::new("plain", Role::Baseline, |times| {
                hits(times, &|key| page(plain, key, value));
            }),
        ],
    );
    let work = format!("hit, 10 KiB of {kind}, {name}");
    report.comparison(&work, &measurements, &[Limit::of("plain", limit)]);
}

//! No expired value is served when clocks are wrong or set.

use std::fs::File;
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use vayu_core::testing::{ManualClock, watchdog};
use vayu_core::{Clock, Timestamp};
use vayu_file::FileCache;

use crate::fixture::{key, keys, options};
use crate::tagged_value::{Random, TaggedValue};
use crate::{HANG, HOUR, size};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The clock skew up to which an entry from the future is accepted.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// Times that clocks without a battery or with 32 bits show.
const MOMENTS: [i64; 8] = [
    i64::MIN,
    -1,
    0,
    1,
    1_000_000_000_000_000,
    // 2106-02-07, the end of 32 bits of seconds.
    (1 << 32) * 1_000_000 - 1,
    (1 << 32) * 1_000_000,
    i64::MAX - 1,
];

fn at(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

fn cache_at(path: &std::path::Path, now: Timestamp) -> (ManualClock, FileCache) {
    let clock = ManualClock::new();
    clock.set(now);
    let cache = options().clock(clock.clone()).open(path).expect("a cache");
    (clock, cache)
}

fn set(clock: &ManualClock, now: i128) {
    let limit = i128::from(i64::MAX - 1);
    let now = now.clamp(i128::from(i64::MIN), limit);
    clock.set(at(i64::try_from(now).expect("it was clamped")));
}

#[test]
fn entry_is_served_from_its_creation_until_it_expires_at_any_date() {
    for moment in MOMENTS {
        let directory = tempfile::tempdir().expect("a directory");
        let (clock, cache) = cache_at(directory.path(), at(moment));
        let wall = i128::from(moment);
        for ttl in [Duration::from_nanos(1), Duration::from_micros(1), HOUR, 200 * YEAR] {
            let micros = i128::try_from(ttl.as_nanos().div_ceil(1000)).expect("it fits");
            let is_at_the_end = wall + micros > i128::from(i64::MAX - 1);
            for (later, is_fresh) in [(0, true), (micros - 1, true), (micros, false)] {
                set(&clock, wall);
                let value = format!("{moment}, {ttl:?}, {later}");
                cache.set(&key("k"), &value, ttl).expect("set");
                set(&clock, wall + later);
                let found = cache.get::<String>(&key("k")).expect("read");
                assert_eq!(found, (is_fresh || is_at_the_end).then_some(value));
            }
        }
        assert_eq!(cache.stats().errors, 0);
    }
}

#[test]
fn longest_ttl_never_expires() {
    for moment in MOMENTS {
        let directory = tempfile::tempdir().expect("a directory");
        let (_, cache) = cache_at(directory.path(), at(moment));
        cache.set(&key("k"), &"forever".to_owned(), Duration::MAX).expect("set");
        for later in MOMENTS.into_iter().filter(|&later| later >= moment) {
            let (_, cache) = cache_at(directory.path(), at(later));
            let found = cache.get::<String>(&key("k")).expect("read");
            assert_eq!(found.as_deref(), Some("forever"), "{moment}, {later}");
            // A full sweep does not remove it.
            let usage = cache.backend().sweep().expect("sweep");
            assert_eq!(usage.entries, Some(1), "{moment}, {later}");
        }
    }
}

#[test]
fn entry_from_the_future_is_a_miss_and_is_overwritten() {
    for (index, future) in MOMENTS.into_iter().enumerate() {
        for past in MOMENTS.into_iter().take(index) {
            let directory = tempfile::tempdir().expect("a directory");
            let (clock, cache) = cache_at(directory.path(), at(future));
            cache.set(&key("k"), &"future".to_owned(), Duration::MAX).expect("set");
            clock.set(at(past));
            let is_near = at(future) <= at(past).saturating_add(SKEW);
            let result = cache.get_or_insert_with(&key("k"), HOUR, || "past".to_owned());
            assert_eq!(result, if is_near { "future" } else { "past" }, "{future}, {past}");
            // The entry that replaced it is not served longer because the clock is set again.
            clock.set(at(future));
            let found = cache.get::<String>(&key("k")).expect("read");
            let has_expired = at(future) >= at(past).saturating_add(HOUR);
            assert!(is_near || has_expired != found.is_some(), "{future}, {past}");
            assert_eq!(cache.stats().errors, 0);
        }
    }
}

#[test]
fn no_expired_value_is_served_while_the_clock_is_set_repeatedly() {
    const BATCH: u64 = 3_000;
    let (mut hits, mut misses) = (0, 0);
    let batches = size("VAYU_STEPS", 3_000).div_ceil(3_000);
    for batch in 0..batches {
        crate::progress("batches of steps", batch, batches);
        let reads = watchdog(HANG, move || {
            let mut walk = Walk::new(batch as u64);
            for sequence in 0..BATCH {
                walk.step(sequence);
            }
            assert_eq!(walk.cache.stats().errors, 0);
            (walk.hits, walk.misses)
        });
        hits += reads.0;
        misses += reads.1;
    }
    println!(
        "{} steps of a clock and its cache: {hits} hits, {misses} misses",
        batches as u64 * BATCH
    );
    assert!(hits > 0 && misses > 0);
}

/// The number of keys that are used while the clock is set.
const KEYS: usize = 8;

/// A cache that is used while its clock is set at random.
struct Walk {
    directory: TempDir,
    clock: ManualClock,
    cache: FileCache,
    random: Random,
    seed: u64,
    /// The last value of each key, its creation time, and its expiry.
    written: [Option<(TaggedValue, Timestamp, Timestamp)>; KEYS],
    hits: usize,
    misses: usize,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (clock, cache) = cache_at(directory.path(), ManualClock::new().now());
        let written = [None; KEYS];
        Self {
            directory,
            clock,
            cache,
            random: Random::new(seed),
            seed,
            written,
            hits: 0,
            misses: 0,
        }
    }

    fn step(&mut self, sequence: u64) {
        let number = self.random.below(KEYS);
        let key = &keys(KEYS)[number];
        match self.random.below(10) {
            0..2 => self.set_the_clock(),
            // Another process with the same clock.
            2 => {
                let options = options().clock(self.clock.clone());
                self.cache = options.open(self.directory.path()).expect("a cache");
            }
            3..7 => {
                let ttls = [Duration::from_micros(1), HOUR / 60, HOUR, YEAR, Duration::MAX];
                let ttl = ttls[self.random.below(ttls.len())];
                let tag = TaggedValue { key: number, writer: self.seed, sequence };
                self.cache.set(key, &tag.value(), ttl).expect("set");
                let created = self.clock.now();
                self.written[number] = Some((tag, created, created.saturating_add(ttl)));
            }
            _ => self.check(number, self.cache.get::<String>(key).expect("read")),
        }
    }

    fn set_the_clock(&mut self) {
        let steps = [YEAR, 100 * YEAR, DAY, HOUR, SKEW, HOUR / 60];
        let step = steps[self.random.below(steps.len())];
        let now = i128::from(self.clock.now().as_micros());
        let micros = i128::try_from(step.as_micros()).expect("it fits");
        let is_back = self.random.below(2) == 0;
        set(&self.clock, if is_back { now - micros } else { now + micros });
    }

    fn check(&mut self, number: usize, found: Option<String>) {
        let Some(found) = found.map(|value| TaggedValue::of(&value, number)) else {
            self.misses += 1;
            return;
        };
        self.hits += 1;
        let (tag, created, expires) = self.written[number].expect("it was written");
        let now = self.clock.now();
        assert_eq!(found, tag, "a value came back");
        assert!(now < expires, "it has expired");
        assert!(created <= now.saturating_add(SKEW), "it is from the future");
    }
}

#[test]
fn files_with_any_modification_time_are_swept_and_served() {
    let epoch = SystemTime::UNIX_EPOCH;
    for modified in [epoch, epoch - YEAR, epoch + 136 * YEAR, epoch + 300 * YEAR] {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = options().open(directory.path()).expect("a cache");
        cache.set(&key("k"), &"value".to_owned(), HOUR).expect("set");
        let entry = crate::fixture::entry(directory.path(), &key("k"));
        let temporary = entry.with_file_name(format!(".vayu-tmp-{}", "0".repeat(32)));
        let lock = crate::fixture::lock(directory.path(), &key("k"));
        for path in [&temporary, &lock] {
            std::fs::write(path, "").expect("a file");
        }
        for path in [&entry, &temporary, &lock] {
            let file = File::options().write(true).open(path).expect("it is there");
            file.set_modified(modified).expect("its time can be set");
        }
        let cache = options().open(directory.path()).expect("a cache");
        let usage = cache.backend().sweep().expect("sweep");
        assert_eq!(usage.entries, Some(1), "all shards were swept");
        assert_eq!(cache.get(&key("k")).expect("read"), Some("value".to_owned()));
        assert!(!temporary.exists() && !lock.exists(), "{modified:?}: more than an hour from now");
    }
}

//! Values that are compressed or sealed where they are stored.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use vayu::backend::{Backend, BackendExt, FileBackend, Serializer};
use vayu::testing::{ManualClock, MapBackend, watchdog};
use vayu::{
    Cache, Compressed, ErrorKind, Explanation, FileCache, FileOptions, Key, MessagePack, SealKeys,
    Sealed, TieredOptions, cached,
};

use crate::{HANG, Runs, until};

type SealedCache<B> = Cache<B, Sealed<Compressed<MessagePack>>>;

const HOUR: Duration = Duration::from_secs(3600);

/// A value that every algorithm makes shorter.
fn page(n: u32) -> String {
    format!("<p>Paragraph {n} of a page.</p>\n").repeat(400)
}

fn temporary_cache() -> (TempDir, FileCache) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let cache = FileCache::open(directory.path()).expect("a cache");
    (directory, cache)
}

/// Returns the length of the only entry.
fn entry_length(directory: &TempDir) -> u64 {
    let directory = vayu::inspect::CacheDirectory::open(directory.path()).expect("a cache");
    let mut entries = directory.entries(vayu::inspect::Verify::Full);
    let entry = entries.next().expect("an entry").expect("it is readable");
    assert!(entries.next().is_none());
    entry.length()
}

#[test]
fn function_with_a_compressing_serializer_has_a_small_entry() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h", skip(cache), serializer = Compressed::zstd(MessagePack))]
    fn render(cache: &FileCache, n: u32) -> String {
        RUNS.count();
        page(n)
    }
    let (directory, cache) = temporary_cache();
    for _ in 0..2 {
        assert_eq!(render(&cache, 7), page(7));
    }
    assert_eq!((RUNS.get(), cache.stats().errors), (1, 0));
    let length = entry_length(&directory);
    assert!(length < 500, "{length} bytes for a page of {}", page(7).len());
}

#[test]
fn async_function_has_the_serializer_of_an_expression() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h", skip(cache), serializer = Compressed::zstd(MessagePack))]
    async fn render(cache: &FileCache, n: u32) -> String {
        RUNS.count();
        page(n)
    }
    #[cached(cache = cache, ttl = "1h", skip(cache), serializer = Compressed::zstd(MessagePack))]
    async fn render_pair(cache: &FileCache, (n, _): (u32, u32)) -> String {
        RUNS.count();
        page(n)
    }
    let (_directory, cache) = temporary_cache();
    for _ in 0..2 {
        assert_eq!(smol::block_on(render(&cache, 7)), page(7));
        assert_eq!(smol::block_on(render_pair(&cache, (7, 8))), page(7));
    }
    assert_eq!((RUNS.get(), cache.stats().errors), (2, 0));
}

#[test]
fn compressed_and_plain_entries_are_misses_for_each_other() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h", prefix = "page", key = "k")]
    fn plain(cache: &FileCache) -> String {
        RUNS.count();
        page(1)
    }
    #[cached(cache = cache, ttl = "1h", prefix = "page", key = "k", serializer = Compressed::lz4(MessagePack))]
    fn lz4(cache: &FileCache) -> String {
        RUNS.count();
        page(2)
    }
    #[cached(cache = cache, ttl = "1h", prefix = "page", key = "k", serializer = Compressed::zstd(MessagePack))]
    fn zstd(cache: &FileCache) -> String {
        RUNS.count();
        page(3)
    }
    let (_directory, cache) = temporary_cache();
    for _ in 0..2 {
        assert_eq!(plain(&cache), page(1));
        assert_eq!(lz4(&cache), page(2));
        assert_eq!(zstd(&cache), page(2), "the stored form says how it was compressed");
    }
    assert_eq!((RUNS.get(), cache.stats().errors), (4, 0));
}

#[test]
fn value_longer_than_the_limit_on_entries_is_not_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let open = |limit| {
        let options = FileOptions::new().max_entry_bytes(limit);
        let cache = options.open(directory.path()).expect("a cache");
        cache.with_serializer(Compressed::lz4(MessagePack))
    };
    let (wide, narrow) = (open(1 << 20), open(1 << 12));
    let key = Key::from_text("pages", "long");
    wide.set(&key, &page(1), HOUR).expect("write");
    assert!(entry_length(&directory) < 1 << 12, "the entry itself is short");
    assert_eq!(wide.get::<String>(&key).expect("read"), Some(page(1)));
    assert_eq!(narrow.get::<String>(&key).expect("read"), None);
    assert_eq!(narrow.stats().errors_of(ErrorKind::Decode), 1);
    // It would not be read either, so it is not compressed, and then too long.
    narrow.set(&key, &page(1), HOUR).expect_err("it exceeds the limit");
}

#[test]
fn backing_tier_has_compressed_entries() {
    let backing: Cache<MapBackend, MessagePack> = Cache::new();
    let backing = backing.with_serializer(Compressed::lz4(MessagePack));
    let key = Key::from_text("pages", "shared");
    let [one, other] = [(); 2].map(|()| TieredOptions::new().over(&backing));
    one.set(&key, &page(1), HOUR).expect("write");
    for cache in [&one, &other] {
        assert_eq!(cache.get::<String>(&key).expect("read"), Some(page(1)));
    }
    assert_eq!(backing.get::<String>(&key).expect("read"), Some(page(1)));
    let plain = backing.with_serializer(MessagePack);
    assert_eq!(plain.get::<String>(&key).expect("read"), None, "it is compressed");
}

fn sealed<B: Backend, S>(cache: Cache<B, S>) -> SealedCache<B> {
    let keys = SealKeys::new([7; 32]);
    cache.with_serializer(Sealed::new(keys, Compressed::zstd(MessagePack)))
}

fn sealed_files(directory: &Path, clock: &ManualClock) -> SealedCache<FileBackend> {
    sealed(FileOptions::new().clock(clock.clone()).open(directory).expect("a cache"))
}

#[cached(cache = cache, ttl = "1h", stale = "1h", skip(cache, runs), prefix = "page", tags("pages"), handle = page_entry)]
fn sealed_page(cache: &SealedCache<FileBackend>, runs: &Runs, n: u32) -> String {
    runs.count();
    page(n)
}

/// Every way to write and to read an entry binds its value to the times and the stamp that are stored.
#[test]
fn sealed_values_are_found_by_every_door() {
    let (directory, clock, runs) = (tempfile::tempdir().unwrap(), ManualClock::new(), Runs::new());
    let cache = sealed_files(directory.path(), &clock);
    for expected in 1..=3 {
        // A call, under another stamp each time.
        assert_eq!(sealed_page(&cache, &runs, 7), page(7));
        assert_eq!((sealed_page(&cache, &runs, 7), runs.get()), (page(7), expected));
        assert!(entry_length(&directory) < 700, "it is compressed too");
        // The handle.
        let entry = || page_entry(&cache, &runs, 7);
        assert!(entry().set(page(8)).expect("write"));
        assert_eq!(entry().peek().expect("read"), Some(page(8)));
        assert!(matches!(entry().explain(), Explanation::Hit));
        assert_eq!(sealed_page(&cache, &runs, 7), page(8));
        // The cache, by key.
        let key = Key::new("page", &(7_u32,)).unwrap().with_tags(["pages"]);
        assert_eq!(cache.get::<String>(&key).expect("read"), Some(page(8)));
        let update = |old: Option<String>| old.expect("a value") + "!";
        assert_eq!(cache.update_with(&key, HOUR, update).expect("update"), page(8) + "!");
        cache.set(&key, &page(9), HOUR).expect("write");
        assert_eq!(cache.get_or_insert_with(&key, HOUR, || page(10)), page(9));
        assert_eq!(sealed_page(&cache, &runs, 7), page(9));
        assert_eq!(runs.get(), expected);
        cache.invalidate_tag("pages").expect("invalidate");
    }
    assert_eq!(sealed_page(&cache, &runs, 7), page(7));
    // Another process, and a value past its ttl.
    let again = sealed_files(directory.path(), &clock);
    assert_eq!((sealed_page(&again, &runs, 7), runs.get()), (page(7), 4));
    clock.advance(HOUR);
    assert!(page_entry(&again, &runs, 7).peek().expect("read").is_some(), "it is stale");
    assert_eq!([cache.stats().errors, again.stats().errors], [0, 0]);
}

#[test]
fn elements_of_a_batch_are_sealed_each_for_its_own_entry() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h", skip(cache), prefix = "each", each = ids)]
    fn pages(cache: &SealedCache<FileBackend>, ids: &[u32]) -> HashMap<u32, String> {
        RUNS.count();
        ids.iter().map(|&id| (id, page(id))).collect()
    }
    #[cached(cache = cache, ttl = "1h", skip(cache), prefix = "each")]
    fn one(cache: &SealedCache<FileBackend>, id: u32) -> String {
        RUNS.count();
        page(id)
    }
    let (directory, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    for expected in [1, 1] {
        let cache = sealed_files(directory.path(), &clock);
        assert_eq!(pages(&cache, &[1, 2, 3])[&2], page(2));
        assert_eq!((one(&cache, 3), RUNS.get()), (page(3), expected));
        assert_eq!(cache.stats().errors, 0);
    }
}

/// The lowest bits of the schema stamp of entries with tags, and of those of functions with a serializer of
/// their own.
const MARKS: [u64; 2] = [0b1011_0110_0101_1001, 0b1011_0110_0101_1010];

/// What a process that may write to the directory can do: it knows the format and its checksums, not the
/// key.
#[test]
fn forged_moved_and_redated_entries_are_misses() {
    let (directory, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let cache = sealed_files(directory.path(), &clock);
    let backend = cache.backend();
    let [key, other] = ["a", "b"].map(|name| Key::from_text("pages", name));
    for (key, n) in [(&key, 1), (&other, 2)] {
        cache.set(key, &page(n), HOUR).expect("write");
        clock.advance(Duration::from_secs(60));
    }
    let genuine = |key| backend.read(key).expect("read").expect("an entry");
    let [record, moved] = [genuine(&key), genuine(&other)];
    let (created, expires) = (record.created(), record.expires());
    let (later, end) = (created.saturating_add(HOUR / 120), expires.saturating_add(HOUR));
    let plain = cache.clone().with_serializer(MessagePack);
    plain.set(&key, &page(3), HOUR).expect("write");
    let disguised = genuine(&key).with_serializer(record.serializer());
    let never = vayu::time::Timestamp::NEVER;
    let [tags, serializer] = MARKS.map(|mark| {
        let record = record.clone().with_times(created, never, never);
        record.with_schema(moved.schema().wrapping_add(mark))
    });
    let forged = [
        ("moved", moved.clone(), 1),
        ("moved with other times", moved.map(|_| record.value().clone()), 1),
        ("later", record.clone().with_times(created, end, end), 1),
        ("stale for longer", record.clone().with_times(created, expires, end), 1),
        ("younger", record.clone().with_times(later, expires, expires), 1),
        // The stamp is compared first.
        ("of another stamp", record.clone().with_schema(record.schema().wrapping_add(1 << 16)), 0),
        ("plain", genuine(&key), 0),
        ("plain in disguise", disguised, 1),
        ("empty", record.clone().map(|_| vayu::backend::Bytes::new()), 1),
        ("of a function with tags", tags, 1),
        (
            "of a function with a serializer",
            serializer.with_serializer(vayu::backend::SerializerId::JSON),
            1,
        ),
    ];
    for (how, forged, errors) in forged {
        let forge = || backend.write(&key, forged.clone()).expect("write");
        let read = || cache.get::<String>(&key).expect("read");
        let count = |run: &dyn Fn()| {
            let before = cache.stats().errors_of(ErrorKind::Decode);
            run();
            cache.stats().errors_of(ErrorKind::Decode) - before
        };
        forge();
        let found = count(&|| assert_eq!(read(), None, "{how}"));
        assert_eq!(found, errors, "{how}");
        let found = count(&|| {
            assert_eq!(smol::block_on(cache.get_async::<String>(&key)).expect("read"), None);
        });
        assert_eq!(found, errors, "{how}");
        cache.set(&key, &page(4), HOUR).expect(how);
        assert_eq!(read(), Some(page(4)), "{how}");
        forge();
        let update = |old: Option<String>| old.map_or_else(|| page(5), |_| page(6));
        assert_eq!(cache.update_with(&key, HOUR, update).expect(how), page(5), "{how}");
        assert_eq!(read(), Some(page(5)), "{how}");
        forge();
        assert_eq!(cache.get_or_insert_with(&key, HOUR, || page(7)), page(7), "{how}");
        assert_eq!(read(), Some(page(7)), "{how}");
    }
    backend.write(&key, record).expect("write");
    assert_eq!(cache.get::<String>(&key).expect("read"), Some(page(1)), "it is genuine");
    assert_eq!(cache.stats().errors, cache.stats().errors_of(ErrorKind::Decode));
}

/// A hit does not verify the checksum of a sealed entry, which covers what the seal covers. What else is read has a checksum
/// of its own, or is compared.
#[test]
fn sealed_file_in_which_a_bit_is_flipped_is_never_served_with_another_value() {
    let directory = tempfile::tempdir().unwrap();
    let cache = sealed_files(directory.path(), &ManualClock::new());
    let key = Key::from_text("pages", "a");
    cache.set(&key, &"value".to_owned(), HOUR).expect("write");
    let inspected = vayu::inspect::CacheDirectory::open(directory.path()).expect("a cache");
    let mut entries = inspected.entries(vayu::inspect::Verify::Full);
    let path = entries.next().expect("an entry").expect("it is readable").path();
    let path = directory.path().join(path);
    let bytes = std::fs::read(&path).expect("an entry");
    let mut served = Vec::new();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, flipped).expect("write");
        match cache.get::<String>(&key).expect("read") {
            Some(value) => {
                assert_eq!(value, "value", "bit {bit}");
                served.push(bit / 8);
            }
            None => assert!(!(64..80).contains(&(bit / 8)), "bit {bit}"),
        }
    }
    let of_the_checksum: Vec<_> = (64..80).flat_map(|at| [at; 8]).collect();
    assert_eq!(served, of_the_checksum);
}

/// A slow computation that a waiting caller has hedged is stored unless the stored value is newer, which a forged
/// header cannot claim.
#[test]
fn forged_time_of_creation_does_not_keep_a_value_from_being_stored() {
    let stored = watchdog(HANG, || {
        let (directory, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        let cache = &sealed_files(directory.path(), &clock);
        let clock = &clock;
        let (minute, key) = (HOUR / 60, &Key::from_text("pages", "k"));
        let stored = [false, true].map(|is_forged| {
            cache.clear().expect("clear");
            let (is_running, is_open) = (AtomicBool::new(false), AtomicBool::new(false));
            let slow = || {
                is_running.store(true, Ordering::SeqCst);
                until(|| is_open.load(Ordering::SeqCst));
                1
            };
            std::thread::scope(|scope| {
                let slow = scope.spawn(|| cache.get_or_insert_with(key, HOUR, slow));
                until(|| is_running.load(Ordering::SeqCst));
                let hedge = scope.spawn(|| cache.get_or_insert_with(key, HOUR, || 2));
                until(|| clock.sleepers() == 1);
                clock.advance(minute);
                assert_eq!(hedge.join().expect("no panic"), 2);
                if is_forged {
                    let record = cache.backend().read(key).expect("read").expect("an entry");
                    let created = record.created().saturating_add(minute);
                    let end = created.saturating_add(HOUR);
                    let forged = record.with_times(created, end, end);
                    cache.backend().write(key, forged).expect("write");
                    clock.advance(minute);
                }
                is_open.store(true, Ordering::SeqCst);
                assert_eq!(slow.join().expect("no panic"), 1);
            });
            cache.get_or_insert_with(key, HOUR, || 3)
        });
        assert_eq!(cache.stats().errors_of(ErrorKind::Decode), 1);
        stored
    });
    assert_eq!(stored, [2, 1], "the genuine newer value stays");
}

/// Without a context, an entry is valid in every cache with the same keys.
#[test]
fn entry_that_was_copied_to_the_cache_of_another_context_is_a_miss() {
    let clock = ManualClock::new();
    let directories = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let open = |directory: &TempDir, context: &str| {
        let keys = SealKeys::new([7; 32]).with_context(context);
        let cache =
            FileOptions::new().clock(clock.clone()).open(directory.path()).expect("a cache");
        cache.with_serializer(Sealed::new(keys, MessagePack))
    };
    let key = Key::from_text("pages", "k");
    let [from, to] = [(&directories[0], "tenant_a"), (&directories[1], "tenant_b")]
        .map(|(directory, context)| open(directory, context));
    from.set(&key, &page(1), HOUR).expect("write");
    let copied = from.backend().read(&key).expect("read").expect("an entry");
    to.backend().write(&key, copied).expect("write");
    assert_eq!(to.get::<String>(&key).expect("read"), None);
    assert_eq!(to.stats().errors_of(ErrorKind::Decode), 1);
    let same = open(&directories[1], "tenant_a");
    assert_eq!(same.get::<String>(&key).expect("read"), Some(page(1)));
    assert_eq!(from.get::<String>(&key).expect("read"), Some(page(1)));
}

/// Memory limits the times of a copy, and corrects those of a machine whose clock is ahead. The seal is of
/// the times in the backing tier.
#[test]
fn tiers_open_copies_by_the_times_of_the_backing_tier() {
    let clock = ManualClock::new();
    let backing: Cache<MapBackend, MessagePack> =
        Cache::with_backend(MapBackend::with_clock(clock.clone()));
    let backing = sealed(backing);
    let key = Key::from_text("pages", "k");
    backing.set(&key, &page(1), HOUR).expect("write");
    let near = TieredOptions::new().near_ttl(Duration::from_secs(10)).over(&backing);
    for _ in 0..3 {
        assert_eq!(near.get::<String>(&key).expect("read"), Some(page(1)));
        clock.advance(Duration::from_secs(9));
    }
    near.set(&key, &page(2), HOUR).expect("write");
    assert_eq!(backing.get::<String>(&key).expect("read"), Some(page(2)), "sealed as written");
    // The clock that has written the entry is a minute ahead of the one that reads it.
    let ahead = backing.backend().read(&key).expect("read").expect("an entry");
    let slow = ManualClock::new();
    slow.set(vayu::time::Timestamp::from_micros(ahead.created().as_micros() - 60_000_000));
    let other: Cache<MapBackend, MessagePack> = Cache::with_backend(MapBackend::with_clock(slow));
    let other = sealed(other);
    other.backend().write(&key, ahead).expect("write");
    let tiers = TieredOptions::new().over(&other);
    for _ in 0..2 {
        assert_eq!(tiers.get::<String>(&key).expect("read"), Some(page(2)));
    }
    assert_eq!([near.stats().errors, tiers.stats().errors, backing.stats().errors], [0; 3]);
}

/// A seal is opened when memory has a copy already. The backing tier of this test has no invalidation feed.
#[test]
fn copy_that_cannot_be_opened_is_read_again_from_the_backing_tier() {
    #[cached(cache = cache, ttl = "1h", prefix = "pages", skip(cache, runs), each = numbers)]
    fn pages<B, S>(cache: &Cache<B, S>, runs: &Runs, numbers: &[u32]) -> Vec<String>
    where
        B: Backend,
        S: Serializer<String, Stored = B::Stored> + Clone + Send + Sync + 'static,
    {
        runs.count();
        numbers.iter().map(|&n| page(n)).collect()
    }
    let clock = ManualClock::new();
    let backing: Cache<MapBackend, MessagePack> =
        Cache::with_backend(MapBackend::with_clock(clock.clone()));
    let backing = sealed(backing);
    let key = Key::new("pages", &(7_u32,)).expect("a key");
    // As another process.
    let repair = |n| backing.set(&key, &page(n), HOUR).expect("write");
    let damage = |schema| {
        repair(0);
        let record = backing.backend().read(&key).expect("read").expect("an entry");
        let damaged = record.map(|bytes| bytes.slice(1..));
        let schema = damaged.schema().wrapping_add(schema);
        backing.backend().write(&key, damaged.with_schema(schema)).expect("write");
    };
    // The second is forged, so that it seems to be of a function with tags.
    for schema in [0, MARKS[0]] {
        let tiers = || TieredOptions::new().over(&backing);
        let one = tiers();
        damage(schema);
        assert_eq!(one.get::<String>(&key).expect("read"), None);
        repair(1);
        assert_eq!(one.get::<String>(&key).expect("read"), Some(page(1)), "{schema}");
        damage(schema);
        let one = tiers();
        // Nothing opens the copy yet.
        assert!(one.backend().read_many(&[&key])[0].as_ref().expect("read").is_some());
        assert_eq!(one.get::<String>(&key).expect("read"), None);
        assert_eq!(smol::block_on(one.get_async::<String>(&key)).expect("read"), None);
        repair(2);
        let runs = Runs::new();
        assert_eq!(pages(&one, &runs, &[7]), [page(2)], "{schema}");
        let reads = one.backend().tier_stats().hits;
        assert_eq!(pages(&one, &runs, &[7]), [page(2)]);
        assert_eq!(one.get::<String>(&key).expect("read"), Some(page(2)));
        assert_eq!((runs.get(), one.backend().tier_stats().hits), (0, reads), "it is in memory");
    }
}

/// Returns the URL of a cache in a directory with these options.
fn url(scheme: &str, directory: &TempDir, options: &str) -> String {
    format!("{scheme}:{}?{options}", directory.path().to_str().expect("a path"))
}

#[test]
fn url_compresses_and_seals() {
    let error = vayu::open("file:/nowhere?seal=env:PATH").expect_err("not a key");
    assert!(error.to_string().contains("`PATH`"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let key = Key::from_text("pages", "k");
    let open = |scheme, options| vayu::open(url(scheme, &directory, options)).expect("a cache");
    let writer = open("file", "compress=zstd");
    writer.set(&key, &page(1), HOUR).expect("write");
    assert!(entry_length(&directory) < 700);
    for (scheme, options) in [("file", "compress=lz4"), ("memory+file", "compress=zstd")] {
        let cache = open(scheme, options);
        assert_eq!(cache.get::<String>(&key).expect("read"), Some(page(1)), "{scheme} {options}");
        assert_eq!(cache.stats().errors, 0);
    }
    let files = FileCache::open(directory.path()).expect("a cache");
    let same = files.clone().with_serializer(Compressed::lz4(MessagePack));
    assert_eq!(same.get::<String>(&key).expect("read"), Some(page(1)), "the format is the same");
    assert_eq!(open("file", "").get::<String>(&key).expect("read"), None, "it is compressed");
    files.set(&key, &page(2), HOUR).expect("write");
    assert_eq!(writer.get::<String>(&key).expect("read"), None, "it is not compressed");
    for (options, message) in [
        ("compress=gzip", "`lz4`, `zstd`"),
        ("seal=secret", "as in `env:CACHE_KEY`"),
        ("seal_context=a", "needs the option `seal`"),
        ("seal=env:", "as in `env:CACHE_KEY`"),
        ("seal=env:VAYU_NO_SUCH_VARIABLE", "`VAYU_NO_SUCH_VARIABLE`: it is not set"),
    ] {
        let error = vayu::open(url("file", &directory, options)).expect_err(options);
        assert!(error.to_string().contains(message), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    vayu::open("memory:?compress=lz4").expect_err("values in memory are not encoded");
}

/// Runs itself again as a process with a key in its environment.
#[test]
fn url_seals_with_keys_of_the_environment() {
    const VARIABLE: &str = "VAYU_TEST_CACHE_KEY";
    if std::env::var_os(VARIABLE).is_none() {
        let test = "at_rest::url_seals_with_keys_of_the_environment";
        let mut child = std::process::Command::new(std::env::current_exe().expect("a path"));
        child
            .args([test, "--exact"])
            .env(VARIABLE, format!("{},{}", "07".repeat(32), "08".repeat(32)));
        let output = child.output().expect("the child runs");
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let key = Key::from_text("pages", "k");
    let options = format!("compress=zstd&seal=env:{VARIABLE}");
    let open = |scheme| vayu::open(url(scheme, &directory, &options)).expect("a cache");
    open("file").set(&key, &page(1), HOUR).expect("write");
    for cache in [open("file"), open("memory+file")] {
        assert_eq!(cache.get::<String>(&key).expect("read"), Some(page(1)));
        assert_eq!(cache.stats().errors, 0);
    }
    let files = FileCache::open(directory.path()).expect("a cache");
    let by_old_key = Sealed::new(SealKeys::new([8; 32]), Compressed::zstd(MessagePack));
    let by_old_key = files.clone().with_serializer(by_old_key);
    assert_eq!(by_old_key.get::<String>(&key).expect("read"), None, "the first key seals");
    let same = sealed(files.clone());
    assert_eq!(same.get::<String>(&key).expect("read"), Some(page(1)), "the format is the same");
    by_old_key.set(&key, &page(2), HOUR).expect("write");
    for scheme in ["file", "memory+file"] {
        let cache = open(scheme);
        let opened = || cache.stats().usage.opened_with_old_keys;
        assert_eq!(opened(), Some(0));
        assert_eq!(cache.get::<String>(&key).expect("read"), Some(page(2)), "all keys open");
        assert_eq!(opened(), Some(1), "{scheme}");
    }
    // An entry is valid in the cache with the same context only.
    let of_context = |options: &str| {
        let url = url("file", &directory, &format!("seal=env:{VARIABLE}{options}"));
        vayu::open(url).expect("a cache")
    };
    of_context("&seal_context=tenant_a").set(&key, &page(6), HOUR).expect("write");
    for options in ["&seal_context=tenant_b", ""] {
        assert_eq!(of_context(options).get::<String>(&key).expect("read"), None, "{options}");
    }
    let found = of_context("&seal_context=tenant_a").get::<String>(&key);
    assert_eq!(found.expect("read"), Some(page(6)));
    // A serializer that seals, under the compression of the URL.
    let cache = vayu::open(url("file", &directory, "compress=zstd")).expect("a cache");
    let keys = SealKeys::new([7; 32]);
    let cache =
        cache.with_serializer(vayu::backend::TieredSerializer::new(Sealed::new(keys, MessagePack)));
    cache.set(&key, &page(7), HOUR).expect("write");
    assert_eq!(cache.get::<String>(&key).expect("read"), Some(page(7)));
    // A value that was sealed with a removed key is a miss at every door, and one that was forged.
    let removed = Sealed::new(SealKeys::new([9; 32]), Compressed::zstd(MessagePack));
    let removed = files.clone().with_serializer(removed);
    for (cache, is_forged) in ["file", "memory+file"]
        .into_iter()
        .flat_map(|scheme| [(open(scheme), false), (open(scheme), true)])
    {
        let spoil = || {
            removed.set(&key, &page(8), HOUR).expect("write");
            if is_forged {
                same.set(&key, &page(8), HOUR).expect("write");
                let record = files.backend().read(&key).expect("read").expect("an entry");
                let (created, end) = (record.created(), record.expires().saturating_add(HOUR));
                files.backend().write(&key, record.with_times(created, end, end)).expect("write");
            }
        };
        let read = || cache.get::<String>(&key).expect("read");
        let update = |old: Option<String>| old.map_or_else(|| page(9), |_| page(10));
        spoil();
        assert_eq!(read(), None);
        assert_eq!(smol::block_on(cache.get_async::<String>(&key)).expect("read"), None);
        assert_eq!(cache.update_with(&key, HOUR, update).expect("update"), page(9));
        assert_eq!(read(), Some(page(9)));
        assert_eq!(cache.stats().errors_of(ErrorKind::Decode), 3);
        assert_eq!(cache.stats().errors, 3);
    }
    // A value that is not sealed is absent, and one that was changed is a miss.
    files.set(&key, &page(3), HOUR).expect("write");
    assert_eq!(open("file").get::<String>(&key).expect("read"), None);
    same.set(&key, &page(4), HOUR).expect("write");
    let record = files.backend().read(&key).expect("read").expect("an entry");
    let (created, end) = (record.created(), record.expires().saturating_add(HOUR));
    files.backend().write(&key, record.with_times(created, end, end)).expect("write");
    let cache = open("memory+file");
    assert_eq!(cache.get_or_insert_with(&key, HOUR, || page(5)), page(5));
    assert_eq!(cache.stats().errors, cache.stats().errors_of(ErrorKind::Decode));
    assert_eq!(open("file").get::<String>(&key).expect("read"), Some(page(5)));
}

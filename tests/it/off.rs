//! Caches that could not be opened.

use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use vayu::backend::{AnyBackend, Backend, FileBackend, OffBackend, Serializer};
use vayu::{
    AnyCache, Cache, ErrorKind, FileCache, FileOptions, Key, MessagePack, RedisCache, RedisOptions,
    SingleFlight, TieredCache, cached,
};

use crate::Runs;

const MINUTE: Duration = Duration::from_secs(60);

/// A directory cannot be created below a file.
const NO_DIRECTORY: &str = "Cargo.toml/reports";

#[test]
fn cache_in_a_static_that_cannot_be_opened_runs_functions_on_every_thread() {
    static RUNS: Runs = Runs::new();
    static REPORTS: LazyLock<FileCache> = LazyLock::new(|| FileCache::open_or_off(NO_DIRECTORY));

    #[cached(cache = REPORTS, ttl = "1h", stale = "1h", tags("report"), handle = report_entry)]
    fn report(year: u32) -> Result<u32, String> {
        RUNS.count();
        Ok(year)
    }
    #[cached(cache = REPORTS, ttl = "1h", key = "k")]
    async fn in_async() -> usize {
        RUNS.count()
    }
    thread::scope(|scope| {
        for year in 0..4 {
            scope.spawn(move || assert_eq!(report(year), Ok(year)));
        }
    });
    assert_eq!((report(1), report_entry(1).peek().expect("no fault")), (Ok(1), None));
    assert_eq!((smol::block_on(in_async()), smol::block_on(in_async())), (6, 7));
    let stats = REPORTS.stats();
    assert_eq!((stats.hits, stats.inserts, stats.errors_of(ErrorKind::Configuration)), (0, 0, 1));
    let why = stats.off.expect("a reason");
    assert!(why.contains("directory") && why.contains("Not a directory"), "with its cause: {why}");
}

fn is_off<B, S>(cache: &Cache<B, S>)
where
    B: Backend,
    S: Serializer<u64, Stored = B::Stored>,
{
    let key = Key::from_text("p", "k");
    for n in 0..3 {
        assert_eq!(cache.get_or_insert_with(&key, MINUTE, || n), n);
    }
    cache.set(&key, &7, MINUTE).expect("nothing is stored");
    assert_eq!(cache.get(&key).expect("nothing is read"), None);
    assert_eq!(smol::block_on(cache.get_async(&key)).expect("nothing is read"), None);
    // The end of a pause does not turn it on.
    drop(cache.pause());
    assert_eq!(cache.get_or_insert_with(&key, MINUTE, || 8), 8);
    assert_eq!(cache.get_or_insert_with(&key, MINUTE, || 9), 9);
}

/// Operations that change entries return an error: entries of other processes remain.
fn assert_changes_are_rejected<B: Backend, S>(cache: &Cache<B, S>) {
    let key = Key::from_text("p", "k");
    let results = [
        cache.remove(&key).map(drop),
        cache.clear(),
        cache.invalidate_tag("t"),
        cache.invalidate_prefix("p"),
        cache.invalidate_all(),
        smol::block_on(cache.remove_async(&key)).map(drop),
        smol::block_on(cache.clear_async()),
        smol::block_on(cache.invalidate_tag_async("t")),
        smol::block_on(cache.invalidate_prefix_async("p")),
        smol::block_on(cache.invalidate_all_async()),
    ];
    for result in results {
        let error = result.expect_err("it is off");
        assert_eq!(error.kind(), ErrorKind::Configuration);
        // `Debug` has the causes too.
        assert!(format!("{error:?}").contains("is off"), "{error:?}");
    }
}

fn is_off_for_a_reason<B, S>(cache: &Cache<B, S>)
where
    B: OffBackend,
    S: Serializer<u64, Stored = B::Stored>,
{
    is_off(cache);
    assert_changes_are_rejected(cache);
    assert!(cache.stats().off.is_some());
}

#[test]
fn every_backend_that_cannot_be_opened_is_off() {
    is_off_for_a_reason(&FileCache::open_or_off(NO_DIRECTORY));
    let options = FileOptions::new().single_flight(SingleFlight::Everywhere).max_entries(3);
    is_off_for_a_reason(&options.open(NO_DIRECTORY).unwrap_or_else(FileCache::off));
    is_off_for_a_reason(&RedisCache::open_or_off("redis:no address"));
    is_off_for_a_reason(&RedisOptions::new().connect("http://x").unwrap_or_else(RedisCache::off));
    is_off_for_a_reason(&TieredCache::<FileBackend>::open_or_off(NO_DIRECTORY));
    is_off_for_a_reason(&Cache::<AnyBackend<bytes::Bytes>, MessagePack>::off(vayu::Error::new(
        ErrorKind::Configuration,
        "planned",
    )));
    for url in [
        "file:Cargo.toml/reports",
        "memory+file:Cargo.toml/x",
        "memory:?max_entries=many",
        "what",
        "off:?x=1",
    ] {
        is_off_for_a_reason(&vayu::open_or_off(url));
    }
}

#[test]
fn cache_can_be_turned_off_explicitly() {
    let cache: AnyCache = vayu::open("off:").expect("nothing is opened");
    is_off(&cache);
    assert_eq!((cache.stats().off, cache.stats().errors), (None, 0));
    cache.clear().expect("there is nothing");
    cache.invalidate_tag("t").expect("there is nothing");
    assert!(!cache.remove(&Key::from_text("p", "k")).expect("there is nothing"));
}

#[test]
fn cache_that_can_be_opened_is_not_off() {
    let place = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open_or_off(place.path());
    let key = Key::from_text("p", "k");
    cache.set(&key, &7_u64, MINUTE).expect("a write");
    assert_eq!(cache.get(&key).expect("a read"), Some(7_u64));
    assert_eq!(cache.stats().off, None);
}

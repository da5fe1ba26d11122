//! Caches that are selected by a URL at run time.

use vayu::testing::watchdog;
use vayu::{AnyCache, ErrorKind, cached};

use crate::server::{shared, shared_cluster};
use crate::{HANG, namespace};

#[cached(cache = cache, ttl = "1m", prefix = "square", skip(cache), log = false)]
fn square(cache: &AnyCache, n: u64) -> u64 {
    n * n
}

#[cached(cache = cache, ttl = "1m", prefix = "square", skip(cache), log = false)]
async fn square_async(cache: &AnyCache, n: u64) -> u64 {
    n * n
}

fn check(text: &str) {
    let cache = vayu::open(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(square(&cache, 12), 144, "{text}");
    assert_eq!(square(&cache, 12), 144, "{text}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(runtime.block_on(square_async(&cache, 12)), 144, "{text}");
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.hits, stats.errors), (1, 2, 0), "{text}");
    cache.invalidate_all().unwrap();
    assert_eq!(square(&cache, 12), 144);
    assert_eq!(cache.stats().misses, 2, "{text}");
}

#[test]
fn url_opens_each_kind_of_cache() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().to_str().unwrap();
        let redis = format!("{}?namespace={}", shared().url(), namespace());
        let hosts: Vec<_> = shared_cluster()
            .urls()
            .iter()
            .map(|url| url["redis://".len()..].trim_end_matches('/').to_owned())
            .collect();
        let cluster = format!("redis+cluster://{}/?namespace={}", hosts.join(","), namespace());
        check("memory:");
        check("memory:?max_entries=64");
        check(&format!("file://{path}/one?max_bytes=1GiB&durability=synced"));
        check(&format!(
            "file:{path}/with%20space?max_entries=10&open_files=0&single_flight=everywhere"
        ));
        assert!(place.path().join("with space").is_dir());
        check(&format!("memory+file://{path}/two?memory_max_entries=5"));
        check(&redis);
        check(&cluster);
        check(&format!("memory+{redis}a"));
        check(&format!("memory+{cluster}a&memory_max_entries=99"));
    });
}

#[test]
fn options_of_memory_are_applied() {
    let of = |text: &str| vayu::open(text).unwrap().stats().usage.max_entries.unwrap();
    assert!(of("memory:") > 9_000);
    assert!(of("memory:?max_entries=64") <= 64);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("c");
    let path = path.to_str().unwrap();
    assert!(of(&format!("memory+file://{path}?max_entries=70&memory_max_entries=20")) <= 20);
}

#[test]
fn invalid_url_is_an_error_that_says_what_is_wrong() {
    for (text, says) in [
        ("", "expected a URL"),
        ("redis", "expected a URL"),
        ("memory", "expected a URL"),
        ("memory:10", "`memory:` takes no path"),
        ("memory:?max_entries=many", "`max_entries` must be a number"),
        ("memory:?max=1", "unknown option `max` in a memory URL"),
        ("memory:?max_entries=1&max_entries=2", "duplicate option"),
        ("file:", "missing path"),
        ("file://", "no host"),
        ("file://host/path", "no host"),
        ("file:///tmp/x?max_bytes=1GB", "`max_bytes` must be a number like"),
        ("file:///tmp/x?durability=some", "one of `relaxed`, `synced`"),
        ("file:///tmp/x?colour=red", "unknown option `colour` in a file URL"),
        ("file:///tmp/%zz", "percent-encoding"),
        ("memcached://host", "unknown scheme `memcached:`"),
        ("memory+memcached://host", "unknown scheme `memcached:`"),
        ("memory+file:///tmp/x?memory_max_entries=no", "`memory_max_entries` must be a number"),
        ("file:///tmp/x?memory_max_entries=5", "unknown option `memory_max_entries`"),
        ("memory+file:///tmp/x?near_ttl=5", "`near_ttl` must be a duration"),
        ("memory+file:///tmp/x?near_ttl=5M", "the units are `ms`"),
        ("file:///tmp/x?near_ttl=5s", "unknown option `near_ttl`"),
        ("redis://:secret@host?colour=red", "unknown option `colour` in a Redis URL"),
        ("redis://:secret@host:none", "invalid URL of a Redis server"),
        (":secret@host", "expected a URL"),
        ("secret@host:1", "expected a URL"),
    ] {
        let error = vayu::open(text).expect_err(text);
        assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
        let message = format!("{error} {:?}", std::error::Error::source(&error));
        assert!(message.contains(says), "{text}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

//! Caches in object stores that are selected by a URL at run time.

use vayu::testing::watchdog;
use vayu::{AnyCache, ErrorKind, ObjectCache, cached};

use crate::HANG;

#[cached(cache = cache, ttl = "1m", prefix = "square", skip(cache), log = false)]
fn square(cache: &AnyCache, n: u64) -> u64 {
    n * n
}

pub(crate) fn check(url: &str) {
    let cache = vayu::open(url).unwrap_or_else(|error| panic!("{url}: {error:?}"));
    assert_eq!((square(&cache, 12), square(&cache, 12)), (144, 144), "{url}");
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.hits, stats.errors), (1, 1, 0), "{url}");
    cache.invalidate_all().unwrap();
    assert_eq!(square(&cache, 12), 144);
    assert_eq!(cache.stats().misses, 2, "{url}");
}

#[test]
fn url_opens_each_kind_of_store_alone_and_behind_memory() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().unwrap();
        let directory = format!("object+file://{}", place.path().display());
        for url in [
            "object+memory:",
            "object+memory:/a/b?timeout=30s",
            &format!("{directory}?single_flight=everywhere&max_entry_bytes=1MiB"),
            "memory+object+memory:?memory_max_entries=10&near_ttl=5s",
            "object+memory:?compress=zstd",
        ] {
            check(url);
        }
        // Memory in front of the directory does not have what another cache has stored there.
        let url = format!("memory+{directory}");
        let (one, other) = (vayu::open(&url).unwrap(), vayu::open(&url).unwrap());
        assert_eq!((square(&one, 3), square(&other, 3), square(&other, 3)), (9, 9, 9));
        assert_eq!((other.stats().misses, other.stats().hits), (0, 2));
    });
}

#[test]
fn wrong_urls_are_errors_that_name_the_option() {
    for (url, part) in [
        ("object+memory:?max_entries=5", "`max_entries`"),
        ("memory+object+memory:?timout=5s", "`timout`"),
        ("object+nothing:", "expected a URL"),
        ("object+file:///does/not/exist", "directory"),
    ] {
        let error = vayu::open(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{url}");
        assert!(format!("{error:?}").contains(part), "{url}: {error:?}");
        assert!(vayu::open_or_off(url).stats().off.is_some());
    }
    assert!(ObjectCache::open("ftp://host").is_err());
    assert!(ObjectCache::open_or_off("ftp://host").stats().off.is_some());
}

//! Values that are compressed where they are stored.

use std::time::Duration;

use tempfile::TempDir;
use vayu::testing::MapBackend;
use vayu::{
    Cache, Compressed, ErrorKind, FileCache, FileOptions, Key, MessagePack, TieredOptions, cached,
};

use crate::Runs;

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

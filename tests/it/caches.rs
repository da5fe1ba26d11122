//! The list of the caches of the process.

use std::time::Duration;

use vayu::backend::{AnyBackend, AnyValue, Backend, ByReference};
use vayu::testing::{ManualClock, MapBackend, watchdog};
use vayu::{
    Cache, CacheInfo, Error, ErrorKind, FileCache, FileOptions, Key, MemoryCache, MemoryOptions,
    MessagePack, RedisCache, TieredOptions, cached, caches, mem_cached,
};

use crate::{HANG, until};

fn named(name: &str) -> Vec<CacheInfo> {
    caches().into_iter().filter(|cache| cache.name == name).collect()
}

/// Another test may hold the cache for the moment in which it lists it.
fn until_gone(name: &str) {
    until(|| named(name).is_empty());
}

#[test]
fn cache_is_listed_with_its_statistics_until_its_last_handle_is_dropped() {
    let cache = MemoryOptions::new().max_entries(7).build().with_name("listed until dropped");
    let key = Key::from_text("p", "k");
    let minute = Duration::from_secs(60);
    for _ in 0..3 {
        assert_eq!(cache.get_or_insert_with(&key, minute, || 1), 1);
    }
    let clone = cache.clone().with_serializer(ByReference);
    drop(cache);
    let found = named("listed until dropped");
    assert_eq!(found.len(), 1, "its handles are one cache");
    assert_eq!(found[0].stats, clone.stats());
    assert_eq!((found[0].stats.hits, found[0].stats.misses), (2, 1));
    assert_eq!(found[0].stats.usage.max_entries, Some(7));
    drop(clone);
    until_gone("listed until dropped");
}

#[test]
fn later_name_replaces_the_name_of_all_handles() {
    let cache = MemoryCache::new().with_name("first name");
    let _clone = cache.clone().with_name(String::from("second name"));
    assert_eq!((named("first name").len(), named("second name").len()), (0, 1));
}

#[test]
fn caches_are_listed_in_the_order_of_their_creation() {
    let kept: Vec<MemoryCache> =
        (0..5).map(|n| MemoryCache::new().with_name(format!("in order {n}"))).collect();
    let listed = || -> Vec<String> {
        caches()
            .into_iter()
            .map(|cache| cache.name)
            .filter(|name| name.starts_with("in order"))
            .collect()
    };
    assert_eq!(listed(), [0, 1, 2, 3, 4].map(|n| format!("in order {n}")));
    drop(kept.into_iter().skip(2).collect::<Vec<_>>());
    until(|| listed().is_empty());
}

#[test]
fn cache_of_the_process_has_a_name() {
    #[mem_cached(ttl = "1m")]
    fn call() -> u8 {
        1
    }
    call();
    let found = named("mem_cache");
    assert_eq!(found.len(), 1);
    assert!(found[0].stats.calls() >= 1);
}

#[test]
fn cache_of_a_function_has_the_name_of_the_function() {
    #[cached(ttl = "1m", max_entries = 3)]
    fn listed(n: u8) -> u8 {
        n
    }

    #[cached(ttl = "1m", max_weight = 30, weigh = |_: &u8| 1, handle = weighed_entry)]
    fn r#try(n: u8) -> u8 {
        n
    }

    assert_eq!((listed(1), r#try(1)), (1, 1));
    for function in ["listed", "try"] {
        let found = named(&format!("{}::{function}", module_path!()));
        assert_eq!((found.len(), found[0].stats.misses), (1, 1), "{function}");
    }
    assert_eq!(weighed_entry(1).cache().stats().usage.max_weight, Some(30));
}

#[test]
fn panic_while_a_number_is_weighed_costs_its_storage_only() {
    fn check(cache: &Cache<impl Backend<Stored = AnyValue>, ByReference>) {
        let key = Key::from_text("weighed", "k");
        let get = || cache.get_or_insert_with(&key, Duration::from_secs(60), || 7_u64);
        assert_eq!((get(), get()), (7, 7));
        let stats = cache.stats();
        assert_eq!((stats.misses, stats.inserts, stats.errors), (2, 0, 2));
        assert_eq!((stats.errors_of(ErrorKind::Panic), stats.in_flight), (2, 0));
    }
    let options = || MemoryOptions::new().max_weight(30, |_, _| panic!("no weight"));
    check(&options().build());
    check(&options().build_moka());
}

#[test]
fn default_name_is_the_kind_and_the_location_without_credentials() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("reports");
    let files = FileCache::open(&path).expect("a cache");
    assert_eq!(MemoryCache::new().backend().description(), "memory");
    assert_eq!(MemoryOptions::new().build_moka().backend().description(), "moka");
    assert_eq!(files.backend().description(), format!("file {}", path.display()));
    let tiered = TieredOptions::new().over(&files);
    assert_eq!(tiered.backend().description(), format!("memory over file {}", path.display()));
    let redis = RedisCache::open("redis://user:secret@127.0.0.1:1/2").expect("a valid URL");
    let name = redis.backend().description();
    assert!(name.starts_with("redis ") && name.contains("127.0.0.1:1"), "{name}");
    assert!(!name.contains("secret"), "{name}");
    let own: AnyBackend<AnyValue> = AnyBackend::new(MapBackend::<AnyValue>::default());
    assert_eq!(own.description(), "MapBackend", "its type");
    let described = format!("memory over file {}", path.display());
    assert_eq!(named(&described).len(), 1);
    assert_eq!(named(&format!("file {}", path.display())).len(), 1);
}

#[test]
fn cache_that_could_not_be_opened_is_listed_with_the_reason() {
    let why = Error::new(ErrorKind::Configuration, "no such place");
    let cache = FileCache::off(why).with_name("off in the list");
    let found = named("off in the list");
    assert_eq!(found[0].stats.off.as_deref(), Some("no such place"));
    drop(cache);
}

mod broken {
    use vayu::backend::{Capabilities, ReportUsage, Usage, async_trait, forward_backend};

    use super::*;

    struct Panics(MapBackend);

    #[async_trait]
    impl Backend for Panics {
        type Stored = <MapBackend as Backend>::Stored;

        forward_backend! { |this| this.0 => read write delete read_async write_async delete_async }

        fn capabilities(&self) -> Capabilities<'_, Self::Stored> {
            Capabilities::none().with_usage(self)
        }

        fn description(&self) -> String {
            panic!("planned")
        }
    }

    impl ReportUsage for Panics {
        fn usage(&self) -> Usage {
            panic!("planned")
        }
    }

    #[test]
    fn backend_that_panics_is_listed_without_its_usage() {
        let cache: Cache<Panics, MessagePack> = Cache::with_backend(Panics(MapBackend::default()));
        cache.get_or_insert_with(&Key::from_text("p", "k"), Duration::from_secs(60), || 1);
        let found = named("");
        assert_eq!(found.len(), 1, "nor has it a name");
        assert_eq!((found[0].stats.misses, found[0].stats.usage), (1, Usage::default()));
        drop(cache.with_name("it panics"));
        until_gone("");
    }
}

#[test]
fn caches_may_be_created_dropped_and_listed_by_many_threads() {
    watchdog(HANG, || {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for n in 0..100 {
                        let name = format!("thread {thread}, {n}");
                        let cache =
                            MemoryOptions::new().max_entries(1).build().with_name(name.clone());
                        assert_eq!(named(&name).len(), 1);
                        drop(cache);
                        until_gone(&name);
                    }
                });
            }
        });
    });
}

#[test]
fn cache_that_is_listed_while_it_is_dropped_ends() {
    // The list holds the last reference for a moment, and drops it outside of its lock.
    watchdog(HANG, || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..200 {
                    let place = tempfile::tempdir().expect("a directory");
                    let options = FileOptions::new().clock(ManualClock::new());
                    drop(options.open(place.path()).expect("a cache"));
                }
            });
            scope.spawn(|| (0..200).for_each(|_| drop(caches())));
        });
    });
}

//! An invalidation in one cache reaches the memory of others.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use vayu::backend::{Backend, RedisBackend};
use vayu::testing::watchdog;
use vayu::{FileCache, RedisCache, RedisOptions, TieredCache, TieredOptions, cached, invalidates};

use crate::proxy::{Proxy, Treatment};
use crate::server::{Server, shared, shared_cluster};
use crate::{HANG, namespace, until};

/// Current value of the source.
static SOURCE: AtomicU64 = AtomicU64::new(0);

#[cached(cache = cache, ttl = "1h", prefix = "fact", skip(cache, source), tags("tag:{n}"), handle = fact_entry, log = false)]
fn fact<F: Backend<Stored = bytes::Bytes>>(
    cache: &TieredCache<F>,
    n: u64,
    source: &AtomicU64,
) -> u64 {
    source.load(Ordering::SeqCst)
}

/// Checks two caches that share nothing but the backing tier.
fn check<F: Backend<Stored = bytes::Bytes>>(one: &TieredCache<F>, other: &TieredCache<F>) {
    let source = AtomicU64::new(1);
    let mut version = 1;
    let ways: [(&str, &dyn Fn()); 6] = [
        ("remove", &|| assert!(fact_entry(one, 7, &source).invalidate().unwrap())),
        ("tag", &|| one.invalidate_tag("tag:7").unwrap()),
        ("prefix", &|| one.invalidate_prefix("fact").unwrap()),
        ("everything", &|| one.invalidate_all().unwrap()),
        ("clear", &|| one.clear().unwrap()),
        ("refresh", &|| assert!(fact_entry(one, 7, &source).refresh() > 1)),
    ];
    for (way, invalidate) in ways {
        let began = Instant::now();
        let settled_at = Cell::new((0, 0));
        until("both have the value in memory", || {
            let reads = other.backend().tier_stats();
            settled_at.set((reads.invalidations, reads.errors));
            (fact(one, 7, &source), fact(other, 7, &source)) == (version, version)
                && other.backend().tier_stats() == reads
        });
        let settled = began.elapsed();
        version += 1;
        source.store(version, Ordering::SeqCst);
        if fact(other, 7, &source) == version {
            // Messages of earlier changes may be received twice, and late.
            let since = other.backend().tier_stats();
            assert_ne!(
                (since.invalidations, since.errors),
                settled_at.get(),
                "{way}: no reason to recompute"
            );
        }
        let began = Instant::now();
        invalidate();
        assert_eq!(fact(one, 7, &source), version, "the invalidating cache sees it at once");
        until(way, || fact(other, 7, &source) == version);
        println!("{way}: the other saw it after {:?} (settled in {settled:?})", began.elapsed());
    }
}

fn on(url: &str, namespace: &str) -> TieredCache<RedisBackend> {
    TieredOptions::new()
        .over(&RedisOptions::new().namespace(namespace).connect(url).expect("a valid URL"))
}

pub(crate) fn is_connected<F: Backend<Stored = bytes::Bytes>>(cache: &TieredCache<F>) -> bool {
    cache
        .backend()
        .backing()
        .capabilities()
        .invalidation_feed
        .is_some_and(vayu::backend::InvalidationFeed::is_connected)
}

#[test]
fn invalidation_reaches_other_caches_over_a_server() {
    watchdog(HANG, || {
        let namespace = namespace();
        let (one, other) = (on(&shared().url(), &namespace), on(&shared().url(), &namespace));
        until("both are subscribed", || is_connected(&one) && is_connected(&other));
        check(&one, &other);
    });
}

#[test]
fn invalidation_reaches_other_caches_over_a_cluster() {
    watchdog(HANG, || {
        let namespace = namespace();
        let open = || {
            let options = RedisOptions::new().namespace(&namespace);
            TieredOptions::new()
                .over(&options.connect_cluster(shared_cluster().urls()).expect("valid URLs"))
        };
        let (one, other) = (open(), open());
        until("both are subscribed", || is_connected(&one) && is_connected(&other));
        check(&one, &other);
    });
}

#[test]
fn invalidation_reaches_other_caches_over_a_directory() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().unwrap();
        let open = || TieredOptions::new().over(&FileCache::open(place.path()).unwrap());
        check(&open(), &open());
    });
}

#[test]
fn invalidation_of_a_cache_without_memory_reaches_others() {
    watchdog(HANG, || {
        let namespace = namespace();
        let tiered = on(&shared().url(), &namespace);
        let plain = RedisOptions::new().namespace(&namespace).connect(shared().url()).unwrap();
        until("it is subscribed", || is_connected(&tiered));
        assert_eq!(fact(&tiered, 1, &SOURCE), 0);
        plain.invalidate_tag("tag:1").unwrap();
        let before = tiered.stats().misses;
        until("the tag is invalid", || {
            fact(&tiered, 1, &SOURCE);
            tiered.stats().misses > before
        });
    });
}

#[invalidates(cache = cache, tags("tag:{n}"))]
fn write<F: Backend<Stored = bytes::Bytes>>(cache: &TieredCache<F>, n: u64, source: &AtomicU64) {
    source.store(2, Ordering::SeqCst);
}

#[test]
fn invalidations_during_an_outage_reach_other_caches_after_it() {
    watchdog(HANG, || {
        let (server, namespace) = (Server::start(), namespace());
        let open = || {
            let options = RedisOptions::new().namespace(&namespace);
            let options = options.timeout(Duration::from_millis(50));
            let options = options.circuit_breaker(3, Duration::from_millis(100));
            TieredOptions::new().over(&options.connect(server.url()).expect("a valid URL"))
        };
        let (one, other) = (open(), open());
        let source = AtomicU64::new(1);
        until("both have the values in memory", || {
            (0..30).all(|n| (fact(&one, n, &source), fact(&other, n, &source)) == (1, 1))
        });
        server.freeze();
        for n in 0..20 {
            write(&one, n, &source);
            assert_eq!(fact(&one, n, &source), 2, "memory does not serve it");
        }
        assert!(one.stats().pending_invalidations > 0);
        server.thaw();
        until("all are delivered", || one.stats().pending_invalidations == 0);
        for n in 0..20 {
            until("the other does not serve it", || fact(&other, n, &source) == 2);
            assert_eq!(fact(&one, n, &source), 2);
        }
        let key = fact_entry(&other, 25, &source);
        assert_eq!(key.peek().expect("peek"), Some(1), "it was not invalidated");
    });
}

/// Messages that were missed while disconnected do not matter after reconnecting.
#[test]
fn reconnecting_invalidates_memory() {
    watchdog(HANG, || {
        let namespace = namespace();
        let source = AtomicU64::new(1);
        let one = on(&shared().url(), &namespace);
        let proxy = Proxy::before(shared().port);
        let other = on(&proxy.url(), &namespace);
        until("both are subscribed", || is_connected(&one) && is_connected(&other));
        assert_eq!((fact(&one, 7, &source), fact(&other, 7, &source)), (1, 1));
        proxy.treat(Treatment { swallow: true, ..Treatment::default() });
        source.store(2, Ordering::SeqCst);
        assert!(fact_entry(&one, 7, &source).invalidate().unwrap());
        assert_eq!(fact(&one, 7, &source), 2);
        assert_eq!(fact(&other, 7, &source), 1, "it cannot know");
        let noticed = until("it detects the dead connection", || !is_connected(&other));
        assert_eq!(fact(&other, 7, &source), 1, "memory goes on");
        proxy.treat(Treatment::default());
        let healed = until("it sees the new value", || fact(&other, 7, &source) == 2);
        println!("silence was noticed after {noticed:?}, made good {healed:?} after it had ended");
    });
}

#[test]
fn memory_works_without_the_backing_tier() {
    watchdog(HANG, || {
        let mut server = Server::start();
        let source = AtomicU64::new(1);
        let cache = on(&server.url(), &namespace());
        until("it is subscribed", || is_connected(&cache));
        assert_eq!(fact(&cache, 1, &source), 1);
        server.kill();
        source.store(2, Ordering::SeqCst);
        for _ in 0..1000 {
            assert_eq!(fact(&cache, 1, &source), 1, "it is in memory");
        }
        // Values that are computed now are cached in memory alone.
        let runs = cache.stats().misses;
        for n in 100..200 {
            for _ in 0..10 {
                assert_eq!(fact(&cache, n, &source), 2);
            }
        }
        assert_eq!(cache.stats().misses, runs + 100);
        // An invalidation that cannot be published still applies to the own memory.
        cache.invalidate_tag("tag:150").unwrap_err();
        source.store(3, Ordering::SeqCst);
        assert_eq!(fact(&cache, 150, &source), 3);
        server.revive();
        until("it is subscribed again", || is_connected(&cache));
        until("values go below again", || {
            fact(&cache, 1, &source);
            server.names().iter().any(|name| name.contains(":e:"))
        });
    });
}

/// The user of the guide has all permissions that a cache needs.
#[test]
fn user_of_the_guide_has_all_permissions() {
    watchdog(HANG, || {
        let guide = include_str!("../../vayu/guide/multiple-machines.md");
        let make = guide.lines().find(|line| line.starts_with("ACL SETUSER shop ")).unwrap();
        let server = Server::start();
        let () = server.ask(make);
        let () = server.ask("ACL SETUSER default off");
        let url = format!("redis://shop:password@127.0.0.1:{}/", server.port);
        let open = || {
            let options = RedisOptions::new().namespace("shop").connect_eagerly();
            TieredOptions::new()
                .over(&options.single_flight(vayu::SingleFlight::Everywhere).connect(&url).unwrap())
        };
        let (one, other) = (open(), open());
        until("both are subscribed", || is_connected(&one) && is_connected(&other));
        check(&one, &other);
        assert_eq!((one.stats().errors, other.stats().errors), (0, 0));
    });
}

#[test]
fn lost_generation_does_not_revalidate_entries() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache: RedisCache = RedisOptions::new().connect(server.url()).unwrap();
        let key = vayu::Key::from_text("fact", "1");
        cache.set(&key, &1, Duration::from_secs(3600)).unwrap();
        cache.invalidate_prefix("fact").unwrap();
        assert_eq!(cache.get::<i32>(&key).unwrap(), None);
        // As a server evicts keys when its memory is full.
        for name in server.names().iter().filter(|name| name.contains(":g:")) {
            let () = server.ask(&format!("DEL {name}"));
        }
        let another = RedisOptions::new().connect(server.url()).unwrap();
        assert_eq!(another.get::<i32>(&key).unwrap(), None);
    });
}

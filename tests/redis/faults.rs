//! Faults of a server delay calls, and never fail them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use vayu::backend::{Backend, Lease};
use vayu::testing::{ManualClock, watchdog};
use vayu::{ErrorKind, Key, RedisCache, RedisOptions, SingleFlight, cached};

use crate::proxy::{Proxy, Treatment};
use crate::server::{Server, shared};
use crate::{HANG, cache, cache_at, namespace, size, until};

const MINUTE: Duration = Duration::from_secs(60);

/// Returns the only correct value for a number.
fn correct(n: u64) -> String {
    format!("value of {n}")
}

#[cached(cache = cache, ttl = "1m", prefix = "value", skip(cache), log = false)]
fn value(cache: &RedisCache, n: u64) -> String {
    correct(n)
}

#[cached(cache = cache, ttl = "1m", prefix = "value", key = n.to_string(), log = false)]
fn by_text(cache: &RedisCache, n: u64) -> String {
    correct(n)
}

#[cached(cache = cache, ttl = "1m", prefix = "value", key = n.to_string(), log = false)]
async fn by_text_async(cache: &RedisCache, n: u64) -> String {
    correct(n)
}

fn key(n: u64) -> Key {
    Key::from_text("value", n.to_string())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Makes sync and async calls that must return the correct value, whatever the server does.
fn call(cache: &RedisCache, numbers: std::ops::Range<u64>) {
    let runtime = runtime();
    for n in numbers {
        assert_eq!(by_text(cache, n), correct(n));
        assert_eq!(runtime.block_on(by_text_async(cache, n)), correct(n));
    }
}

#[test]
fn unreachable_server_is_an_error_only_with_connect_eagerly() {
    watchdog(HANG, || {
        let server = Server::start();
        let url = server.url();
        drop(server);
        let cache = cache_at(&url);
        call(&cache, 0..500);
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses), (0, 1000));
        assert!(stats.errors_of(ErrorKind::Backend) > 0);
        let eager = RedisOptions::new().connect_eagerly().connect(&url);
        assert_eq!(eager.expect_err("no server").kind(), ErrorKind::Backend);
        assert_eq!(cache.get::<String>(&key(1)).unwrap_err().kind(), ErrorKind::Backend);
    });
}

#[test]
fn hanging_server_opens_the_circuit_breaker() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = RedisOptions::new()
            .circuit_breaker(3, Duration::from_secs(3600))
            .connect(server.url())
            .expect("a valid URL");
        call(&cache, 0..10);
        server.freeze();
        // Without a circuit breaker these would take far longer than a test may.
        call(&cache, 0..10_000);
        server.thaw();
    });
}

#[test]
fn paused_server_is_used_again_after_its_pause() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = RedisOptions::new()
            .timeout(Duration::from_millis(50))
            .circuit_breaker(3, Duration::from_millis(20))
            .connect(server.url())
            .expect("a valid URL");
        call(&cache, 0..10);
        let () = server.ask("CLIENT PAUSE 500 ALL");
        call(&cache, 0..20);
        until("the entries are found again", || {
            cache.get::<String>(&key(1)).is_ok_and(|v| v.is_some())
        });
        call(&cache, 0..10);
    });
}

#[test]
fn restarted_server_is_used_again() {
    watchdog(HANG, || {
        let mut server = Server::start();
        let cache = cache_at(&server.url());
        call(&cache, 0..10);
        server.kill();
        call(&cache, 0..100);
        server.revive();
        until("the server is used again", || {
            call(&cache, 0..10);
            (0..10).all(|n| cache.get::<String>(&key(n)).is_ok_and(|found| found.is_some()))
        });
        let hits = cache.stats().hits;
        call(&cache, 0..10);
        assert_eq!(cache.stats().hits, hits + 20);
    });
}

/// Runs callers of all kinds concurrently, while the proxy delays replies beyond their timeout.
#[test]
fn late_reply_is_not_delivered_to_another_call() {
    watchdog(2 * HANG, || {
        let proxy = Proxy::before(shared().port);
        let cache = RedisOptions::new()
            .namespace(namespace())
            .timeout(Duration::from_millis(15))
            .circuit_breaker(u32::MAX, Duration::from_millis(1))
            .connect(proxy.url())
            .expect("a valid URL");
        let calls = size("VAYU_LATE_CALLS", 100_000) as u64;
        let is_over = AtomicBool::new(false);
        let done = Arc::new(AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                // A network has no clock that a test could advance.
                while !is_over.load(Ordering::Relaxed) {
                    proxy.treat(Treatment {
                        delay: Duration::from_millis(17),
                        ..Treatment::default()
                    });
                    thread::sleep(Duration::from_millis(20));
                    proxy.treat(Treatment::default());
                    thread::sleep(Duration::from_millis(60));
                }
            });
            let runtime = runtime();
            let mut tasks = Vec::new();
            for task in 0..64_u64 {
                let (cache, done) = (cache.clone(), Arc::clone(&done));
                tasks.push(runtime.spawn(async move {
                    let mut n = task * 1000;
                    while done.fetch_add(1, Ordering::Relaxed) < calls {
                        n = (n * 7 + 1) % 2000;
                        assert_eq!(by_text_async(&cache, n).await, correct(n));
                    }
                }));
            }
            let threads: Vec<_> = (0..4_u64)
                .map(|thread| {
                    let (cache, done) = (cache.clone(), Arc::clone(&done));
                    scope.spawn(move || {
                        let mut n = thread * 500;
                        while done.fetch_add(1, Ordering::Relaxed) < calls {
                            n = (n * 7 + 1) % 2000;
                            assert_eq!(by_text(&cache, n), correct(n));
                        }
                    })
                })
                .collect();
            runtime.block_on(async {
                for task in tasks {
                    task.await.expect("the correct value");
                }
            });
            for thread in threads {
                thread.join().expect("the correct value");
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let stats = cache.stats();
        println!(
            "{calls} calls: {} hits, {} faults, {} connections, {} replies of another key",
            stats.hits,
            stats.errors,
            proxy.connections(),
            stats.usage.corrupt_entries.unwrap_or(0),
        );
        assert!(stats.hits > 0 && stats.errors > 0 && proxy.connections() > 10);
        // The key in each entry would reveal replies of another key.
        assert_eq!(stats.usage.corrupt_entries, Some(0));
    });
}

#[test]
fn connection_of_a_cancelled_call_is_used_again() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        let cache = RedisOptions::new()
            .namespace(namespace())
            .timeout(Duration::from_secs(10))
            .connect(proxy.url())
            .expect("a valid URL");
        runtime().block_on(async {
            assert_eq!(by_text_async(&cache, 1).await, correct(1));
            let before = proxy.connections();
            proxy.treat(Treatment { delay: Duration::from_millis(200), ..Treatment::default() });
            let first = key(1);
            let impatient = cache.get_async::<String>(&first);
            tokio::time::timeout(Duration::from_millis(20), impatient).await.unwrap_err();
            proxy.treat(Treatment::default());
            assert_eq!(by_text_async(&cache, 1).await, correct(1));
            assert_eq!(proxy.connections(), before);
        });
    });
}

#[test]
fn reply_cut_at_any_byte_is_a_miss() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        for cut in 0..320 {
            let cache = RedisOptions::new()
                .namespace(namespace())
                .circuit_breaker(u32::MAX, Duration::from_millis(1))
                .connect(proxy.url())
                .expect("a valid URL");
            proxy.treat(Treatment { cut_after: Some(cut), ..Treatment::default() });
            call(&cache, 0..3);
        }
    });
}

#[test]
fn reply_with_any_bit_flipped_is_not_returned() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        for at in 0..320 {
            let cache = RedisOptions::new()
                .namespace(namespace())
                .timeout(Duration::from_millis(30))
                .circuit_breaker(u32::MAX, Duration::from_millis(1))
                .connect(proxy.url())
                .expect("a valid URL");
            call(&cache, 0..1);
            proxy.treat(Treatment { mangle: Some(at), ..Treatment::default() });
            call(&cache, 0..2);
            proxy.treat(Treatment::default());
        }
    });
}

#[test]
fn lost_replies_do_not_fail_calls() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        let cache = cache_at(&proxy.url());
        call(&cache, 0..3);
        proxy.treat(Treatment { swallow: true, ..Treatment::default() });
        call(&cache, 0..300);
    });
}

/// Returns the name of the only entry on a server.
fn only_name(server: &Server) -> String {
    let names: Vec<_> = server.names().into_iter().filter(|name| name.contains(":e:")).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names.into_iter().next().unwrap()
}

#[test]
fn key_of_another_type_is_an_error_and_is_overwritten() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = cache_at(&server.url());
        assert_eq!(by_text(&cache, 1), correct(1));
        let name = only_name(&server);
        let () = server.ask(&format!("DEL {name}"));
        let () = server.ask(&format!("LPUSH {name} thing"));
        assert_eq!(by_text(&cache, 1), correct(1));
        assert_eq!(cache.stats().errors_of(ErrorKind::Backend), 1);
        assert_eq!(by_text(&cache, 1), correct(1));
        let stats = cache.stats();
        assert_eq!((stats.errors, stats.hits, stats.inserts), (1, 1, 2));
    });
}

#[test]
fn foreign_bytes_count_as_missing() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = cache_at(&server.url());
        assert_eq!(by_text(&cache, 1), correct(1));
        let name = only_name(&server);
        for bytes in ["x", &"y".repeat(200), "\u{89}VYU"] {
            let () = server.ask(&format!("SET {name} {bytes}"));
            assert_eq!(by_text(&cache, 1), correct(1));
        }
        // A complete entry of another key.
        by_text(&cache, 2);
        let names = server.names();
        let other = names.iter().find(|other| other.contains(":e:") && **other != name).unwrap();
        let () = server.ask(&format!("COPY {other} {name} REPLACE"));
        assert_eq!(by_text(&cache, 1), correct(1));
        assert_eq!(cache.stats().usage.corrupt_entries, Some(4));
        assert_eq!(cache.stats().errors, 0);
    });
}

#[test]
fn full_server_keeps_its_entries_and_calls_continue() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = cache_at(&server.url());
        assert_eq!(by_text(&cache, 1), correct(1));
        let () = server.ask("CONFIG SET maxmemory-policy noeviction");
        let () = server.ask("CONFIG SET maxmemory 1");
        call(&cache, 2..20);
        assert!(cache.stats().errors > 0);
        assert_eq!(
            cache.get::<String>(&key(1)).unwrap(),
            Some(correct(1)),
            "existing entries are found"
        );
        assert_eq!(cache.get::<String>(&key(2)).unwrap(), None);
        let () = server.ask("CONFIG SET maxmemory 0");
        call(&cache, 2..3);
        assert_eq!(cache.get::<String>(&key(2)).unwrap(), Some(correct(2)));
    });
}

#[test]
fn replica_is_read_and_not_written() {
    watchdog(HANG, || {
        let (server, replica) = (Server::start(), Server::start());
        let cache = RedisOptions::new().connect(server.url()).expect("a valid URL");
        assert_eq!(by_text(&cache, 1), correct(1));
        let () = replica.ask(&format!("REPLICAOF 127.0.0.1 {}", server.port));
        let at_replica = RedisOptions::new().connect(replica.url()).expect("a valid URL");
        until("the entry comes to the replica", || {
            at_replica.get::<String>(&key(1)).is_ok_and(|found| found.is_some())
        });
        call(&at_replica, 1..20);
        let stats = at_replica.stats();
        assert!(stats.hits >= 2 && stats.errors > 0, "{stats:?}");
    });
}

#[test]
fn single_node_of_a_cluster_does_not_fail_calls() {
    watchdog(HANG, || {
        // At first no slots are served, later slots of other nodes are requested.
        let lonely = Server::with(&["--cluster-enabled", "yes"]);
        call(&cache_at(&lonely.url()), 0..20);
        call(&cache_at(&crate::server::shared_cluster().urls()[0]), 0..20);
    });
}

#[test]
fn password_is_required_and_not_in_any_error() {
    watchdog(HANG, || {
        let server = Server::with(&["--requirepass", "sesame"]);
        let with = |user: &str| format!("redis://{user}127.0.0.1:{}/", server.port);
        let right_one = cache_at(&with(":sesame@"));
        call(&right_one, 0..5);
        assert_eq!(right_one.stats().errors, 0);
        assert_eq!(right_one.stats().hits, 5);
        for url in [with(""), with(":guess@"), with("nobody:sesame@")] {
            let cache = cache_at(&url);
            call(&cache, 0..20);
            assert_eq!(cache.stats().hits, 0);
            let eager = RedisOptions::new().connect_eagerly().connect(&url).expect_err("no entry");
            let source = std::error::Error::source(&eager).expect("a cause");
            let message = format!("{eager} {eager:?} {source} {cache:?} {:?}", cache.backend());
            assert!(!message.contains("sesame") && !message.contains("guess"), "{message}");
        }
        let message = format!("{right_one:?} {:?}", right_one.backend());
        assert!(!message.contains("sesame"), "{message}");
    });
}

#[test]
fn databases_are_separate() {
    watchdog(HANG, || {
        let options = || RedisOptions::new().namespace("databases");
        let url = |database: u32| format!("{}{database}", shared().url());
        let (one, two) = (options().connect(url(1)).unwrap(), options().connect(url(2)).unwrap());
        runtime().block_on(async {
            assert_eq!(by_text_async(&one, 1).await, correct(1));
            assert_eq!(two.get_async::<String>(&key(1)).await.unwrap(), None);
            assert_eq!(one.get_async::<String>(&key(1)).await.unwrap(), Some(correct(1)));
        });
        assert_eq!(two.get::<String>(&key(1)).unwrap(), None);
        assert_eq!(one.get::<String>(&key(1)).unwrap(), Some(correct(1)));
    });
}

#[test]
fn entry_expires_by_the_clock_of_the_cache_and_of_the_server() {
    watchdog(HANG, || {
        let server = Server::start();
        let clock = ManualClock::new();
        let cache = RedisOptions::new().clock(clock.clone()).connect(server.url()).unwrap();
        cache.set(&key(1), &correct(1), MINUTE).unwrap();
        let left: i64 = server.ask(&format!("PTTL {}", only_name(&server)));
        assert!((1..=60_000).contains(&left), "{left}");
        // An entry without expiry on the server still expires by the clock of the cache.
        let () = server.ask(&format!("PERSIST {}", only_name(&server)));
        assert_eq!(cache.get::<String>(&key(1)).unwrap(), Some(correct(1)));
        clock.advance(MINUTE);
        assert_eq!(cache.get::<String>(&key(1)).unwrap(), None);
        // An entry without expiry has none on the server.
        cache.set(&key(1), &correct(1), Duration::MAX).unwrap();
        assert_eq!(server.ask::<i64>(&format!("PTTL {}", only_name(&server))), -1);
        // An entry that the server has expired is missing.
        let () = server.ask("FLUSHALL");
        assert_eq!(cache.get::<String>(&key(1)).unwrap(), None);
    });
}

#[test]
fn oversized_entry_is_neither_written_nor_read() {
    watchdog(HANG, || {
        let namespace = namespace();
        let options = || RedisOptions::new().namespace(&namespace);
        let small = options().max_entry_bytes(1000).connect(shared().url()).unwrap();
        let large = options().connect(shared().url()).unwrap();
        let long = "x".repeat(10_000);
        let error = small.set(&key(1), &long, MINUTE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        large.set(&key(1), &long, MINUTE).unwrap();
        assert_eq!(large.get::<String>(&key(1)).unwrap(), Some(long));
        assert_eq!(small.get::<String>(&key(1)).unwrap(), None);
        assert_eq!(small.stats().usage.corrupt_entries, Some(1));
    });
}

#[test]
fn expired_lease_does_not_release_its_successor() {
    watchdog(HANG, || {
        let lease_ttl = |time| {
            let options = RedisOptions::new().namespace("leases").lease_ttl(time);
            options.single_flight(SingleFlight::Everywhere).connect(shared().url()).unwrap()
        };
        let (short, long) = (lease_ttl(Duration::from_millis(20)), lease_ttl(MINUTE));
        let acquire = |cache: &RedisCache| {
            cache.backend().capabilities().leases.expect("leases").try_acquire(&key(1)).unwrap()
        };
        let first = acquire(&short);
        assert!(matches!(first, Lease::Acquired(_)));
        let second = std::cell::Cell::new(None);
        until("the first lease expires", || match acquire(&long) {
            Lease::Acquired(lease) => {
                second.set(Some(lease));
                true
            }
            _ => false,
        });
        drop(first);
        let held = acquire(&long);
        assert!(matches!(held, Lease::Held | Lease::Watched(_)), "the second lease is still held");
        drop(second);
        assert!(matches!(acquire(&long), Lease::Acquired(_)), "it was released");
    });
}

#[test]
fn clear_removes_one_namespace_only() {
    watchdog(HANG, || {
        let server = Server::start();
        let of = |name: &str| RedisOptions::new().namespace(name).connect(server.url()).unwrap();
        for (cleared, left) in
            [("a", "ab"), ("a*", "ab"), ("a?", "ab"), ("[ab]", "a"), ("a", "a:e")]
        {
            let (cleared, left) = (of(cleared), of(left));
            cleared.set(&key(1), &1, MINUTE).unwrap();
            left.set(&key(1), &2, MINUTE).unwrap();
            cleared.clear().unwrap();
            assert_eq!(cleared.get::<i32>(&key(1)).unwrap(), None);
            assert_eq!(left.get::<i32>(&key(1)).unwrap(), Some(2));
        }
    });
}

#[test]
fn one_cache_serves_threads_and_runtimes_of_all_kinds() {
    watchdog(HANG, || {
        let cache = cache();
        // A runtime that has ended does not affect later ones.
        for round in 0..5 {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            assert_eq!(runtime.block_on(by_text_async(&cache, 1)), correct(1), "{round}");
        }
        assert_eq!(smol::block_on(by_text_async(&cache, 1)), correct(1));
        assert_eq!(smol::block_on(by_text_async(&cache, 2)), correct(2));
        assert_eq!(by_text(&cache, 2), correct(2));
        // A sync call within a runtime.
        runtime().block_on(async { assert_eq!(by_text(&cache, 1), correct(1)) });
        let stats = cache.stats();
        assert_eq!((stats.errors, stats.misses, stats.hits), (0, 2, 7));
        assert_eq!(value(&cache, 1), correct(1));
    });
}

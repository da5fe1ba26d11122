//! What goes wrong with a server costs time, and never an answer.

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

/// The only right answer for a number.
fn right(n: u64) -> String {
    format!("value of {n}")
}

#[cached(cache = cache, ttl = "1m", prefix = "value", skip(cache), log = false)]
fn value(cache: &RedisCache, n: u64) -> String {
    right(n)
}

#[cached(cache = cache, ttl = "1m", prefix = "value", key = n.to_string(), log = false)]
fn by_text(cache: &RedisCache, n: u64) -> String {
    right(n)
}

#[cached(cache = cache, ttl = "1m", prefix = "value", key = n.to_string(), log = false)]
async fn by_text_async(cache: &RedisCache, n: u64) -> String {
    right(n)
}

fn key(n: u64) -> Key {
    Key::from_text("value", n.to_string())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Calls that must all be answered right, sync and async, whatever the server does.
fn call(cache: &RedisCache, numbers: std::ops::Range<u64>) {
    let runtime = runtime();
    for n in numbers {
        assert_eq!(by_text(cache, n), right(n));
        assert_eq!(runtime.block_on(by_text_async(cache, n)), right(n));
    }
}

#[test]
fn server_that_is_not_there_is_an_error_only_for_who_asks_at_once() {
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
        assert_eq!(eager.expect_err("there is nobody").kind(), ErrorKind::Backend);
        assert_eq!(cache.get::<String>(&key(1)).unwrap_err().kind(), ErrorKind::Backend);
    });
}

#[test]
fn server_that_hangs_is_left_alone() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = RedisOptions::new()
            .circuit_breaker(3, Duration::from_secs(3600))
            .connect(server.url())
            .expect("an address");
        call(&cache, 0..10);
        server.freeze();
        // Without a rest these would take far longer than a test may.
        call(&cache, 0..10_000);
        server.thaw();
    });
}

#[test]
fn paused_server_answers_again_after_its_pause() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = RedisOptions::new()
            .timeout(Duration::from_millis(50))
            .circuit_breaker(3, Duration::from_millis(20))
            .connect(server.url())
            .expect("an address");
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
fn killed_server_is_used_again_when_it_is_back() {
    watchdog(HANG, || {
        let mut server = Server::start();
        let cache = cache_at(&server.url());
        call(&cache, 0..10);
        server.kill();
        call(&cache, 0..100);
        server.revive();
        until("the server is asked again", || {
            call(&cache, 0..10);
            (0..10).all(|n| cache.get::<String>(&key(n)).is_ok_and(|found| found.is_some()))
        });
        let hits = cache.stats().hits;
        call(&cache, 0..10);
        assert_eq!(cache.stats().hits, hits + 20);
    });
}

/// Callers of all kinds at once, while the proxy holds replies back for longer than they wait.
#[test]
fn reply_that_comes_too_late_is_nobodys() {
    watchdog(2 * HANG, || {
        let proxy = Proxy::before(shared().port);
        let cache = RedisOptions::new()
            .namespace(namespace())
            .timeout(Duration::from_millis(15))
            .circuit_breaker(u32::MAX, Duration::from_millis(1))
            .connect(proxy.url())
            .expect("an address");
        let calls = size("VAYU_LATE_CALLS", 100_000) as u64;
        let is_over = AtomicBool::new(false);
        let done = Arc::new(AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                // A network has no clock that could be moved by hand.
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
                        assert_eq!(by_text_async(&cache, n).await, right(n));
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
                            assert_eq!(by_text(&cache, n), right(n));
                        }
                    })
                })
                .collect();
            runtime.block_on(async {
                for task in tasks {
                    task.await.expect("the right answer");
                }
            });
            for thread in threads {
                thread.join().expect("the right answer");
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let stats = cache.stats();
        println!(
            "{calls} calls: {} hits, {} faults, {} connections, {} answers of another key",
            stats.hits,
            stats.errors,
            proxy.connections(),
            stats.usage.corrupt_entries.unwrap_or(0),
        );
        assert!(stats.hits > 0 && stats.errors > 0 && proxy.connections() > 10);
        // The key in each entry would find them, and there are none to be found.
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
            .expect("an address");
        runtime().block_on(async {
            assert_eq!(by_text_async(&cache, 1).await, right(1));
            let before = proxy.connections();
            proxy.treat(Treatment { delay: Duration::from_millis(200), ..Treatment::default() });
            let first = key(1);
            let impatient = cache.get_async::<String>(&first);
            tokio::time::timeout(Duration::from_millis(20), impatient).await.unwrap_err();
            proxy.treat(Treatment::default());
            assert_eq!(by_text_async(&cache, 1).await, right(1));
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
                .expect("an address");
            proxy.treat(Treatment { cut_after: Some(cut), ..Treatment::default() });
            call(&cache, 0..3);
        }
    });
}

#[test]
fn reply_with_any_bit_flipped_is_no_other_value() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        for at in 0..320 {
            let cache = RedisOptions::new()
                .namespace(namespace())
                .timeout(Duration::from_millis(30))
                .circuit_breaker(u32::MAX, Duration::from_millis(1))
                .connect(proxy.url())
                .expect("an address");
            call(&cache, 0..1);
            proxy.treat(Treatment { mangle: Some(at), ..Treatment::default() });
            call(&cache, 0..2);
            proxy.treat(Treatment::default());
        }
    });
}

#[test]
fn swallowed_replies_cost_no_answer() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        let cache = cache_at(&proxy.url());
        call(&cache, 0..3);
        proxy.treat(Treatment { swallow: true, ..Treatment::default() });
        call(&cache, 0..300);
    });
}

/// The name on the server of the only entry there is.
fn only_name(server: &Server) -> String {
    let names: Vec<_> = server.names().into_iter().filter(|name| name.contains(":e:")).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names.into_iter().next().unwrap()
}

#[test]
fn entry_of_another_type_is_a_fault_and_is_replaced() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = cache_at(&server.url());
        assert_eq!(by_text(&cache, 1), right(1));
        let name = only_name(&server);
        let () = server.ask(&format!("DEL {name}"));
        let () = server.ask(&format!("LPUSH {name} thing"));
        assert_eq!(by_text(&cache, 1), right(1));
        assert_eq!(cache.stats().errors_of(ErrorKind::Backend), 1);
        assert_eq!(by_text(&cache, 1), right(1));
        let stats = cache.stats();
        assert_eq!((stats.errors, stats.hits, stats.inserts), (1, 1, 2));
    });
}

#[test]
fn foreign_bytes_are_missing() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = cache_at(&server.url());
        assert_eq!(by_text(&cache, 1), right(1));
        let name = only_name(&server);
        for bytes in ["x", &"y".repeat(200), "\u{89}VYU"] {
            let () = server.ask(&format!("SET {name} {bytes}"));
            assert_eq!(by_text(&cache, 1), right(1));
        }
        // The whole entry of another key.
        by_text(&cache, 2);
        let names = server.names();
        let other = names.iter().find(|other| other.contains(":e:") && **other != name).unwrap();
        let () = server.ask(&format!("COPY {other} {name} REPLACE"));
        assert_eq!(by_text(&cache, 1), right(1));
        assert_eq!(cache.stats().usage.corrupt_entries, Some(4));
        assert_eq!(cache.stats().errors, 0);
    });
}

#[test]
fn full_server_keeps_what_it_has_and_answers_go_on() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = cache_at(&server.url());
        assert_eq!(by_text(&cache, 1), right(1));
        let () = server.ask("CONFIG SET maxmemory-policy noeviction");
        let () = server.ask("CONFIG SET maxmemory 1");
        call(&cache, 2..20);
        assert!(cache.stats().errors > 0);
        assert_eq!(cache.get::<String>(&key(1)).unwrap(), Some(right(1)), "what it has is found");
        assert_eq!(cache.get::<String>(&key(2)).unwrap(), None);
        let () = server.ask("CONFIG SET maxmemory 0");
        call(&cache, 2..3);
        assert_eq!(cache.get::<String>(&key(2)).unwrap(), Some(right(2)));
    });
}

#[test]
fn replica_is_read_and_not_written() {
    watchdog(HANG, || {
        let (server, replica) = (Server::start(), Server::start());
        let cache = RedisOptions::new().connect(server.url()).expect("an address");
        assert_eq!(by_text(&cache, 1), right(1));
        let () = replica.ask(&format!("REPLICAOF 127.0.0.1 {}", server.port));
        let at_replica = RedisOptions::new().connect(replica.url()).expect("an address");
        until("the entry comes to the replica", || {
            at_replica.get::<String>(&key(1)).is_ok_and(|found| found.is_some())
        });
        call(&at_replica, 1..20);
        let stats = at_replica.stats();
        assert!(stats.hits >= 2 && stats.errors > 0, "{stats:?}");
    });
}

#[test]
fn node_of_a_cluster_asked_by_itself_costs_no_answer() {
    watchdog(HANG, || {
        // No slots are served at all, and then those of other nodes are asked for.
        let lonely = Server::with(&["--cluster-enabled", "yes"]);
        call(&cache_at(&lonely.url()), 0..20);
        call(&cache_at(&crate::server::shared_cluster().urls()[0]), 0..20);
    });
}

#[test]
fn password_is_needed_and_never_told() {
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
            let told = format!("{eager} {eager:?} {source} {cache:?} {:?}", cache.backend());
            assert!(!told.contains("sesame") && !told.contains("guess"), "{told}");
        }
        let told = format!("{right_one:?} {:?}", right_one.backend());
        assert!(!told.contains("sesame"), "{told}");
    });
}

#[test]
fn databases_are_apart() {
    watchdog(HANG, || {
        let options = || RedisOptions::new().namespace("databases");
        let url = |database: u32| format!("{}{database}", shared().url());
        let (one, two) = (options().connect(url(1)).unwrap(), options().connect(url(2)).unwrap());
        runtime().block_on(async {
            assert_eq!(by_text_async(&one, 1).await, right(1));
            assert_eq!(two.get_async::<String>(&key(1)).await.unwrap(), None);
            assert_eq!(one.get_async::<String>(&key(1)).await.unwrap(), Some(right(1)));
        });
        assert_eq!(two.get::<String>(&key(1)).unwrap(), None);
        assert_eq!(one.get::<String>(&key(1)).unwrap(), Some(right(1)));
    });
}

#[test]
fn entry_ends_by_its_own_clock_and_by_the_servers() {
    watchdog(HANG, || {
        let server = Server::start();
        let clock = ManualClock::new();
        let cache = RedisOptions::new().clock(clock.clone()).connect(server.url()).unwrap();
        cache.set(&key(1), &right(1), MINUTE).unwrap();
        let left: i64 = server.ask(&format!("PTTL {}", only_name(&server)));
        assert!((1..=60_000).contains(&left), "{left}");
        // A server that keeps it for ever does not make it fresh.
        let () = server.ask(&format!("PERSIST {}", only_name(&server)));
        assert_eq!(cache.get::<String>(&key(1)).unwrap(), Some(right(1)));
        clock.advance(MINUTE);
        assert_eq!(cache.get::<String>(&key(1)).unwrap(), None);
        // What never ends has no time on the server.
        cache.set(&key(1), &right(1), Duration::MAX).unwrap();
        assert_eq!(server.ask::<i64>(&format!("PTTL {}", only_name(&server))), -1);
        // What the server has dropped is missing.
        let () = server.ask("FLUSHALL");
        assert_eq!(cache.get::<String>(&key(1)).unwrap(), None);
    });
}

#[test]
fn entry_that_is_too_long_is_neither_written_nor_read() {
    watchdog(HANG, || {
        let namespace = namespace();
        let options = || RedisOptions::new().namespace(&namespace);
        let small = options().max_entry_bytes(1000).connect(shared().url()).unwrap();
        let large = options().connect(shared().url()).unwrap();
        let long = "x".repeat(10_000);
        assert_eq!(small.set(&key(1), &long, MINUTE).unwrap_err().kind(), ErrorKind::Backend);
        large.set(&key(1), &long, MINUTE).unwrap();
        assert_eq!(large.get::<String>(&key(1)).unwrap(), Some(long));
        assert_eq!(small.get::<String>(&key(1)).unwrap(), None);
        assert_eq!(small.stats().usage.corrupt_entries, Some(1));
    });
}

#[test]
fn right_that_ran_out_takes_nothing_from_its_successor() {
    watchdog(HANG, || {
        let lease_ttl = |time| {
            let options = RedisOptions::new().namespace("claims").lease_ttl(time);
            options.single_flight(SingleFlight::Everywhere).connect(shared().url()).unwrap()
        };
        let (short, long) = (lease_ttl(Duration::from_millis(20)), lease_ttl(MINUTE));
        let claim = |cache: &RedisCache| cache.backend().try_acquire_lease(&key(1)).unwrap();
        let first = claim(&short);
        assert!(matches!(first, Lease::Acquired(_)));
        let second = std::cell::Cell::new(None);
        until("the first right runs out", || match claim(&long) {
            Lease::Acquired(right) => {
                second.set(Some(right));
                true
            }
            _ => false,
        });
        drop(first);
        assert!(matches!(claim(&long), Lease::Held), "that of the second stands");
        drop(second);
        assert!(matches!(claim(&long), Lease::Acquired(_)), "it was given back");
    });
}

#[test]
fn clear_leaves_other_namespaces_alone() {
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
fn one_configuration_serves_threads_and_runtimes_of_all_kinds() {
    watchdog(HANG, || {
        let cache = cache();
        // A runtime that has ended leaves nothing behind that others would stumble over.
        for round in 0..5 {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            assert_eq!(runtime.block_on(by_text_async(&cache, 1)), right(1), "{round}");
        }
        assert_eq!(smol::block_on(by_text_async(&cache, 1)), right(1));
        assert_eq!(smol::block_on(by_text_async(&cache, 2)), right(2));
        assert_eq!(by_text(&cache, 2), right(2));
        // A sync call in a runtime.
        runtime().block_on(async { assert_eq!(by_text(&cache, 1), right(1)) });
        let stats = cache.stats();
        assert_eq!((stats.errors, stats.misses, stats.hits), (0, 2, 7));
        assert_eq!(value(&cache, 1), right(1));
    });
}

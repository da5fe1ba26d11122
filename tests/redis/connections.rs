//! Connections that end while they are idle or in use are replaced. Those of cancelled callers are
//! kept.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;
use vayu::backend::{Backend, BackendExt, Bytes, Group, Lease, Record};
use vayu::testing::watchdog;
use vayu::time::Timestamp;
use vayu::{Key, RedisCache, RedisOptions, Result, SingleFlight, TieredOptions, cached};

use crate::invalidation::is_connected;
use crate::proxy::{End, Proxy, Treatment};
use crate::server::{Cluster, Server, shared};
use crate::{HANG, namespace, until};

const HOUR: Duration = Duration::from_secs(3600);

/// Returns options with which one failure of the server opens the circuit breaker for the whole
/// test.
fn options() -> RedisOptions {
    RedisOptions::new()
        .namespace(namespace())
        .timeout(Duration::from_secs(10))
        .circuit_breaker(1, HOUR)
        .single_flight(SingleFlight::Everywhere)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn key(n: u64) -> Key {
    Key::from_text("number", n.to_string())
}

fn record() -> Record<Bytes> {
    Record::new(Bytes::from("value"), Timestamp::from_micros(0), Timestamp::NEVER)
}

#[cached(cache = cache, ttl = "1h", skip(cache, runs), tags("tag"), log = false)]
fn number(cache: &RedisCache, n: u64, runs: &AtomicU32) -> u64 {
    runs.fetch_add(1, Ordering::SeqCst);
    n
}

#[cached(cache = cache, ttl = "1h", skip(cache, runs), tags("tag"), log = false)]
async fn number_async(cache: &RedisCache, n: u64, runs: &AtomicU32) -> u64 {
    runs.fetch_add(1, Ordering::SeqCst);
    n
}

type Operation = (&'static str, fn(&RedisCache, &Runtime) -> Result<()>);

/// All operations of a cache.
const OPERATIONS: [Operation; 26] = [
    ("get", |cache, _| cache.get::<u64>(&key(1)).map(drop)),
    ("set", |cache, _| cache.set(&key(1), &1_u64, HOUR)),
    ("remove", |cache, _| cache.remove(&key(1)).map(drop)),
    ("clear", |cache, _| cache.clear()),
    ("invalidate_tag", |cache, _| cache.invalidate_tag("tag")),
    ("invalidate_function", |cache, _| cache.invalidate_function(&number)),
    ("invalidate_prefix", |cache, _| cache.invalidate_prefix("number")),
    ("invalidate_all", |cache, _| cache.invalidate_all()),
    ("lease", |cache, _| {
        acquired(cache.backend().capabilities().leases.expect("leases").try_acquire(&key(2)))
    }),
    ("lease", |cache, _| {
        acquired(cache.backend().capabilities().leases.expect("leases").try_acquire(&key(2)))
    }),
    ("a call", |cache, _| {
        called(|runs| number(cache, 7, runs));
        Ok(())
    }),
    ("read_many", |cache, _| {
        let [one, two] = [key(1), key(2)];
        cache.backend().read_many(&[&one, &two]).into_iter().try_for_each(|it| it.map(drop))
    }),
    ("write_many", |cache, _| {
        let [one, two] = [key(1), key(2)];
        let entries = vec![(&one, record()), (&two, record())];
        cache.backend().write_many(entries).into_iter().collect()
    }),
    ("read_many_async", |cache, runtime| {
        let [one, two] = [key(1), key(2)];
        let found = runtime.block_on(cache.backend().read_many_async(&[&one, &two]));
        found.into_iter().try_for_each(|it| it.map(drop))
    }),
    ("write_many_async", |cache, runtime| {
        let [one, two] = [key(1), key(2)];
        let entries = vec![(&one, record()), (&two, record())];
        runtime.block_on(cache.backend().write_many_async(entries)).into_iter().collect()
    }),
    ("get_async", |cache, runtime| runtime.block_on(cache.get_async::<u64>(&key(1))).map(drop)),
    ("set_async", |cache, runtime| runtime.block_on(cache.set_async(&key(1), &1_u64, HOUR))),
    ("remove_async", |cache, runtime| runtime.block_on(cache.remove_async(&key(1))).map(drop)),
    ("clear_async", |cache, runtime| runtime.block_on(cache.clear_async())),
    ("invalidate_tag_async", |cache, runtime| runtime.block_on(cache.invalidate_tag_async("tag"))),
    ("invalidate_function_async", |cache, runtime| {
        runtime.block_on(cache.invalidate_function_async(&number))
    }),
    ("invalidate_prefix_async", |cache, runtime| {
        runtime.block_on(cache.invalidate_prefix_async("number"))
    }),
    ("invalidate_all_async", |cache, runtime| runtime.block_on(cache.invalidate_all_async())),
    ("lease_async", |cache, runtime| {
        acquired(runtime.block_on(
            cache.backend().capabilities().leases.expect("leases").try_acquire_async(&key(3)),
        ))
    }),
    ("lease_async", |cache, runtime| {
        acquired(runtime.block_on(
            cache.backend().capabilities().leases.expect("leases").try_acquire_async(&key(4)),
        ))
    }),
    ("a call", |cache, runtime| {
        called(|runs| runtime.block_on(number_async(cache, 7, runs)));
        Ok(())
    }),
];

/// Checks that a lease is acquired even if its request was sent twice.
fn acquired(lease: Result<Lease>) -> Result<()> {
    lease.map(|lease| assert!(matches!(lease, Lease::Acquired(_))))
}

fn called(call: impl Fn(&AtomicU32) -> u64) {
    let runs = AtomicU32::new(0);
    assert_eq!((call(&runs), runs.into_inner()), (7, 1));
}

/// Checks that every operation succeeds on connections that have ended since their last use.
fn survives(way: &str, cache: &RedisCache, mut end: impl FnMut()) {
    let runtime = runtime();
    for (name, operation) in OPERATIONS {
        cache.get::<u64>(&key(1)).unwrap_or_else(|error| panic!("before {name}: {error:?}"));
        let asked = runtime.block_on(cache.get_async::<u64>(&key(1)));
        asked.unwrap_or_else(|error| panic!("before {name}: {error:?}"));
        end();
        operation(cache, &runtime).unwrap_or_else(|error| panic!("{way}, {name}: {error:?}"));
        cache.clear().unwrap();
    }
    assert_eq!(cache.stats().errors, 0, "{way}");
}

#[test]
fn connection_that_was_closed_while_idle_is_replaced_for_every_operation() {
    watchdog(2 * HANG, || {
        for end in [End::Closed, End::Reset, End::HalfClosed] {
            let proxy = Proxy::before(shared().port);
            let cache = options().connect(proxy.url()).unwrap();
            survives(&format!("{end:?}"), &cache, || proxy.end(end));
        }
    });
}

#[test]
fn connection_that_the_server_has_closed_is_replaced_for_every_operation() {
    watchdog(2 * HANG, || {
        let mut server = Server::start();
        let cache = options().connect(server.url()).unwrap();
        survives("killed", &cache, || {
            let _: i64 = server.ask("CLIENT KILL TYPE normal");
        });
        survives("restarted", &cache, || {
            server.kill();
            server.revive();
        });
    });
}

#[test]
fn connection_that_was_idle_for_longer_than_the_server_allows_is_replaced() {
    watchdog(HANG, || {
        let server = Server::with(&["--timeout", "1"]);
        let cache = options().connect(server.url()).unwrap();
        let runtime = runtime();
        cache.invalidate_tag("tag").unwrap();
        runtime.block_on(cache.invalidate_tag_async("tag")).unwrap();
        until("the server closes idle connections", || {
            server.ask::<String>("CLIENT LIST").lines().count() == 1
        });
        cache.invalidate_tag("tag").unwrap();
        runtime.block_on(cache.invalidate_tag_async("tag")).unwrap();
    });
}

#[test]
fn connection_of_a_cluster_that_was_closed_is_replaced_for_every_operation() {
    watchdog(2 * HANG, || {
        let cluster = Cluster::start();
        let cache = options().connect_cluster(cluster.urls()).unwrap();
        survives("killed", &cache, || {
            for node in &cluster.0 {
                let _: i64 = node.ask("CLIENT KILL TYPE normal");
            }
        });
    });
}

/// Opens several connections of sync callers at the same time.
fn open_many(cache: &RedisCache, proxy: &Proxy) {
    let before = proxy.connections();
    proxy.treat(Treatment { delay: Duration::from_millis(30), ..Treatment::default() });
    while proxy.connections() < before + 5 {
        let together = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    together.wait();
                    cache.get::<u64>(&key(1)).unwrap();
                });
            }
        });
    }
    proxy.treat(Treatment::default());
}

#[test]
fn idle_connections_closed_together_are_replaced_by_one() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        let cache = options().connect(proxy.url()).unwrap();
        for end in [End::Closed, End::Reset, End::HalfClosed] {
            open_many(&cache, &proxy);
            proxy.end(end);
            let before = proxy.connections();
            for _ in 0..10 {
                cache.invalidate_tag("tag").unwrap();
            }
            assert_eq!(proxy.connections(), before + 1, "{end:?}");
        }
    });
}

/// Simulates a firewall that drops an idle connection silently.
#[test]
fn connection_idle_for_max_idle_is_not_reused() {
    watchdog(2 * HANG, || {
        let proxy = Proxy::before(shared().port);
        let cache = options().max_idle(Duration::from_nanos(1)).connect(proxy.url()).unwrap();
        survives("silent", &cache, || proxy.end(End::Silent));
        let url = format!("{}?max_idle=1ms", proxy.url());
        RedisOptions::new().connect(url).unwrap();
        RedisOptions::new().max_idle(Duration::ZERO).connect(proxy.url()).unwrap_err();
    });
}

#[test]
fn silent_connection_delays_calls_by_one_timeout() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        let patience = Duration::from_millis(100);
        let cache =
            options().timeout(patience).circuit_breaker(2, HOUR).connect(proxy.url()).unwrap();
        let runtime = runtime();
        for _ in 0..3 {
            cache.get::<u64>(&key(1)).unwrap();
            proxy.end(End::Silent);
            cache.get::<u64>(&key(1)).unwrap_err();
            cache.get::<u64>(&key(1)).unwrap();
        }
        for _ in 0..3 {
            runtime.block_on(cache.get_async::<u64>(&key(1))).unwrap();
            proxy.end(End::Silent);
            runtime.block_on(cache.get_async::<u64>(&key(1))).unwrap_err();
            runtime.block_on(cache.get_async::<u64>(&key(1))).unwrap();
        }
    });
}

#[test]
fn commands_in_flight_when_the_connection_ends_are_sent_again() {
    watchdog(HANG, || {
        for end in [End::Closed, End::Reset, End::HalfClosed] {
            let proxy = Proxy::before(shared().port);
            let cache = options().connect(proxy.url()).unwrap();
            let runtime = runtime();
            for n in 0..32 {
                cache.set(&key(n), &n, HOUR).unwrap();
            }
            let backend = cache.backend();
            runtime.block_on(backend.read_async(&key(0))).unwrap();
            let (before, replied) = (proxy.connections(), proxy.replied());
            runtime.block_on(backend.read_async(&key(0))).unwrap();
            let (replied, one) = (proxy.replied(), proxy.replied() - replied);
            // The commands are executed, and the replies are lost.
            proxy.treat(Treatment { swallow: true, ..Treatment::default() });
            let tasks: Vec<_> = (0..32)
                .map(|n| {
                    let backend = backend.clone();
                    runtime.spawn(async move { backend.read_async(&key(n)).await })
                })
                .collect();
            until("all replies are swallowed", || proxy.replied() >= replied + 32 * one);
            proxy.treat(Treatment::default());
            proxy.end(end);
            for task in tasks {
                let found = runtime.block_on(task).unwrap().unwrap();
                assert!(found.is_some(), "{end:?}");
            }
            assert_eq!(proxy.connections(), before + 1, "{end:?}");
        }
    });
}

/// A tiered cache receives invalidations after its subscription was closed, too.
#[test]
fn subscription_that_was_closed_is_replaced() {
    watchdog(HANG, || {
        let server = Server::start();
        let open = || {
            TieredOptions::new().over(&options().namespace("one").connect(server.url()).unwrap())
        };
        let (one, other) = (open(), open());
        until("both listen", || is_connected(&one) && is_connected(&other));
        for value in 0..3_u64 {
            one.set(&key(1), &value, HOUR).unwrap();
            until("the other has it", || other.get::<u64>(&key(1)).unwrap() == Some(value));
            let killed: i64 = server.ask("CLIENT KILL TYPE pubsub");
            assert_eq!(killed, 2);
            assert!(one.remove(&key(1)).unwrap());
            until("the other gives it up", || other.get::<u64>(&key(1)).unwrap().is_none());
            until("both listen again", || is_connected(&one) && is_connected(&other));
        }
        assert_eq!((one.stats().errors, other.stats().errors), (0, 0));
    });
}

/// Runs callers that are cancelled early next to callers that are not.
async fn crowd(cache: &RedisCache, rounds: u32) {
    let tasks: Vec<_> = (0..20_u64)
        .map(|n| {
            let cache = cache.clone();
            tokio::spawn(async move {
                for _ in 0..rounds {
                    let key = key(n);
                    let ask = cache.get_async::<u64>(&key);
                    if n % 2 == 0 {
                        ask.await.unwrap();
                    } else {
                        let _ = tokio::time::timeout(Duration::from_millis(2), ask).await;
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[test]
fn cancelled_callers_do_not_close_the_connection() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        proxy.treat(Treatment { delay: Duration::from_millis(3), ..Treatment::default() });
        let cache = options().connect(proxy.url()).unwrap();
        runtime().block_on(crowd(&cache, 50));
        assert_eq!(proxy.connections(), 1);
        assert_eq!(cache.stats().errors, 0);
    });
}

#[test]
fn caller_cancelled_at_any_point_does_not_affect_others() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        let cache = options().connect(proxy.url()).unwrap();
        // The first round is cancelled while connecting.
        for round in 0..20 {
            for polls in 0..4 {
                let (get, set) = (key(round), key(round + 100));
                futures_poll(polls, cache.get_async::<u64>(&get));
                futures_poll(polls, cache.set_async(&set, &round, HOUR));
                futures_poll(polls, cache.remove_async(&set));
                let capabilities = cache.backend().capabilities();
                // The cache would deliver an invalidation that was dropped over a connection of its own.
                let generations = capabilities.generations.expect("generations");
                futures_poll(polls, generations.bump_async(Group::tag("tag")));
                let leases = capabilities.leases.expect("leases");
                futures_poll(polls, leases.try_acquire_async(&get));
            }
        }
        let runtime = runtime();
        runtime.block_on(cache.set_async(&key(1), &1_u64, HOUR)).unwrap();
        assert_eq!(runtime.block_on(cache.get_async::<u64>(&key(1))).unwrap(), Some(1));
        assert_eq!(proxy.connections(), 1);
    });
}

/// Without scripts a change is sent between two messages. A caller that is cancelled after the first
/// one must not prevent the others.
#[test]
fn cancelled_change_without_scripts_is_completed() {
    watchdog(HANG, || {
        let server = Server::start();
        let () = server.ask("ACL SETUSER default -eval");
        let cache = options().connect(server.url()).unwrap();
        runtime().block_on(cache.get_async::<u64>(&key(1))).unwrap();
        for _ in 0..20 {
            let key = key(1);
            let mut remove = pin!(cache.remove_async(&key));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            for _ in 0..2 {
                // It may be complete before it can be cancelled.
                if remove.as_mut().poll(&mut context).is_ready() {
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        let calls = |command: &str| -> u64 {
            let stats: String = server.ask("INFO commandstats");
            let start = format!("cmdstat_{command}:calls=");
            let count = stats.lines().find_map(|line| line.strip_prefix(&start)?.split(',').next());
            count.map_or(0, |count| count.parse().unwrap())
        };
        until("each change has both messages", || {
            let changes = calls("del");
            changes > 0 && calls("publish") == 2 * changes
        });
    });
}

/// Polls a future several times, with pauses for other threads, and drops it.
fn futures_poll<F: Future>(polls: u32, future: F) {
    let mut future = pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    for _ in 0..polls {
        if future.as_mut().poll(&mut context).is_ready() {
            return;
        }
        thread::yield_now();
    }
}

/// A server that works again is detected even if no caller waits for the reply.
#[test]
fn probe_of_a_cancelled_caller_closes_the_circuit_breaker() {
    watchdog(HANG, || {
        let mut server = Server::start();
        let proxy = Arc::new(Proxy::before(server.port));
        let cache = RedisOptions::new()
            .circuit_breaker(1, Duration::from_millis(1))
            .timeout(Duration::from_secs(10))
            .connect(proxy.url())
            .unwrap();
        let runtime = runtime();
        server.kill();
        runtime.block_on(cache.get_async::<u64>(&key(1))).unwrap_err();
        server.revive();
        proxy.treat(Treatment { delay: Duration::from_millis(20), ..Treatment::default() });
        let key = key(1);
        until("the server is asked by all again", || {
            // Cancelled long before the reply can be received.
            let _ = runtime.block_on(async {
                tokio::time::timeout(Duration::from_millis(5), cache.get_async::<u64>(&key)).await
            });
            cache.get::<u64>(&key).is_ok()
        });
    });
}

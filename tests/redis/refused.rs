//! Servers that reject their clients open the circuit breaker, as unreachable ones do.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use vayu::testing::watchdog;
use vayu::{ErrorKind, Key, RedisCache, RedisOptions, TieredOptions, cached};

use crate::HANG;
use crate::proxy::Proxy;
use crate::server::{Server, shared};

const HOUR: Duration = Duration::from_secs(3600);

#[cached(cache = cache, ttl = "1h", prefix = "same", skip(cache), log = false)]
fn same(cache: &RedisCache, n: u64) -> u64 {
    n
}

#[cached(cache = cache, ttl = "1h", prefix = "same", skip(cache), log = false)]
async fn same_async(cache: &RedisCache, n: u64) -> u64 {
    n
}

/// Makes sync and async calls, one by one and concurrently, and returns the number of connections.
fn connections(url: &str, count: impl Fn() -> u64) -> u64 {
    let open = || {
        let options = RedisOptions::new().namespace(crate::namespace());
        options.timeout(Duration::from_secs(10)).circuit_breaker(3, HOUR).connect(url).unwrap()
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let before = count();
    let mut most = 0;
    let mut check = |what: &str, call: &dyn Fn(&RedisCache)| {
        let before = count();
        let cache = open();
        call(&cache);
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses), (0, 500), "{what}");
        assert!(stats.errors_of(ErrorKind::Backend) >= 3, "{what}");
        most = most.max(count() - before);
    };
    check("one after the other", &|cache| {
        (0..500).for_each(|n| assert_eq!(same(cache, n), n));
    });
    check("one after the other, async", &|cache| {
        (0..500).for_each(|n| assert_eq!(runtime.block_on(same_async(cache, n)), n));
    });
    check("by threads", &|cache| {
        let next = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..50 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let n = next.fetch_add(1, Ordering::SeqCst);
                        assert_eq!(same(cache, n), n);
                    }
                });
            }
        });
    });
    check("by tasks", &|cache| {
        runtime.block_on(async {
            let spawn = |n| {
                let cache = cache.clone();
                tokio::spawn(async move { assert_eq!(same_async(&cache, n).await, n) })
            };
            for task in (0..500).map(spawn).collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
    });
    println!("{url}: {} connections, at most {most} of one kind", count() - before);
    most
}

/// Returns the number of connection attempts that a server has received.
fn connection_attempts(control: &mut redis::Connection) -> u64 {
    let info: String = redis::cmd("INFO").arg("stats").query(control).unwrap();
    let of = |name: &str| -> u64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.parse().unwrap()
    };
    of("total_connections_received:") + of("rejected_connections:")
}

#[test]
fn rejecting_server_opens_the_circuit_breaker() {
    watchdog(HANG, || {
        let server = Server::with(&["--requirepass", "sesame", "--databases", "2"]);
        let client = redis::Client::open(format!("redis://:sesame@127.0.0.1:{}/", server.port));
        let mut control = client.unwrap().get_connection().unwrap();
        let mut may_not_select = redis::cmd("ACL");
        may_not_select.arg(&["SETUSER", "shop", "on", ">sesame", "~*", "&*", "+@all", "-select"]);
        let () = may_not_select.query(&mut control).unwrap();
        let control = std::sync::Mutex::new(control);
        for (user, database) in [
            (":guess@", 0),
            ("", 0),
            ("somebody:sesame@", 0),
            ("shop:guess@", 0),
            // This user has no permission for a command of the handshake.
            ("shop:sesame@", 1),
            // There is no such database.
            (":sesame@", 7),
        ] {
            let url = format!("redis://{user}127.0.0.1:{}/{database}", server.port);
            let connections =
                connections(&url, || connection_attempts(&mut control.lock().unwrap()));
            assert!(connections < 50, "{url}: {connections}");
        }
    });
}

#[test]
fn unexpected_password_opens_the_circuit_breaker() {
    watchdog(HANG, || {
        // Since version 6 the default user accepts any password, so another user is needed.
        let server = Server::start();
        let control = std::sync::Mutex::new(server.connection().unwrap());
        let url = format!("redis://somebody:sesame@127.0.0.1:{}/", server.port);
        let connections = connections(&url, || connection_attempts(&mut control.lock().unwrap()));
        assert!(connections < 50, "{connections}");
    });
}

#[test]
fn server_with_too_many_clients_opens_the_circuit_breaker() {
    watchdog(HANG, || {
        let server = Server::with(&["--maxclients", "3"]);
        let mut control = server.connection().unwrap();
        let _others = [server.connection().unwrap(), server.connection().unwrap()];
        connection_attempts(&mut control);
        let control = std::sync::Mutex::new(control);
        let connections =
            connections(&server.url(), || connection_attempts(&mut control.lock().unwrap()));
        assert!(connections < 50, "{connections}");
    });
}

/// A client with TLS connects to a server without.
#[test]
fn server_of_another_protocol_opens_the_circuit_breaker() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        let url = format!("rediss://localhost:{}/", proxy.port);
        let connections = connections(&url, || proxy.connections());
        assert!(connections < 50, "{connections}");
    });
}

/// A missing permission causes errors, but neither reconnects nor opens the circuit breaker.
#[test]
fn rejected_command_keeps_the_connection() {
    watchdog(HANG, || {
        let server = Server::start();
        let () = server.ask("ACL SETUSER shop on >sesame ~other:* &* +@all");
        let mut control = server.connection().unwrap();
        let url = format!("redis://shop:sesame@127.0.0.1:{}/", server.port);
        let cache = RedisOptions::new().circuit_breaker(3, HOUR).connect(&url).unwrap();
        let before = connection_attempts(&mut control);
        for n in 0..100 {
            assert_eq!(same(&cache, n), n);
        }
        assert_eq!(connection_attempts(&mut control), before + 1);
        // With the permission the server is used.
        let () = redis::cmd("ACL").arg(&["SETUSER", "shop", "~*"]).query(&mut control).unwrap();
        assert_eq!((same(&cache, 1), same(&cache, 1)), (1, 1));
        assert_eq!(cache.stats().hits, 1);
    });
}

/// A replica rejects writes on every connection.
#[test]
fn writes_to_a_replica_reconnect_once_a_second() {
    watchdog(HANG, || {
        let (server, replica) = (Server::start(), Server::start());
        let () = replica.ask(&format!("REPLICAOF 127.0.0.1 {}", server.port));
        let mut control = replica.connection().unwrap();
        let cache = RedisOptions::new().circuit_breaker(3, HOUR).connect(replica.url()).unwrap();
        crate::until("it is a replica", || {
            replica.ask::<String>("INFO replication").contains("master_link_status:up")
        });
        cache.set(&Key::from_text("same", "1"), &1_u64, HOUR).unwrap_err();
        let (before, began) = (connection_attempts(&mut control), std::time::Instant::now());
        for n in 0..500 {
            assert_eq!(same(&cache, n), n);
        }
        assert_eq!(cache.stats().misses, 500);
        let connections = connection_attempts(&mut control) - before;
        assert!(connections <= 1 + began.elapsed().as_secs(), "{connections}");
    });
}

/// The memory tier does not reconnect to a server that rejects its clients, either.
#[test]
fn rejecting_server_opens_the_circuit_breaker_of_a_tiered_cache() {
    watchdog(HANG, || {
        let server = Server::with(&["--requirepass", "sesame"]);
        let client = redis::Client::open(format!("redis://:sesame@127.0.0.1:{}/", server.port));
        let mut control = client.unwrap().get_connection().unwrap();
        let url = format!("redis://:guess@127.0.0.1:{}/", server.port);
        let cache = TieredOptions::new()
            .over(&RedisOptions::new().circuit_breaker(3, HOUR).connect(&url).unwrap());
        let before = connection_attempts(&mut control);
        for n in 0..500_u64 {
            let key = Key::from_text("same", n.to_string());
            assert_eq!(cache.get_or_insert_with(&key, HOUR, || n), n);
        }
        let connections = connection_attempts(&mut control) - before;
        assert!(connections < 50, "{connections}");
    });
}

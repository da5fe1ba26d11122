//! Outages are logged once when they begin and once when they are over, with address and cause.

use std::error::Error as _;
use std::time::Duration;

use vayu::testing::watchdog;
use vayu::{AnyCache, ErrorKind, Key, RedisCache, RedisOptions, cached};

use crate::server::Server;
use crate::{HANG, log, until};

const MINUTE: Duration = Duration::from_secs(60);

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn one(cache: &RedisCache, n: u64) -> u64 {
    n
}

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn other(cache: &RedisCache, n: u64) -> u64 {
    n
}

#[cached(cache = cache, ttl = "1h", skip(cache))]
async fn one_async(cache: &RedisCache, n: u64) -> u64 {
    n
}

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn tiered(cache: &AnyCache, n: u64) -> u64 {
    n
}

fn calls(cache: &RedisCache) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for n in 0..20 {
        assert_eq!((one(cache, n), other(cache, n)), (n, n));
        assert_eq!(runtime.block_on(one_async(cache, n)), n);
    }
}

/// Checks the log lines of an outage, of which the cause is `says`.
fn check(says: &'static str, begin: fn(&mut Server), end: fn(&mut Server)) {
    watchdog(HANG, move || {
        log::install();
        let mut server = Server::start();
        let cache = RedisOptions::new()
            .timeout(Duration::from_millis(50))
            .circuit_breaker(3, Duration::from_millis(20))
            .connect(server.url())
            .unwrap();
        calls(&cache);
        assert_eq!(log::lines(server.port), [""; 0]);
        begin(&mut server);
        calls(&cache);
        calls(&cache);
        let first = log::lines(server.port);
        assert_eq!(first.len(), 2, "a failure, and the circuit breaker: {first:#?}");
        for (line, consequence) in
            first.iter().zip(["without the cache", "circuit breaker open for"])
        {
            let says =
                [&format!("WARN message=redis at 127.0.0.1:{}: ", server.port), says, consequence];
            for says in says {
                assert!(line.contains(says), "{says}: {line}");
            }
        }
        end(&mut server);
        let key = Key::from_text("n", "1");
        until("the cache works", || cache.set(&key, &1, MINUTE).is_ok());
        calls(&cache);
        let lines = log::lines(server.port);
        assert_eq!(lines.len(), 3, "{lines:#?}");
        let back = format!("INFO message=redis at 127.0.0.1:{} is back after ", server.port);
        assert!(lines[2].starts_with(&back), "{lines:#?}");
    });
}

#[test]
fn killed_server_is_logged_once_and_so_is_its_return() {
    check("cannot connect: Connection refused", Server::kill, Server::revive);
}

#[test]
fn stopped_server_is_logged_once_and_so_is_its_return() {
    check("no reply within 50ms", |server| server.freeze(), |server| server.thaw());
}

#[test]
fn error_of_an_operation_says_what_was_requested_where_and_why_it_failed() {
    watchdog(HANG, || {
        let mut server = Server::start();
        server.kill();
        let key = Key::from_text("n", "1");
        // One for each invalidation: the next ones do not try until the end of the backoff.
        let open = || {
            let cache = RedisOptions::new()
                .circuit_breaker(3, Duration::from_secs(3600))
                .connect(server.url())
                .unwrap();
            for _ in 0..3 {
                cache.get::<u8>(&key).expect_err("no server");
            }
            cache
        };
        let cache = open();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (error, operation) in [
            (
                open().invalidate_tag("user:7").unwrap_err(),
                "invalidate tag `user:7`: write generation",
            ),
            (
                runtime.block_on(open().invalidate_tag_async("user:7")).unwrap_err(),
                "invalidate tag `user:7`: write generation",
            ),
            (open().invalidate_prefix("users").unwrap_err(), "invalidate prefix `users`"),
            (open().invalidate_all().unwrap_err(), "invalidate all entries"),
            (cache.clear().unwrap_err(), "clear"),
            (cache.remove(&key).unwrap_err(), "delete entry"),
            (cache.set(&key, &1, MINUTE).unwrap_err(), "write entry"),
            (cache.get::<u8>(&key).unwrap_err(), "read entry"),
        ] {
            let chain = format!("{error:?}");
            assert_eq!(error.kind(), ErrorKind::Backend, "{chain}");
            let at = format!(": redis at 127.0.0.1:{}: circuit breaker open for ", server.port);
            for says in [operation, &at, ": cannot connect: Connection refused"] {
                assert!(chain.contains(says), "{says}: {chain}");
            }
            assert!(chain.starts_with(operation), "{chain}");
            assert!(operation.starts_with(&error.to_string()), "{chain}");
            assert!(error.source().is_some());
        }
    });
}

#[test]
fn lost_invalidation_feed_is_logged_once_and_so_is_its_return() {
    watchdog(HANG, || {
        log::install();
        let mut server = Server::start();
        let cache = vayu::open(format!("memory+{}", server.url())).unwrap();
        let port = server.port;
        let feed = || {
            let lines = log::lines(port);
            lines.into_iter().filter(|line| line.contains("subscribed")).collect::<Vec<_>>()
        };
        tiered(&cache, 1);
        until("it is subscribed", || {
            let mut command = redis::cmd("PUBSUB");
            let channels = server.try_ask::<Vec<Vec<u8>>>(command.arg("CHANNELS"));
            channels.is_ok_and(|channels| !channels.is_empty())
        });
        assert_eq!(feed(), [""; 0]);
        server.kill();
        until("the loss is logged", || !feed().is_empty());
        let lost = feed().remove(0);
        assert!(lost.starts_with("WARN") && lost.contains("not subscribed"), "{lost}");
        server.revive();
        until("the return is logged", || feed().len() > 1);
        let lines = feed();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[1].starts_with("INFO") && lines[1].contains("again after"), "{lines:#?}");
    });
}

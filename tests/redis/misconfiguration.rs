//! Misconfigurations are logged once, so that they do not look like a cold cache.

use std::time::Duration;

use vayu::testing::watchdog;
use vayu::{Key, RedisCache, RedisOptions, cached};

use crate::log::{self, lines};
use crate::server::Server;
use crate::{HANG, sentinel, tls, until};

const MINUTE: Duration = Duration::from_secs(60);

#[cached(cache = cache, ttl = "1h", skip(cache))]
fn called(cache: &RedisCache, n: u64) -> u64 {
    n
}

#[cached(cache = cache, ttl = "1h", skip(cache))]
async fn called_async(cache: &RedisCache, n: u64) -> u64 {
    n
}

fn fifty_calls(cache: &RedisCache) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for n in 0..25 {
        assert_eq!(called(cache, n), n);
        assert_eq!(runtime.block_on(called_async(cache, n)), n);
    }
}

/// Checks the log lines of a cache that is misconfigured, until `mend` resolves the problem.
fn check(port: u16, says: &[&str], open: impl Fn(RedisOptions) -> RedisCache, mend: impl FnOnce()) {
    log::install();
    let options = || {
        // A TLS handshake in a debug build is slow on a busy machine.
        let options = RedisOptions::new().timeout(Duration::from_secs(10));
        options.circuit_breaker(3, Duration::from_millis(1))
    };
    let cache = open(options());
    fifty_calls(&cache);
    let first = lines(port);
    assert_eq!(first.len(), 1, "{first:?}");
    assert!(first[0].starts_with("ERROR"), "{first:?}");
    for says in says.iter().chain(&["configuration"]) {
        assert!(first[0].contains(says), "{says}: {first:?}");
    }
    mend();
    let key = Key::from_text("n", "1");
    until("the cache works", || cache.set(&key, &1, MINUTE).is_ok());
    until("the recovery is logged", || {
        fifty_calls(&cache);
        lines(port).len() > 1
    });
    fifty_calls(&cache);
    let lines = lines(port);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[1].starts_with("INFO") && lines[1].contains("works again"), "{lines:?}");
    assert!(!lines.concat().contains("sesame") && !lines.concat().contains("@127"), "{lines:?}");
}

fn control(port: u16, password: &str) -> redis::Connection {
    let client = redis::Client::open(format!("redis://:{password}@127.0.0.1:{port}/")).unwrap();
    client.get_connection().unwrap()
}

fn execute(connection: &mut redis::Connection, words: &[&str]) {
    let () = redis::cmd(words[0]).arg(&words[1..]).query(connection).unwrap();
}

#[test]
fn wrong_password_is_logged_once() {
    watchdog(HANG, || {
        let server = Server::with(&["--requirepass", "open-sesame"]);
        let mut control = control(server.port, "open-sesame");
        let url = format!("redis://:sesame@127.0.0.1:{}/", server.port);
        let open = |options: RedisOptions| options.connect(&url).unwrap();
        check(server.port, &["WRONGPASS", "password in the URL"], open, || {
            execute(&mut control, &["CONFIG", "SET", "requirepass", "sesame"]);
        });
    });
}

#[test]
fn missing_password_is_logged_once() {
    watchdog(HANG, || {
        let server = Server::with(&["--requirepass", "sesame"]);
        let mut control = control(server.port, "sesame");
        let open = |options: RedisOptions| options.connect(server.url()).unwrap();
        check(server.port, &["NOAUTH", "put the password"], open, || {
            execute(&mut control, &["ACL", "SETUSER", "default", "nopass"]);
        });
    });
}

#[test]
fn missing_permission_is_logged_once() {
    watchdog(HANG, || {
        for rights in [
            &["~other:*", "+@all"][..],
            &["~*", "+@all", "-set"],
            &["~*", "+@all", "-getrange", "-get"],
        ] {
            let server = Server::start();
            let mut control = server.connection().unwrap();
            let user = ["ACL", "SETUSER", "shop", "on", ">sesame", "&*"];
            execute(&mut control, &[&user, rights].concat());
            let url = format!("redis://shop:sesame@127.0.0.1:{}/", server.port);
            let open = |options: RedisOptions| options.connect(&url).unwrap();
            check(server.port, &["permissions", "ACL SETUSER"], open, || {
                execute(&mut control, &["ACL", "SETUSER", "shop", "~*", "+@all"]);
            });
        }
    });
}

#[test]
fn missing_sentinel_password_is_logged_once() {
    watchdog(HANG, || {
        let server = Server::start();
        let (sentinel, _place) = sentinel::sentinel_with(&server, "requirepass sesame\n");
        let mut control = control(sentinel.port, "sesame");
        let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
        let open = |options: RedisOptions| options.connect(&url).unwrap();
        check(sentinel.port, &["NOAUTH", "sentinel_password"], open, || {
            execute(&mut control, &["ACL", "SETUSER", "default", "nopass"]);
        });
    });
}

#[test]
fn missing_client_certificate_is_logged_once() {
    watchdog(HANG, || {
        let server = tls::secure("-days 30", "yes");
        let url = format!("rediss://localhost:{}/", server.port);
        let open = |options: RedisOptions| {
            options.root_certificates(server.authority.clone()).connect(&url).unwrap()
        };
        check(server.port, &["client_certificate"], open, || {
            let () = server.server.ask("CONFIG SET tls-auth-clients no");
        });
    });
}

#[test]
fn untrusted_certificate_is_logged_once() {
    watchdog(HANG, || {
        let server = tls::secure("-days 30", "no");
        let options = RedisOptions::new().timeout(Duration::from_secs(10));
        log::install();
        let cache = options.connect(format!("rediss://localhost:{}/", server.port)).unwrap();
        fifty_calls(&cache);
        let lines = lines(server.port);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("ERROR") && lines[0].contains("root_certificates"),
            "{lines:?}"
        );
    });
}

/// A transient failure is not a misconfiguration.
#[test]
fn unreachable_server_is_not_a_misconfiguration() {
    watchdog(HANG, || {
        log::install();
        let mut server = Server::start();
        let cache = RedisOptions::new().circuit_breaker(3, Duration::from_millis(1));
        let cache = cache.connect(server.url()).unwrap();
        fifty_calls(&cache);
        server.kill();
        fifty_calls(&cache);
        let lines = lines(server.port);
        assert!(!lines.iter().any(|line| line.contains("configuration")), "{lines:?}");
    });
}

//! Masters that sentinels watch.

use std::fmt::Write as _;
use std::time::Duration;

use vayu::testing::watchdog;
use vayu::{Key, RedisOptions};

use crate::server::Server;
use crate::{HANG, until};

const MINUTE: Duration = Duration::from_secs(60);

/// Starts a sentinel that watches a server under the name `main`.
fn sentinel(server: &Server) -> (Server, tempfile::TempDir) {
    sentinel_with(server, "")
}

/// Starts a sentinel with more lines in its configuration.
pub(crate) fn sentinel_with(server: &Server, lines: &str) -> (Server, tempfile::TempDir) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("sentinel.conf");
    let mut settings = String::new();
    writeln!(settings, "sentinel monitor main 127.0.0.1 {} 1", server.port).unwrap();
    writeln!(settings, "sentinel down-after-milliseconds main 500").unwrap();
    writeln!(settings, "sentinel failover-timeout main 2000").unwrap();
    settings.push_str(lines);
    std::fs::write(&path, settings).unwrap();
    (Server::sentinel(path.to_str().unwrap()), place)
}

/// A demoted master still responds, and rejects writes.
#[test]
fn demoted_master_is_replaced_by_the_new_one() {
    watchdog(HANG, || {
        let (first, second) = (Server::start(), Server::start());
        let () = second.ask(&format!("REPLICAOF 127.0.0.1 {}", first.port));
        until("the replica follows", || {
            second.ask::<String>("INFO replication").contains("master_link_status:up")
        });
        let (sentinel, _place) = sentinel(&first);
        until("the sentinel knows the replica", || {
            !sentinel.ask::<Vec<redis::Value>>("SENTINEL replicas main").is_empty()
        });
        let cache = RedisOptions::new().connect_sentinel([sentinel.url()], "main").unwrap();
        let key = Key::from_text("n", "1");
        cache.set(&key, &1, MINUTE).unwrap();
        until("the sentinel makes the other one master", || {
            sentinel.try_ask::<()>(redis::cmd("SENTINEL").arg("FAILOVER").arg("main")).is_ok()
        });
        // The sentinel disconnects its clients at that moment.
        until("the first one is master no longer", || {
            let reply = first.try_ask::<String>(redis::cmd("INFO").arg("replication"));
            reply.is_ok_and(|reply| reply.contains("role:slave"))
        });
        until("values are stored again", || cache.set(&key, &2, MINUTE).is_ok());
        assert_eq!(cache.get::<i32>(&key).unwrap(), Some(2));
    });
}

#[test]
fn new_master_is_found_after_the_old_one_died() {
    watchdog(HANG, || {
        let (mut first, second) = (Server::start(), Server::start());
        let () = second.ask(&format!("REPLICAOF 127.0.0.1 {}", first.port));
        until("the replica follows", || {
            second.ask::<String>("INFO replication").contains("master_link_status:up")
        });
        let (sentinel, _place) = sentinel(&first);
        let urls = ["redis://127.0.0.1:1/".to_owned(), sentinel.url()];
        let cache = RedisOptions::new().connect_sentinel(urls, "main").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let key = Key::from_text("n", "1");
        cache.set(&key, &1, MINUTE).unwrap();
        assert_eq!(runtime.block_on(cache.get_async::<i32>(&key)).unwrap(), Some(1));
        until("the sentinel knows the replica", || {
            !sentinel.ask::<Vec<redis::Value>>("SENTINEL replicas main").is_empty()
        });
        first.kill();
        let took = until("the other server takes over", || {
            cache.get_or_insert_with(&key, MINUTE, || 1);
            cache.set(&key, &2, MINUTE).is_ok()
        });
        println!("values are stored again {took:?} after the master died");
        assert_eq!(cache.get::<i32>(&key).unwrap(), Some(2));
        // The first call of this runtime finds the old connection closed.
        until("async callers find it too", || {
            runtime.block_on(cache.get_async::<i32>(&key)).is_ok_and(|found| found == Some(2))
        });
        assert!(second.ask::<String>("INFO replication").contains("role:master"));
        let unknown = RedisOptions::new().connect_eagerly();
        unknown.connect_sentinel([sentinel.url()], "other").expect_err("no master of this name");
    });
}

#[test]
fn sentinels_have_their_own_password() {
    watchdog(HANG, || {
        let server = Server::with(&["--requirepass", "of-server"]);
        let lines = "sentinel auth-pass main of-server\nrequirepass of-sentinel&%\n\
                     user watcher on >of-watcher ~* &* +@all\n";
        let (sentinel, _place) = sentinel_with(&server, lines);
        let at = format!("127.0.0.1:{}", sentinel.port);
        let url = format!("redis://:of-server@{at}");
        let eager = || RedisOptions::new().timeout(Duration::from_secs(5)).connect_eagerly();
        let refused = |options: RedisOptions| {
            let error = options.connect_sentinel([&url], "main").expect_err("it wants a password");
            let message = format!("{error} {error:?} {:?}", std::error::Error::source(&error));
            assert!(!message.contains("of-s") && !message.contains("guess"), "{message}");
        };
        refused(eager());
        refused(eager().sentinel_password("guess"));
        refused(eager().sentinel_password("of-server"));
        let options = eager().sentinel_username("watcher").sentinel_password("of-watcher");
        assert!(!format!("{options:?}").contains("watcher"));
        let end = "main?timeout=5s&connect=eagerly";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let key = Key::from_text("n", "1");
        for cache in [
            options.connect_sentinel([&url], "main").unwrap(),
            eager().sentinel_password("of-sentinel&%").connect_sentinel([&url], "main").unwrap(),
            RedisOptions::new()
                .connect(format!(
                    "redis+sentinel://:of-server@{at}/{end}&sentinel_password=of-sentinel%26%25"
                ))
                .unwrap(),
            RedisOptions::new()
                .connect(format!(
                    "redis+sentinel://:of-server@{at}/{end}&sentinel_username=watcher\
                     &sentinel_password=of-watcher"
                ))
                .unwrap(),
        ] {
            assert!(!format!("{cache:?} {:?}", cache.backend()).contains("of-"));
            cache.set(&key, &1, MINUTE).unwrap();
            assert_eq!(runtime.block_on(cache.get_async::<i32>(&key)).unwrap(), Some(1));
        }
    });
}

#[test]
fn sentinel_password_without_sentinels_is_rejected() {
    let error = RedisOptions::new().connect("redis://host?sentinel_password=secret").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
    RedisOptions::new().sentinel_password("secret").connect("redis://host").unwrap_err();
    let user = RedisOptions::new().sentinel_username("me");
    user.connect_sentinel(["redis://host"], "main").expect_err("there is no password");
}

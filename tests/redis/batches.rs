//! Batches: one round trip for many keys, and an error of one key that is no error of the others.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use vayu::backend::{Backend, BackendExt, Bytes, Record, RedisBackend};
use vayu::testing::watchdog;
use vayu::time::{Clock, SystemClock};
use vayu::{ErrorKind, Key, RedisOptions, Result};

use crate::proxy::{Proxy, Treatment};
use crate::server::{Server, shared, shared_cluster};
use crate::{HANG, namespace, tls};

const MINUTE: Duration = Duration::from_secs(60);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn keys(count: usize) -> Vec<Key> {
    (0..count).map(|n| Key::from_text("batch", n.to_string())).collect()
}

/// Returns the entries of keys, whose values are their strings and a hundred bytes more.
fn entries(keys: &[Key]) -> Vec<(&Key, Record<Bytes>)> {
    let now = SystemClock.now();
    let record = |key: &Key| Record::new(value(key), now, now.saturating_add(MINUTE));
    keys.iter().map(|key| (key, record(key))).collect()
}

fn value(key: &Key) -> Bytes {
    format!("{key}{}", "x".repeat(100)).into()
}

fn open(options: RedisOptions, url: &str) -> RedisBackend {
    options.connect(url).expect("a valid URL").backend().clone()
}

/// Reads sync and async.
fn read(backend: &RedisBackend, keys: &[Key]) -> [Vec<Result<Option<Bytes>>>; 2] {
    let keys: Vec<&Key> = keys.iter().collect();
    let values = |found: Vec<Result<Option<Record<Bytes>>>>| {
        found.into_iter().map(|found| Ok(found?.map(Record::into_value))).collect()
    };
    let found = [backend.read_many(&keys), runtime().block_on(backend.read_many_async(&keys))];
    found.map(values)
}

/// Writes sync and async.
fn write(backend: &RedisBackend, keys: &[Key]) -> [Vec<Result<()>>; 2] {
    let runtime = runtime();
    [backend.write_many(entries(keys)), runtime.block_on(backend.write_many_async(entries(keys)))]
}

/// Returns the name of the entry of a key on the server.
fn name(namespace: &str, key: &Key) -> String {
    let digits = key.digest().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("{namespace}:e:{digits}")
}

/// Returns a number of `INFO`, zero if it is not there.
fn info(server: &Server, section: &str, name: &str) -> u64 {
    let info: String = server.ask(&format!("INFO {section}"));
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.map_or("0", |line| line.split(',').next().unwrap_or_default());
    number.trim_start_matches("calls=").parse().expect("a number")
}

#[test]
fn hundred_keys_are_read_and_written_in_one_round_trip() {
    watchdog(HANG, || {
        let server = Server::start();
        let backend = open(RedisOptions::new().timeout(Duration::from_secs(10)), &server.url());
        let (keys, runtime) = (keys(100), runtime());
        let references: Vec<&Key> = keys.iter().collect();
        // Connects both ways, and measures what reading the numbers itself takes.
        let _ = (read(&backend, &keys[..2]), info(&server, "stats", "total_reads_processed"));
        let reads = || info(&server, "stats", "total_reads_processed");
        let own = {
            let before = reads();
            reads() - before
        };
        let round_trips = |code: &dyn Fn()| {
            let before = reads();
            code();
            reads() - before - own
        };
        // A long command may be received in several pieces.
        let most = 16;
        let writes = [
            round_trips(&|| {
                backend.write_many(entries(&keys)).into_iter().for_each(Result::unwrap);
            }),
            round_trips(&|| {
                let written = runtime.block_on(backend.write_many_async(entries(&keys)));
                written.into_iter().for_each(Result::unwrap);
            }),
        ];
        assert!(writes.iter().all(|&count| count <= most), "{writes:?}");
        let calls = |command: &str| info(&server, "commandstats", &format!("cmdstat_{command}"));
        let before = [calls("mget"), calls("getrange")];
        let check = |found: Vec<Result<Option<Record<Bytes>>>>| {
            for (key, found) in keys.iter().zip(found) {
                assert_eq!(found.unwrap().map(Record::into_value), Some(value(key)));
            }
        };
        let reads = [
            round_trips(&|| check(backend.read_many(&references))),
            round_trips(&|| check(runtime.block_on(backend.read_many_async(&references)))),
        ];
        assert!(reads.iter().all(|&count| count <= 2), "{reads:?}");
        assert_eq!([calls("mget"), calls("getrange")], [before[0] + 2, before[1]]);
    });
}

#[test]
fn key_that_is_refused_fails_alone() {
    watchdog(HANG, || {
        let (server, namespace) = (Server::start(), namespace());
        // Entries whose digest begins with one of half of the digits.
        let rule = format!("~{namespace}:e:[0-7]*");
        let () = server.ask(&format!("ACL SETUSER half on >sesame {rule} &* +@all"));
        let url = format!("redis://half:sesame@127.0.0.1:{}/", server.port);
        let backend = open(RedisOptions::new().namespace(&namespace), &url);
        let keys = keys(50);
        let is_permitted = |key: &Key| key.digest()[0] < 0x80;
        assert!(keys.iter().any(is_permitted) && !keys.iter().all(is_permitted));
        for written in write(&backend, &keys) {
            for (key, written) in keys.iter().zip(written) {
                assert_eq!(written.is_ok(), is_permitted(key), "{key}");
            }
        }
        for found in read(&backend, &keys) {
            for (key, found) in keys.iter().zip(found) {
                let found = found.map_err(|error| error.kind());
                let expected =
                    if is_permitted(key) { Ok(Some(value(key))) } else { Err(ErrorKind::Backend) };
                assert_eq!(found, expected, "{key}");
            }
        }
    });
}

#[test]
fn entry_that_is_too_long_fails_alone() {
    watchdog(HANG, || {
        let (server, namespace) = (shared(), namespace());
        let options = RedisOptions::new().namespace(&namespace).max_entry_bytes(1024);
        let backend = open(options, &server.url());
        let keys = keys(10);
        let write = |long: usize| {
            let mut entries = entries(&keys);
            entries[long].1 = entries[long].1.clone().map(|_| vec![0; 1024].into());
            entries
        };
        let written = backend.write_many(write(3));
        assert!(written.iter().enumerate().all(|(n, result)| result.is_ok() == (n != 3)));
        // Values that no cache has written: of another type, and longer than an entry may be.
        let () = server.ask(&format!("DEL {}", name(&namespace, &keys[1])));
        let () = server.ask(&format!("LPUSH {} x", name(&namespace, &keys[1])));
        for length in [1024, 10 << 20] {
            let () = server.ask(&format!("SETRANGE {} {length} x", name(&namespace, &keys[7])));
            for found in read(&backend, &keys) {
                for (n, (key, found)) in keys.iter().zip(found).enumerate() {
                    match n {
                        1 => assert!(!found.is_ok_and(|found| found.is_some())),
                        3 | 7 => assert_eq!(found.unwrap(), None),
                        _ => assert_eq!(found.unwrap(), Some(value(key)), "{n}"),
                    }
                }
            }
        }
    });
}

#[test]
fn batch_is_written_where_scripts_are_refused() {
    watchdog(HANG, || {
        let server = Server::start();
        let () = server.ask("ACL SETUSER plain on >sesame ~* &* +@all -eval -mget");
        let url = format!("redis://plain:sesame@127.0.0.1:{}/", server.port);
        let backend = open(RedisOptions::new().timeout(Duration::from_secs(10)), &url);
        let keys = keys(20);
        for written in write(&backend, &keys).into_iter().flatten() {
            written.unwrap();
        }
        for found in read(&backend, &keys) {
            for (key, found) in keys.iter().zip(found) {
                assert_eq!(found.unwrap(), Some(value(key)));
            }
        }
    });
}

/// There each key is read by a command of its own, as connections of the `redis` crate do not limit the length of
/// replies.
#[test]
fn batch_with_tls_and_on_a_cluster_has_a_result_for_each_key() {
    watchdog(HANG, || {
        let (secure, namespace) = (tls::secure("-days 30", "no"), namespace());
        let options = || tls::options().namespace(&namespace);
        let with_tls = options().root_certificates(secure.authority.clone());
        let url = format!("rediss://localhost:{}/", secure.port);
        let cluster = shared_cluster();
        let on_cluster = options().connect_cluster(cluster.urls()).unwrap().backend().clone();
        let deployments = [
            (open(with_tls, &url), vec![&secure.server]),
            (on_cluster, cluster.0.iter().collect()),
        ];
        let keys = keys(300);
        for (backend, nodes) in deployments {
            write(&backend, &keys).into_iter().flatten().for_each(Result::unwrap);
            let check = |other_type: Option<usize>| {
                for found in read(&backend, &keys) {
                    for (n, (key, found)) in keys.iter().zip(found).enumerate() {
                        if other_type == Some(n) {
                            assert_eq!(found.unwrap_err().kind(), ErrorKind::Backend);
                        } else {
                            assert_eq!(found.unwrap(), Some(value(key)), "{n}");
                        }
                    }
                }
            };
            check(None);
            let name = name(&namespace, &keys[7]);
            let replaced = nodes.iter().filter(|node| {
                let delete = node.try_ask::<()>(redis::cmd("DEL").arg(&name));
                delete.is_ok()
                    && node.try_ask::<()>(redis::cmd("LPUSH").arg(&name).arg("x")).is_ok()
            });
            assert_eq!(replaced.count(), 1, "one node has the key");
            check(Some(7));
        }
    });
}

#[test]
fn server_that_is_away_costs_a_batch_one_time_limit() {
    watchdog(HANG, || {
        let mut server = Server::start();
        let open = || open(RedisOptions::new().timeout(Duration::from_millis(500)), &server.url());
        let keys = keys(2000);
        let fails = |backend: &RedisBackend, kind: Option<ErrorKind>| {
            let began = Instant::now();
            let kinds = |kinds: Vec<ErrorKind>| {
                assert_eq!(kinds.len(), keys.len());
                assert!(
                    kind.is_none_or(|kind| kinds.iter().all(|it| *it == kind)),
                    "{:?}",
                    kinds[0]
                );
            };
            for found in read(backend, &keys) {
                kinds(found.into_iter().map(|found| found.unwrap_err().kind()).collect());
            }
            for written in write(backend, &keys) {
                kinds(written.into_iter().map(|written| written.unwrap_err().kind()).collect());
            }
            began.elapsed()
        };
        let backend = open();
        write(&backend, &keys[..10]).into_iter().flatten().for_each(Result::unwrap);
        server.freeze();
        let time = fails(&backend, None);
        assert!(time < Duration::from_secs(12), "{time:?} for four batches of eight round trips");
        server.thaw();
        let backend = open();
        server.kill();
        fails(&backend, Some(ErrorKind::Backend));
    });
}

#[test]
fn frozen_server_costs_a_sync_batch_with_tls_one_time_limit() {
    watchdog(HANG, || {
        let secure = tls::secure("-days 30", "no");
        let options = tls::options().root_certificates(secure.authority.clone());
        let url = format!("rediss://localhost:{}/", secure.port);
        let backend = open(options.timeout(Duration::from_millis(500)), &url);
        let keys = keys(250);
        let keys: Vec<&Key> = keys.iter().collect();
        assert!(backend.read_many(&keys).into_iter().all(|found| found.unwrap().is_none()));
        secure.server.freeze();
        let began = Instant::now();
        assert!(backend.read_many(&keys).into_iter().all(|found| found.is_err()));
        let time = began.elapsed();
        assert!(time < Duration::from_secs(20), "{time:?}, of 125 s for a time limit for each key");
        secure.server.thaw();
    });
}

#[test]
fn corrupted_or_cut_reply_never_yields_another_value() {
    watchdog(HANG, || {
        let (server, namespace) = (shared(), namespace());
        let keys = keys(5);
        let direct = open(RedisOptions::new().namespace(&namespace), &server.url());
        write(&direct, &keys).into_iter().flatten().for_each(Result::unwrap);
        let mut found_some = 0;
        for at in (0..1600).step_by(23) {
            for cut in [true, false] {
                let proxy = Proxy::before(server.port);
                let treatment = Treatment::default();
                proxy.treat(if cut {
                    Treatment { cut_after: Some(at), ..treatment }
                } else {
                    Treatment { mangle: Some(at), ..treatment }
                });
                let options = RedisOptions::new().namespace(&namespace);
                let backend = open(options.timeout(Duration::from_millis(100)), &proxy.url());
                for found in read(&backend, &keys) {
                    assert_eq!(found.len(), keys.len());
                    for (key, found) in keys.iter().zip(found) {
                        if let Ok(Some(found)) = found {
                            assert_eq!(found, value(key));
                            found_some += 1;
                        }
                    }
                }
            }
        }
        assert!(found_some > 0);
    });
}

#[test]
fn batch_whose_caller_is_cancelled_disturbs_no_other() {
    watchdog(HANG, || {
        let options = RedisOptions::new().namespace(namespace()).timeout(Duration::from_secs(10));
        let backend = open(options, &shared().url());
        let (keys, runtime) = (keys(100), runtime());
        write(&backend, &keys).into_iter().flatten().for_each(Result::unwrap);
        let many: Vec<&Key> = keys[..50].iter().collect();
        for key in &keys[50..] {
            {
                let mut batch = pin!(backend.read_many_async(&many));
                let context = &mut Context::from_waker(Waker::noop());
                // It is most often dropped while the reply is pending.
                let _ = batch.as_mut().poll(context);
            }
            let found = runtime.block_on(backend.read_async(key)).unwrap();
            assert_eq!(found.map(Record::into_value), Some(value(key)));
        }
    });
}

//! Four processes with tiered caches on one server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vayu::backend::RedisBackend;
use vayu::testing::watchdog;
use vayu::{RedisOptions, SingleFlight, TieredCache, TieredOptions, cached};

use crate::process::{self, Process};
use crate::server::Server;
use crate::{HANG, size, until};

/// Number of concurrent callers of a key in each process.
const CALLERS: u64 = 64;

/// The state of one process.
struct Worker {
    url: String,
    cache: TieredCache<RedisBackend>,
    runtime: tokio::runtime::Runtime,
}

/// The source of the values, which counts its runs on the server.
struct Source<'a>(&'a str);

impl Source<'_> {
    fn ask(&self, n: u64, kind: &str) -> u64 {
        let client = redis::Client::open(self.0).expect("a valid URL");
        let mut connection = client.get_connection().expect("a connection");
        let name = format!("runs:{kind}:{n}");
        let runs: u64 = redis::cmd("INCR").arg(name).query(&mut connection).expect("a number");
        // It takes long enough that the other callers arrive in the meantime.
        std::thread::sleep(Duration::from_millis(20));
        runs
    }
}

#[cached(cache = cache, ttl = "1h", skip(cache, source), handle = fact_entry, log = false)]
fn fact(cache: &TieredCache<RedisBackend>, source: &Source<'_>, n: u64) -> u64 {
    source.ask(n, "sync")
}

#[cached(cache = cache, ttl = "1h", skip(cache, url), log = false)]
async fn fact_async(cache: &TieredCache<RedisBackend>, url: &str, n: u64) -> u64 {
    let url = url.to_owned();
    tokio::task::spawn_blocking(move || Source(&url).ask(n, "async")).await.expect("no panic")
}

#[cached(cache = cache, ttl = "1h", skip(cache), log = false)]
fn square(cache: &TieredCache<RedisBackend>, n: u64) -> u64 {
    n * n
}

#[cached(cache = cache, ttl = "1h", skip(cache), log = false)]
async fn square_async(cache: &TieredCache<RedisBackend>, n: u64) -> u64 {
    n * n
}

#[cached(cache = cache, ttl = "1h", skip(cache, forever), log = false)]
fn endless(cache: &TieredCache<RedisBackend>, n: u64, forever: bool) -> u64 {
    if forever {
        println!(">computes");
        loop {
            std::thread::park();
        }
    }
    n
}

impl Worker {
    /// Parses a role: the URL and the lease TTL in milliseconds.
    fn new(role: &str) -> Self {
        let (url, lease_ttl) = role.split_once(' ').expect("a URL and a time");
        let cache = RedisOptions::new()
            .single_flight(SingleFlight::Everywhere)
            .lease_ttl(Duration::from_millis(lease_ttl.parse().expect("milliseconds")))
            .circuit_breaker(3, Duration::from_millis(100))
            .connect(url)
            .expect("a valid URL");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        // A caller that waits in vain waits forever, so that the watchdog reports it.
        let cache = TieredOptions::new().over(&cache).with_max_wait(Duration::from_secs(3600));
        Self { url: url.to_owned(), cache, runtime }
    }

    fn handle(&self, line: &str) -> String {
        let (verb, number) = line.split_once(' ').expect("a verb and a number");
        let n = number.parse().expect("a number");
        match verb {
            "subscribe" => {
                until("it is subscribed", || {
                    use vayu::backend::Backend as _;
                    self.cache
                        .backend()
                        .capabilities()
                        .invalidation_feed
                        .is_some_and(vayu::backend::InvalidationFeed::is_connected)
                });
                "yes".to_owned()
            }
            "concurrent" => self.call_concurrently(n),
            "get" => fact(&self.cache, &Source(&self.url), n).to_string(),
            "invalidate" => fact_entry(&self.cache, &Source(&self.url), n)
                .invalidate()
                .expect("the server is reachable")
                .to_string(),
            "forever" => endless(&self.cache, n, true).to_string(),
            "ends" => endless(&self.cache, n, false).to_string(),
            "load" => self.load(n),
            _ => panic!("no verb: {verb}"),
        }
    }

    /// Runs half of the callers as threads and half as tasks; each half has a function of its own.
    fn call_concurrently(&self, n: u64) -> String {
        let url: Arc<str> = self.url.as_str().into();
        std::thread::scope(|scope| {
            let call = || fact(&self.cache, &Source(&self.url), n);
            let threads: Vec<_> = (0..CALLERS / 2).map(|_| scope.spawn(call)).collect();
            let tasks: Vec<_> = (0..CALLERS / 2)
                .map(|_| {
                    let (cache, url) = (self.cache.clone(), Arc::clone(&url));
                    self.runtime.spawn(async move { fact_async(&cache, &url, n).await })
                })
                .collect();
            for thread in threads {
                assert_eq!(thread.join().expect("a value"), 1);
            }
            for task in tasks {
                assert_eq!(self.runtime.block_on(task).expect("a value"), 1);
            }
        });
        "correct".to_owned()
    }

    /// Makes calls and checks their values, for more keys than fit into memory.
    fn load(&self, calls: u64) -> String {
        let (threads, keys) = (4, 30_000);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let mut random = ((thread + 1) * 0x9e37_79b9) ^ u64::from(std::process::id());
                    for call in 0..calls / threads {
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let n = random % keys;
                        let value = if call % 2 == 0 {
                            square(&self.cache, n)
                        } else {
                            self.runtime.block_on(square_async(&self.cache, n))
                        };
                        assert_eq!(value, n * n);
                    }
                });
            }
        });
        let (stats, tiers) = (self.cache.stats(), self.cache.backend().tier_stats());
        format!(
            "{} hits, {} of them below, {} misses, {} waits, {} faults",
            stats.hits, tiers.hits, stats.misses, stats.coalesced, stats.errors
        )
    }
}

fn start_workers(test: &str, server: &Server, lease_ttl: u64) -> Vec<Process> {
    let role = format!("{} {lease_ttl}", server.url());
    let mut fleet: Vec<_> = (0..4).map(|_| Process::start(test, &role)).collect();
    for process in &mut fleet {
        process.ask("subscribe 0");
    }
    fleet
}

/// Runs the worker if this process is one.
fn is_worker() -> bool {
    let Some(role) = process::role() else { return false };
    let worker = Worker::new(&role);
    process::serve(|line| worker.handle(line));
    true
}

#[test]
fn cold_key_is_computed_once_by_four_processes() {
    if is_worker() {
        return;
    }
    watchdog(HANG, || {
        let server = Server::start();
        let test = "processes::cold_key_is_computed_once_by_four_processes";
        let mut fleet = start_workers(test, &server, 10_000);
        for n in 0..16 {
            for process in &mut fleet {
                process.send(&format!("concurrent {n}"));
            }
            for process in &mut fleet {
                assert_eq!(process.receive(), "correct");
            }
            for kind in ["sync", "async"] {
                assert_eq!(
                    server.ask::<u64>(&format!("GET runs:{kind}:{n}")),
                    1,
                    "key {n}, {kind}"
                );
            }
        }
    });
}

#[test]
fn invalidation_reaches_all_processes() {
    if is_worker() {
        return;
    }
    watchdog(HANG, || {
        let server = Server::start();
        let test = "processes::invalidation_reaches_all_processes";
        let mut fleet = start_workers(test, &server, 10_000);
        let mut times = Vec::new();
        for round in 1..=20_u64 {
            for process in &mut fleet {
                assert_eq!(process.ask("get 5"), round.to_string());
            }
            assert_eq!(fleet[0].ask("invalidate 5"), "true");
            let began = Instant::now();
            for process in &mut fleet {
                while process.ask("get 5") != (round + 1).to_string() {
                    assert!(began.elapsed() < HANG / 4, "the old value stays");
                }
            }
            times.push(began.elapsed());
        }
        times.sort();
        println!(
            "all four saw a new value, which takes 20 ms, after {:?} in the median, {:?} at most",
            times[10], times[19]
        );
    });
}

#[test]
fn lease_of_a_killed_process_expires() {
    if is_worker() {
        return;
    }
    watchdog(HANG, || {
        let server = Server::start();
        let test = "processes::lease_of_a_killed_process_expires";
        let mut fleet = start_workers(test, &server, 1000);
        assert_eq!(fleet[0].ask("forever 3"), "computes");
        assert_eq!(fleet[1].ask("ends 4"), "4");
        fleet[0].kill();
        // It waits for the dead process until the lease expires.
        assert_eq!(fleet[1].ask("ends 3"), "3");
    });
}

/// Returns the number of commands that a server has processed.
fn commands(server: &Server) -> u64 {
    let stats: String = server.ask("INFO stats");
    let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    line.and_then(|count| count.trim().parse().ok()).expect("a number")
}

#[test]
fn server_killed_under_load_does_not_fail_calls() {
    if is_worker() {
        return;
    }
    let calls = size("VAYU_FLEET_CALLS", 100_000) as u64;
    watchdog(10 * HANG, move || {
        let mut server = Server::start();
        let test = "processes::server_killed_under_load_does_not_fail_calls";
        let mut fleet = start_workers(test, &server, 1000);
        let mine = RedisOptions::new()
            .namespace("mine")
            .circuit_breaker(3, Duration::from_millis(100))
            .connect(server.url())
            .expect("a valid URL");
        let key = vayu::Key::from_text("n", "1");
        let began = Instant::now();
        for process in &mut fleet {
            process.send(&format!("load {}", calls / 4));
        }
        let mut recoveries = Vec::new();
        for _ in 0..3 {
            // It is killed under load, and calls fail to reach it before it is restarted.
            until("the load has come to the server", || commands(&server) > 5000);
            server.kill();
            until("it is missed", || mine.set(&key, &1, Duration::from_secs(60)).is_err());
            let revived = Instant::now();
            server.revive();
            until("values are stored again", || {
                mine.set(&key, &1, Duration::from_secs(60)).is_ok()
            });
            recoveries.push(revived.elapsed());
        }
        for process in &mut fleet {
            println!("{}", process.receive());
        }
        println!(
            "{calls} calls in {:?}; recovered from kills after {recoveries:?}",
            began.elapsed()
        );
    });
}

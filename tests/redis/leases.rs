//! Leases: released however a call ends, not acquired where they cannot be released, and waited for
//! once.

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use vayu::backend::{Backend, RedisBackend};
use vayu::testing::{ManualClock, watchdog};
use vayu::{
    Cache, ErrorKind, RedisCache, RedisOptions, SingleFlight, TieredCache, TieredOptions, cached,
};

use crate::process::{self, Process};
use crate::proxy::{Proxy, Treatment};
use crate::server::{Server, shared};
use crate::{HANG, namespace, until};

const HOUR: Duration = Duration::from_secs(3600);

fn options() -> RedisOptions {
    // The watchdog reports a call that waits for a lease which was not released.
    RedisOptions::new().single_flight(SingleFlight::Everywhere).lease_ttl(HOUR)
}

/// Returns the names of the leases on a server.
fn leases(server: &Server) -> Vec<String> {
    server.names().into_iter().filter(|name| name.contains(":c:")).collect()
}

/// The ways in which the function of a call ends.
const ENDS: [&str; 4] = ["value", "failure", "refused", "panic"];

static CLOCK: LazyLock<ManualClock> = LazyLock::new(ManualClock::new);
/// Signals that the function of an async call runs.
static RUNS: Notify = Notify::const_new();

/// The body of the function, which records the number of leases while it runs.
fn end(url: &str, how: &str) -> Result<u32, String> {
    let client = redis::Client::open(url).expect("a valid URL");
    let mut connection = client.get_connection().expect("a connection");
    let leases: Vec<String> =
        redis::cmd("KEYS").arg("*:c:*").query(&mut connection).expect("the names");
    let () = redis::cmd("SET").arg("held").arg(leases.len()).query(&mut connection).expect("set");
    match how {
        "value" => Ok(1),
        "failure" => Err("as requested".to_owned()),
        "refused" => Ok(0),
        // Does not print the message of a panic.
        _ => std::panic::resume_unwind(Box::new("as requested")),
    }
}

#[cached(cache = cache, ttl = "1h", prefix = "end", skip(cache, url, how), cache_if = |n: &u32| *n > 0)]
fn ends<B, S>(cache: &Cache<B, S>, url: &str, how: &str, n: u32) -> Result<u32, String>
where
    B: Backend,
    S: vayu::backend::Serializer<u32, Stored = B::Stored>,
{
    end(url, how)
}

#[cached(cache = cache, ttl = "1h", prefix = "end", skip(cache, url, how), cache_if = |n: &u32| *n > 0)]
async fn ends_async<B, S>(cache: &Cache<B, S>, url: &str, how: &str, n: u32) -> Result<u32, String>
where
    B: Backend,
    S: vayu::backend::Serializer<u32, Stored = B::Stored>,
{
    tokio::task::yield_now().await;
    if how == "never" {
        let _ = end(url, "value");
        RUNS.notify_one();
        pending::<()>().await;
    }
    end(url, how)
}

#[cached(
    cache = cache, ttl = "1m", stale = "1h", spawn = tokio::spawn, prefix = "refresh", handle = refresh_entry,
    skip(cache, url, how)
)]
async fn refreshes(
    cache: RedisCache,
    url: String,
    how: &'static str,
    n: u32,
) -> Result<u32, String> {
    if how == "never" {
        let _ = end(&url, "value");
        RUNS.notify_one();
        pending::<()>().await;
    }
    let result = end(&url, how);
    RUNS.notify_one();
    result
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Runs a program that ends with its only call.
fn run(url: &str, runtime: &str, how: &'static str) {
    let cache = options().clock(CLOCK.clone()).connect(url).expect("a valid URL");
    let new_runtime = || if runtime == "current" { current_thread() } else { multi_thread() };
    let block_on = |future: &mut dyn FnMut() -> Result<u32, String>| {
        let _ = catch_unwind(AssertUnwindSafe(future));
    };
    match (runtime, how) {
        ("sync", how) => block_on(&mut || ends(&cache, url, how, 1)),
        ("tiers", how) => {
            let tiers = TieredOptions::new().over(&cache);
            block_on(&mut || ends(&tiers, url, how, 1));
        }
        ("async tiers", how) => {
            let tiers = TieredOptions::new().over(&cache);
            block_on(&mut || current_thread().block_on(ends_async(&tiers, url, how, 1)));
        }
        // Not a tokio runtime.
        ("smol", how) => block_on(&mut || smol::block_on(ends_async(&cache, url, how, 1))),
        (_, "cancelled") => new_runtime().block_on(async {
            tokio::select! {
                _ = ends_async(&cache, url, "never", 1) => unreachable!("it never ends"),
                () = RUNS.notified() => {}
            }
        }),
        (_, "runtime dropped") => {
            let runtime = new_runtime();
            let (cache, url) = (cache.clone(), url.to_owned());
            runtime.spawn(async move { ends_async(&cache, &url, "never", 1).await });
            runtime.block_on(RUNS.notified());
            drop(runtime);
        }
        (_, "refresh" | "refresh that fails" | "refresh dropped") => {
            let first = refreshes(cache.clone(), url.to_owned(), "value", 1);
            assert_eq!(new_runtime().block_on(first), Ok(1));
            CLOCK.advance(Duration::from_secs(120));
            new_runtime().block_on(async {
                RUNS.notified().await;
                let how = match how {
                    "refresh" => "value",
                    "refresh that fails" => "failure",
                    _ => "never",
                };
                let old = refreshes(cache.clone(), url.to_owned(), how, 1);
                assert_eq!(old.await, Ok(1));
                RUNS.notified().await;
                if how != "never" {
                    while cache.stats().in_flight > 0 {
                        tokio::task::yield_now().await;
                    }
                    // The lease is released when the flight is complete.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        (_, "entry") => {
            let refresh = refresh_entry(cache.clone(), url.to_owned(), "value", 1).refresh_async();
            assert_eq!(new_runtime().block_on(refresh), Ok(1));
        }
        (_, how) => block_on(&mut || new_runtime().block_on(ends_async(&cache, url, how, 1))),
    }
}

#[test]
fn lease_is_released_by_a_program_that_ends_with_its_call() {
    if let Some(role) = process::role() {
        let [url, runtime, how] = role.split('|').collect::<Vec<_>>()[..] else {
            panic!("a role has three parts")
        };
        run(url, runtime, how.to_owned().leak());
        std::process::exit(0);
    }
    watchdog(HANG, || {
        let server = Server::start();
        let test = "leases::lease_is_released_by_a_program_that_ends_with_its_call";
        let mut ways: Vec<(&str, &str)> = Vec::new();
        for runtime in ["sync", "tiers", "async tiers", "smol", "current", "multi"] {
            ways.extend(ENDS.map(|how| (runtime, how)));
        }
        for runtime in ["current", "multi"] {
            for how in [
                "cancelled",
                "runtime dropped",
                "refresh",
                "refresh that fails",
                "refresh dropped",
                "entry",
            ] {
                ways.push((runtime, how));
            }
        }
        for (runtime, how) in ways {
            let () = server.ask("FLUSHALL");
            let role = format!("{}|{runtime}|{how}", server.url());
            Process::start(test, &role).wait();
            let held: u32 = server.ask("GET held");
            assert_eq!(held, u32::from(how != "entry"), "{runtime}, {how}: leases while it runs");
            assert_eq!(leases(&server), [""; 0], "{runtime}, {how}: leases after it has ended");
        }
    });
}

#[test]
fn calls_of_short_lived_runtimes_do_not_wait_for_each_other() {
    watchdog(HANG, || {
        for how in ["failure", "refused"] {
            let options = || options().namespace(namespace());
            let cache = options().connect(shared().url()).expect("a valid URL");
            for _ in 0..10 {
                for runtime in [current_thread(), multi_thread()] {
                    let url = shared().url();
                    let _ = runtime.block_on(ends_async(&cache, &url, how, 1));
                }
                let _ = ends(&cache, &shared().url(), how, 1);
            }
            assert_eq!(cache.stats().errors, 0);
        }
    });
}

/// Drops the future of a call while it acquires the lease.
#[test]
fn lease_granted_to_a_cancelled_call_is_released() {
    watchdog(HANG, || {
        let server = Server::start();
        let cache = options().timeout(Duration::from_secs(5)).connect(server.url()).unwrap();
        let url = server.url();
        let runtime = multi_thread();
        // The connection is open, and the release of leases is verified.
        runtime.block_on(ends_async(&cache, &url, "failure", 0)).unwrap_err();
        for n in 0..20 {
            runtime.block_on(async {
                let call = ends_async(&cache, &url, "failure", 1);
                let mut call = std::pin::pin!(call);
                // It is dropped one poll later in each round.
                for _ in 0..n {
                    let polled = std::future::poll_fn(|context| {
                        std::task::Poll::Ready(call.as_mut().poll(context).is_ready())
                    });
                    if polled.await {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
        until("no lease is left", || leases(&server).is_empty());
    });
}

#[test]
fn lease_is_released_where_scripts_are_refused() {
    watchdog(HANG, || {
        let unnamed = Server::with(&["--rename-command", "EVAL", ""]);
        let denied = Server::start();
        let () = denied.ask("ACL SETUSER default -eval");
        for server in [unnamed, denied] {
            let cache = options().connect(server.url()).expect("a valid URL");
            let (url, runtime) = (server.url(), current_thread());
            for how in ENDS {
                let call = || ends(&cache, &url, how, 1);
                let _ = catch_unwind(AssertUnwindSafe(call));
                until("the lease is released", || leases(&server).is_empty());
                let call = || runtime.block_on(ends_async(&cache, &url, how, 2));
                let _ = catch_unwind(AssertUnwindSafe(call));
                until("the lease is released", || leases(&server).is_empty());
                assert_eq!(server.ask::<u32>("GET held"), 1, "there was one");
            }
            assert_eq!(cache.stats().errors, 0);
        }
    });
}

#[test]
fn no_lease_is_acquired_where_it_cannot_be_released() {
    watchdog(HANG, || {
        let nothing_at_all = Server::with(&["--rename-command", "EVAL", ""]);
        let () = nothing_at_all.ask("ACL SETUSER default -del");
        let denied = Server::start();
        let () = denied.ask("ACL SETUSER default -eval -del -getdel");
        for server in [nothing_at_all, denied] {
            let url = server.url();
            for runtime in [None, Some(current_thread()), Some(multi_thread())] {
                let call = |cache: &RedisCache, n| match &runtime {
                    None => ends(cache, &url, "failure", n),
                    Some(runtime) => runtime.block_on(ends_async(cache, &url, "failure", n)),
                };
                // The second acts as another process.
                let caches = [(); 2].map(|()| options().connect(&url).expect("a valid URL"));
                for cache in &caches {
                    for _ in 0..5 {
                        call(cache, 1).unwrap_err();
                        call(cache, 2).unwrap_err();
                        assert_eq!(leases(&server), [""; 0]);
                    }
                    assert_eq!(cache.stats().errors, 1, "it is counted once");
                }
            }
        }
    });
}

/// The server stops accepting releases after they were verified.
#[test]
fn leases_are_skipped_only_while_they_cannot_be_released() {
    watchdog(HANG, || {
        let server = Server::start();
        let url = server.url();
        // A lease that is about to expire is left to expire.
        let lease_time = Duration::from_secs(2);
        let cache = options().lease_ttl(lease_time).connect(&url).expect("a valid URL");
        let call = |n| {
            let () = server.ask("SET held 0");
            ends(&cache, &url, "failure", n).unwrap_err();
            server.ask::<u32>("GET held") == 1
        };
        assert!(call(1), "a lease was acquired");
        let () = server.ask("ACL SETUSER default -eval -del");
        assert!(call(2), "the refusal is not known yet");
        assert_eq!(cache.stats().errors, 1, "it is counted");
        let () = server.ask("FLUSHALL");
        assert!(!call(3), "no more leases are acquired");
        assert_eq!(cache.stats().errors, 1, "once");
        let () = server.ask("ACL SETUSER default +eval +del");
        until("leases are acquired again", || call(4));
        assert_eq!(cache.stats().errors, 1);
    });
}

#[test]
fn lease_that_is_lost_with_its_connection_is_counted() {
    watchdog(HANG, || {
        for is_async in [false, true] {
            let mut server = Server::start();
            let cache = options().connect(server.url()).expect("a valid URL");
            let body = |server: &mut Server| {
                assert_eq!(leases(server).len(), 1);
                server.kill();
                Err::<u32, _>("failed")
            };
            let key = vayu::Key::from_text("p", "k");
            let result = if is_async {
                let body = async { body(&mut server) };
                current_thread().block_on(cache.try_get_or_insert_with_async(&key, HOUR, body))
            } else {
                cache.try_get_or_insert_with(&key, HOUR, || body(&mut server))
            };
            result.unwrap_err();
            assert_eq!(cache.stats().errors, 1, "async: {is_async}");
        }
    });
}

#[cached(cache = cache, ttl = "1h", prefix = "held", skip(cache, runs))]
fn held<B, S>(cache: &Cache<B, S>, runs: &AtomicU64, n: u64) -> u64
where
    B: Backend,
    S: vayu::backend::Serializer<u64, Stored = B::Stored>,
{
    runs.fetch_add(1, Ordering::SeqCst);
    n
}

#[cached(cache = cache, ttl = "1h", prefix = "held", skip(cache, runs))]
async fn held_async<B, S>(cache: &Cache<B, S>, runs: &AtomicU64, n: u64) -> u64
where
    B: Backend,
    S: vayu::backend::Serializer<u64, Stored = B::Stored>,
{
    runs.fetch_add(1, Ordering::SeqCst);
    n
}

/// Computes endlessly if its role says so.
fn hold() {
    let Some(url) = process::role() else { return };
    let cache = options().connect(&url).expect("a valid URL");
    process::serve(|_| {
        cache.get_or_insert_with(&held_key(), HOUR, || {
            println!(">computes");
            loop {
                thread::park();
            }
        })
    });
}

/// Returns the key of `held(.., 1)`.
fn held_key() -> vayu::Key {
    vayu::Key::new("held", &(1_u64,)).expect("a number is a key")
}

/// Advances the clock while `callers` wait, and returns by how much.
fn waited(clock: &ManualClock, callers: Vec<thread::JoinHandle<u64>>) -> Duration {
    let mut time = Duration::ZERO;
    while callers.iter().any(|caller| !caller.is_finished()) {
        if clock.sleepers() > 0 {
            clock.advance(Duration::from_millis(1));
            time += Duration::from_millis(1);
        }
        thread::sleep(Duration::from_micros(100));
    }
    for caller in callers {
        assert_eq!(caller.join().expect("a value"), 1);
    }
    time
}

#[test]
fn stopped_holder_of_a_lease_delays_calls_by_max_wait_once() {
    if process::role().is_some() {
        return hold();
    }
    watchdog(HANG, || {
        let server = Server::start();
        let test = "leases::stopped_holder_of_a_lease_delays_calls_by_max_wait_once";
        let mut holder = Process::start(test, &server.url());
        assert_eq!(holder.ask("hold"), "computes");
        holder.stop();
        let max_wait = Duration::from_secs(1);
        let runtime = Arc::new(multi_thread());
        for kinds in [[false; 4], [true; 4], [false, true, false, true]] {
            let clock = ManualClock::new();
            let cache = options().clock(clock.clone()).connect(server.url()).expect("a valid URL");
            let (cache, runs) = (cache.with_max_wait(max_wait), Arc::new(AtomicU64::new(0)));
            let callers = kinds.map(|is_async| {
                let (cache, runs) = (cache.clone(), Arc::clone(&runs));
                let runtime = Arc::clone(&runtime);
                thread::spawn(move || {
                    if is_async {
                        runtime.block_on(held_async(&cache, &runs, 1))
                    } else {
                        held(&cache, &runs, 1)
                    }
                })
            });
            let time = waited(&clock, callers.into());
            // They started at the same time of the clock, or within a few steps.
            assert!(time <= max_wait + max_wait / 5, "{kinds:?}: {time:?}");
            let () = server.ask(&format!("DEL {}", entry(&server)));
        }
    });
}

/// Returns the name of the only entry on a server.
fn entry(server: &Server) -> String {
    let mut names = server.names().into_iter().filter(|name| name.contains(":e:"));
    names.next().expect("an entry")
}

#[test]
fn stored_value_ends_the_wait_for_a_lease() {
    if process::role().is_some() {
        return hold();
    }
    watchdog(HANG, || {
        let server = Server::start();
        let test = "leases::stored_value_ends_the_wait_for_a_lease";
        let mut holder = Process::start(test, &server.url());
        assert_eq!(holder.ask("hold"), "computes");
        holder.stop();
        let waiting = options().connect(server.url()).expect("a valid URL").with_max_wait(HOUR);
        let tiers: TieredCache<RedisBackend> =
            TieredOptions::new().over(&waiting).with_max_wait(HOUR);
        let runs = AtomicU64::new(0);
        let runtime = multi_thread();
        let other = RedisOptions::new().connect(server.url()).expect("a valid URL");
        thread::scope(|scope| {
            let callers = [
                scope.spawn(|| held(&waiting, &runs, 1)),
                scope.spawn(|| held(&tiers, &runs, 1)),
                scope.spawn(|| runtime.block_on(held_async(&waiting, &runs, 1))),
                scope.spawn(|| runtime.block_on(held_async(&tiers, &runs, 1))),
            ];
            until("all wait", || waiting.stats().in_flight == 1 && tiers.stats().in_flight == 1);
            other.set(&held_key(), &7_u64, HOUR).expect("the server is there");
            for caller in callers {
                assert_eq!(caller.join().expect("a value"), 7);
            }
        });
        assert_eq!(runs.load(Ordering::SeqCst), 0);
    });
}

/// Replies are lost, so each attempted operation closes its connection.
#[test]
fn call_on_a_hanging_server_waits_for_one_timeout() {
    watchdog(HANG, || {
        let runtime = multi_thread();
        let call = |is_async: bool, cache: &dyn CallsOfBoth, runs: &AtomicU64, n: u64| {
            if is_async {
                runtime.block_on(async { cache.call_async(runs, n).await })
            } else {
                cache.call(runs, n)
            }
        };
        for is_async in [false, true] {
            for has_tiers in [false, true] {
                let proxy = Proxy::before(shared().port);
                let cache = options()
                    .namespace(namespace())
                    .timeout(Duration::from_millis(200))
                    .circuit_breaker(u32::MAX, HOUR)
                    .connect(proxy.url())
                    .expect("a valid URL");
                let tiers = TieredOptions::new().over(&cache);
                let used: &dyn CallsOfBoth = if has_tiers { &tiers } else { &cache };
                let runs = AtomicU64::new(0);
                let what = format!("async: {is_async}, tiers: {has_tiers}");
                let is_found = |n| {
                    let before = runs.load(Ordering::SeqCst);
                    assert_eq!(call(is_async, used, &runs, n), n, "{what}");
                    runs.load(Ordering::SeqCst) == before
                };
                // A slow machine may exceed the time limit. In the end the connections are open.
                for n in 0..3 {
                    until("a value is stored", || is_found(n));
                }
                let errors = cache.stats().errors_of(ErrorKind::Backend);
                let before = proxy.connections();
                proxy.treat(Treatment { swallow: true, ..Treatment::default() });
                assert_eq!(call(is_async, used, &runs, 7), 7, "{what}");
                assert_eq!(proxy.connections(), before, "{what}: one operation on one connection");
                assert_eq!(cache.stats().errors_of(ErrorKind::Backend), errors, "{what}");
                proxy.treat(Treatment::default());
                until("what is there is found", || is_found(1));
            }
        }
    });
}

/// Memory serves its entries while the server hangs, stale ones included.
#[test]
fn memory_serves_its_entries_while_the_server_hangs() {
    watchdog(HANG, || {
        let proxy = Proxy::before(shared().port);
        let clock = ManualClock::new();
        let backing = RedisOptions::new()
            .namespace(namespace())
            .timeout(Duration::from_millis(100))
            .circuit_breaker(u32::MAX, HOUR)
            .clock(clock.clone())
            .connect(proxy.url())
            .expect("a valid URL");
        let tiers = TieredOptions::new().over(&backing);
        let runs = AtomicU64::new(0);
        // Memory is invalidated when the subscription is established.
        until("it listens", || {
            tiers
                .backend()
                .capabilities()
                .invalidation_feed
                .is_some_and(vayu::backend::InvalidationFeed::is_connected)
        });
        assert_eq!(old(&tiers, &runs, 1), 0);
        proxy.treat(Treatment { swallow: true, ..Treatment::default() });
        assert_eq!(old(&tiers, &runs, 1), 0, "fresh");
        assert_eq!(old(&tiers, &runs, 2), 1, "computed");
        clock.advance(Duration::from_secs(90));
        assert!(old(&tiers, &runs, 1) <= 2);
        assert!(runs.load(Ordering::SeqCst) <= 3);
    });
}

#[cached(cache = cache, ttl = "1m", stale = "1h", prefix = "old", skip(cache, runs))]
fn old(cache: &TieredCache<RedisBackend>, runs: &AtomicU64, n: u64) -> u64 {
    runs.fetch_add(1, Ordering::SeqCst)
}

/// A cache with or without a memory tier.
#[async_trait]
trait CallsOfBoth {
    fn call(&self, runs: &AtomicU64, n: u64) -> u64;
    async fn call_async(&self, runs: &AtomicU64, n: u64) -> u64;
}

#[async_trait]
impl<B, S> CallsOfBoth for Cache<B, S>
where
    B: Backend,
    S: vayu::backend::Serializer<u64, Stored = B::Stored> + Send + Sync,
{
    fn call(&self, runs: &AtomicU64, n: u64) -> u64 {
        held(self, runs, n)
    }
    async fn call_async(&self, runs: &AtomicU64, n: u64) -> u64 {
        held_async(self, runs, n).await
    }
}

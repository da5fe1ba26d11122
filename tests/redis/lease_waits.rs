//! Callers that wait for the lease of another process are notified of its release. Each cache acts as a process.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vayu::backend::{Backend, InvalidationFeed, Lease, LeaseGuard};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Key, RedisCache, RedisOptions, SingleFlight, cached};

use crate::log;
use crate::server::{Server, shared_cluster};
use crate::{HANG, namespace, until};

const HOUR: Duration = Duration::from_secs(3600);

/// The longest time that a lost message costs: the longest pause, and steps of the clock while threads are on their way.
const LOST: Duration = Duration::from_millis(1_500);

/// Processes that wait for the leases of another one.
struct Processes {
    server: Server,
    clock: ManualClock,
    holder: RedisCache,
    waiting: Vec<RedisCache>,
    runs: Arc<AtomicU64>,
}

impl Processes {
    /// Starts a server and processes that receive its messages.
    fn start(number: usize) -> Self {
        let processes = Self::start_unconnected(number);
        let _lease = processes.hold(&Key::from_text("other", "lease"));
        for process in &processes.waiting {
            connect(process, &Key::from_text("other", "lease"));
        }
        processes
    }

    fn start_unconnected(number: usize) -> Self {
        let (server, clock) = (Server::start(), ManualClock::new());
        let open = || open(&server, &clock);
        let (holder, waiting) = (open(), (0..number).map(|_| open()).collect());
        Self { server, clock, holder, waiting, runs: Arc::default() }
    }

    /// Acquires a lease as another process.
    fn hold(&self, key: &Key) -> LeaseGuard {
        acquire(&self.holder, key).expect("it is free")
    }

    /// Calls the function in each process, in half of them async, and returns when all of them wait.
    fn call(&self) -> Vec<JoinHandle<u64>> {
        let callers = self.waiting.iter().enumerate().map(|(index, process)| {
            let (process, runs) = (process.clone(), Arc::clone(&self.runs));
            thread::spawn(move || match index % 2 {
                0 => number(&process, &runs, 1),
                _ => smol::block_on(number_async(&process, &runs, 1)),
            })
        });
        let callers = callers.collect();
        until("all wait", || self.clock.sleepers() >= 2 * self.waiting.len());
        callers
    }

    /// Advances the clock until the callers have returned, and returns by how much.
    fn wait(&self, callers: Vec<JoinHandle<u64>>) -> Duration {
        let mut time = Duration::ZERO;
        while callers.iter().any(|caller| !caller.is_finished()) {
            thread::sleep(Duration::from_millis(1));
            if self.clock.sleepers() > 0 {
                self.clock.advance(Duration::from_millis(10));
                time += Duration::from_millis(10);
            }
        }
        for caller in callers {
            assert_eq!(caller.join().expect("a value"), 1);
        }
        time
    }

    fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    /// Returns the numbers of commands by name since the last call, those of scripts included.
    fn commands(&self) -> HashMap<String, u64> {
        let stats: String = self.server.ask("INFO commandstats");
        let () = self.server.ask("CONFIG RESETSTAT");
        let parse = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        stats.lines().filter_map(parse).collect()
    }
}

fn open(server: &Server, clock: &ManualClock) -> RedisCache {
    let options = RedisOptions::new().single_flight(SingleFlight::Everywhere).lease_ttl(HOUR);
    let options = options.clock(clock.clone()).timeout(Duration::from_secs(10));
    options.connect(server.url()).expect("a valid URL").with_max_wait(HOUR)
}

fn acquire(process: &RedisCache, key: &Key) -> Option<LeaseGuard> {
    match process
        .backend()
        .capabilities()
        .leases
        .expect("leases")
        .try_acquire(key)
        .expect("a reply")
    {
        Lease::Acquired(lease) => Some(lease),
        _ => None,
    }
}

fn is_connected(process: &RedisCache) -> bool {
    process.backend().capabilities().invalidation_feed.is_some_and(InvalidationFeed::is_connected)
}

/// Lets a process wait for a lease that is held, which connects it for messages.
fn connect(process: &RedisCache, held: &Key) {
    watch(process, held);
    until("it is connected", || is_connected(process));
}

/// Tries to acquire a lease that is held, as a caller that waits does.
fn watch(process: &RedisCache, held: &Key) {
    let leases = process.backend().capabilities().leases.expect("leases");
    let lease = leases.try_acquire_or_watch(held).expect("a reply");
    assert!(matches!(lease, Lease::Held | Lease::Watched(_)), "{lease:?}");
}

#[cached(cache = cache, ttl = "1h", prefix = "number", skip(cache, runs))]
fn number(cache: &RedisCache, runs: &AtomicU64, n: u64) -> u64 {
    runs.fetch_add(1, Ordering::SeqCst);
    n
}

#[cached(cache = cache, ttl = "1h", prefix = "number", skip(cache, runs))]
async fn number_async(cache: &RedisCache, runs: &AtomicU64, n: u64) -> u64 {
    runs.fetch_add(1, Ordering::SeqCst);
    n
}

#[cached(cache = cache, ttl = "1h", prefix = "number", skip(cache, runs), each = numbers)]
fn all_numbers(cache: &RedisCache, runs: &AtomicU64, numbers: &[u64]) -> HashMap<u64, u64> {
    runs.fetch_add(1, Ordering::SeqCst);
    numbers.iter().map(|&n| (n, n)).collect()
}

fn key() -> Key {
    key_of(1)
}

fn key_of(n: u64) -> Key {
    Key::new("number", &(n,)).expect("a number is a key")
}

fn count(commands: &HashMap<String, u64>, name: &str) -> u64 {
    commands.get(name).copied().unwrap_or(0)
}

#[test]
fn waiting_processes_send_few_commands_and_are_notified_of_the_value() {
    watchdog(HANG, || {
        let processes = Processes::start(8);
        let lease = processes.hold(&key());
        processes.commands();
        let callers = processes.call();
        for _ in 0..200 {
            processes.clock.advance(Duration::from_millis(10));
            thread::sleep(Duration::from_millis(1));
        }
        let commands = processes.commands();
        // Each process reads, reads again as a leader, and asks for the lease. In two seconds it does the latter two
        // again after 500 ms and after 1.5 s. Polls of 32 ms would be 130.
        let sent = count(&commands, "getrange") + count(&commands, "eval");
        assert!(sent <= 8 * 9, "{sent} commands: {commands:?}");
        processes.holder.set(&key(), &1_u64, HOUR).expect("set");
        lease.release().expect("released");
        assert!(processes.wait(callers) <= Duration::from_millis(200), "no pause has to end");
        let commands = processes.commands();
        assert_eq!(count(&commands, "publish"), 8, "one message for each process that waits");
        assert!(count(&commands, "getrange") <= 2 * 8, "{commands:?}");
        assert_eq!(processes.runs(), 0);
    });
}

#[test]
fn lease_is_released_without_a_message_unless_a_process_waits() {
    watchdog(HANG, || {
        let processes = Processes::start(1);
        processes.commands();
        assert_eq!(number(&processes.waiting[0], &processes.runs, 1), 1);
        let commands = processes.commands();
        assert_eq!(count(&commands, "publish"), 0, "{commands:?}");
    });
}

#[cached(cache = cache, ttl = "1m", stale = "1h", prefix = "old", skip(cache))]
fn old(cache: &RedisCache, n: u64) -> u64 {
    n
}

#[cached(cache = cache, ttl = "1m", stale = "1h", prefix = "old", skip(cache), each = numbers)]
fn all_old(cache: &RedisCache, numbers: &[u64]) -> HashMap<u64, u64> {
    numbers.iter().map(|&n| (n, n)).collect()
}

#[test]
fn callers_that_do_not_wait_ask_for_no_message() {
    watchdog(HANG, || {
        let processes = Processes::start(1);
        let unconnected = open(&processes.server, &processes.clock);
        assert_eq!(old(&processes.holder, 1), 1);
        processes.clock.advance(Duration::from_secs(90));
        let key = Key::new("old", &(1_u64,)).expect("a number is a key");
        let lease = processes.hold(&key);
        for process in [&processes.waiting[0], &unconnected] {
            assert_eq!(old(process, 1), 1, "served past its ttl");
            assert_eq!(all_old(process, &[1])[&1], 1, "served past its ttl");
        }
        processes.commands();
        lease.release().expect("released");
        assert_eq!(count(&processes.commands(), "publish"), 0);
        assert!(!is_connected(&unconnected));
        let clients: String = processes.server.ask("CLIENT LIST TYPE pubsub");
        assert_eq!(clients.lines().count(), 1, "that of the process that waits: {clients}");
    });
}

#[test]
fn server_without_messages_is_no_problem_for_leases() {
    log::install();
    watchdog(HANG, || {
        let processes = Processes::start_unconnected(1);
        let () = processes.server.ask("ACL SETUSER default -subscribe");
        let lease = processes.hold(&key());
        let callers = processes.call();
        let refused = || {
            let stats: String = processes.server.ask("INFO commandstats");
            let line = stats.lines().find(|line| line.starts_with("cmdstat_subscribe"))?;
            line.split_once("rejected_calls=")?.1.split(',').next()?.parse().ok()
        };
        until("it has tried to subscribe", || refused().is_some());
        processes.holder.set(&key(), &1_u64, HOUR).expect("set");
        lease.release().expect("released");
        processes.wait(callers);
        assert_eq!(processes.runs(), 0);
        assert_eq!(refused(), Some(1_u64), "it tries again after a minute");
        assert_eq!(log::lines(processes.server.port), [""; 0]);
    });
}

#[test]
fn many_waiting_processes_are_notified_by_one_message() {
    watchdog(HANG, || {
        let processes = Processes::start(40);
        let lease = processes.hold(&key());
        let callers = processes.call();
        processes.commands();
        processes.holder.set(&key(), &1_u64, HOUR).expect("set");
        lease.release().expect("released");
        assert!(processes.wait(callers) <= Duration::from_millis(200), "no pause has to end");
        assert_eq!(count(&processes.commands(), "publish"), 1);
        assert_eq!(processes.runs(), 0);
    });
}

#[test]
fn lost_message_delays_waiting_processes_by_a_pause() {
    watchdog(HANG, || {
        let processes = Processes::start(4);
        std::mem::forget(processes.hold(&key()));
        let callers = processes.call();
        processes.holder.set(&key(), &1_u64, HOUR).expect("set");
        assert!(processes.wait(callers) <= LOST, "the value is found");
        let () = processes.server.ask("FLUSHALL");
        std::mem::forget(processes.hold(&key()));
        let callers = processes.call();
        // Also a lease that expires because its holder has died.
        let () = processes.server.ask("FLUSHALL");
        assert!(processes.wait(callers) <= LOST, "the lease is acquired");
        assert_eq!(processes.runs(), 1, "the others are notified by the process that acquired it");
    });
}

#[test]
fn processes_that_lose_the_connection_for_messages_poll() {
    watchdog(HANG, || {
        let processes = Processes::start(4);
        let lease = processes.hold(&key());
        let callers = processes.call();
        // They cannot subscribe again.
        let () = processes.server.ask("ACL SETUSER default -subscribe");
        let () = processes.server.ask("CLIENT KILL TYPE pubsub");
        until("it is noticed", || !processes.waiting.iter().any(is_connected));
        processes.holder.set(&key(), &1_u64, HOUR).expect("set");
        lease.release().expect("released");
        assert!(processes.wait(callers) <= Duration::from_millis(300));
        assert_eq!(processes.runs(), 0);
    });
}

#[test]
fn process_without_a_right_to_its_channel_polls() {
    watchdog(HANG, || {
        let processes = Processes::start_unconnected(2);
        let () = processes.server.ask("ACL SETUSER default resetchannels &vayu:invalidations");
        let other = Key::from_text("other", "lease");
        let _other = processes.hold(&other);
        for process in &processes.waiting {
            connect(process, &other);
        }
        let lease = processes.hold(&key());
        let callers = processes.call();
        processes.commands();
        processes.holder.set(&key(), &1_u64, HOUR).expect("set");
        lease.release().expect("released");
        assert!(processes.wait(callers) <= Duration::from_millis(300));
        assert_eq!(count(&processes.commands(), "publish"), 0);
        assert_eq!(processes.runs(), 0);
        assert!(processes.waiting.iter().all(|process| process.stats().errors == 0));
    });
}

#[test]
fn holder_without_a_right_to_publish_releases_its_lease() {
    watchdog(HANG, || {
        let processes = Processes::start(2);
        let lease = processes.hold(&key());
        let callers = processes.call();
        processes.holder.set(&key(), &1_u64, HOUR).expect("set");
        let () = processes.server.ask("ACL SETUSER default -publish");
        lease.release().expect("released");
        assert!(processes.wait(callers) <= LOST);
        let lease = acquire(&processes.holder, &key()).expect("it was released");
        let () = processes.server.ask("ACL SETUSER default +publish");
        let () = processes.server.ask("FLUSHALL");
        drop(lease);
        let lease = processes.hold(&key());
        let callers = processes.call();
        processes.holder.set(&key(), &1_u64, HOUR).expect("set");
        processes.commands();
        lease.release().expect("released");
        processes.wait(callers);
        assert_eq!(count(&processes.commands(), "publish"), 2, "the script is still in use");
    });
}

#[test]
fn cancelled_waiting_caller_leaves_no_lease_and_delays_no_other() {
    watchdog(HANG, || {
        let processes = Processes::start(3);
        let lease = processes.hold(&key());
        let mut context = Context::from_waker(Waker::noop());
        for polls in 1..4 {
            let (process, runs) = (processes.waiting[0].clone(), AtomicU64::new(0));
            let mut call = pin!(async move { number_async(&process, &runs, 1).await });
            for _ in 0..polls {
                assert!(call.as_mut().poll(&mut context).is_pending());
                thread::sleep(Duration::from_millis(20));
            }
        }
        let callers = processes.call();
        lease.release().expect("released");
        assert!(processes.wait(callers) <= Duration::from_millis(300));
        assert_eq!(processes.runs(), 1);
        let names = processes.server.names();
        assert_eq!(names.iter().filter(|name| name.contains(":c:")).count(), 0, "{names:?}");
    });
}

#[test]
fn batch_is_notified_of_each_lease() {
    watchdog(HANG, || {
        let processes = Processes::start(1);
        let leases: Vec<_> = (0..3).map(|n| (n, processes.hold(&key_of(n)))).collect();
        let (process, runs) = (processes.waiting[0].clone(), Arc::clone(&processes.runs));
        let caller = thread::spawn(move || all_numbers(&process, &runs, &[0, 1, 2, 3]));
        until("it has run for the rest, and waits", || {
            processes.runs() == 1 && processes.clock.sleepers() >= 2
        });
        processes.commands();
        for (n, lease) in leases {
            processes.holder.set(&key_of(n), &n, HOUR).expect("set");
            lease.release().expect("released");
        }
        assert_eq!(caller.join().expect("values").len(), 4);
        assert_eq!(processes.runs(), 1);
        let commands = processes.commands();
        // A `set` reads as well.
        assert!(count(&commands, "mget") + count(&commands, "getrange") <= 3 + 3, "{commands:?}");
    });
}

#[test]
fn processes_on_a_cluster_are_notified() {
    watchdog(HANG, || {
        let (clock, namespace) = (ManualClock::new(), namespace());
        let open = || {
            let options = RedisOptions::new().namespace(namespace.clone()).clock(clock.clone());
            let options = options.single_flight(SingleFlight::Everywhere).lease_ttl(HOUR);
            let options = options.timeout(Duration::from_secs(10));
            let cache = options.connect_cluster(shared_cluster().urls()).expect("valid URLs");
            cache.with_max_wait(HOUR)
        };
        let [holder, waiting] = [open(), open()];
        let other = Key::from_text("other", "lease");
        let _other = acquire(&holder, &other);
        connect(&waiting, &other);
        let runs = AtomicU64::new(0);
        for n in 0..8 {
            let lease = acquire(&holder, &key_of(n)).expect("it is free");
            thread::scope(|scope| {
                let caller = scope.spawn(|| number(&waiting, &runs, n));
                until("it waits", || clock.sleepers() >= 2);
                holder.set(&key_of(n), &n, HOUR).expect("set");
                lease.release().expect("released");
                // The clock stands still, so no pause ends.
                assert_eq!(caller.join().expect("a value"), n);
            });
        }
        assert_eq!(runs.into_inner(), 0);
    });
}

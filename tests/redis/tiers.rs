//! Tiered caches over a server or a directory that processes share: a process does not return a
//! value that another one has changed.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use vayu::backend::{Backend, TieredBackend, TieredSerializer, Untiered};
use vayu::testing::{ManualClock, watchdog};
use vayu::{AnyCache, Cache, FileOptions, Key, RedisOptions, cached};

use crate::process::{self, Process};
use crate::proxy::{Proxy, Treatment};
use crate::server::{Server, shared, shared_cluster};
use crate::{HANG, namespace, until};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

#[cached(cache = cache, ttl = "1h", prefix = "tiers", skip(cache, source), tags("tag:{n}"), handle = fact_entry, log = false)]
fn fact(cache: &AnyCache, n: u64, source: u64) -> u64 {
    source
}

#[cached(cache = cache, ttl = "1h", prefix = "tiers", skip(cache, source), tags("tag:{n}"), handle = fact_async_entry, log = false)]
async fn fact_async(cache: &AnyCache, n: u64, source: u64) -> u64 {
    source
}

#[cached(cache = cache, ttl = "1m", prefix = "text", key = "text", handle = text_entry, log = false)]
fn text(cache: &AnyCache, source: &str) -> String {
    source.to_owned()
}

#[cached(cache = cache, ttl = "1m", prefix = "number", key = "number", handle = number_entry, log = false)]
fn number(cache: &AnyCache, source: u64) -> u64 {
    source
}

#[cached(cache = cache, ttl = "1m", prefix = "number", key = "number", log = false)]
async fn number_async(cache: &AnyCache, source: u64) -> u64 {
    source
}

#[cached(cache = cache, ttl = "1m", stale = "1m", prefix = "old", key = "old", log = false)]
fn old(cache: &AnyCache, source: u64) -> Option<u64> {
    Some(source)
}

fn any(backend: impl Backend<Stored = vayu::backend::TieredValue>) -> AnyCache {
    let cache: Cache<_, ()> = Cache::with_backend(vayu::backend::AnyBackend::new(backend));
    cache.with_serializer(TieredSerializer::default())
}

/// Opens a tiered cache.
fn tiered<F: Backend<Stored = Bytes>>(backing: F) -> AnyCache {
    any(TieredBackend::new(vayu::MemoryOptions::new(), backing))
}

fn untiered<F: Backend<Stored = Bytes>>(backing: F) -> AnyCache {
    any(Untiered::new(backing))
}

fn listens(cache: &AnyCache) -> bool {
    cache
        .backend()
        .capabilities()
        .invalidation_feed
        .is_some_and(vayu::backend::InvalidationFeed::is_connected)
}

/// Returns options with which a busy machine does not look like a failing server.
fn options(namespace: &str) -> RedisOptions {
    RedisOptions::new().namespace(namespace).timeout(Duration::from_secs(10))
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// The ways to change an entry of `fact`, or several.
const CHANGES: [&str; 8] =
    ["set", "refresh", "invalidate", "remove", "tag", "prefix", "all", "clear"];

fn key() -> Key {
    key_of(7)
}

/// Returns a key of `fact`, which has a tag.
fn key_of(n: u64) -> Key {
    Key::new("tiers", &(n,)).expect("a key").with_tags([format!("tag:{n}")])
}

/// Changes the entry, whose value is `source` afterwards.
fn change(cache: &AnyCache, way: &str, source: u64) {
    match way {
        "set" => cache.set(&key(), &source, HOUR).expect("set"),
        "refresh" => assert_eq!(fact_entry(cache, 7, source).refresh(), source),
        "invalidate" => drop(fact_entry(cache, 7, source).invalidate().expect("invalidate")),
        "remove" => drop(cache.remove(&key()).expect("remove")),
        "tag" => cache.invalidate_tag("tag:7").expect("tag"),
        "prefix" => cache.invalidate_prefix("tiers").expect("prefix"),
        "all" => cache.invalidate_all().expect("all"),
        "clear" => cache.clear().expect("clear"),
        _ => panic!("no way: {way}"),
    }
}

/// Does the same as [`change`] for async callers.
async fn change_async(cache: &AnyCache, way: &str, source: u64) {
    match way {
        "set" => cache.set_async(&key(), &source, HOUR).await.expect("set"),
        "refresh" => {
            assert_eq!(fact_async_entry(cache, 7, source).refresh_async().await, source);
        }
        "invalidate" => {
            fact_async_entry(cache, 7, source).invalidate_async().await.expect("invalidate");
        }
        "remove" => drop(cache.remove_async(&key()).await.expect("remove")),
        "tag" => cache.invalidate_tag_async("tag:7").await.expect("tag"),
        "prefix" => cache.invalidate_prefix_async("tiers").await.expect("prefix"),
        "all" => cache.invalidate_all_async().await.expect("all"),
        "clear" => cache.clear_async().await.expect("clear"),
        _ => panic!("no way: {way}"),
    }
}

/// Changes entries on request, in a process without a memory tier.
fn is_changer() -> bool {
    let Some(url) = process::role() else { return false };
    let (cache, runtime) = (vayu::open(url).expect("a cache"), runtime());
    process::serve(|line| {
        let (way, source) = line.split_once(' ').expect("a way and a number");
        let source = source.parse().expect("a number");
        match way.strip_suffix("_async") {
            Some(way) => runtime.block_on(change_async(&cache, way, source)),
            None => change(&cache, way, source),
        }
        "done".to_owned()
    });
    true
}

/// Checks that each way of change in another process reaches the memory of this one.
fn check_changes(test: &str, url: &str, settle: impl Fn(&AnyCache)) {
    let cache = vayu::open(format!("memory+{url}")).expect("a cache");
    until("it listens", || listens(&cache));
    let mut changer = Process::start(test, url);
    let mut source = 1;
    for way in CHANGES {
        for suffix in ["", "_async"] {
            settle(&cache);
            until("the value is in memory", || {
                let hits = cache.stats().hits;
                fact(&cache, 7, source) == source && cache.stats().hits > hits
            });
            source += 1;
            assert_eq!(changer.ask(&format!("{way}{suffix} {source}")), "done");
            let took =
                until(&format!("{way}{suffix} on {url}"), || fact(&cache, 7, source) == source);
            println!("{way}{suffix}: seen after {took:?}");
        }
    }
}

fn of_its_own(url: &str) -> String {
    format!("{url}?namespace={}", namespace())
}

#[test]
fn changes_of_another_process_reach_copies_over_a_server() {
    if is_changer() {
        return;
    }
    watchdog(HANG, || {
        let test = "tiers::changes_of_another_process_reach_copies_over_a_server";
        check_changes(test, &of_its_own(&shared().url()), |_| {});
    });
}

#[test]
fn changes_of_another_process_reach_copies_over_a_server_without_scripts() {
    if is_changer() {
        return;
    }
    watchdog(HANG, || {
        let test = "tiers::changes_of_another_process_reach_copies_over_a_server_without_scripts";
        let server = Server::with(&["--rename-command", "EVAL", ""]);
        check_changes(test, &of_its_own(&server.url()), |_| {});
    });
}

#[test]
fn changes_of_another_process_reach_copies_over_a_cluster() {
    if is_changer() {
        return;
    }
    watchdog(HANG, || {
        let test = "tiers::changes_of_another_process_reach_copies_over_a_cluster";
        let nodes = shared_cluster().0.iter().map(|node| format!("127.0.0.1:{}", node.port));
        let nodes: Vec<_> = nodes.collect();
        check_changes(test, &of_its_own(&format!("redis+cluster://{}/", nodes.join(","))), |_| {});
    });
}

#[test]
fn changes_of_another_process_reach_copies_over_a_directory() {
    if is_changer() {
        return;
    }
    watchdog(HANG, || {
        let test = "tiers::changes_of_another_process_reach_copies_over_a_directory";
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("c");
        check_changes(test, &format!("file://{}", path.display()), |_| {});
    });
}

/// A change of one entry keeps the other ones in memory.
#[test]
fn change_of_one_entry_in_a_directory_keeps_copies_of_others() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().expect("a directory");
        let clock = ManualClock::new();
        let open = || {
            let options = FileOptions::new().clock(clock.clone());
            options.open(place.path()).expect("a cache").backend().clone()
        };
        let tiers = TieredBackend::new(vayu::MemoryOptions::new(), open());
        let (cache, other) = (any(tiers.clone()), untiered(open()));
        for n in 0..100 {
            assert_eq!(fact(&cache, n, n), n);
        }
        let before = tiers.tier_stats();
        for n in 0..10 {
            other.set(&key_of(n), &(n + 1000), HOUR).unwrap();
            assert_eq!(fact_entry(&other, 50 + n, n + 1000).refresh(), n + 1000);
        }
        clock.advance(Duration::from_millis(100));
        for n in 0..100 {
            assert_eq!(
                fact(&cache, n, 0),
                if n < 10 || (50..60).contains(&n) { n % 50 + 1000 } else { n }
            );
        }
        let after = tiers.tier_stats();
        assert_eq!((after.hits - before.hits, after.misses), (20, before.misses));
    });
}

/// Returns the cached value, or the source.
type Look<'a> = &'a dyn Fn(&AnyCache, u64) -> u64;

#[test]
fn first_call_after_idle_time_sees_changes_in_a_directory() {
    if is_changer() {
        return;
    }
    watchdog(HANG, || {
        let test = "tiers::first_call_after_idle_time_sees_changes_in_a_directory";
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("c");
        let url = format!("file://{}", path.display());
        let mut changer = Process::start(test, &url);
        let runtime = runtime();
        let looks: [(&str, Look<'_>); 4] = [
            ("call", &|cache, source| fact(cache, 7, source)),
            ("async call", &|cache, source| runtime.block_on(fact_async(cache, 7, source))),
            ("peek", &|cache, source| {
                fact_entry(cache, 7, source).peek().expect("peek").unwrap_or(source)
            }),
            ("async peek", &|cache, source| {
                let entry = fact_async_entry(cache, 7, source);
                runtime.block_on(entry.peek_async()).expect("peek").unwrap_or(source)
            }),
        ];
        let mut source = 0;
        for (name, look) in looks {
            for way in CHANGES {
                let clock = ManualClock::new();
                clock.set(vayu::time::Clock::now(&vayu::time::SystemClock));
                let options = FileOptions::new().clock(clock.clone());
                let cache = tiered(options.open(&path).expect("a cache").backend().clone());
                source += 1;
                cache.set(&key(), &source, HOUR).expect("set");
                for _ in 0..3 {
                    let _ = fact_entry(&cache, 7, source).invalidate();
                    assert_eq!(fact(&cache, 7, source), source);
                    assert_eq!(fact(&cache, 7, 0), source, "it is in memory");
                }
                source += 1;
                assert_eq!(changer.ask(&format!("{way} {source}")), "done");
                clock.advance(Duration::from_millis(100));
                assert_eq!(look(&cache, source), source, "{name} after {way}");
            }
        }
    });
}

/// A future that ends after a number of polls, whether the inner one has ended or not.
struct Polled<F> {
    inner: F,
    left: usize,
}

impl<F: Future + Unpin> Future for Polled<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        match Pin::new(&mut self.inner).poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            // It is woken by the reply, or by a task that the reply has woken.
            Poll::Pending if self.left == 0 => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Checks that memory has the same value as the server after a cancelled change.
fn check_agreement(cache: &AnyCache, plain: impl Fn() -> AnyCache, what: &str) {
    let seen = |cache: &AnyCache| fact_entry(cache, 7, 0).peek().expect("peek");
    until(what, || seen(cache) == seen(&plain()));
}

#[test]
fn cancelled_change_is_not_begun_or_reaches_all_copies() {
    watchdog(HANG, || {
        let namespace = namespace();
        let open =
            || options(&namespace).connect(shared().url()).expect("a valid URL").backend().clone();
        let (cache, runtime) = (tiered(open()), runtime());
        until("it listens", || listens(&cache));
        let mut source = 1;
        for with_memory in [false, true] {
            for way in CHANGES {
                let mut polls = 1;
                loop {
                    let other = if with_memory { tiered(open()) } else { untiered(open()) };
                    source += 1;
                    cache.set(&key(), &source, HOUR).expect("set");
                    let _ = fact_entry(&cache, 7, source).refresh();
                    until("the value is in memory", || {
                        let hits = cache.stats().hits;
                        fact(&cache, 7, source) == source && cache.stats().hits > hits
                    });
                    source += 1;
                    let is_done = runtime.block_on(async {
                        // The connection is open.
                        let _ = other.get_async::<u64>(&Key::from_text("warm", "up")).await;
                        let change = Box::pin(change_async(&other, way, source));
                        let mut polled = pin!(Polled { inner: change, left: polls });
                        let done = polled.as_mut().await;
                        if done.is_none() {
                            // The server has received what was sent.
                            tokio::time::sleep(Duration::from_millis(30)).await;
                        }
                        done.is_some()
                    });
                    let what = format!("{way} that was dropped after {polls} polls");
                    check_agreement(&cache, || untiered(open()), &what);
                    check_agreement(&other, || untiered(open()), &what);
                    if is_done {
                        break;
                    }
                    polls += 1;
                }
            }
        }
    });
}

/// The reply to the first command is lost, so no later command is sent.
#[test]
fn change_of_a_killed_process_reaches_all_copies() {
    if is_changer() {
        return;
    }
    watchdog(HANG, || {
        let test = "tiers::change_of_a_killed_process_reaches_all_copies";
        for way in CHANGES {
            for suffix in ["", "_async"] {
                let namespace = namespace();
                let server = shared();
                let open = || {
                    options(&namespace)
                        .connect(server.url())
                        .expect("a valid URL")
                        .backend()
                        .clone()
                };
                let cache = tiered(open());
                until("it listens", || listens(&cache));
                let proxy = Proxy::before(server.port);
                let url = format!("{}?namespace={namespace}&timeout=60s", proxy.url());
                let mut changer = Process::start(test, &url);
                // Its connections are open, and its generations are cached for a moment.
                assert_eq!(changer.ask("remove 0"), "done");
                assert_eq!(changer.ask("remove_async 0"), "done");
                cache.set(&key(), &1_u64, HOUR).expect("set");
                let _ = fact_entry(&cache, 7, 1).refresh();
                until("the value is in memory", || {
                    let hits = cache.stats().hits;
                    fact(&cache, 7, 1) == 1 && cache.stats().hits > hits
                });
                let truth = || fact_entry(&untiered(open()), 7, 0).peek().expect("peek");
                let before = truth();
                proxy.treat(Treatment { swallow: true, ..Treatment::default() });
                changer.send(&format!("{way}{suffix} 2"));
                // Some of these read generations first, and stop there.
                let is_changed = (0..200).any(|_| {
                    std::thread::sleep(Duration::from_millis(1));
                    truth() != before
                });
                changer.kill();
                check_agreement(&cache, || untiered(open()), &format!("{way}{suffix}"));
                println!("{way}{suffix}: changed {is_changed}");
            }
        }
    });
}

/// The clock is stopped, so that nothing expires.
#[test]
fn invalidation_of_any_group_is_seen_with_its_message() {
    watchdog(HANG, || {
        let namespace = namespace();
        let clock = ManualClock::new();
        let open = || {
            let options = options(&namespace).clock(clock.clone());
            options.connect(shared().url()).expect("a valid URL").backend().clone()
        };
        let (cache, other, runtime) = (tiered(open()), tiered(open()), runtime());
        until("both listen", || listens(&cache) && listens(&other));
        let mut source = 1;
        for way in ["tag", "prefix", "all", "clear", "remove"] {
            for is_async in [false, true] {
                until("the value is in memory", || {
                    let hits = cache.stats().hits;
                    fact(&cache, 7, source) == source && cache.stats().hits > hits
                });
                source += 1;
                if is_async {
                    runtime.block_on(change_async(&other, way, source));
                } else {
                    change(&other, way, source);
                }
                // An invalidation that is not seen with its message never is.
                until(&format!("{way}, {is_async}"), || fact(&cache, 7, source) == source);
            }
        }
    });
}

/// Two machines whose clocks differ, with tiered caches on one server.
struct Machines {
    server: Server,
    clocks: [ManualClock; 2],
    caches: [AnyCache; 2],
}

impl Machines {
    /// Creates machines of which the first one has the later clock.
    fn new(ahead: Duration) -> Self {
        let server = Server::start();
        let clocks = [ManualClock::new(), ManualClock::new()];
        clocks[0].advance(ahead);
        let caches = clocks.clone().map(|clock| {
            let options = RedisOptions::new().clock(clock);
            tiered(options.connect(server.url()).expect("a valid URL").backend().clone())
        });
        until("both listen", || caches.iter().all(listens));
        Self { server, clocks, caches }
    }

    fn pass(&self, time: Duration) {
        self.clocks.iter().for_each(|clock| clock.advance(time));
    }

    /// Removes the entry, as the server does by its own clock.
    fn expire(&self) {
        let () = self.server.ask("FLUSHALL");
    }
}

#[test]
fn copy_expires_by_its_ttl_if_the_clock_of_its_writer_is_ahead() {
    watchdog(HANG, || {
        let runtime = runtime();
        for minutes in [1_u32, 4, 5] {
            let machines = Machines::new(minutes * MINUTE);
            let [writer, reader] = &machines.caches;
            assert_eq!(number(writer, 1), 1);
            assert_eq!(text(writer, "a"), "a");
            assert_eq!(number(reader, 2), 1);
            assert_eq!(text(reader, "b"), "a");
            for _ in 0..200 {
                assert_eq!(number(reader, 2), 1, "until it is read without a lock");
            }
            assert_eq!(number_entry(reader, 2).ttl_left().unwrap(), Some(MINUTE));
            assert_eq!(text_entry(reader, "b").ttl_left().unwrap(), Some(MINUTE));
            assert_eq!(number_entry(reader, 2).age().unwrap(), Some(Duration::ZERO));
            machines.pass(Duration::from_secs(59));
            assert_eq!(runtime.block_on(number_async(reader, 2)), 1);
            let left = number_entry(reader, 2).ttl_left().unwrap();
            assert_eq!(left, Some(Duration::from_secs(1)));
            machines.pass(Duration::from_secs(1));
            machines.expire();
            assert_eq!(number_entry(reader, 3).peek().unwrap(), None);
            assert_eq!(runtime.block_on(number_async(reader, 3)), 3);
            assert_eq!(text(reader, "c"), "c");
        }
    });
}

#[test]
fn copy_is_not_served_stale_too_long_if_the_clock_of_its_writer_is_ahead() {
    watchdog(HANG, || {
        let machines = Machines::new(4 * MINUTE);
        let [writer, reader] = &machines.caches;
        assert_eq!(old(writer, 1), Some(1));
        assert_eq!(old(reader, 2), Some(1));
        machines.pass(2 * MINUTE);
        machines.expire();
        assert_eq!(old(reader, 3), Some(3));
    });
}

#[test]
fn entry_is_not_served_longer_if_the_clock_of_its_writer_is_behind() {
    watchdog(HANG, || {
        let machines = Machines::new(4 * MINUTE);
        let [reader, writer] = &machines.caches;
        assert_eq!((number(writer, 1), text(writer, "a")), (1, "a".to_owned()));
        // By this clock it has expired, so it is computed again.
        assert_eq!((number(reader, 2), text(reader, "b")), (2, "b".to_owned()));
        machines.pass(MINUTE);
        machines.expire();
        assert_eq!((number(reader, 3), text(reader, "c")), (3, "c".to_owned()));
        assert_eq!((number(writer, 4), text(writer, "d")), (3, "c".to_owned()));
    });
}

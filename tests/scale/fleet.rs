//! The nodes of a fleet: caches with memory in front of one server.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use vayu::backend::{Backend, InvalidationFeed, RedisBackend};
use vayu::testing::ManualClock;
use vayu::time::Clock;
use vayu::{Key, MemoryOptions, RedisOptions, SingleFlight, TieredCache, TieredOptions, cached};

use crate::model_server::{Counts, ModelServer};

/// The longest time for which a node serves a copy.
pub(crate) const NEAR_TTL: Duration = Duration::from_secs(60);

type Node = TieredCache<RedisBackend>;

/// The source of the values, which all nodes have in common.
struct Source {
    clock: ManualClock,
    /// The current version of each value, and the number of runs that have read it.
    values: Mutex<HashMap<u64, (u64, u64)>>,
    delay: Mutex<Duration>,
}

impl Source {
    /// Returns the current version of a value, after the delay.
    async fn load(&self, n: u64) -> u64 {
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            self.clock.sleep(delay).await;
        }
        let mut values = self.values.lock().unwrap();
        let (version, runs) = values.entry(n).or_default();
        *runs += 1;
        *version
    }

    fn version(&self, n: u64) -> u64 {
        self.values.lock().unwrap().get(&n).copied().unwrap_or_default().0
    }
}

#[cached(cache = node, ttl = "1d", prefix = "item", skip(node, source), log = false)]
async fn item(node: &Node, source: &Source, n: u64) -> u64 {
    source.load(n).await
}

fn key(n: u64) -> Key {
    Key::new("item", &(n,)).expect("a number is a key")
}

pub(crate) struct Fleet {
    server: ModelServer,
    clock: ManualClock,
    source: Arc<Source>,
    nodes: Vec<Node>,
    /// The number of nodes that [`cut_third`](Self::cut_third) cuts off, which are the first ones.
    third: usize,
    is_cut: AtomicUsize,
    runtime: Runtime,
}

impl Fleet {
    pub(crate) fn start(number: usize) -> Self {
        allow_files(8 * number as u64 + 200);
        let (server, clock) = (ModelServer::start(), ManualClock::new());
        let third = number / 3;
        let open = |index: usize| {
            let options = RedisOptions::new().namespace("fleet").clock(clock.clone());
            // A machine that simulates many nodes is slow.
            let options = options.timeout(Duration::from_secs(20));
            let options = options.single_flight(SingleFlight::Everywhere);
            let options = options.lease_ttl(Duration::from_secs(3600));
            let redis = options.connect(server.url(usize::from(index < third)));
            let memory = MemoryOptions::new().max_entries(1000);
            let options = TieredOptions::new().memory(memory).near_ttl(NEAR_TTL);
            options.over(&redis.expect("a valid URL")).with_max_wait(Duration::from_secs(3600))
        };
        let nodes = (0..number).map(open).collect();
        let source =
            Source { clock: clock.clone(), values: Mutex::default(), delay: Mutex::default() };
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let (source, is_cut) = (Arc::new(source), AtomicUsize::new(0));
        Self { server, clock, source, nodes, third, is_cut, runtime }
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Returns what the server has counted in the meantime.
    pub(crate) fn measure(&self, work: impl FnOnce()) -> Counts {
        let before = self.server.counts();
        work();
        self.server.counts() - before
    }

    pub(crate) fn connections(&self) -> usize {
        self.server.connections()
    }

    pub(crate) fn values(&self) -> usize {
        self.server.values()
    }

    pub(crate) fn unknown_commands(&self) -> Vec<String> {
        self.server.unknown()
    }

    /// Returns the number of times that a value was loaded from the source.
    pub(crate) fn runs(&self, n: u64) -> u64 {
        self.source.values.lock().unwrap().get(&n).copied().unwrap_or_default().1
    }

    /// Returns the number of nodes that are cut off.
    pub(crate) fn cut_off(&self) -> usize {
        self.is_cut.load(Ordering::SeqCst)
    }

    fn connected(&self) -> &[Node] {
        &self.nodes[self.cut_off()..]
    }

    /// Waits until each node that is not cut off receives messages and reaches the server.
    pub(crate) fn connect(&self) {
        for node in self.connected() {
            until(|| {
                let feed = node.backend().capabilities().invalidation_feed;
                feed.is_some_and(InvalidationFeed::is_connected)
            });
        }
        // A circuit breaker may still be open.
        self.run(self.connected(), |node, _| async move {
            while node.get_async::<u64>(&Key::from_text("item", "none")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            0
        });
    }

    /// Runs a task on each of these nodes, and advances the clock until all have ended.
    fn run<F>(&self, nodes: &[Node], task: impl Fn(Node, Arc<Source>) -> F) -> Vec<u64>
    where
        F: Future<Output = u64> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for node in nodes {
            tasks.spawn_on(task(node.clone(), Arc::clone(&self.source)), self.runtime.handle());
        }
        let mut outputs = Vec::new();
        let is_slow = !self.source.delay.lock().unwrap().is_zero();
        while !tasks.is_empty() {
            while let Some(output) = tasks.try_join_next() {
                outputs.push(output.expect("no panic"));
            }
            thread::sleep(Duration::from_millis(1));
            if !is_slow {
                self.clock.advance(Duration::from_millis(1));
            } else if self.clock.sleepers() > nodes.len() {
                // Most of the nodes wait.
                self.clock.advance(Duration::from_millis(50));
            }
        }
        outputs
    }

    /// Calls the function on each node, with a source that takes `delay`.
    pub(crate) fn call_all(&self, n: u64, delay: Duration) {
        *self.source.delay.lock().unwrap() = delay;
        let call =
            move |node: Node, source: Arc<Source>| async move { item(&node, &source, n).await };
        let outputs = self.run(&self.nodes, call);
        *self.source.delay.lock().unwrap() = Duration::ZERO;
        let version = self.source.version(n);
        assert!(outputs.iter().all(|output| *output == version), "{outputs:?}");
    }

    /// Makes calls on each node, of which some are much more frequent than others.
    pub(crate) fn zipf(&self, calls: usize, keys: u64) {
        let seed = AtomicU64::new(1);
        self.run(&self.nodes, |node, source| {
            let mut random = seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            async move {
                let weights: Vec<u64> = (1..=keys).map(|n| 1_000_000 / n).collect();
                let sum: u64 = weights.iter().sum();
                for _ in 0..calls {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let mut left = (random >> 11) % sum;
                    let n = weights.iter().position(|&weight| {
                        let is_here = left < weight;
                        left = left.saturating_sub(weight);
                        is_here
                    });
                    item(&node, &source, n.map_or(keys, |n| n as u64 + 1)).await;
                }
                0
            }
        });
    }

    /// Changes a value in the source.
    pub(crate) fn change(&self, n: u64) {
        self.source.values.lock().unwrap().entry(n).or_default().0 += 1;
    }

    /// Removes a value on one node.
    pub(crate) fn invalidate(&self, n: u64) {
        let node = self.connected().last().expect("a node");
        self.runtime.block_on(node.remove_async(&key(n))).expect("the server is there");
    }

    /// Calls on each node that is not cut off until it returns the current value, which it does from then on.
    pub(crate) fn call_until_current(&self, n: u64) {
        let version = self.source.version(n);
        self.run(self.connected(), |node, source| async move {
            loop {
                let found = item(&node, &source, n).await;
                assert!(found == version || found + 1 == version, "{found}");
                if found == version {
                    return item(&node, &source, n).await;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .into_iter()
        .for_each(|found| assert_eq!(found, version));
    }

    /// Asserts that each node returns the current value.
    pub(crate) fn assert_current(&self, n: u64) {
        self.call_all(n, Duration::ZERO);
    }

    pub(crate) fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }

    pub(crate) fn lose_data(&self) {
        self.server.clear();
    }

    pub(crate) fn cut_third(&self) {
        self.is_cut.store(self.third, Ordering::SeqCst);
        self.server.cut(1);
        await_loss(&self.nodes[..self.third]);
    }

    pub(crate) fn cut_all(&self) {
        self.is_cut.store(self.nodes.len(), Ordering::SeqCst);
        self.server.cut(0);
        self.server.cut(1);
        await_loss(&self.nodes);
    }

    /// Ends all partitions, and waits until each node is connected.
    pub(crate) fn heal_all(&self) {
        self.server.heal(0);
        self.server.heal(1);
        self.is_cut.store(0, Ordering::SeqCst);
        self.connect();
    }
}

/// Waits until these nodes have noticed that they are cut off.
fn await_loss(nodes: &[Node]) {
    for node in nodes {
        let feed = || node.backend().capabilities().invalidation_feed;
        until(|| !feed().is_some_and(InvalidationFeed::is_connected));
    }
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Raises the number of files that this process may open.
fn allow_files(number: u64) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < number) {
        limit.current = Some(limit.maximum.map_or(number, |maximum| maximum.min(number)));
        setrlimit(Resource::Nofile, limit).expect("the limit of open files");
    }
}

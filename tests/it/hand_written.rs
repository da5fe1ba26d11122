//! A backend as a user would write it: bytes in a map, by the digest of the key.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use vayu::backend::{Backend, Capabilities, Generations, Group, Record, SerializerId};
use vayu::testing::ManualClock;
use vayu::time::{Clock, Timestamp};
use vayu::{Cache, Json, Key, MessagePack, Result, cached};

use crate::Runs;

/// Stores entries as bytes, including their times.
pub(crate) struct Ledger {
    pages: Mutex<BTreeMap<[u8; 32], Vec<u8>>>,
    /// By the id of the group.
    generations: Mutex<BTreeMap<u64, u64>>,
    bumps: AtomicU64,
    clock: ManualClock,
}

impl Ledger {
    pub(crate) fn new(clock: ManualClock) -> Self {
        Self {
            pages: Mutex::default(),
            generations: Mutex::default(),
            bumps: AtomicU64::new(0),
            clock,
        }
    }
}

fn encode(record: &Record<Bytes>) -> Vec<u8> {
    let mut page = Vec::new();
    for time in [record.created(), record.expires(), record.stale_until()] {
        page.extend_from_slice(&time.as_micros().to_le_bytes());
    }
    page.extend_from_slice(&record.schema().to_le_bytes());
    let compute_time = u64::try_from(record.compute_time().as_micros()).expect("a short time");
    page.extend_from_slice(&compute_time.to_le_bytes());
    page.extend_from_slice(&record.serializer().as_u16().to_le_bytes());
    page.extend_from_slice(record.value());
    page
}

fn decode(page: &[u8]) -> Record<Bytes> {
    let word = |n: usize| page[8 * n..8 * n + 8].try_into().expect("eight bytes");
    let time = |n| Timestamp::from_micros(i64::from_le_bytes(word(n)));
    Record::new(Bytes::copy_from_slice(&page[42..]), time(0), time(1))
        .with_stale_until(time(2))
        .with_schema(u64::from_le_bytes(word(3)))
        .with_compute_time(Duration::from_micros(u64::from_le_bytes(word(4))))
        .with_serializer(SerializerId::from_u16(u16::from_le_bytes([page[40], page[41]])))
}

impl Generations for Ledger {
    fn generation(&self, group: Group) -> Result<u64> {
        let generations = self.generations.lock().expect("no panic under the lock");
        Ok(generations.get(&group.number()).copied().unwrap_or(0))
    }

    fn bump(&self, group: Group) -> Result<()> {
        let generation = self.bumps.fetch_add(1, Ordering::Relaxed) + 1;
        let mut generations = self.generations.lock().expect("no panic under the lock");
        generations.insert(group.number(), generation);
        Ok(())
    }
}

#[async_trait]
impl Backend for Ledger {
    type Stored = Bytes;

    fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        let pages = self.pages.lock().expect("no panic under the lock");
        Ok(pages.get(&key.digest()).map(|page| decode(page)))
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        let page = encode(&record);
        self.pages.lock().expect("no panic under the lock").insert(key.digest(), page);
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        let mut pages = self.pages.lock().expect("no panic under the lock");
        Ok(pages.remove(&key.digest()).is_some())
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        tokio::task::yield_now().await;
        self.read(key)
    }

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        tokio::task::yield_now().await;
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        tokio::task::yield_now().await;
        self.delete(key)
    }

    fn capabilities(&self) -> Capabilities<'_, Bytes> {
        Capabilities::none().with_generations(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(self.clock.clone())
    }
}

vayu::testing::backend_tests! {
    conformance,
    vayu::MessagePack,
    |clock| ((), super::super::Ledger::new(clock))
}

#[test]
fn cached_functions_keep_their_results_in_it() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1m", skip(cache))]
    fn packed(cache: &Cache<Ledger, MessagePack>, n: u64) -> Vec<String> {
        RUNS.count();
        vec![n.to_string()]
    }
    #[cached(cache = cache, ttl = "1m", skip(cache), serializer = Json)]
    async fn json(cache: &Cache<Ledger, MessagePack>, n: u64) -> Result<Vec<String>, String> {
        RUNS.count();
        Ok(vec![n.to_string()])
    }
    let clock = ManualClock::new();
    let cache = Cache::with_backend(Ledger::new(clock.clone()));
    for _ in 0..2 {
        assert_eq!(packed(&cache, 7), ["7"]);
        assert_eq!(smol::block_on(json(&cache, 7)), Ok(vec!["7".to_owned()]));
    }
    assert_eq!(RUNS.get(), 2);
    let pages: Vec<Vec<u8>> =
        cache.backend().pages.lock().expect("no panic").values().cloned().collect();
    assert!(pages.iter().any(|page| page.ends_with(b"[\"7\"]")), "one page is JSON");
    clock.advance(std::time::Duration::from_secs(60));
    packed(&cache, 7);
    assert_eq!(RUNS.get(), 3);
}

#[test]
fn thousand_tasks_compute_once_although_reads_and_writes_wait() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = 60, key = "k")]
    async fn call(cache: Cache<Ledger, MessagePack>) -> usize {
        tokio::task::yield_now().await;
        RUNS.count()
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    let cache = Cache::with_backend(Ledger::new(ManualClock::new()));
    runtime.expect("a runtime").block_on(async {
        let tasks: Vec<_> = (0..1000).map(|_| tokio::spawn(call(cache.clone()))).collect();
        for task in tasks {
            assert_eq!(task.await.expect("no panic"), 1);
        }
    });
    let stats = cache.stats();
    assert_eq!((stats.misses, stats.calls(), stats.in_flight), (1, 1000, 0));
}

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use vayu_core::testing::MapBackend;
use vayu_core::{Cache, MessagePack, Serializer};

use super::*;
use crate::serializer::TieredSerializer;

/// A tier below whose changes are found when they are looked for.
#[derive(Debug, Clone, Default)]
struct Searched {
    map: MapBackend,
    search: Arc<Search>,
}

#[derive(Default)]
struct Search {
    watcher: Mutex<Option<Weak<dyn InvalidationListener>>>,
    /// What is found by the next look.
    change: Mutex<Option<Invalidation>>,
    panics: AtomicBool,
}

impl fmt::Debug for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Search")
    }
}

#[async_trait]
impl Backend for Searched {
    type Stored = Bytes;

    fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        self.map.read(key)
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        self.map.write(key, record)
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        self.map.delete(key)
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        self.read(key)
    }

    async fn write_async(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }

    fn sharing(&self) -> Sharing<'_, Bytes> {
        Sharing::none().with_invalidation_feed(&*self.search)
    }
}

impl InvalidationFeed for Search {
    fn subscribe(&self, watcher: Weak<dyn InvalidationListener>) {
        *self.watcher.lock().unwrap() = Some(watcher);
    }

    fn poll(&self) {
        assert!(!self.panics.load(Ordering::Relaxed), "looking for changes");
        if let Some(change) = self.change.lock().unwrap().take() {
            let watcher = self.watcher.lock().unwrap().clone().unwrap();
            watcher.upgrade().unwrap().on_invalidation(change);
        }
    }
}

type TieredCache = Cache<TieredBackend<Searched>, TieredSerializer<MessagePack>>;

const HOUR: Duration = Duration::from_secs(3600);

fn key() -> Key {
    Key::from_text("number", "one")
}

/// A cache, and another one before it on the same tier below, which has stored a number.
fn cache_and_other() -> (TieredCache, TieredCache) {
    let backing = Searched::default();
    let with = |backing| Cache::with_backend(TieredBackend::new(MemoryOptions::new(), backing));
    let other: TieredCache = with(backing.clone());
    other.set(&key(), &1_u64, HOUR).unwrap();
    (with(backing), other)
}

/// Asks until the number is seen at a glance.
fn ask(cache: &TieredCache, number: u64) {
    for _ in 0..100 {
        assert_eq!(cache.get_or_insert_with(&key(), HOUR, || 1_u64), number);
        if let Some(record) = cache.backend().read_optimistic(&key()) {
            let seen: u64 = cache.serializer().deserialize(record.value()).unwrap();
            return assert_eq!(seen, number);
        }
    }
    panic!("it is never seen");
}

#[test]
fn number_of_the_backing_tier_is_read_without_a_lock_until_it_changes() {
    let (cache, other) = cache_and_other();
    ask(&cache, 1);
    assert_eq!(cache.backend().tier_stats().hits, 1);
    let place = start(&key());
    let changes = [Invalidation::KeySlot(place), Invalidation::All];
    for (change, number) in changes.into_iter().zip(2..) {
        other.set(&key(), &number, HOUR).unwrap();
        cache.backend().shared.on_invalidation(Invalidation::KeySlot([!place[0], place[1]]));
        ask(&cache, number - 1);
        cache.backend().shared.on_invalidation(change);
        assert!(cache.backend().read_optimistic(&key()).is_none(), "{change:?}");
        ask(&cache, number);
    }
    cache.set(&key(), &9_u64, HOUR).unwrap();
    assert!(cache.backend().read_optimistic(&key()).is_none());
    ask(&cache, 9);
    cache.remove(&key()).unwrap();
    assert!(cache.backend().read_optimistic(&key()).is_none());
    ask(&cache, 1);
    let clearing = cache.backend().begin_clear().unwrap();
    cache.backend().cleared(clearing, Ok(())).unwrap();
    assert!(cache.backend().read_optimistic(&key()).is_none());
}

#[test]
fn feed_is_polled_before_a_lock_free_read() {
    let (cache, other) = cache_and_other();
    ask(&cache, 1);
    other.set(&key(), &2_u64, HOUR).unwrap();
    *cache.backend().backing().search.change.lock().unwrap() = Some(Invalidation::All);
    assert_eq!(cache.get_or_insert_with(&key(), HOUR, || 3_u64), 2);
}

#[test]
fn panic_while_the_feed_is_polled_does_not_fail_the_call() {
    let (cache, _other) = cache_and_other();
    ask(&cache, 1);
    cache.backend().backing().search.panics.store(true, Ordering::Relaxed);
    assert_eq!(cache.get_or_insert_with(&key(), HOUR, || 1_u64), 1);
    assert_eq!(cache.stats().errors_of(vayu_core::ErrorKind::Panic), 1);
}

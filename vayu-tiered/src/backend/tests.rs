use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use vayu_core::testing::{MapBackend, watchdog};
use vayu_core::{Cache, Error, ErrorKind, MessagePack, Serializer, SerializerId};
use vayu_memory::MemoryBackend;

use super::*;
use crate::serializer::TieredSerializer;

/// A backing tier with a feed that returns invalidations when it is polled.
#[derive(Debug, Clone, Default)]
struct PolledBackend {
    map: MapBackend,
    feed: Arc<Feed>,
}

#[derive(Default)]
struct Feed {
    listener: Mutex<Option<Weak<dyn InvalidationListener>>>,
    /// The invalidation that the next poll returns.
    invalidation: Mutex<Option<Invalidation>>,
    panics: AtomicBool,
}

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}

#[async_trait]
impl Backend for PolledBackend {
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

    fn capabilities(&self) -> Capabilities<'_, Bytes> {
        Capabilities::none().with_invalidation_feed(&*self.feed)
    }
}

impl InvalidationFeed for Feed {
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>) {
        *self.listener.lock().unwrap() = Some(listener);
    }

    fn poll(&self) {
        assert!(!self.panics.load(Ordering::Relaxed), "polling the feed");
        if let Some(invalidation) = self.invalidation.lock().unwrap().take() {
            let listener = self.listener.lock().unwrap().clone().unwrap();
            listener.upgrade().unwrap().on_invalidation(invalidation);
        }
    }
}

type TieredCache = Cache<TieredBackend<PolledBackend>, TieredSerializer<MessagePack>>;

const HOUR: Duration = Duration::from_secs(3600);

fn key() -> Key {
    Key::from_text("number", "one")
}

/// Returns a cache, and another one with the same backing tier, which has stored a number.
fn cache_and_other() -> (TieredCache, TieredCache) {
    let backing = PolledBackend::default();
    let with = |backing| Cache::with_backend(TieredBackend::new(MemoryOptions::new(), backing));
    let other: TieredCache = with(backing.clone());
    other.set(&key(), &1_u64, HOUR).unwrap();
    (with(backing), other)
}

/// Calls until the number is read without a lock.
fn call_until_lock_free(cache: &TieredCache, number: u64) {
    for _ in 0..100 {
        assert_eq!(cache.get_or_insert_with(&key(), HOUR, || 1_u64), number);
        if let Some(record) = cache.backend().read_optimistic(&key()) {
            let seen: u64 = record.value().downcast().unwrap();
            return assert_eq!(seen, number);
        }
    }
    panic!("it is never read without a lock");
}

#[test]
fn number_of_the_backing_tier_is_read_without_a_lock_until_it_changes() {
    let (cache, other) = cache_and_other();
    call_until_lock_free(&cache, 1);
    assert_eq!(cache.backend().tier_stats().hits, 1);
    let slot = key_slot(&key());
    let changes = [Invalidation::KeySlot(slot), Invalidation::All];
    for (change, number) in changes.into_iter().zip(2..) {
        other.set(&key(), &number, HOUR).unwrap();
        cache.backend().tiers.on_invalidation(Invalidation::KeySlot([!slot[0], slot[1]]));
        call_until_lock_free(&cache, number - 1);
        cache.backend().tiers.on_invalidation(change);
        assert!(cache.backend().read_optimistic(&key()).is_none(), "{change:?}");
        call_until_lock_free(&cache, number);
    }
    cache.set(&key(), &9_u64, HOUR).unwrap();
    call_until_lock_free(&cache, 9);
    cache.remove(&key()).unwrap();
    assert!(cache.backend().read_optimistic(&key()).is_none());
    call_until_lock_free(&cache, 1);
    let guard = cache.backend().tiers.begin_clear().unwrap();
    cache.backend().tiers.finish_clear(guard, Ok(())).unwrap();
    assert!(cache.backend().read_optimistic(&key()).is_none());
}

#[test]
fn feed_is_polled_before_a_lock_free_read() {
    let (cache, other) = cache_and_other();
    call_until_lock_free(&cache, 1);
    other.set(&key(), &2_u64, HOUR).unwrap();
    *cache.backend().backing().feed.invalidation.lock().unwrap() = Some(Invalidation::All);
    assert_eq!(cache.get_or_insert_with(&key(), HOUR, || 3_u64), 2);
}

#[test]
fn panic_while_the_feed_is_polled_does_not_fail_the_call() {
    let (cache, _other) = cache_and_other();
    call_until_lock_free(&cache, 1);
    cache.backend().backing().feed.panics.store(true, Ordering::Relaxed);
    assert_eq!(cache.get_or_insert_with(&key(), HOUR, || 1_u64), 1);
    assert_eq!(cache.stats().errors_of(vayu_core::ErrorKind::Panic), 1);
}

/// A serializer that uses the cache while it decodes.
#[derive(Debug, Clone, Default)]
struct Reentrant;

static REENTRANT: OnceLock<Cache<TieredBackend<MapBackend>, TieredSerializer<Reentrant>>> =
    OnceLock::new();

impl Serializer<String> for Reentrant {
    type Stored = Bytes;

    fn id(&self) -> SerializerId {
        SerializerId::user(1)
    }

    fn serialize(&self, value: &String) -> Result<Bytes> {
        Ok(Bytes::copy_from_slice(value.as_bytes()))
    }

    fn deserialize(&self, stored: &Bytes) -> Result<String> {
        if let Some(cache) = REENTRANT.get() {
            cache.backend().tiers.memory.delete(&key())?;
        }
        Ok(String::from_utf8_lossy(stored).into_owned())
    }
}

#[test]
fn value_of_the_backing_tier_is_decoded_under_no_lock_of_memory() {
    watchdog(Duration::from_secs(60), || {
        let backing = MapBackend::default();
        let with = |backing| Cache::with_backend(TieredBackend::new(MemoryOptions::new(), backing));
        let other: Cache<_, TieredSerializer<Reentrant>> = with(backing.clone());
        other.set(&key(), &"text".to_owned(), HOUR).unwrap();
        let cache = REENTRANT.get_or_init(|| with(backing));
        // Memory has a copy that nothing has decoded.
        assert!(Backend::read(cache.backend(), &key()).unwrap().is_some());
        let text = cache.get_or_insert_with(&key(), HOUR, || "computed".to_owned());
        assert_eq!(text, "text");
        assert_eq!(cache.backend().tier_stats().hits, 1, "it was in memory");
    });
}

/// A backing tier with generations that can be unreachable, or refuse to bump them.
#[derive(Debug, Clone, Default)]
struct Server {
    map: MapBackend,
    is_away: Arc<AtomicBool>,
    refuses: Arc<AtomicBool>,
}

impl Server {
    fn check(&self) -> Result<()> {
        fail_if(&self.is_away)
    }

    fn generations(&self) -> &dyn Generations {
        self.map.capabilities().generations.unwrap()
    }
}

fn fail_if(planned: &AtomicBool) -> Result<()> {
    if planned.load(Ordering::SeqCst) {
        return Err(Error::new(ErrorKind::Backend, "planned failure"));
    }
    Ok(())
}

#[async_trait]
impl Backend for Server {
    type Stored = Bytes;

    fn read(&self, key: &Key) -> Result<Option<Record<Bytes>>> {
        self.check()?;
        self.map.read(key)
    }

    fn write(&self, key: &Key, record: Record<Bytes>) -> Result<()> {
        self.check()?;
        self.map.write(key, record)
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        self.check()?;
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

    fn capabilities(&self) -> Capabilities<'_, Bytes> {
        Capabilities::none().with_generations(self)
    }
}

#[async_trait]
impl Generations for Server {
    fn generation(&self, group: Group) -> Result<u64> {
        self.check()?;
        self.generations().generation(group)
    }

    fn bump(&self, group: Group) -> Result<()> {
        self.check()?;
        fail_if(&self.refuses)?;
        self.generations().bump(group)
    }
}

type ServerCache = Cache<TieredBackend<Server>, TieredSerializer<MessagePack>>;

fn server_cache() -> (Server, ServerCache) {
    let server = Server::default();
    (server.clone(), Cache::with_backend(TieredBackend::new(MemoryOptions::new(), server)))
}

#[test]
fn value_that_was_cached_offline_is_not_served_after_an_invalidation_without_a_bump() {
    let (server, cache) = server_cache();
    server.is_away.store(true, Ordering::SeqCst);
    let key = key().with_tags(["tag"]);
    let call = |value: u64| cache.get_or_insert_with(&key, HOUR, || value);
    assert_eq!((call(1), call(2)), (1, 1), "memory is used alone");
    for n in 0..3 {
        // In the backoff of the first one, no generation is bumped.
        assert!(cache.invalidate_tag("other").is_err());
        assert!(cache.invalidate_tag("tag").is_err());
        assert_eq!((call(10 + n), call(20)), (10 + n, 10 + n));
    }
}

#[test]
fn value_that_was_cached_offline_is_not_served_after_an_invalidation_between_two_outages() {
    let (server, cache) = server_cache();
    server.is_away.store(true, Ordering::SeqCst);
    let key = key().with_tags(["tag"]);
    let call = |value: u64| cache.get_or_insert_with(&key, HOUR, || value);
    assert_eq!((call(1), call(2)), (1, 1));
    server.is_away.store(false, Ordering::SeqCst);
    cache.invalidate_tag("tag").unwrap();
    server.is_away.store(true, Ordering::SeqCst);
    assert_eq!(call(3), 3);
}

#[test]
fn bump_that_fails_keeps_the_memory() {
    let (server, cache) = server_cache();
    cache.set(&key(), &1_u64, HOUR).unwrap();
    server.refuses.store(true, Ordering::SeqCst);
    assert!(cache.invalidate_tag("tag").is_err());
    let call = || cache.get_or_insert_with(&key(), HOUR, || 2_u64);
    assert_eq!((call(), cache.backend().tier_stats().hits), (1, 0), "it is in memory");
}

/// A backing tier that reports a usage with a number in each field.
#[derive(Debug, Default)]
struct Measured(MapBackend);

#[async_trait]
impl Backend for Measured {
    type Stored = Bytes;

    fn capabilities(&self) -> Capabilities<'_, Bytes> {
        Capabilities::none().with_usage(self)
    }

    vayu_core::forward_backend! { |this| this.0 => read write delete read_async write_async delete_async clock }
}

impl ReportUsage for Measured {
    fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        usage.entries = Some(1001);
        usage.max_entries = Some(1002);
        usage.weight = Some(1003);
        usage.max_weight = Some(1004);
        usage.max_entry_bytes = Some(1005);
        usage.evictions = Some(1006);
        usage.rejections = Some(1007);
        usage.expirations = Some(1008);
        usage.corrupt_entries = Some(1009);
        usage.opened_with_old_keys = Some(1010);
        usage.sweeps = Some(1011);
        usage
    }
}

#[test]
fn usage_is_that_of_memory_with_the_corrupt_entries_of_the_backing_tier() {
    let options = || MemoryOptions::new().max_entries(10).max_weight(100, |_, _| 1);
    let usage = BackendExt::usage(&TieredBackend::new(options(), Measured::default()));
    let memory = MemoryBackend::<TieredValue>::with_options(options());
    let mut expected = BackendExt::usage(&memory);
    expected.max_entry_bytes = Some(1005);
    expected.corrupt_entries = Some(1009);
    expected.opened_with_old_keys = Some(1010);
    assert_eq!(usage, expected);
}

#[test]
fn error_of_the_backing_tier_is_returned_if_memory_cannot_store_the_value_either() {
    let server = Server::default();
    let memory = MemoryOptions::new().max_weight(100, |_, _| panic!("planned panic of a weight"));
    let cache: ServerCache = Cache::with_backend(TieredBackend::new(memory, server.clone()));
    let set = || cache.set(&key(), &1_u64, HOUR).expect_err("not stored").kind();
    assert_eq!(set(), ErrorKind::Panic, "the backing tier has stored it");
    let other = TieredBackend::new(MemoryOptions::new(), server.clone());
    let record = Backend::read(&other, &key()).unwrap().expect("a record");
    server.is_away.store(true, Ordering::SeqCst);
    assert_eq!(set(), ErrorKind::Backend);
    let written = Batches::write_many(cache.backend(), vec![(&key(), record)]);
    assert_eq!(written[0].as_ref().unwrap_err().kind(), ErrorKind::Backend, "in a batch");
}

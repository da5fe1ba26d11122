//! `revalidate` and `vayu::previous`: functions that ask for the value that they replace.

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vayu::backend::{
    Backend, Bytes, EntryContext, Serializer, SerializerId, TieredSerializer, Untiered,
};
use vayu::testing::{ManualClock, watchdog};
use vayu::{
    AsyncIo, Cache, Compressed, ErrorKind, FileCache, FileOptions, Key, MemoryCache, MemoryOptions,
    MessagePack, Result as VayuResult, SealKeys, Sealed, TieredOptions, cached, previous,
};

use crate::{HANG, Runs, until, with_every_backend};

/// A source with a version of its content, as an `ETag`.
#[derive(Default)]
struct Source {
    version: AtomicU32,
    requests: AtomicU32,
    bodies: AtomicU32,
    is_down: AtomicBool,
    asked_with: Mutex<Vec<Option<String>>>,
}

impl Source {
    /// Returns the content, or `None` if it is that of this page.
    fn get(&self, old: Option<&str>) -> Result<Option<String>, String> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.asked_with.lock().unwrap().push(old.map(ToOwned::to_owned));
        if self.is_down.load(Ordering::SeqCst) {
            return Err("down".to_owned());
        }
        let page = format!("page {}", self.version.load(Ordering::SeqCst));
        if old == Some(&page) {
            return Ok(None);
        }
        self.bodies.fetch_add(1, Ordering::SeqCst);
        Ok(Some(page))
    }

    fn counts(&self) -> (u32, u32) {
        (self.requests.load(Ordering::SeqCst), self.bodies.load(Ordering::SeqCst))
    }
}

#[cached(cache = cache, ttl = "1m", stale = "1h", key = "k", revalidate, handle = page_entry)]
fn page<B, S>(cache: Cache<B, S>, source: Arc<Source>) -> Result<String, String>
where
    B: Backend,
    S: Serializer<String, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    let old = previous::<String>();
    match (source.get(old.as_ref().map(|old| old.as_str()))?, old) {
        (Some(page), _) => Ok(page),
        (None, Some(old)) => Ok(old.unchanged()),
        (None, None) => unreachable!("it is compared with an old value"),
    }
}

fn unchanged_value_gets_new_times<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<String, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    let clock = ManualClock::new();
    let (cache, source) = (open(clock.clone()), Arc::new(Source::default()));
    let ask = || page(cache.clone(), Arc::clone(&source));
    let pass = |seconds| clock.advance(Duration::from_secs(seconds));
    let zero = || Ok("page 0".to_owned());
    assert_eq!((ask(), source.counts()), (zero(), (1, 1)));
    for requests in 2..5 {
        pass(60);
        assert_eq!((ask(), source.counts()), (zero(), (requests, 1)), "not modified");
        pass(59);
        assert_eq!((ask(), source.counts()), (zero(), (requests, 1)), "a hit");
        pass(1);
    }
    source.version.store(1, Ordering::SeqCst);
    assert_eq!((ask(), source.counts()), (Ok("page 1".to_owned()), (5, 2)));
    pass(60);
    source.is_down.store(true, Ordering::SeqCst);
    assert_eq!(ask(), Ok("page 1".to_owned()), "the old value, which the run had asked for");
    source.is_down.store(false, Ordering::SeqCst);
    pass(5);
    assert_eq!((ask(), source.counts()), (Ok("page 1".to_owned()), (7, 2)));
    let entry = || page_entry(cache.clone(), Arc::clone(&source));
    assert_eq!((entry().refresh(), source.counts()), (Ok("page 1".to_owned()), (8, 3)), "forced");
    pass(60);
    entry().invalidate().unwrap();
    assert_eq!((ask(), source.counts()), (Ok("page 1".to_owned()), (9, 4)), "a miss");
    pass(3_660);
    assert_eq!((ask(), source.counts()), (Ok("page 1".to_owned()), (10, 5)), "it is too old");
    let stats = cache.stats();
    assert_eq!((stats.errors, stats.failed_refreshes, stats.in_flight), (0, 1, 0));
}

#[test]
fn unchanged_value_gets_new_times_on_every_backend() {
    watchdog(HANG, || with_every_backend!(unchanged_value_gets_new_times));
}

fn files(place: &Path, clock: ManualClock) -> FileCache {
    FileOptions::new().clock(clock).async_io(AsyncIo::Inline).open(place).expect("a cache")
}

/// The backend of a URL without memory.
#[test]
fn unchanged_value_gets_new_times_in_bytes_without_memory() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().expect("a directory");
        unchanged_value_gets_new_times(|clock| -> Cache<_, TieredSerializer<MessagePack>> {
            Cache::with_backend(Untiered::new(files(place.path(), clock).backend().clone()))
        });
    });
}

#[cached(cache = cache, ttl = "1m", stale = "1h", prefix = "text", key = "k", revalidate)]
fn text<B, S>(cache: &Cache<B, S>, runs: &Runs) -> String
where
    B: Backend,
    S: Serializer<String, Stored = B::Stored> + Clone + Send + Sync + 'static,
{
    runs.count();
    previous::<String>().map_or_else(|| "text".to_owned(), vayu::Previous::unchanged)
}

#[test]
fn unchanged_value_gets_new_times_in_the_cache_of_a_url() {
    watchdog(HANG, || {
        let (place, runs) = (tempfile::tempdir().expect("a directory"), Runs::new());
        let cache = vayu::open(format!("file:{}", place.path().display())).expect("a cache");
        text(&cache, &runs);
        // It has the clock of the machine, so the entry is made two minutes older.
        let files = FileCache::open(place.path()).expect("a cache");
        let key = Key::from_text("text", "k");
        let record = files.backend().read(&key).expect("read").expect("an entry");
        let [created, expires, stale_until] =
            [record.created(), record.expires(), record.stale_until()]
                .map(|time| vayu::time::Timestamp::from_micros(time.as_micros() - 120_000_000));
        let old = record.with_times(created, expires, stale_until);
        files.backend().write(&key, old).expect("write");
        for _ in 0..3 {
            text(&cache, &runs);
        }
        assert_eq!((runs.get(), cache.stats().errors), (2, 0), "one computes, and one renews");
    });
}

#[test]
fn unchanged_value_gets_new_times_in_the_backing_tier() {
    watchdog(HANG, || {
        let place = tempfile::tempdir().expect("a directory");
        let (clock, runs) = (ManualClock::new(), Runs::new());
        let open = || TieredOptions::new().over(&files(place.path(), clock.clone()));
        // As two processes that share the directory.
        let (one, other) = (open(), open());
        text(&one, &runs);
        for expected in 2..5 {
            clock.advance(Duration::from_secs(60));
            text(&one, &runs);
            assert_eq!(runs.get(), expected, "renewed");
            clock.advance(Duration::from_secs(1));
            text(&one, &runs);
            text(&other, &runs);
            text(&open(), &runs);
            assert_eq!(runs.get(), expected, "every process finds the new times");
        }
        assert_eq!([one.stats().errors, other.stats().errors], [0; 2]);
    });
}

/// A serializer of a user around a seal.
#[derive(Clone)]
struct Around(Sealed<MessagePack>, SerializerId);

impl Serializer<String> for Around {
    type Stored = Bytes;

    fn id(&self) -> SerializerId {
        self.1
    }

    fn serialize(&self, value: &String) -> VayuResult<Bytes> {
        self.0.serialize(value)
    }

    fn deserialize(&self, stored: &Bytes) -> VayuResult<String> {
        self.0.deserialize(stored)
    }

    fn serialize_for(&self, value: &String, entry: &EntryContext<'_>) -> VayuResult<Bytes> {
        self.0.serialize_for(value, entry)
    }

    fn deserialize_for(&self, stored: &Bytes, entry: &EntryContext<'_>) -> VayuResult<String> {
        self.0.deserialize_for(stored, entry)
    }

    fn deserialize_owned_for(
        &self,
        stored: &mut Bytes,
        entry: &EntryContext<'_>,
    ) -> VayuResult<String> {
        self.0.deserialize_owned_for(stored, entry)
    }
}

#[test]
fn value_of_a_format_that_is_bound_to_its_times_is_encoded_again() {
    watchdog(HANG, || {
        let sealed = Sealed::new(SealKeys::new([7; 32]), MessagePack);
        for id in [SerializerId::user(7), Serializer::<String>::id(&sealed)] {
            let place = tempfile::tempdir().expect("a directory");
            let (clock, runs) = (ManualClock::new(), Runs::new());
            let plain = files(place.path(), clock.clone());
            let around = Around(sealed.clone(), id);
            let compressed = plain.clone().with_serializer(Compressed::lz4(around.clone()));
            let cache = plain.with_serializer(around);
            for count in 1..4 {
                for _ in 0..2 {
                    assert_eq!(text(&cache, &runs), "text");
                }
                assert_eq!((runs.get(), cache.stats().errors), (count, 0), "{id:?}");
                clock.advance(Duration::from_secs(60));
            }
            for count in 4..6 {
                for _ in 0..2 {
                    assert_eq!(text(&compressed, &runs), "text");
                }
                assert_eq!((runs.get(), compressed.stats().errors), (count, 0), "{id:?}");
                clock.advance(Duration::from_secs(60));
            }
        }
    });
}

#[test]
fn value_is_renewed_in_the_background() {
    #[cached(
        cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = thread::spawn, own(source), revalidate
    )]
    fn in_a_thread(cache: MemoryCache, source: &Arc<Source>) -> Result<String, String> {
        let old = previous::<String>();
        match source.get(old.as_deref().map(String::as_str))? {
            Some(page) => Ok(page),
            None => Ok(old.expect("it is compared with an old value").unchanged()),
        }
    }

    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = tokio::spawn, revalidate)]
    async fn in_a_task(cache: MemoryCache, source: Arc<Source>) -> Result<String, String> {
        tokio::task::yield_now().await;
        let old = previous::<String>();
        tokio::task::yield_now().await;
        match source.get(old.as_deref().map(String::as_str))? {
            Some(page) => Ok(page),
            None => Ok(old.expect("it is compared with an old value").unchanged()),
        }
    }

    #[cached(
        cache = cache, ttl = "1m", stale = "1h", key = "k", spawn = tokio::spawn, patience = "50ms", revalidate
    )]
    async fn with_patience(cache: MemoryCache, source: Arc<Source>) -> Result<String, String> {
        tokio::task::yield_now().await;
        let old = previous::<String>();
        match source.get(old.as_deref().map(String::as_str))? {
            Some(page) => Ok(page),
            None => Ok(old.expect("it is compared with an old value").unchanged()),
        }
    }

    fn test(ask: impl Fn(MemoryCache, Arc<Source>) -> Result<String, String>, rest: impl Fn()) {
        let clock = ManualClock::new();
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        let source = Arc::new(Source::default());
        for requests in 1..4 {
            assert_eq!(ask(cache.clone(), Arc::clone(&source)), Ok("page 0".to_owned()));
            rest();
            until(|| cache.stats().inserts == u64::from(requests));
            assert_eq!(ask(cache.clone(), Arc::clone(&source)), Ok("page 0".to_owned()));
            assert_eq!(source.counts(), (requests, 1));
            clock.advance(Duration::from_secs(60));
        }
    }
    watchdog(HANG, || {
        test(|cache, source| in_a_thread(cache, &source), || ());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let rest = || {
            runtime.block_on(async {
                for _ in 0..32 {
                    tokio::task::yield_now().await;
                }
            });
        };
        test(|cache, source| runtime.block_on(in_a_task(cache, source)), rest);
        test(|cache, source| runtime.block_on(with_patience(cache, source)), rest);
    });
}

#[test]
fn function_of_the_attribute_says_whether_the_old_value_is_unchanged() {
    #[derive(Clone)]
    struct Shop(MemoryCache, Arc<AtomicU32>);
    impl Shop {
        fn run(&self) -> u32 {
            self.1.fetch_add(1, Ordering::SeqCst)
        }

        #[cached(
            cache = self.0, ttl = "1m", stale = "1h", skip(self), revalidate = |old: &u32, limit: &u32| *old < *limit
        )]
        fn sync(&self, limit: u32) -> u32 {
            self.run()
        }

        #[cached(
            cache = self.0, ttl = "1m", stale = "1h", skip(self), spawn = |job| job(), own(self, name),
            revalidate = Self::is_current
        )]
        fn spawned(&self, name: &str) -> Result<u32, ()> {
            Ok(self.run())
        }

        #[allow(clippy::trivially_copy_pass_by_ref, reason = "the attribute passes references")]
        fn is_current(old: &u32, name: &str) -> bool {
            *old == 0 && name == "current"
        }

        #[cached(cache = self.0, ttl = "1m", stale = "1h", skip(self), revalidate = check)]
        async fn asynchronous(&self, limit: u32) -> Option<u32> {
            Some(self.run())
        }
    }
    #[allow(clippy::ref_option, reason = "the attribute passes references")]
    async fn check(old: &Option<u32>, limit: &u32) -> bool {
        tokio::task::yield_now().await;
        old.is_some_and(|old| old < *limit)
    }
    let clock = ManualClock::new();
    let shop = || {
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        Shop(cache, Arc::new(AtomicU32::new(0)))
    };
    let minute = || clock.advance(Duration::from_secs(60));
    let one = shop();
    assert_eq!((one.sync(1), one.sync(0)), (0, 1));
    minute();
    assert_eq!((one.sync(1), one.sync(0)), (0, 2), "one is unchanged");
    assert_eq!((one.sync(1), one.sync(0), one.0.stats().refreshes), (0, 2, 2));
    let one = shop();
    assert_eq!(one.spawned("current"), Ok(0));
    minute();
    assert_eq!((one.spawned("current"), one.spawned("current")), (Ok(0), Ok(0)));
    assert_eq!((one.run(), one.0.stats().refreshes), (1, 1));
    let one = shop();
    assert_eq!(smol::block_on(one.asynchronous(1)), Some(0));
    minute();
    assert_eq!(smol::block_on(one.asynchronous(1)), Some(0));
    assert_eq!(smol::block_on(one.asynchronous(1)), Some(0));
    assert_eq!((one.run(), one.0.stats().refreshes), (1, 1));
}

#[test]
fn old_value_is_that_of_the_running_function_alone() {
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "outer", revalidate)]
    fn outer(cache: &MemoryCache, inner_runs: &AtomicU32) -> u32 {
        let other = previous::<u64>();
        assert!(other.is_none(), "another type");
        inner(cache, inner_runs);
        thread::scope(|scope| {
            scope.spawn(|| assert!(previous::<u32>().is_none(), "another thread"));
        });
        match previous::<u32>() {
            None => 1,
            Some(old) => {
                assert!(previous::<u32>().is_none(), "it is taken");
                let next = *old + 1;
                drop(old);
                assert!(previous::<u32>().is_some(), "it was given back");
                next
            }
        }
    }
    #[cached(cache = cache, ttl = "1s", key = "inner")]
    fn inner(cache: &MemoryCache, runs: &AtomicU32) -> u32 {
        assert!(previous::<u32>().is_none(), "that of another function");
        runs.fetch_add(1, Ordering::SeqCst)
    }
    assert!(previous::<u32>().is_none(), "no run");
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let runs = AtomicU32::new(0);
    for value in 1..4 {
        assert_eq!(outer(&cache, &runs), value);
        clock.advance(Duration::from_secs(60));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 3);
}

#[test]
fn readers_of_a_file_never_see_a_part_of_a_renewed_header() {
    #[cached(cache = cache, ttl = ttl, stale = "1h", key = "k", revalidate)]
    fn value(cache: &vayu::FileCache, ttl: Duration) -> String {
        match previous::<String>() {
            Some(old) => old.unchanged(),
            None => "x".repeat(10_000),
        }
    }
    let place = tempfile::tempdir().expect("a directory");
    let open = || FileOptions::new().open(AsRef::<Path>::as_ref(&place)).expect("a cache");
    let (writer, reader) = (open(), open());
    // Each call of the writer finds a value past its ttl.
    let short = Duration::from_nanos(1);
    assert_eq!(value(&writer, short).len(), 10_000);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                assert_eq!(value(&reader, Duration::MAX).len(), 10_000);
            }
        });
        for _ in 0..500 {
            assert_eq!(value(&writer, short).len(), 10_000);
        }
        is_done.store(true, Ordering::SeqCst);
    });
    assert_eq!((reader.stats().misses, reader.stats().errors, writer.stats().misses), (0, 0, 1));
}

#[test]
fn run_without_the_cache_does_not_get_the_old_value_of_the_run_that_it_is_part_of() {
    #[cached(
        cache = cache, ttl = "1m", stale = "1h", key = n.to_string(), revalidate, bypass_if = is_bypassed, handle = sync_entry
    )]
    fn sync(cache: &MemoryCache, paused: &MemoryCache, n: u32, is_bypassed: bool) -> u32 {
        if n == 0 {
            sync(cache, paused, 1, true);
            sync(paused, paused, 2, false);
            sync_entry(cache, paused, 3, false).run();
        }
        let old = previous::<u32>();
        assert_eq!(old.is_some(), n == 0 && is_old(), "{n}");
        n
    }
    #[cached(
        cache = cache, ttl = "1m", stale = "1h", key = n.to_string(), revalidate, bypass_if = is_bypassed, handle = awaited_entry
    )]
    async fn awaited(cache: &MemoryCache, paused: &MemoryCache, n: u32, is_bypassed: bool) -> u32 {
        tokio::task::yield_now().await;
        if n == 0 {
            Box::pin(awaited(cache, paused, 1, true)).await;
            Box::pin(awaited(paused, paused, 2, false)).await;
            Box::pin(awaited_entry(cache, paused, 3, false).run_async()).await;
        }
        tokio::task::yield_now().await;
        let old = previous::<u32>();
        assert_eq!(old.is_some(), n == 0 && is_old(), "{n}");
        n
    }
    #[cached(
        cache = cache, ttl = "1m", stale = "1h", key = "k", revalidate, bypass_if = is_bypassed, spawn = |job| job()
    )]
    fn spawned(cache: MemoryCache, is_bypassed: bool) -> u32 {
        assert!(previous::<u32>().is_none());
        u32::from(is_bypassed)
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "outer", revalidate)]
    fn around_spawned(cache: &MemoryCache) -> u32 {
        let has_old = || previous::<u32>().is_some();
        let before = has_old();
        assert_eq!(spawned(cache.clone(), true), 1);
        assert_eq!((before, has_old()), (is_old(), is_old()));
        0
    }
    thread_local! {
        static IS_OLD: Cell<bool> = const { Cell::new(false) };
    }
    fn is_old() -> bool {
        IS_OLD.get()
    }
    let clock = ManualClock::new();
    let open = || MemoryOptions::new().clock(clock.clone()).build();
    let (cache, paused) = (open(), open());
    let _pause = paused.pause();
    for is_old in [false, true] {
        IS_OLD.set(is_old);
        assert_eq!(sync(&cache, &paused, 0, false), 0);
        assert_eq!(around_spawned(&cache), 0);
        clock.advance(Duration::from_secs(60));
    }
    cache.clear().unwrap();
    for is_old in [false, true] {
        IS_OLD.set(is_old);
        assert_eq!(smol::block_on(awaited(&cache, &paused, 0, false)), 0);
        clock.advance(Duration::from_secs(60));
    }
}

#[test]
fn computation_of_a_refused_key_does_not_get_the_old_value_of_the_run_that_it_is_part_of() {
    #[cached(cache = cache, ttl = "1m", version = 2, prefix = "versioned", key = "k")]
    fn versioned(cache: &MemoryCache) -> u32 {
        0
    }
    fn has_old() -> bool {
        previous::<u32>().is_some()
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "sync", revalidate)]
    fn sync(cache: &MemoryCache) -> u32 {
        let (key, ttl) = (Key::from_text("versioned", ""), Duration::from_secs(60));
        assert!(!cache.get_or_insert_with(&key, ttl, has_old));
        assert_eq!(cache.try_get_or_insert_with(&key, ttl, || Ok::<_, ()>(has_old())), Ok(false));
        u32::from(has_old())
    }
    #[cached(cache = cache, ttl = "1m", stale = "1h", key = "awaited", revalidate)]
    async fn awaited(cache: &MemoryCache) -> u32 {
        let (key, ttl) = (Key::from_text("versioned", ""), Duration::from_secs(60));
        assert!(!cache.get_or_insert_with_async(&key, ttl, async { has_old() }).await);
        let fallible = async { Ok::<_, ()>(has_old()) };
        assert_eq!(cache.try_get_or_insert_with_async(&key, ttl, fallible).await, Ok(false));
        u32::from(has_old())
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    assert_eq!(versioned(&cache), 0);
    for has_old in [0, 1] {
        assert_eq!((sync(&cache), smol::block_on(awaited(&cache))), (has_old, has_old));
        clock.advance(Duration::from_secs(60));
    }
    assert_eq!(cache.stats().errors_of(ErrorKind::Configuration), 8, "the key has no version");
}

#[test]
fn value_that_is_invalidated_while_its_refresh_is_in_a_queue_is_not_renewed() {
    type Job = Box<dyn FnOnce() + Send>;

    #[derive(Clone)]
    struct Shop {
        cache: MemoryCache,
        jobs: Arc<Mutex<Vec<Job>>>,
        has_old: Arc<Mutex<Vec<bool>>>,
    }

    impl Shop {
        fn queue(&self, job: impl FnOnce() + Send + 'static) {
            self.jobs.lock().unwrap().push(Box::new(job));
        }

        fn run_jobs(&self) {
            let jobs = std::mem::take(&mut *self.jobs.lock().unwrap());
            for job in jobs {
                job();
            }
        }

        #[cached(
            cache = self.cache, ttl = "1m", stale = "1h", key = "k", revalidate, own(self),
            spawn = |job| self.queue(job), handle = price_entry
        )]
        fn price(&self) -> String {
            let old = previous::<String>();
            self.has_old.lock().unwrap().push(old.is_some());
            old.map_or_else(|| "price".to_owned(), vayu::Previous::unchanged)
        }
    }
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let shop = Shop { cache, jobs: Arc::default(), has_old: Arc::default() };
    let has_old = || std::mem::take(&mut *shop.has_old.lock().unwrap());
    let ask = || assert_eq!(shop.price(), "price");
    ask();
    clock.advance(Duration::from_secs(60));
    ask();
    shop.run_jobs();
    assert_eq!(has_old(), [false, true]);
    clock.advance(Duration::from_secs(60));
    ask();
    shop.price_entry().invalidate().unwrap();
    shop.run_jobs();
    assert_eq!(has_old(), [false], "invalidated since the lookup");
    clock.advance(Duration::from_secs(60));
    ask();
    shop.price_entry().set("new".to_owned()).unwrap();
    shop.run_jobs();
    assert!(has_old().is_empty(), "a fresh value was stored since the lookup");
    assert_eq!(shop.price(), "new");
}

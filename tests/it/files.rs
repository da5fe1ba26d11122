//! Cached functions whose results are stored in a directory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use vayu::backend::FileBackend;
use vayu::inspect::{CacheDirectory, Verify};
use vayu::testing::{ManualClock, watchdog};
use vayu::{
    Bincode, ErrorKind, FileCache, FileOptions, Json, Key, MessagePack, Postcard, SingleFlight,
    TieredCache, TieredOptions, cached,
};

use crate::{HANG, Runs, until};

fn temporary_cache() -> (TempDir, FileCache) {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(directory.path()).expect("a cache");
    (directory, cache)
}

#[test]
fn results_survive_reopening_the_directory() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h", skip(cache))]
    fn words(cache: &FileCache, text: &str) -> Vec<String> {
        RUNS.count();
        text.split(' ').map(str::to_owned).collect()
    }
    let (directory, cache) = temporary_cache();
    assert_eq!(words(&cache, "a b"), ["a", "b"]);
    drop(cache);
    let again = FileCache::open(directory.path()).expect("the same cache");
    assert_eq!(words(&again, "a b"), ["a", "b"]);
    assert_eq!(RUNS.get(), 1);
    assert_eq!((again.stats().hits, again.stats().usage.entries), (1, Some(1)));
}

#[test]
fn entry_says_which_call_it_is_of() {
    #[cached(cache = cache, ttl = "1h", skip(cache))]
    fn word_counts(cache: &FileCache, path: &str, least: u32) -> u32 {
        path.len() as u32 + least
    }
    #[cached(cache = cache, ttl = "1h", skip(cache), label = "{n}th of {path}", handle = labelled_entry)]
    fn labelled(cache: &FileCache, path: String, n: u32) -> String {
        path + &n.to_string()
    }
    #[cached(cache = cache, ttl = "1h", key = path, label = path.to_uppercase(), version = 2)]
    async fn of_path(cache: &FileCache, path: &str) -> usize {
        path.len()
    }
    let (directory, cache) = temporary_cache();
    word_counts(&cache, "src/main.rs", 3);
    labelled(&cache, "a.rs".to_owned(), 2);
    labelled_entry(&cache, "a.rs".to_owned(), 3).get();
    smol::block_on(of_path(&cache, "b.rs"));
    let mut calls: Vec<String> = CacheDirectory::open(directory.path())
        .expect("a directory")
        .entries(Verify::Full)
        .map(|entry| entry.expect("an entry").details().expect("valid").call().unwrap().to_owned())
        .map(|call| call.rsplit("::").next().expect("a function").to_owned())
        .collect();
    calls.sort();
    assert_eq!(
        calls,
        [
            "labelled [2th of a.rs]",
            "labelled [3th of a.rs]",
            "of_path@2 [B.RS]",
            r#"word_counts("src/main.rs", 3)"#,
        ]
    );
}

#[test]
fn hidden_arguments_are_not_written_and_their_entries_are_read() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h", skip(cache), label = "{password}")]
    fn login(cache: &FileCache, password: &str) -> usize {
        RUNS.count()
    }
    let directory = tempfile::tempdir().expect("a directory");
    let hiding = FileOptions::new().hide_arguments().open(directory.path()).expect("a cache");
    assert_eq!((login(&hiding, "hunter2"), login(&hiding, "hunter2")), (1, 1));
    assert_eq!(login(&hiding, "hunter3"), 2);
    let plain = FileCache::open(directory.path()).expect("a cache");
    assert_eq!((login(&plain, "hunter2"), login(&plain, "hunter4")), (1, 3));
    assert_eq!(login(&hiding, "hunter4"), 3);
    let by_url = vayu::open(format!("file:{}?arguments=hidden", directory.path().display()));
    assert!(by_url.is_ok());
    let listed = CacheDirectory::open(directory.path()).expect("a directory");
    for entry in listed.entries(Verify::Full) {
        let entry = entry.expect("an entry");
        let bytes = std::fs::read(directory.path().join(entry.path())).expect("a file");
        let is_hidden = !bytes.windows(6).any(|bytes| bytes == b"hunter");
        let details = entry.details().expect("valid");
        assert_eq!(details.call().expect("a call").ends_with("login(…)"), is_hidden);
        assert!(details.function().expect("a function").ends_with("login"));
    }
}

#[test]
fn label_is_not_evaluated_for_memory() {
    #[cached(cache = cache, ttl = "1h", skip(cache), label = unreachable())]
    fn of_memory(cache: &vayu::MemoryCache, n: u32) -> u32 {
        n
    }
    fn unreachable() -> &'static str {
        panic!("the label was evaluated")
    }
    let cache = vayu::MemoryCache::new();
    assert_eq!((of_memory(&cache, 1), of_memory(&cache, 1)), (1, 1));
}

#[test]
fn async_functions_work_in_every_runtime_and_without_one() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h", skip(cache))]
    async fn length(cache: &FileCache, text: &str) -> Result<usize, String> {
        RUNS.count();
        tokio::task::yield_now().await;
        Ok(text.len())
    }
    let (_directory, cache) = temporary_cache();
    let call = |text: &'static str| {
        let cache = cache.clone();
        async move { length(&cache, text).await }
    };
    let one = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let many = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    for _ in 0..2 {
        assert_eq!(one.block_on(call("one thread")), Ok(10));
        assert_eq!(many.as_ref().expect("a runtime").block_on(call("two workers")), Ok(11));
        assert_eq!(smol::block_on(call("no tokio")), Ok(8));
    }
    assert_eq!(RUNS.get(), 3);
}

#[test]
fn each_function_may_have_its_own_format() {
    static RUNS: Runs = Runs::new();
    type Found = Option<Option<f64>>;
    #[cached(cache = cache, ttl = "1h", skip(cache), serializer = Json)]
    fn json(cache: &FileCache, n: u8) -> Found {
        RUNS.count();
        Some(Some(f64::from(n)))
    }
    #[cached(cache = cache, ttl = "1h", skip(cache), serializer = Postcard)]
    fn postcard(cache: &FileCache, n: u8) -> Found {
        RUNS.count();
        (n > 0).then_some(None)
    }
    #[cached(cache = cache, ttl = "1h", skip(cache), serializer = Bincode)]
    fn bincode(cache: &FileCache, n: u8) -> Found {
        RUNS.count();
        (n > 0).then_some(None)
    }
    let (_directory, cache) = temporary_cache();
    for _ in 0..2 {
        assert_eq!(json(&cache, 7), Some(Some(7.0)));
        assert_eq!(postcard(&cache, 7), Some(None));
        assert_eq!(bincode(&cache, 7), Some(None));
    }
    assert_eq!(RUNS.get(), 3);
    assert_eq!(cache.stats().errors, 0);
}

#[test]
fn value_that_the_serializer_cannot_return_is_not_stored() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h", key = "k")]
    fn nothing(cache: &FileCache) -> Option<Option<u8>> {
        RUNS.count();
        Some(None)
    }
    let (_directory, cache) = temporary_cache();
    for _ in 0..2 {
        assert_eq!(nothing(&cache), Some(None));
    }
    assert_eq!(RUNS.get(), 2);
    assert_eq!(cache.stats().errors_of(ErrorKind::Encode), 2);
    assert_eq!(cache.stats().usage.entries, Some(0));
}

/// Releases of one function share a prefix. The key does not contain the type, since `remove` finds the
/// entry without it; only a version separates the entries of two releases.
#[test]
fn entry_of_another_type_or_serializer_is_a_miss_and_is_overwritten_but_versions_are_kept_apart() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h", key = "k", prefix = "f")]
    fn number(cache: &FileCache) -> u32 {
        RUNS.count();
        1
    }
    #[cached(cache = cache, ttl = "1h", key = "k", prefix = "f")]
    fn wider(cache: &FileCache) -> u64 {
        RUNS.count();
        2
    }
    #[cached(cache = cache, ttl = "1h", key = "k", prefix = "f", version = 2)]
    fn newer(cache: &FileCache) -> u64 {
        RUNS.count();
        3
    }
    #[cached(cache = cache, ttl = "1h", key = "k", prefix = "f", version = "2")]
    fn other(cache: &FileCache) -> u64 {
        RUNS.count();
        5
    }
    #[cached(cache = cache, ttl = "1h", key = "k", prefix = "f", version = 2, serializer = Json)]
    fn readable(cache: &FileCache) -> u64 {
        RUNS.count();
        4
    }
    let (_directory, cache) = temporary_cache();
    for _ in 0..2 {
        assert_eq!((number(&cache), wider(&cache)), (1, 2));
        assert_eq!((newer(&cache), newer(&cache)), (3, 3));
        assert_eq!((other(&cache), other(&cache)), (5, 5));
        assert_eq!((readable(&cache), readable(&cache)), (4, 4));
    }
    assert_eq!(RUNS.get(), 9, "of types 4, of serializers 4, of a version 1");
    assert_eq!(cache.stats().usage.entries, Some(3), "one for each version");
}

#[test]
fn functions_with_one_literal_key_have_their_own_entries() {
    #[cached(cache = cache, ttl = "1h", key = "k")]
    fn one(cache: &FileCache) -> u8 {
        1
    }
    #[cached(cache = cache, ttl = "1h", key = "k")]
    fn two(cache: &FileCache) -> u8 {
        2
    }
    let (_directory, cache) = temporary_cache();
    for _ in 0..2 {
        assert_eq!((one(&cache), two(&cache)), (1, 2));
    }
}

#[test]
fn lowered_ttl_applies_to_existing_entries() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = ttl, key = "k")]
    fn call(cache: &FileCache, ttl: Duration) -> usize {
        RUNS.count()
    }
    let clock = ManualClock::new();
    let directory = tempfile::tempdir().expect("a directory");
    let cache = FileOptions::new().clock(clock.clone()).open(directory.path()).expect("a cache");
    let hour = Duration::from_secs(3600);
    assert_eq!(call(&cache, hour), 1);
    clock.advance(hour / 2);
    assert_eq!(call(&cache, hour), 1);
    assert_eq!(call(&cache, hour / 4), 2);
}

#[test]
fn keys_that_file_systems_confuse_have_their_own_entries() {
    #[cached(cache = cache, ttl = "1h", skip(cache))]
    fn echo(cache: &FileCache, text: &str) -> String {
        text.to_owned()
    }
    let parent = tempfile::tempdir().expect("a directory");
    let cache = FileCache::open(parent.path().join("of/cache")).expect("a cache");
    let long = "x".repeat(300);
    let texts = ["", ".", "..", "/", "../../x", "a", "A", "a\0b", "CON", "é", "e\u{301}", &long];
    for _ in 0..2 {
        for text in texts {
            assert_eq!(echo(&cache, text), text);
        }
    }
    assert_eq!(cache.stats().hits, texts.len() as u64);
    for place in ["x", "of/x"] {
        assert!(!parent.path().join(place).exists());
    }
}

#[test]
fn concurrent_threads_compute_once() {
    static RUNS: Runs = Runs::new();
    #[cached(cache = cache, ttl = "1h", key = "k")]
    fn call(cache: &FileCache) -> usize {
        std::thread::yield_now();
        RUNS.count()
    }
    let (_directory, cache) = temporary_cache();
    std::thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| assert_eq!(call(&cache), 1));
        }
    });
    assert_eq!(cache.stats().in_flight, 0);
}

#[test]
fn directory_that_cannot_be_a_cache_is_an_error_of_open() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "text").expect("a file");
    for path in [file.as_path(), directory.path(), &file.join("below")] {
        let error = FileCache::open(path).expect_err("no cache");
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    }
    assert_eq!(std::fs::read(&file).expect("the file"), b"text");
}

#[test]
fn entry_of_another_serializer_is_a_miss() {
    let (_directory, cache) = temporary_cache();
    let json = cache.clone().with_serializer(Json);
    let key = vayu::Key::from_text("p", "k");
    json.set(&key, &1_u8, Duration::MAX).expect("write");
    assert_eq!(json.get::<u8>(&key).expect("read"), Some(1));
    assert_eq!(cache.get::<u8>(&key).expect("read"), None, "{MessagePack:?} cannot read it");
}

/// Creates a runtime with one blocking thread.
fn narrow_runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).max_blocking_threads(1).build().expect("a runtime")
}

/// Computes a key in an async task, and calls for the same key from the only blocking thread in the
/// meantime. Both calls return the value of the task.
macro_rules! with_a_waiter_on_the_only_thread {
    ($cache:expr) => {{
        static RUNS: Runs = Runs::new();
        static CALLED: AtomicBool = AtomicBool::new(false);
        let cache = $cache;
        let leader = cache.clone();
        watchdog(HANG, move || {
            narrow_runtime().block_on(async {
                let key = || Key::from_text("p", "k");
                let leader = tokio::spawn(async move {
                    leader
                        .get_or_insert_with_async(&key(), Duration::MAX, async {
                            RUNS.count();
                            while !CALLED.load(Ordering::SeqCst) {
                                tokio::task::yield_now().await;
                            }
                            // Time for the waiter to start waiting.
                            for _ in 0..10_000 {
                                tokio::task::yield_now().await;
                            }
                            7_u32
                        })
                        .await
                });
                until(|| RUNS.get() == 1);
                let waiter = tokio::task::spawn_blocking(move || {
                    CALLED.store(true, Ordering::SeqCst);
                    cache.get_or_insert_with(&key(), Duration::MAX, || {
                        RUNS.count();
                        8_u32
                    })
                });
                assert_eq!(waiter.await.expect("no panic"), 7);
                assert_eq!(leader.await.expect("no panic"), 7);
            });
        });
        assert_eq!(RUNS.get(), 1);
    }};
}

#[test]
fn sync_waiter_on_the_only_blocking_thread_does_not_block_the_async_leader() {
    let patient = 24 * Duration::from_secs(60 * 60);
    let (_directory, cache) = temporary_cache();
    with_a_waiter_on_the_only_thread!(cache.with_max_wait(patient));
    let directory = tempfile::tempdir().expect("a directory");
    let options = FileOptions::new().single_flight(SingleFlight::Everywhere);
    let cache = options.open(directory.path()).expect("a cache");
    with_a_waiter_on_the_only_thread!(cache.with_max_wait(patient));
    let (_directory, backing) = temporary_cache();
    let cache: TieredCache<_> = TieredOptions::new().over(&backing);
    with_a_waiter_on_the_only_thread!(cache.with_max_wait(patient));
}

/// Two caches of one directory behave like two processes: callers wait for a file lock.
#[test]
fn lock_of_an_async_leader_is_released_while_waiters_occupy_every_blocking_thread() {
    let directory = tempfile::tempdir().expect("a directory");
    let open = || {
        let options = FileOptions::new().single_flight(SingleFlight::Everywhere);
        options
            .open(directory.path())
            .expect("a cache")
            .with_max_wait(24 * Duration::from_secs(3_600))
    };
    let (one, other) = (open(), open());
    watchdog(HANG, move || {
        static IS_LED: AtomicBool = AtomicBool::new(false);
        static CALLED: AtomicBool = AtomicBool::new(false);
        narrow_runtime().block_on(async {
            let key = || Key::from_text("p", "k");
            let leader = tokio::spawn(async move {
                one.try_get_or_insert_with_async(&key(), Duration::MAX, async {
                    IS_LED.store(true, Ordering::SeqCst);
                    while !CALLED.load(Ordering::SeqCst) {
                        tokio::task::yield_now().await;
                    }
                    Err::<u32, _>("nothing is stored, so the next caller needs the lock")
                })
                .await
            });
            until(|| IS_LED.load(Ordering::SeqCst));
            let waiter = tokio::task::spawn_blocking(move || {
                CALLED.store(true, Ordering::SeqCst);
                other.get_or_insert_with(&key(), Duration::MAX, || 8_u32)
            });
            assert_eq!(waiter.await.expect("no panic"), 8);
            leader.await.expect("no panic").expect_err("it has failed");
        });
    });
}

#[test]
fn debug_of_a_cache_is_short_and_accesses_no_entry() {
    let clock = ManualClock::new();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let open = || FileOptions::new().clock(clock.clone()).open(path).expect("a cache");
    let minute = Duration::from_secs(60);
    let first = open();
    for n in 0..300 {
        first.set(&Key::from_text("p", n.to_string()), &n, minute).expect("set");
    }
    clock.advance(2 * minute);
    let entries =
        || vayu::inspect::CacheDirectory::open(path).expect("a directory").count().expect("count");
    let cache = open();
    let tiered: TieredCache<FileBackend> = TieredOptions::new().over(&cache);
    let texts = [
        format!("{first:?} {:?}", first.backend()),
        format!("{first:#?} {:#?}", first.backend()),
        format!("{cache:?} {:?}", cache.backend()),
        format!("{cache:#?} {:#?}", cache.backend()),
        format!("{tiered:?} {:?}", tiered.backend()),
        format!("{tiered:#?} {:#?}", tiered.backend()),
        format!("{:#?}", vayu::inspect::CacheDirectory::open(path)),
        format!("{:#?}", cache.pause()),
    ];
    for text in &texts {
        assert!(text.len() < 2_000, "{} bytes: {text}", text.len());
    }
    assert!(texts[1].contains(&path.display().to_string()), "{}", texts[1]);
    assert_eq!(entries(), 300, "expired entries were not removed");
}

#[test]
fn debug_of_a_cache_in_memory_drops_no_value_and_is_short() {
    fn check<B: vayu::backend::Backend + std::fmt::Debug, S: std::fmt::Debug>(
        cache: &vayu::Cache<B, S>,
        clock: &ManualClock,
        value: impl Fn() -> std::sync::Arc<u32>,
    ) where
        S: vayu::backend::Serializer<std::sync::Arc<u32>, Stored = B::Stored>,
    {
        let kept = value();
        for n in 0..300 {
            let key = Key::from_text("p", n.to_string());
            cache.set(&key, &kept, Duration::from_secs(60)).expect("set");
        }
        clock.advance(Duration::from_secs(120));
        let count = std::sync::Arc::strong_count(&kept);
        for text in [format!("{cache:#?}"), format!("{:#?}", cache.backend())] {
            assert!(text.len() < 1_000, "{text}");
        }
        assert_eq!(std::sync::Arc::strong_count(&kept), count, "no value was dropped");
    }
    let clock = ManualClock::new();
    let options = || vayu::MemoryOptions::new().clock(clock.clone());
    check(&options().build(), &clock, || std::sync::Arc::new(7));
    check(&options().build_moka(), &clock, || std::sync::Arc::new(7));
}

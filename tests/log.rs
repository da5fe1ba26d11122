//! Log events. A program of its own: `tracing` caches the interest in a callsite when it is first reached, so
//! the subscriber must be installed before any call.
#![expect(clippy::option_option, reason = "it is what the format cannot give back")]

mod recorder;

use std::cell::{Cell, RefCell};
use std::time::Duration;

use tracing::Level;
use vayu::backend::{AnyValue, ByReference, Serializer};
use vayu::testing::{Fault, FaultyBackend, ManualClock, MapBackend};
use vayu::{Bincode, Cache, Json, MessagePack, Postcard, cached};

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Returns the lines that this thread logged since the last call.
fn lines() -> Vec<String> {
    LINES.take()
}

/// Records the events of each thread, one per line.
fn listen() {
    let is_enabled = |metadata: &tracing::Metadata<'_>| *metadata.level() <= Level::DEBUG;
    recorder::install(is_enabled, |line| LINES.with_borrow_mut(|lines| lines.push(line)));
}

#[test]
fn each_call_is_one_event_without_arguments() {
    let clock = ManualClock::new();
    let cache: Cache<_, ByReference> =
        Cache::with_backend(MapBackend::<AnyValue>::with_clock(clock.clone()));
    #[cached(cache = cache, ttl = 60, skip(cache))]
    fn secret(cache: &Cache<MapBackend<AnyValue>, ByReference>, password: &str) -> String {
        format!("the password is {password}")
    }
    listen();
    secret(&cache, "hunter2");
    clock.advance(Duration::from_secs(7));
    secret(&cache, "hunter2");
    let lines = lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("DEBUG") && lines[0].contains("outcome=\"miss\""), "{lines:?}");
    assert!(lines[1].contains("outcome=\"hit\"") && lines[1].contains("age=7s"), "{lines:?}");
    assert!(lines.iter().all(|line| line.contains("::secret")), "the function: {lines:?}");
    assert!(!lines.concat().contains("hunter2"));
}

#[test]
fn function_without_a_log_logs_nothing() {
    let backend = FaultyBackend::new(MapBackend::<AnyValue>::default());
    let cache: Cache<_, ByReference> = Cache::with_backend(backend.clone());
    #[cached(cache = cache, ttl = 60, key = "k", log = false)]
    fn quiet(cache: &Cache<FaultyBackend<MapBackend<AnyValue>>, ByReference>) -> u8 {
        1
    }
    listen();
    quiet(&cache);
    quiet(&cache);
    backend.set_fault(Fault::FailsReads);
    quiet(&cache);
    assert_eq!(lines(), [""; 0]);
    assert!(cache.stats().errors > 0, "faults are counted all the same");
}

#[test]
fn fault_is_logged_once_a_minute_and_names_the_function() {
    let clock = ManualClock::new();
    let backend = FaultyBackend::new(MapBackend::<AnyValue>::with_clock(clock.clone()));
    let cache: Cache<_, ByReference> = Cache::with_backend(backend.clone());
    #[cached(cache = cache, ttl = 60, key = "k")]
    fn call(cache: &Cache<FaultyBackend<MapBackend<AnyValue>>, ByReference>) -> u8 {
        1
    }
    let warnings = || -> Vec<String> {
        lines().into_iter().filter(|line| line.starts_with(Level::WARN.as_str())).collect()
    };
    listen();
    backend.set_fault(Fault::FailsWrites);
    for _ in 0..100 {
        call(&cache);
    }
    let lines = warnings();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("::call") && lines[0].contains("planned failure of a write"));
    clock.advance(Duration::from_secs(60));
    for _ in 0..100 {
        call(&cache);
    }
    assert_eq!(warnings().len(), 1);
    assert_eq!(cache.stats().errors_of(vayu::ErrorKind::Backend), 200);
}

#[test]
fn value_that_cannot_be_stored_is_warned_of_with_the_function() {
    let cache: Cache<MapBackend, MessagePack> = Cache::new();
    #[cached(cache = cache, ttl = 60, key = "k")]
    fn ambiguous(cache: &Cache<MapBackend, MessagePack>) -> Option<Option<u8>> {
        Some(None)
    }
    struct Refusing;
    impl serde::Serialize for Refusing {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("planned refusal"))
        }
    }
    #[cached(cache = cache, ttl = 60, skip(cache))]
    fn refused(cache: &Cache<MapBackend, MessagePack>, argument: &Refusing) -> u8 {
        let _ = argument;
        1
    }
    listen();
    for _ in 0..3 {
        ambiguous(&cache);
        refused(&cache, &Refusing);
    }
    let lines = lines();
    let warned = |name: &str| {
        lines.iter().filter(|line| line.starts_with("WARN") && line.contains(name)).count()
    };
    assert_eq!((warned("::ambiguous"), warned("::refused")), (1, 1), "{lines:?}");
}

thread_local! {
    /// The type of `Token` has changed, and refuses what was stored.
    static HAS_CHANGED: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String")]
struct Token(String);

impl TryFrom<String> for Token {
    type Error = String;

    fn try_from(token: String) -> Result<Self, String> {
        if HAS_CHANGED.get() { Err(format!("not a number: {token}")) } else { Ok(Self(token)) }
    }
}

#[test]
fn value_that_cannot_be_decoded_is_warned_of_without_its_content() {
    fn check<S>(format: &str)
    where
        S: Serializer<Token, Stored = bytes::Bytes> + Clone + Default,
    {
        #[cached(cache = cache, ttl = 60, key = "k")]
        fn token<S>(cache: &Cache<MapBackend, S>) -> Token
        where
            S: Serializer<Token, Stored = bytes::Bytes> + Clone,
        {
            Token("hunter2".to_owned())
        }
        let cache: Cache<MapBackend, S> = Cache::new();
        HAS_CHANGED.set(false);
        token(&cache);
        token(&cache);
        assert_eq!(cache.stats().hits, 1, "{format}");
        HAS_CHANGED.set(true);
        lines();
        token(&cache);
        let lines = lines();
        let says = format!("as {format}: the stored value is not of this type");
        assert!(
            lines.iter().any(|line| line.starts_with("WARN") && line.contains(&says)),
            "{lines:?}"
        );
        assert!(!lines.concat().contains("hunter2"), "{lines:?}");
    }
    listen();
    check::<MessagePack>("MessagePack");
    check::<Json>("JSON");
    check::<Postcard>("Postcard");
    check::<Bincode>("Bincode");
}

#[test]
fn directory_that_cannot_be_written_is_logged_once_and_so_is_its_return() {
    let place = tempfile::tempdir().expect("a directory");
    let clock = ManualClock::new();
    let cache = vayu::FileOptions::new().clock(clock.clone()).open(place.path()).expect("a cache");
    #[cached(cache = cache, ttl = 60, skip(cache))]
    fn one(cache: &vayu::FileCache, n: u8) -> u8 {
        n
    }
    #[cached(cache = cache, ttl = 60, skip(cache))]
    fn other(cache: &vayu::FileCache, n: u8) -> u8 {
        n
    }
    let lines = || -> Vec<String> {
        lines().into_iter().filter(|line| !line.starts_with("DEBUG")).collect()
    };
    cache.invalidate_all().expect("it is writable");
    cache.invalidate_function(&one).expect("it is writable");
    cache.invalidate_function(&other).expect("it is writable");
    // A file takes the place of each subdirectory that has no generation.
    let subdirectories = (0..=u8::MAX).map(|n| place.path().join(format!("{n:02x}")));
    let obstacles: Vec<_> = subdirectories.filter(|path| !path.exists()).collect();
    for path in &obstacles {
        std::fs::write(path, "").expect("it is writable");
    }
    listen();
    for _ in 0..20 {
        for n in 0..4 {
            one(&cache, n);
            other(&cache, n);
        }
        clock.advance(Duration::from_secs(10));
    }
    let begin = lines();
    assert_eq!(begin.len(), 1, "{begin:#?}");
    let path = place.path().display();
    let warning = format!("WARN message=cache directory `{path}`: cannot write entry: ");
    assert!(begin[0].starts_with(&warning), "{begin:?}");
    assert!(begin[0].ends_with("; values are not stored"), "{begin:?}");
    for path in &obstacles {
        std::fs::remove_file(path).expect("it is there");
    }
    for n in 0..4 {
        one(&cache, n);
        other(&cache, n);
    }
    let end = lines();
    let back = format!(" message=cache directory `{path}`: entries are written again after 3 min");
    assert_eq!(end, [format!("INFO{back}")]);
}

#[test]
fn directory_that_cannot_be_read_is_logged_once_and_its_errors_have_the_path() {
    let place = tempfile::tempdir().expect("a directory");
    let cache = vayu::FileCache::open(place.path()).expect("a cache");
    #[cached(cache = cache, ttl = 60, skip(cache))]
    fn call(cache: &vayu::FileCache, n: u8) -> u8 {
        n
    }
    // A file takes the place of each subdirectory, also of those with generations.
    for n in 0..=u8::MAX {
        std::fs::write(place.path().join(format!("{n:02x}")), "").expect("it is writable");
    }
    listen();
    for n in 0..10 {
        call(&cache, n);
    }
    let (lines, path) = (lines(), place.path().display());
    let warnings: Vec<_> = lines.iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    let says = format!("WARN message=cache directory `{path}`: cannot read generation: ");
    assert!(warnings[0].starts_with(&says), "{warnings:#?}");
    let key = vayu::Key::from_text("n", "1");
    let error = cache.set(&key, &1, Duration::from_secs(60)).expect_err("no place");
    let chain = format!("{error:?}");
    let says = format!("write entry: read generation: cache directory `{path}`: ");
    assert!(chain.starts_with(&says), "{chain}");
}

#[test]
fn oversized_values_of_varying_length_are_logged_once_a_minute() {
    let place = tempfile::tempdir().expect("a directory");
    let options = vayu::FileOptions::new().max_entry_bytes(100);
    let cache = options.open(place.path()).expect("a cache");
    #[cached(cache = cache, ttl = 60, skip(cache))]
    fn long(cache: &vayu::FileCache, n: usize) -> String {
        "x".repeat(n)
    }
    listen();
    for n in 1000..1050 {
        long(&cache, n);
    }
    let lines: Vec<_> = lines().into_iter().filter(|line| line.starts_with("WARN")).collect();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("more than the limits of the cache allow"), "{lines:?}");
}

#[test]
fn first_eviction_from_a_directory_is_logged_once() {
    let place = tempfile::tempdir().expect("a directory");
    let options = vayu::FileOptions::new().max_entries(3);
    let cache = options.open(place.path()).expect("a cache");
    #[cached(cache = cache, ttl = 60, skip(cache), log = false)]
    fn numbered(cache: &vayu::FileCache, n: u8) -> u8 {
        n
    }
    listen();
    for n in 0..100 {
        numbered(&cache, n);
    }
    let lines = lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("WARN") && lines[0].contains("is full"), "{lines:?}");
}

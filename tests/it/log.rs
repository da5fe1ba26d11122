//! What the log is told.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use vayu::testing::{Fault, FaultyBackend, ManualClock, MapBackend};
use vayu::{ByReference, Cache, MessagePack, Shared, cached};

/// Writes events down, one line each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().expect("no panic"))
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("a string takes everything");
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "vayu"
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().expect("no panic").push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn with_log(code: impl FnOnce(&Log)) {
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || code(&log));
}

#[test]
fn each_call_is_one_event_that_tells_no_argument() {
    let clock = ManualClock::new();
    let cache: Cache<_, ByReference> =
        Cache::with_backend(MapBackend::<Shared>::with_clock(clock.clone()));
    #[cached(cache = cache, ttl = 60, skip(cache))]
    fn secret(cache: &Cache<MapBackend<Shared>, ByReference>, password: &str) -> String {
        format!("the password is {password}")
    }
    with_log(|log| {
        secret(&cache, "hunter2");
        clock.advance(Duration::from_secs(7));
        secret(&cache, "hunter2");
        let lines = log.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(
            lines[0].starts_with("DEBUG") && lines[0].contains("outcome=\"miss\""),
            "{lines:?}"
        );
        assert!(lines[1].contains("outcome=\"hit\"") && lines[1].contains("age=7s"), "{lines:?}");
        assert!(lines.iter().all(|line| line.contains("::secret")), "the function: {lines:?}");
        assert!(!lines.concat().contains("hunter2"));
    });
}

#[test]
fn quiet_function_tells_nothing() {
    let backend = FaultyBackend::new(MapBackend::<Shared>::default());
    let cache: Cache<_, ByReference> = Cache::with_backend(backend.clone());
    #[cached(cache = cache, ttl = 60, key = "k", log = false)]
    fn quiet(cache: &Cache<FaultyBackend<MapBackend<Shared>>, ByReference>) -> u8 {
        1
    }
    with_log(|log| {
        quiet(&cache);
        quiet(&cache);
        backend.set_fault(Fault::ReadFails);
        quiet(&cache);
        assert_eq!(log.lines(), [""; 0]);
        assert!(cache.stats().errors > 0, "faults are counted all the same");
    });
}

#[test]
fn fault_is_logged_once_a_minute_and_names_the_function() {
    let clock = ManualClock::new();
    let backend = FaultyBackend::new(MapBackend::<Shared>::with_clock(clock.clone()));
    let cache: Cache<_, ByReference> = Cache::with_backend(backend.clone());
    #[cached(cache = cache, ttl = 60, key = "k")]
    fn call(cache: &Cache<FaultyBackend<MapBackend<Shared>>, ByReference>) -> u8 {
        1
    }
    let warnings = |log: &Log| -> Vec<String> {
        log.lines().into_iter().filter(|line| line.starts_with(Level::WARN.as_str())).collect()
    };
    with_log(|log| {
        backend.set_fault(Fault::WriteFails);
        for _ in 0..100 {
            call(&cache);
        }
        let lines = warnings(log);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("::call") && lines[0].contains("planned failure of a write"));
        clock.advance(Duration::from_secs(60));
        for _ in 0..100 {
            call(&cache);
        }
        assert_eq!(warnings(log).len(), 1);
        assert_eq!(cache.stats().errors_of(vayu::ErrorKind::Backend), 200);
    });
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
    with_log(|log| {
        for _ in 0..3 {
            ambiguous(&cache);
            refused(&cache, &Refusing);
        }
        let lines = log.lines();
        let warned = |name: &str| {
            lines.iter().filter(|line| line.starts_with("WARN") && line.contains(name)).count()
        };
        assert_eq!((warned("::ambiguous"), warned("::refused")), (1, 1), "{lines:?}");
    });
}

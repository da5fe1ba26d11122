//! Spans, and the reasons of misses. A program of its own: the subscriber is that of all its threads.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, Once};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use vayu::testing::ManualClock;
use vayu::{MemoryCache, MemoryOptions, cached};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Records what happens to spans, and the reasons of misses.
struct Lines;

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?}").expect("a string takes everything");
    }
}

fn write(line: String) {
    LINES.lock().unwrap().push(line);
}

fn name<S: Subscriber + for<'a> LookupSpan<'a>>(id: &Id, context: &Context<'_, S>) -> String {
    context.span(id).expect("a span").name().to_owned()
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        metadata.target() == "vayu" || metadata.target() == module_path!()
    }
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields(String::new());
        attributes.record(&mut fields);
        write(format!("new {}{}", name(id, &context), fields.0));
    }
    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let mut fields = Fields(String::new());
        values.record(&mut fields);
        write(format!("record {}{}", name(id, &context), fields.0));
    }
    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        write(format!("enter {}", name(id, &context)));
    }
    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        write(format!("exit {}", name(id, &context)));
    }
    fn on_close(&self, id: Id, context: Context<'_, S>) {
        write(format!("close {}", name(&id, &context)));
    }
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::TRACE {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            write(format!("trace{}", fields.0));
        }
    }
}

/// Begins to record. One test at a time does.
fn listen() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static ONCE: Once = Once::new();
    let guard = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Registry::default().with(Lines))
            .expect("the only one");
    });
    LINES.lock().unwrap().clear();
    guard
}

/// Returns the lines since the last call.
fn lines() -> Vec<String> {
    std::mem::take(&mut LINES.lock().unwrap())
}

fn reasons() -> Vec<String> {
    lines().into_iter().filter(|line| line.starts_with("trace")).collect()
}

#[cached(cache = cache, ttl = "1m", stale = "1m", prefix = "f", key = "k", handle = entry)]
fn f(cache: &MemoryCache) -> Result<u8, String> {
    write("body".to_owned());
    Ok(1)
}

#[cached(cache = cache, ttl = "1m", prefix = "f", key = "k")]
async fn f_async(cache: &MemoryCache) -> u8 {
    write("body".to_owned());
    smol::future::yield_now().await;
    1
}

const RUN: &str = "new vayu.run function=\"f\" reason=\"miss\"";

#[test]
fn run_has_a_span_and_a_hit_has_none() {
    let _guard = listen();
    let (clock, none) = (ManualClock::new(), [""; 0]);
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    assert_eq!(f(&cache), Ok(1));
    let of_span = |line: &String| !line.starts_with("trace");
    let spans = || lines().into_iter().filter(of_span).collect::<Vec<_>>();
    let run = ["enter vayu.run", "body", "exit vayu.run", "close vayu.run"];
    assert_eq!(spans(), [&[RUN], &run[..]].concat());
    assert_eq!(f(&cache), Ok(1));
    assert_eq!(lines(), none);
    clock.advance(Duration::from_secs(61));
    assert_eq!(f(&cache), Ok(1));
    let expired = RUN.replace("miss", "expired");
    assert_eq!(spans(), [&[&*expired], &run[..]].concat());
    assert_eq!(entry(&cache).refresh(), Ok(1));
    let forced = RUN.replace("miss", "forced");
    assert_eq!(spans(), [&[&*forced], &run[..]].concat());
}

#[test]
fn span_of_an_async_run_is_entered_at_each_poll() {
    let _guard = listen();
    let cache = MemoryOptions::new().build();
    assert_eq!(smol::block_on(f_async(&cache)), 1);
    let found: Vec<_> = lines().into_iter().filter(|line| !line.starts_with("trace")).collect();
    let polls = ["enter vayu.run", "body", "exit vayu.run", "enter vayu.run", "exit vayu.run"];
    assert_eq!(found[..6], [&[RUN], &polls[..]].concat()[..]);
    assert_eq!(found.last().map(String::as_str), Some("close vayu.run"));
}

#[cached(cache = cache, ttl = "1m", stale = "1m", prefix = "f", skip(cache), each = ids, at_most = 2)]
fn batch(cache: &MemoryCache, ids: &[u8]) -> Result<Vec<u8>, String> {
    write("body".to_owned());
    Ok(ids.to_vec())
}

#[cached(cache = cache, ttl = "1m", prefix = "f", skip(cache), each = ids)]
async fn batch_async(cache: &MemoryCache, ids: &[u8]) -> Vec<u8> {
    write("body".to_owned());
    smol::future::yield_now().await;
    ids.to_vec()
}

fn of_spans() -> Vec<String> {
    lines().into_iter().filter(|line| !line.starts_with("trace")).collect()
}

#[test]
fn each_run_of_a_batch_has_a_span() {
    #[cached(cache = cache, ttl = "1m", prefix = "f", skip(cache), each = ids, log = false)]
    fn quiet(cache: &MemoryCache, ids: &[u8]) -> Vec<u8> {
        ids.to_vec()
    }
    let _guard = listen();
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let run = |reason: &str, elements: u8| {
        let new = format!("{} elements={elements}", RUN.replace("miss", reason));
        // It is entered again to drop the future.
        let rest = [
            "enter vayu.run",
            "body",
            "exit vayu.run",
            "enter vayu.run",
            "exit vayu.run",
            "close vayu.run",
        ];
        [&[&*new], &rest[..]].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(batch(&cache, &[1, 2, 3]), Ok(vec![1, 2, 3]));
    assert_eq!(of_spans(), [run("miss", 2), run("miss", 1)].concat());
    assert_eq!(batch(&cache, &[3, 2]), Ok(vec![3, 2]));
    assert_eq!(of_spans(), [""; 0]);
    clock.advance(Duration::from_secs(61));
    assert_eq!(batch(&cache, &[1, 2, 3, 4]), Ok(vec![1, 2, 3, 4]));
    assert_eq!(of_spans(), [run("expired", 2), run("mixed", 2)].concat());
    quiet(&cache, &[7]);
    assert_eq!(of_spans(), [""; 0]);
}

#[test]
fn span_of_an_async_run_of_a_batch_is_entered_at_each_poll() {
    let _guard = listen();
    let cache = MemoryOptions::new().build();
    assert_eq!(smol::block_on(batch_async(&cache, &[1, 2])), [1, 2]);
    let new = format!("{RUN} elements=2");
    let polls = ["enter vayu.run", "body", "exit vayu.run", "enter vayu.run", "exit vayu.run"];
    let found = of_spans();
    assert_eq!(found[..6], [&[&*new], &polls[..]].concat()[..]);
    assert_eq!(found.last().map(String::as_str), Some("close vayu.run"));
}

#[test]
fn span_ends_with_a_panic() {
    #[cached(cache = cache, ttl = "1m", prefix = "p", key = "k")]
    fn panics(cache: &MemoryCache) -> u8 {
        panic!("planned panic")
    }
    let _guard = listen();
    let cache = MemoryOptions::new().build();
    let call = || panics(&cache);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err());
    assert_eq!(lines()[2..], ["enter vayu.run", "exit vayu.run", "close vayu.run"]);
    assert!(tracing::Span::current().is_none());
}

#[test]
fn outcome_and_age_are_recorded_in_the_span_of_the_caller() {
    let _guard = listen();
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    let request = || {
        tracing::info_span!(
            "request",
            vayu.outcome = tracing::field::Empty,
            vayu.age = tracing::field::Empty
        )
    };
    let recorded = || {
        let mut lines = lines();
        lines.retain(|line| line.starts_with("record"));
        lines
    };
    request().in_scope(|| f(&cache)).unwrap();
    assert_eq!(recorded(), ["record request vayu.outcome=\"miss\""]);
    clock.advance(Duration::from_secs(7));
    request().in_scope(|| f(&cache)).unwrap();
    assert_eq!(recorded(), ["record request vayu.outcome=\"hit\"", "record request vayu.age=7.0"]);
    tracing::info_span!("without the fields").in_scope(|| f(&cache)).unwrap();
    assert_eq!(recorded(), [""; 0]);
}

#[test]
fn reason_of_a_miss_is_logged_at_trace_level() {
    #[cached(cache = cache, ttl = "1m", prefix = "f", key = "k", log = false)]
    fn quiet(cache: &MemoryCache) -> u8 {
        1
    }
    #[cached(cache = cache, ttl = "1m", prefix = "f", key = "k")]
    fn other_type(cache: &MemoryCache) -> String {
        String::new()
    }
    #[cached(cache = cache, ttl = "1m", prefix = "f", key = "k")]
    fn plain(cache: &MemoryCache) -> u8 {
        1
    }
    let _guard = listen();
    let reason = |reason: &str| format!("trace message=miss function=\"f\" reason=\"{reason}\"");
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    quiet(&cache);
    cache.clear().unwrap();
    assert_eq!(reasons(), [""; 0]);
    plain(&cache);
    assert_eq!(reasons(), [reason("absent")]);
    clock.advance(Duration::from_secs(61));
    plain(&cache);
    assert_eq!(reasons(), [reason("expired")]);
    cache.invalidate_prefix("f").unwrap();
    plain(&cache);
    assert_eq!(reasons(), [reason("invalidated")]);
    other_type(&cache);
    assert_eq!(reasons(), [reason("corrupt")]);
    let dir = tempfile::tempdir().unwrap();
    let options = vayu::FileOptions::new().clock(clock.clone());
    #[cached(cache = cache, ttl = "1m", prefix = "f", key = "k")]
    fn in_file(cache: &vayu::FileCache) -> u8 {
        1
    }
    let files = options.open(dir.path()).unwrap();
    in_file(&files);
    assert_eq!(reasons(), [reason("absent")]);
    clock.advance(Duration::from_secs(61));
    in_file(&files);
    assert_eq!(reasons(), [reason("expired")]);
    files.invalidate_prefix("f").unwrap();
    in_file(&files);
    assert_eq!(reasons(), [reason("invalidated")]);
    #[cached(cache = cache, ttl = "1m", prefix = "f", key = "k")]
    fn other_type_in_file(cache: &vayu::FileCache) -> String {
        String::new()
    }
    other_type_in_file(&files);
    assert_eq!(reasons(), [reason("other type")]);
}

#[test]
fn refresh_that_reads_a_stale_value_again_logs_no_miss() {
    #[cached(cache = cache, ttl = "1m", stale = "1m", prefix = "f", key = "k")]
    fn refreshed(cache: &MemoryCache) -> u64 {
        cache.stats().inserts
    }
    #[cached(cache = cache, ttl = "1m", stale = "1m", prefix = "f", key = "k")]
    async fn refreshed_async(cache: &MemoryCache) -> u64 {
        cache.stats().inserts
    }
    let _guard = listen();
    let clock = ManualClock::new();
    let cache = MemoryOptions::new().clock(clock.clone()).build();
    refreshed(&cache);
    reasons();
    clock.advance(Duration::from_secs(61));
    assert_eq!(refreshed(&cache), 1);
    assert_eq!(reasons(), [""; 0]);
    clock.advance(Duration::from_secs(61));
    assert_eq!(smol::block_on(refreshed_async(&cache)), 2);
    assert_eq!(reasons(), [""; 0]);
}

//! The ends of entries, as observers receive them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use vayu::backend::{AnyValue, Backend, Bytes, Serializer};
use vayu::telemetry::{EndCause, Metrics, Observer, PerFunctionStats};
use vayu::testing::{ManualClock, MapBackend, watchdog};
use vayu::{
    Cache, FileOptions, Key, MemoryCache, MemoryOptions, MessagePack, TieredOptions, cached,
};

use crate::with_every_backend;

/// Records the ends of entries.
#[derive(Debug, Clone, Default)]
struct Ends(Arc<Mutex<Vec<(String, EndCause)>>>);

impl Ends {
    /// Returns the ends since the last call.
    fn take(&self) -> Vec<(String, EndCause)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Returns the causes since the last call, if all are of this function.
    fn causes(&self, function: &str) -> Vec<EndCause> {
        let ends = self.take();
        assert!(ends.iter().all(|(of, _)| of == function), "{ends:?}");
        ends.into_iter().map(|(_, cause)| cause).collect()
    }
}

impl Observer for Ends {
    fn on_end(&self, function: &str, cause: EndCause) {
        self.0.lock().unwrap().push((function.to_owned(), cause));
    }
}

const MINUTE: Duration = Duration::from_secs(60);

/// Keys that are stored in each of the ways that a backend has: short, long, and longer than that.
fn keys(n: u64) -> [Key; 4] {
    [
        Key::new("f", &(n,)).unwrap(),
        Key::from_text("f", format!("a key of more than two words {n}")),
        Key::from_text("f", format!("{n} {}", "k".repeat(60))),
        Key::from_text("f", format!("{n} {}", "k".repeat(5_000))),
    ]
}

fn check_causes<B, S>(open: impl Fn(ManualClock) -> Cache<B, S>)
where
    B: Backend,
    S: Serializer<String, Stored = B::Stored>,
{
    for key in keys(7) {
        let clock = ManualClock::new();
        let (cache, ends) = (open(clock.clone()), Ends::default());
        let set = || cache.set(&key, &"a value".to_owned(), MINUTE).unwrap();
        // A cache of a backend that reports nothing has no ends.
        set();
        cache.observe(ends.clone());
        set();
        if ends.causes("f") != [EndCause::Replaced] {
            return;
        }
        clock.advance(2 * MINUTE);
        set();
        assert_eq!(ends.causes("f"), [EndCause::Expired], "{key}");
        cache.invalidate_prefix("f").unwrap();
        assert_eq!(ends.causes("f"), [], "{key}: it is not served any more, but there");
        set();
        assert_eq!(ends.causes("f"), [EndCause::Invalidated], "{key}");
        cache.remove(&key).unwrap();
        assert_eq!(ends.causes("f"), [EndCause::Invalidated], "{key}");
        cache.remove(&key).unwrap();
        assert_eq!(ends.causes("f"), [], "{key}");
        set();
        cache.clear().unwrap();
        assert_eq!(ends.causes("f"), [EndCause::Invalidated], "{key}");
        cache.clear().unwrap();
        assert_eq!(ends.causes("f"), [], "{key}");
    }
}

#[test]
fn each_cause_is_reported() {
    with_every_backend!(check_causes);
}

/// A miss of a number or a string that is absent leaves the sweep to the write that follows as a rule.
#[test]
fn run_that_stores_nothing_removes_what_has_expired() {
    #[cached(cache = cache, ttl = "1m", skip(cache, is_down), prefix = "f")]
    fn number(cache: &MemoryCache, id: u64, is_down: bool) -> Result<u64, String> {
        if is_down { Err("down".to_owned()) } else { Ok(id) }
    }
    #[cached(cache = cache, ttl = "1m", skip(cache, is_down), prefix = "f", cache_if = |text| !text.is_empty())]
    async fn text(cache: &MemoryCache, id: u64, is_down: bool) -> String {
        if is_down { String::new() } else { "a value".repeat(100) }
    }
    #[cached(cache = cache, ttl = "1m", each = ids, skip(cache, is_down), prefix = "f", at_most = 1)]
    fn many(cache: &MemoryCache, ids: &[u64], is_down: bool) -> Result<Vec<u64>, String> {
        if is_down { Err("down".to_owned()) } else { Ok(ids.to_vec()) }
    }
    let call = |form: usize, cache: &MemoryCache, id: u64, is_down: bool| match form {
        0 => number(cache, id, is_down).is_ok(),
        1 => !smol::block_on(text(cache, id, is_down)).is_empty(),
        _ => many(cache, &[id], is_down).is_ok(),
    };
    for form in 0..3 {
        let (clock, ends) = (ManualClock::new(), Ends::default());
        let cache = MemoryOptions::new().clock(clock.clone()).build();
        cache.observe(ends.clone());
        assert!((0..10).all(|id| call(form, &cache, id, false)));
        clock.advance(2 * MINUTE);
        assert!(!call(form, &cache, 10, true));
        assert_eq!(ends.causes("f"), [EndCause::Expired; 10], "{form}");
    }
}

/// Checks that an entry that is swept or evicted is reported. `write` writes until `cache` has swept or evicted.
fn check_full<B, S>(cache: &Cache<B, S>, clock: &ManualClock, entries: u64)
where
    B: Backend,
    S: Serializer<u64, Stored = B::Stored>,
{
    let ends = Ends::default();
    cache.observe(ends.clone());
    let written = 3 * entries;
    for n in 0..written / 4 {
        for key in keys(n) {
            cache.set(&key, &n, MINUTE).unwrap();
        }
    }
    let evicted = ends.causes("f");
    let has_other = |ends: &[EndCause], cause| ends.iter().any(|&end| end != cause);
    assert!(!evicted.is_empty() && !has_other(&evicted, EndCause::Evicted));
    clock.advance(2 * MINUTE);
    // Sweeps of what has expired.
    let last = Key::new("f", &"last").unwrap();
    let mut expired = Vec::new();
    for _ in 0..2_000 {
        clock.advance(MINUTE);
        cache.set(&last, &0, MINUTE).unwrap();
        let _ = cache.stats();
        expired.extend(ends.causes("f"));
    }
    assert!(!expired.is_empty() && !has_other(&expired, EndCause::Expired));
    cache.clear().unwrap();
    let rest = ends.causes("f").len() as u64;
    let ended = evicted.len() as u64 + expired.len() as u64 + rest;
    assert_eq!(ended, written / 4 * 4 + 2_000, "{} evicted, {rest} cleared", evicted.len());
}

#[test]
fn evicted_and_swept_entries_of_memory_are_reported() {
    let clock = ManualClock::new();
    let options = || MemoryOptions::new().clock(clock.clone());
    check_full(&options().max_entries(2_000).build(), &clock, 2_000);
    check_full(&options().max_entries(64).build(), &clock, 64);
    check_full(&options().max_entries(1).build(), &clock, 4);
    check_full(&options().max_weight(1_000, |_: &Key, _: &AnyValue| 10).build(), &clock, 100);
}

#[test]
fn evicted_and_swept_entries_of_moka_are_reported() {
    let clock = ManualClock::new();
    let options = || MemoryOptions::new().clock(clock.clone());
    check_full(&options().max_entries(100).build_moka(), &clock, 100);
}

#[test]
fn evicted_and_swept_entries_of_files_are_reported() {
    let (clock, place) = (ManualClock::new(), tempfile::tempdir().unwrap());
    let options = FileOptions::new().clock(clock.clone()).max_entries(600);
    check_full(&options.open(place.path()).unwrap(), &clock, 600);
}

#[test]
fn value_that_is_too_heavy_is_reported_with_the_one_that_it_replaces() {
    let weigh = |_: &Key, value: &AnyValue| value.downcast_ref::<u32>().copied().unwrap_or(1);
    let (cache, ends) = (MemoryOptions::new().max_weight(100, weigh).build(), Ends::default());
    cache.observe(ends.clone());
    let key = Key::new("f", &1).unwrap();
    cache.set(&key, &10_u32, MINUTE).unwrap();
    cache.set(&key, &1_000_u32, MINUTE).unwrap();
    assert_eq!(ends.causes("f"), [EndCause::Replaced, EndCause::Evicted]);
}

#[test]
fn end_of_an_entry_of_a_function_has_its_path() {
    #[cached(cache = cache, ttl = "1m", skip(cache))]
    fn named(cache: &vayu::MemoryCache, n: u32) -> u32 {
        n
    }
    let (cache, ends) = (MemoryOptions::new().max_entries(1).build(), Ends::default());
    let tally = PerFunctionStats::new();
    cache.observe(ends.clone());
    cache.observe(tally.clone());
    named(&cache, 1);
    named(&cache, 2);
    let path = format!("{}::end_of_an_entry_of_a_function_has_its_path::named", module_path!());
    assert_eq!(ends.take(), [(path, EndCause::Evicted)]);
    let ends = tally.functions()[0].ends;
    assert_eq!((ends.evicted, ends.total()), (1, 1));
}

#[test]
fn entries_in_front_of_a_backing_tier_are_not_reported() {
    let backing: Cache<_, MessagePack> = Cache::with_backend(MapBackend::<Bytes>::default());
    let memory = MemoryOptions::new().max_entries(1);
    let (cache, ends) = (TieredOptions::new().memory(memory).over(&backing), Ends::default());
    cache.observe(ends.clone());
    for n in 0..100_u32 {
        cache.set(&Key::new("f", &n).unwrap(), &n, MINUTE).unwrap();
    }
    assert_eq!(ends.take(), []);
    cache.clear().unwrap();
    assert_eq!(ends.causes("f").len(), 100);
}

#[test]
fn observer_that_uses_its_cache_or_panics_affects_no_call() {
    struct Uses(vayu::MemoryCache);
    impl Observer for Uses {
        fn on_end(&self, _: &str, _: EndCause) {
            let key = Key::new("g", &1).unwrap();
            assert!(self.0.remove(&key).is_ok());
            panic!("planned panic of an observer");
        }
    }
    watchdog(crate::HANG, || {
        let cache = MemoryOptions::new().max_entries(4).build();
        let ends = Ends::default();
        cache.observe(Uses(cache.clone()));
        cache.observe(ends.clone());
        for n in 0..100_u32 {
            cache.set(&Key::new("f", &n).unwrap(), &n, MINUTE).unwrap();
        }
        assert_eq!(ends.causes("f").len(), 96);
        assert_eq!(cache.stats().errors_of(vayu::ErrorKind::Panic), 96);
    });
}

#[derive(Debug, Clone)]
enum Step {
    Set(u64, usize, u64),
    Remove(u64, usize),
    Invalidate,
    Advance(u64),
    Clear,
}

fn step() -> impl Strategy<Value = Step> {
    let key = || (0_u64..12, 0_usize..4);
    prop_oneof![
        8 => (key(), 1_u64..100).prop_map(|((n, form), ttl)| Step::Set(n, form, ttl)),
        2 => key().prop_map(|(n, form)| Step::Remove(n, form)),
        1 => Just(Step::Invalidate),
        3 => (0_u64..40).prop_map(Step::Advance),
        1 => Just(Step::Clear),
    ]
}

/// Returns an error unless each entry that was written has ended once when the cache is empty.
fn run<B, S>(steps: &[Step], clock: &ManualClock, cache: &Cache<B, S>) -> Result<(), TestCaseError>
where
    B: Backend,
    S: Serializer<u64, Stored = B::Stored>,
{
    let ends = Ends::default();
    cache.observe(ends.clone());
    let (mut written, mut ended) = (0, Vec::new());
    for step in steps {
        match *step {
            Step::Set(n, form, ttl) => {
                cache.set(&keys(n)[form], &n, Duration::from_secs(ttl)).unwrap();
                written += 1;
            }
            Step::Remove(n, form) => drop(cache.remove(&keys(n)[form]).unwrap()),
            Step::Invalidate => cache.invalidate_prefix("f").unwrap(),
            Step::Advance(seconds) => clock.advance(Duration::from_secs(seconds)),
            Step::Clear => cache.clear().unwrap(),
        }
        ended.extend(ends.causes("f"));
        prop_assert!(ended.len() <= written, "{ended:?} of {written}");
    }
    cache.clear().unwrap();
    ended.extend(ends.causes("f"));
    prop_assert_eq!(ended.len(), written);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn entry_ends_once(steps in prop::collection::vec(step(), 1..80), entries in 0_u64..40) {
        let clock = ManualClock::new();
        let options = || MemoryOptions::new().clock(clock.clone()).max_entries(entries);
        run(&steps, &clock, &options().build())?;
        run(&steps, &clock, &options().max_weight(entries * 7, |_: &Key, _: &AnyValue| 7).build())?;
        run(&steps, &clock, &options().build_moka())?;
        let map: Cache<_, MessagePack> = Cache::with_backend(MapBackend::with_clock(clock.clone()));
        run(&steps, &clock, &map)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn entry_of_a_file_ends_once(
        steps in prop::collection::vec(step(), 1..60),
        entries in 1_u64..40,
    ) {
        let (clock, place) = (ManualClock::new(), tempfile::tempdir().unwrap());
        let options = FileOptions::new().clock(clock.clone()).max_entries(entries);
        let files = options.open(place.path()).unwrap();
        run(&steps, &clock, &files)?;
        run(&steps, &clock, &TieredOptions::new().over(&files))?;
    }
}

#[test]
fn ends_are_metrics() {
    use metrics_util::debugging::{DebugValue, DebuggingRecorder};
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let cache = MemoryOptions::new().build();
        cache.observe(Metrics::new());
        let key = Key::new("f", &1).unwrap();
        for _ in 0..3 {
            cache.set(&key, &1, MINUTE).unwrap();
        }
    });
    let found = snapshotter.snapshot().into_vec().into_iter().find_map(|(key, _, _, value)| {
        let labels: Vec<_> = key.key().labels().map(|l| (l.key(), l.value())).collect();
        let is_it = labels == [("vayu.function", "f"), ("vayu.cause", "replaced")];
        (key.key().name() == "vayu.end.count" && is_it).then_some(value)
    });
    assert_eq!(found, Some(DebugValue::Counter(2)));
}

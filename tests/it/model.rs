//! Model-based tests: every backend against a map with a clock.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use vayu::backend::{Backend, ByReference, Serializer};
use vayu::testing::{ManualClock, MapBackend};
use vayu::time::{Clock, Timestamp};
use vayu::{Cache, FileOptions, Key, MemoryOptions, MessagePack};

/// Operation sequences per backend, unless
/// `VAYU_MODEL_CASES` is set.
const CASES: u32 = 1_000;

#[derive(Debug, Clone)]
enum Step {
    Get(u8),
    Set(u8, String, Duration),
    GetOrInsert(u8, String, Duration),
    GetOrFail(u8, Result<String, u8>, Duration),
    Remove(u8),
    Clear,
    Advance(Duration),
    /// Sets the clock back, by less than the accepted clock skew.
    SetBack(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0_u8..6;
    let value = "[a-z]{0,12}";
    let ttl = prop_oneof![
        (1_u64..120).prop_map(Duration::from_secs),
        Just(Duration::from_micros(1)),
        Just(Duration::MAX),
    ];
    prop_oneof![
        4 => key.clone().prop_map(Step::Get),
        3 => (key.clone(), value, ttl.clone()).prop_map(|(k, v, t)| Step::Set(k, v, t)),
        4 => (key.clone(), value, ttl.clone()).prop_map(|(k, v, t)| Step::GetOrInsert(k, v, t)),
        2 => (key.clone(), prop_oneof![value.prop_map(Ok), any::<u8>().prop_map(Err)], ttl)
            .prop_map(|(k, r, t)| Step::GetOrFail(k, r, t)),
        2 => key.prop_map(Step::Remove),
        1 => Just(Step::Clear),
        3 => (0_u64..90_000_000).prop_map(|micros| Step::Advance(Duration::from_micros(micros))),
        1 => (0_u64..240).prop_map(|seconds| Step::SetBack(Duration::from_secs(seconds))),
    ]
}

/// The expected content of a cache.
struct Model {
    entries: HashMap<u8, Stored>,
    clock: ManualClock,
}

#[derive(Clone)]
struct Stored {
    value: String,
    created: Timestamp,
    expires: Timestamp,
}

impl Model {
    fn get(&self, key: u8) -> Option<String> {
        let stored = self.entries.get(&key)?;
        (self.clock.now() < stored.expires).then(|| stored.value.clone())
    }

    /// Like [`get`](Self::get) for a caller with its own ttl.
    fn get_within(&self, key: u8, ttl: Duration) -> Option<String> {
        let created = self.entries.get(&key)?.created;
        let now = self.clock.now();
        self.get(key).filter(|_| now < created.saturating_add(ttl) || created > now)
    }

    fn set(&mut self, key: u8, value: &str, ttl: Duration) {
        let created = self.clock.now();
        let expires = created.saturating_add(ttl);
        self.entries.insert(key, Stored { value: value.to_owned(), created, expires });
    }
}

fn key(n: u8) -> Key {
    Key::new("model", &(n,)).expect("a key")
}

fn run<B, S>(cache: &Cache<B, S>, clock: &ManualClock, steps: &[Step]) -> Result<(), TestCaseError>
where
    B: Backend,
    S: Serializer<String, Stored = B::Stored>,
{
    let mut model = Model { entries: HashMap::new(), clock: clock.clone() };
    for step in steps {
        match step {
            Step::Get(k) => {
                prop_assert_eq!(cache.get::<String>(&key(*k)).expect("read"), model.get(*k));
            }
            Step::Set(k, value, ttl) => {
                cache.set(&key(*k), value, *ttl).expect("write");
                model.set(*k, value, *ttl);
            }
            Step::GetOrInsert(k, value, ttl) => {
                let expected = model.get_within(*k, *ttl);
                let found = cache.get_or_insert_with(&key(*k), *ttl, || value.clone());
                prop_assert_eq!(&found, expected.as_ref().unwrap_or(value));
                if expected.is_none() {
                    model.set(*k, value, *ttl);
                }
            }
            Step::GetOrFail(k, result, ttl) => {
                let expected = model.get_within(*k, *ttl);
                let found = cache.try_get_or_insert_with(&key(*k), *ttl, || result.clone());
                prop_assert_eq!(&found, &expected.clone().map_or(result.clone(), Ok));
                if let (None, Ok(value)) = (expected, result) {
                    model.set(*k, value, *ttl);
                }
            }
            Step::Remove(k) => {
                // The backend may or may not have removed an expired entry.
                let was_fresh = model.get(*k).is_some();
                let was_there = cache.remove(&key(*k)).expect("delete");
                prop_assert!(was_there || !was_fresh);
                model.entries.remove(k);
            }
            Step::Clear => {
                cache.clear().expect("clear");
                model.entries.clear();
            }
            Step::Advance(time) => clock.advance(*time),
            Step::SetBack(time) => {
                // An expired entry may have been swept, so it must not become valid again.
                let now = clock.now();
                model.entries.retain(|_, stored| now < stored.expires);
                let back = now.as_micros() - i64::try_from(time.as_micros()).expect("minutes");
                for k in 0..6 {
                    if !model.entries.contains_key(&k) {
                        cache.remove(&key(k)).expect("delete");
                    }
                }
                clock.set(Timestamp::from_micros(back));
                let accepted = |stored: &Stored| {
                    stored.created <= clock.now().saturating_add(Duration::from_secs(300))
                };
                model.entries.retain(|_, stored| accepted(stored));
                for k in 0..6 {
                    if !model.entries.contains_key(&k) {
                        cache.remove(&key(k)).expect("delete");
                    }
                }
            }
        }
    }
    let stats = cache.stats();
    prop_assert_eq!((stats.errors, stats.in_flight), (0, 0));
    Ok(())
}

fn config() -> ProptestConfig {
    let cases = std::env::var("VAYU_MODEL_CASES")
        .map_or(CASES, |cases| cases.parse().expect("VAYU_MODEL_CASES is a number"));
    ProptestConfig::with_cases(cases)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn memory_behaves_as_the_model(steps in prop::collection::vec(step(), 1..50)) {
        let clock = ManualClock::new();
        run(&MemoryOptions::new().clock(clock.clone()).build(), &clock, &steps)?;
    }

    #[test]
    fn moka_behaves_as_the_model(steps in prop::collection::vec(step(), 1..50)) {
        let clock = ManualClock::new();
        run(&MemoryOptions::new().clock(clock.clone()).build_moka(), &clock, &steps)?;
    }

    #[test]
    fn map_behaves_as_the_model(steps in prop::collection::vec(step(), 1..50)) {
        let clock = ManualClock::new();
        let cache: Cache<_, ByReference> =
            Cache::with_backend(MapBackend::with_clock(clock.clone()));
        run(&cache, &clock, &steps)?;
    }

    #[test]
    fn bytes_in_a_map_behave_as_the_model(steps in prop::collection::vec(step(), 1..50)) {
        let clock = ManualClock::new();
        let cache: Cache<MapBackend, MessagePack> =
            Cache::with_backend(MapBackend::with_clock(clock.clone()));
        run(&cache, &clock, &steps)?;
    }

    #[test]
    fn files_behave_as_the_model(steps in prop::collection::vec(step(), 1..50)) {
        let clock = ManualClock::new();
        let place = tempfile::tempdir().expect("a directory");
        let cache = FileOptions::new().clock(clock.clone()).open(place.path()).expect("a cache");
        run(&cache, &clock, &steps)?;
    }
}

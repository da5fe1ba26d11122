//! The properties of a backend whose location is opened again.

use std::fmt;
use std::sync::Arc;

use super::{MINUTE, Mode, key};
use crate::backend::{Backend, BackendExt};

use crate::cache::Cache;
use crate::error::{ErrorKind, Result};
use crate::generation::Group;
use crate::key::Key;
use crate::serializer::Serializer;
use crate::sync::block_on;
use crate::testing::ManualClock;

/// A backend under test, and a function that opens its location again.
pub struct Reopening<'a, B, S> {
    first: B,
    again: Box<dyn Fn() -> B + 'a>,
    serializer: S,
    mode: Mode,
}

/// Opens the location of a backend again.
pub fn reopen<G, B>(
    place: &G,
    clock: &ManualClock,
    reopen: impl FnOnce(&G, ManualClock) -> B,
) -> B {
    reopen(place, clock.clone())
}

impl<'a, B, S> Reopening<'a, B, S>
where
    B: Backend,
    S: Serializer<Vec<u8>, Stored = B::Stored> + Clone,
{
    /// Creates this from an open backend and a function that opens its location again.
    pub fn new(first: B, again: impl Fn() -> B + 'a, serializer: S, mode: Mode) -> Self {
        Self { first, again: Box::new(again), serializer, mode }
    }

    fn cache(&self, backend: B) -> Cache<B, S> {
        Cache::<B, ()>::with_backend(backend).with_serializer(self.serializer.clone())
    }

    fn set(&self, cache: &Cache<B, S>, key: &Key) {
        match self.mode {
            Mode::Sync => cache.set(key, &b"value".to_vec(), MINUTE),
            Mode::Async => block_on(cache.set_async(key, &b"value".to_vec(), MINUTE)),
        }
        .expect("write");
    }

    fn has(&self, cache: &Cache<B, S>, key: &Key) -> bool {
        let found = match self.mode {
            Mode::Sync => cache.get::<Vec<u8>>(key),
            Mode::Async => block_on(cache.get_async::<Vec<u8>>(key)),
        };
        found.expect("read").is_some()
    }

    fn invalidate(&self, cache: &Cache<B, S>, group: usize) -> Result<()> {
        match (group, self.mode) {
            (0, Mode::Sync) => cache.invalidate_tag("tag"),
            (0, Mode::Async) => block_on(cache.invalidate_tag_async("tag")),
            (1, Mode::Sync) => cache.invalidate_prefix("conformance"),
            (1, Mode::Async) => block_on(cache.invalidate_prefix_async("conformance")),
            (_, Mode::Sync) => cache.invalidate_all(),
            (_, Mode::Async) => block_on(cache.invalidate_all_async()),
        }
    }

    fn generation(&self, backend: &B, group: Group) -> u64 {
        let generations = backend.capabilities().generations.expect("generations");
        match self.mode {
            Mode::Sync => generations.generation(group),
            Mode::Async => block_on(generations.generation_async(group)),
        }
        .expect("a generation")
    }

    fn bump(&self, backend: &B, group: Group) {
        let generations = backend.capabilities().generations.expect("generations");
        match self.mode {
            Mode::Sync => generations.bump(group),
            Mode::Async => block_on(generations.bump_async(group)),
        }
        .expect("bump");
    }
}

impl<B, S> fmt::Debug for Reopening<'_, B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reopening").field("mode", &self.mode).finish_non_exhaustive()
    }
}

/// Checks that entries survive if and only if the backend says that they are not in this process.
///
/// # Panics
///
/// When the backend does not have this property.
pub fn entries_are_where_the_backend_says_they_are<B, S>(reopening: &Reopening<'_, B, S>)
where
    B: Backend,
    S: Serializer<Vec<u8>, Stored = B::Stored> + Clone,
{
    let again = || reopening.cache((reopening.again)());
    let other = again();
    let first = again();
    let is_shared = !first.backend().is_in_process();
    reopening.set(&first, &key("kept"));
    assert_eq!(
        reopening.has(&other, &key("kept")),
        is_shared,
        "`is_in_process` is false if and only if a second backend at the location has the entry"
    );
    drop((first, other));
    for _ in 0..2 {
        let last = again();
        assert_eq!(
            reopening.has(&last, &key("kept")),
            is_shared,
            "`is_in_process` is false if and only if the entry is there when the location is opened again"
        );
    }
}

/// Checks that invalidated entries are not served after the location is opened again. A backend that
/// cannot guarantee that must return an error when a group is invalidated.
///
/// # Panics
///
/// When the backend does not have this property.
pub fn invalidations_survive_as_long_as_entries<B, S>(reopening: &Reopening<'_, B, S>)
where
    B: Backend,
    S: Serializer<Vec<u8>, Stored = B::Stored> + Clone,
{
    let again = || reopening.cache((reopening.again)());
    for group in 0..3 {
        let key = key(&format!("entry {group}")).with_tags(["tag", "other"]);
        let first = again();
        reopening.set(&first, &key);
        assert!(reopening.has(&first, &key), "it was not invalidated");
        let survives = reopening.has(&again(), &key);
        match reopening.invalidate(&first, group) {
            Ok(()) => assert!(!reopening.has(&first, &key), "group {group}: it was invalidated"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(
                    first.backend().capabilities().generations.is_none(),
                    "it keeps generations"
                );
                assert!(survives, "entries that end with the process can be invalidated");
                continue;
            }
        }
        drop(first);
        for _ in 0..2 {
            assert!(!reopening.has(&again(), &key), "group {group}: the invalidation is lost");
        }
    }
}

/// Checks that a generation never returns to an earlier value when the backend is cleared or opened
/// again.
///
/// # Panics
///
/// When the backend does not have this property.
pub fn clear_never_resets_a_generation<B, S>(reopening: &Reopening<'_, B, S>)
where
    B: Backend,
    S: Serializer<Vec<u8>, Stored = B::Stored> + Clone,
{
    if reopening.first.capabilities().generations.is_none() {
        return;
    }
    let group = Group::tag("cleared");
    let mut backend = (reopening.again)();
    let mut past = Vec::new();
    for round in 0..3 {
        past.push(reopening.generation(&backend, group));
        reopening.bump(&backend, group);
        let renewed = reopening.generation(&backend, group);
        assert!(!past.contains(&renewed), "round {round}: renewed to an earlier one");
        let cleared = match reopening.mode {
            Mode::Sync => backend.clear(),
            Mode::Async => block_on(backend.clear_async()),
        };
        if let Err(error) = cleared {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
        let now = reopening.generation(&backend, group);
        assert!(!past.contains(&now), "round {round}: clearing brought an earlier one back");
        drop(backend);
        backend = (reopening.again)();
        let now = reopening.generation(&backend, group);
        assert!(!past.contains(&now), "round {round}: opening brought an earlier one back");
    }
    // A value that was computed under an earlier generation, and is written late, is not served.
    let cache = Cache::<Arc<B>, ()>::with_backend(Arc::new(backend))
        .with_serializer(reopening.serializer.clone());
    let key = key("late").with_tags(["late"]);
    cache.set(&key, &b"value".to_vec(), MINUTE).expect("write");
    let late = cache.backend().read(&key).expect("read").expect("an entry");
    cache.invalidate_tag("late").expect("invalidated");
    match cache.clear() {
        Ok(()) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    }
    cache.backend().write(&key, late).expect("write");
    assert_eq!(cache.get::<Vec<u8>>(&key).expect("read"), None, "it was computed before");
}

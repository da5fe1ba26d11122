//! Changes whose write fails, and then the deletion that follows.

use std::fmt::Debug;
use std::sync::Mutex;

use super::*;
use crate::backend::Offline;
use crate::generation::Group;
use crate::record::Record;
use crate::sync::lock;

/// A backend whose writes and deletes fail, those of the part for offline use as well.
#[derive(Default)]
struct Failing {
    inner: MapBackend<AnyValue>,
    /// Runs during the next write.
    hook: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

type FailingCache = Cache<Failing, ByReference>;

fn failure<T>(kind: ErrorKind, operation: &'static str) -> Result<T> {
    Err(Error::new(kind, format!("planned failure of a {operation}")))
}

#[async_trait::async_trait]
impl Backend for Failing {
    type Stored = AnyValue;

    fn write(&self, _: &Key, _: Record<AnyValue>) -> Result<()> {
        let hook = lock(&self.hook).take();
        if let Some(hook) = hook {
            hook();
        }
        failure(ErrorKind::Timeout, "write")
    }

    async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        Backend::write(self, key, record)
    }

    fn delete(&self, _: &Key) -> Result<bool> {
        failure(ErrorKind::Backend, "delete")
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        Backend::delete(self, key)
    }

    fn capabilities(&self) -> Capabilities<'_, AnyValue> {
        self.inner.capabilities().with_offline(self)
    }

    crate::forward_backend! { |this| this.inner => read read_async clock }
}

impl Offline for Failing {
    type Stored = AnyValue;

    fn read(&self, _: &Key) -> Result<Option<Record<AnyValue>>> {
        Ok(None)
    }

    fn write(&self, _: &Key, _: Record<AnyValue>) -> Result<()> {
        failure(ErrorKind::Backend, "write offline")
    }

    fn delete(&self, _: &Key) -> Result<()> {
        failure(ErrorKind::Panic, "delete offline")
    }

    fn generation(&self, _: Group) -> Result<u64> {
        Ok(0)
    }
}

/// Returns a cache where something happens during the next write.
fn cache_with(hook: fn(&FailingCache)) -> FailingCache {
    let cache = FailingCache::new();
    let during_write = {
        let cache = cache.clone();
        move || hook(&cache)
    };
    *lock(&cache.backend().hook) = Some(Box::new(during_write));
    cache
}

/// Checks that a change returns the error of its write, and that the errors of this number of deletes are counted: those of the
/// backend, and those of its part for offline use.
fn check<T: Debug>(
    hook: fn(&FailingCache),
    deletes: [u64; 2],
    change: impl Fn(&FailingCache) -> Result<T>,
) {
    let cache = cache_with(hook);
    let error = change(&cache).expect_err("the write fails");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    let stats = cache.stats();
    assert_eq!([ErrorKind::Backend, ErrorKind::Panic].map(|kind| stats.errors_of(kind)), deletes);
    assert_eq!(stats.in_flight, 0);
}

fn check_update(hook: fn(&FailingCache), deletes: [u64; 2]) {
    check(hook, deletes, |cache| cache.update_with(&key(), HOUR, increment));
    check(hook, deletes, |cache| block_on(cache.update_with_async(&key(), HOUR, increment)));
}

fn invalidate(cache: &FailingCache) {
    assert!(cache.engine().flights().invalidate(&key()).is_some(), "the value is being stored");
}

#[test]
fn update_returns_the_error_of_its_write_if_the_offline_delete_fails_too() {
    check_update(|_| (), [0, 1]);
}

#[test]
fn update_returns_the_error_of_its_write_if_the_delete_after_an_invalidation_fails_too() {
    check_update(invalidate, [1, 1]);
}

#[test]
fn update_returns_the_error_of_its_write_if_the_delete_after_a_clear_fails_too() {
    check_update(|cache| drop(cache.engine().shared.clears.begin()), [1, 1]);
}

#[test]
fn set_returns_the_error_of_its_write_if_the_delete_after_an_invalidation_fails_too() {
    check(invalidate, [1, 0], |cache| cache.set(&key(), &1_usize, HOUR));
    check(invalidate, [1, 0], |cache| block_on(cache.set_async(&key(), &1_usize, HOUR)));
}

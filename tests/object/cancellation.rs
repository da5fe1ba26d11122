//! Operations whose future is dropped: what is stored afterwards.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use vayu::backend::{Backend, BackendExt};
use vayu::testing::watchdog;
use vayu::{Key, ObjectCache};

use crate::faulty_store::{Fault, FaultyStore};
use crate::{HANG, cache, until};

const HOUR: Duration = Duration::from_secs(3600);

fn key() -> Key {
    Key::from_text("a", "b")
}

/// Polls a future, which is not ready.
fn start<T>(future: &mut Pin<Box<impl Future<Output = T> + ?Sized>>) {
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
}

/// Gives operations that are ready the time to end: the runtime polls those that were started before.
fn let_others_run(cache: &ObjectCache) {
    for _ in 0..50 {
        cache.backend().read(&Key::from_text("other", "key")).unwrap();
    }
}

/// Starts a write of 1, which is held, and drops it.
fn drop_write(store: &Arc<FaultyStore>, cache: &ObjectCache) {
    cache.set(&key(), &1_u64, HOUR).unwrap();
    let record = cache.backend().read(&key()).unwrap().unwrap();
    assert!(cache.remove(&key()).unwrap());
    store.set(Fault::Holds);
    let key = key();
    let mut write = Box::pin(cache.backend().write_async(&key, record));
    start(&mut write);
    until("it writes", || store.held() == 1);
}

#[test]
fn write_that_was_dropped_does_not_land_after_a_deletion() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache(&store);
        drop_write(&store, &cache);
        let key = key();
        let mut delete = Box::pin(cache.backend().delete_async(&key));
        start(&mut delete);
        let_others_run(&cache);
        store.resume();
        smol::block_on(delete).unwrap();
        let_others_run(&cache);
        assert_eq!(cache.get::<u64>(&key).unwrap(), None);
    });
}

#[test]
fn write_that_was_dropped_does_not_land_after_a_later_write() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let (cache, other) = (cache(&store), cache(&store));
        other.set(&Key::from_text("a", "c"), &2_u64, HOUR).unwrap();
        let record = other.backend().read(&Key::from_text("a", "c")).unwrap().unwrap();
        drop_write(&store, &cache);
        store.set(Fault::None);
        let key = key();
        let mut write = Box::pin(cache.backend().write_async(&key, record));
        start(&mut write);
        let_others_run(&cache);
        store.resume();
        smol::block_on(write).unwrap();
        let_others_run(&cache);
        assert_eq!(cache.get::<u64>(&key).unwrap(), Some(2));
    });
}

#[test]
fn write_that_was_dropped_does_not_land_after_clear() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache(&store);
        drop_write(&store, &cache);
        store.set(Fault::None);
        let mut clear = Box::pin(cache.backend().clear_async());
        start(&mut clear);
        let_others_run(&cache);
        store.resume();
        smol::block_on(clear).unwrap();
        let_others_run(&cache);
        assert_eq!(cache.get::<u64>(&key()).unwrap(), None);
    });
}

#[test]
fn clear_that_was_dropped_ends_with_its_step() {
    watchdog(HANG, || {
        let store = FaultyStore::new();
        let cache = cache(&store);
        for n in 0..700 {
            store.replace(&format!("vayu/v1/entries/00/{n:062x}").into(), "x");
        }
        store.set(Fault::Holds);
        let mut clear = Box::pin(cache.backend().clear_async());
        until("it deletes", || {
            start(&mut clear);
            store.held() == 1
        });
        drop(clear);
        store.resume();
        for _ in 0..100 {
            let_others_run(&cache);
        }
        let left = store.names("/entries/").len();
        assert!((1..700).contains(&left), "{left}");
    });
}

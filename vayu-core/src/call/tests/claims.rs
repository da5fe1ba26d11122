//! Callers of several processes: here several caches over one backend, which know nothing of each
//! other but what the backend tells.

use std::collections::HashSet;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::backend::{Backend, Claim, Claimed};
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::sync::block_on;

/// A map whose keys are computed by one cache at a time.
#[derive(Clone, Default)]
struct Claiming {
    map: MapBackend<Shared>,
    taken: Arc<Mutex<HashSet<Key>>>,
    claims_fail: bool,
}

struct Taken(Claiming, Key);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.taken.lock().expect("no panic").remove(&self.1);
    }
}

#[async_trait]
impl Backend for Claiming {
    type Stored = Shared;
    fn read(&self, key: &Key) -> Result<Option<Record<Shared>>> {
        self.map.read(key)
    }
    fn write(&self, key: &Key, record: Record<Shared>) -> Result<()> {
        self.map.write(key, record)
    }
    fn delete(&self, key: &Key) -> Result<bool> {
        self.map.delete(key)
    }
    async fn read_async(&self, key: &Key) -> Result<Option<Record<Shared>>> {
        self.read(key)
    }
    async fn write_async(&self, key: &Key, record: Record<Shared>) -> Result<()> {
        self.write(key, record)
    }
    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }
    fn try_claim(&self, key: &Key) -> Result<Claim> {
        if self.claims_fail {
            return Err(Error::new(ErrorKind::Backend, "planned failure of a claim"));
        }
        let is_free = self.taken.lock().expect("no panic").insert(key.clone());
        let granted = || Claim::Granted(Claimed::new(Taken(self.clone(), key.clone())));
        Ok(if is_free { granted() } else { Claim::Taken })
    }
    fn clock(&self) -> Arc<dyn Clock> {
        self.map.clock()
    }
}

fn compute_once(call: impl Fn(&Cache<Claiming, ByReference>, &AtomicUsize) -> usize + Sync) {
    let backend = Claiming::default();
    let runs = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            let process: Cache<Claiming, ByReference> = Cache::with_backend(backend.clone());
            let (call, runs) = (&call, &runs);
            scope.spawn(move || {
                thread::scope(|scope| {
                    for _ in 0..4 {
                        scope.spawn(|| assert_eq!(call(&process, runs), 1));
                    }
                });
            });
        }
    });
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert!(backend.taken.lock().expect("no panic").is_empty(), "every right was given back");
}

#[test]
fn processes_compute_a_key_once() {
    watchdog(HANG, || {
        compute_once(|process, runs| {
            process.get_or_insert_with(&key("k"), MINUTE, || {
                thread::yield_now();
                runs.fetch_add(1, Ordering::SeqCst) + 1
            })
        });
        compute_once(|process, runs| {
            block_on(process.get_or_insert_with_async(&key("k"), MINUTE, async {
                Yield(3).await;
                runs.fetch_add(1, Ordering::SeqCst) + 1
            }))
        });
    });
}

#[test]
fn right_that_is_never_given_back_holds_nobody_for_ever() {
    watchdog(HANG, || {
        let backend = Claiming::default();
        let _held = backend.try_claim(&key("k")).expect("free");
        let process: Cache<Claiming, ByReference> =
            Cache::with_backend(backend).with_max_wait(Duration::from_millis(20));
        assert_eq!(process.get_or_insert_with(&key("k"), MINUTE, || 1), 1);
        assert_eq!(process.get::<i32>(&key("k")).expect("read"), Some(1), "and it is stored");
        let other = key("other");
        let _held = process.backend().try_claim(&other).expect("free");
        assert_eq!(block_on(process.get_or_insert_with_async(&other, MINUTE, async { 2 })), 2);
    });
}

#[test]
fn right_is_given_back_when_the_body_panics() {
    let backend = Claiming::default();
    let process: Cache<Claiming, ByReference> = Cache::with_backend(backend.clone());
    let call = || process.get_or_insert_with(&key("k"), MINUTE, || -> u8 { panic!("planned") });
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err());
    assert!(backend.taken.lock().expect("no panic").is_empty());
}

#[test]
fn right_that_cannot_be_asked_for_is_done_without() {
    let backend = Claiming { claims_fail: true, ..Claiming::default() };
    let process: Cache<Claiming, ByReference> = Cache::with_backend(backend);
    assert_eq!(process.get_or_insert_with(&key("k"), MINUTE, || 1), 1);
    assert_eq!(process.get::<i32>(&key("k")).expect("read"), Some(1));
    assert_eq!(process.stats().errors_of(ErrorKind::Backend), 1);
}

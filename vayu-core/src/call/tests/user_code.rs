//! Code of value types, which runs without locks, and whose panics cost one caller some time.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, OnceLock};

use async_trait::async_trait;

use super::*;
use crate::ErrorKind;
use crate::attribute::revalidate;
use crate::call::{CacheIf, FixedTtl, PlainOutput, Policy, Retention, TtlFn, blocking, future};
use crate::key::KeyBuilder;
use crate::record::Record;
use crate::sync::block_on;

/// A value that panics when it is cloned, if that is enabled.
#[derive(Debug)]
struct Fragile(Arc<AtomicBool>);

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!self.0.load(Ordering::SeqCst), "planned panic of a clone");
        Self(Arc::clone(&self.0))
    }
}

#[test]
fn clone_that_panics_costs_its_caller_a_computation() {
    let fixture = Fixture::new();
    let panics = Arc::new(AtomicBool::new(false));
    let call = || {
        fixture.cache.get_or_insert_with(&key("k"), MINUTE, || {
            fixture.run();
            Fragile(Arc::clone(&panics))
        })
    };
    call();
    panics.store(true, Ordering::SeqCst);
    call();
    assert_eq!(fixture.runs(), 2);
    assert_eq!(fixture.cache.stats().errors_of(ErrorKind::Panic), 2, "the hit and the store");
    panics.store(false, Ordering::SeqCst);
    call();
    assert_eq!(fixture.runs(), 2, "the first value is still there");
}

/// A value that calls back into its cache when it is dropped, and panics.
struct Talkative {
    cache: TestCache,
    drops: Arc<AtomicUsize>,
}

impl Drop for Talkative {
    fn drop(&mut self) {
        let other = self.cache.get_or_insert_with(&key("other"), MINUTE, || 5_u64);
        assert_eq!(other, 5);
        self.cache.remove(&key("k")).expect("remove");
        self.drops.fetch_add(1, Ordering::SeqCst);
        panic!("planned panic of a drop");
    }
}

#[test]
fn drop_that_calls_back_into_the_cache_and_panics_is_survived() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let drops = Arc::new(AtomicUsize::new(0));
        let call = || {
            let value = Talkative { cache: fixture.cache.clone(), drops: Arc::clone(&drops) };
            let value = Arc::new(value);
            drop(fixture.cache.get_or_insert_with(&key("k"), MINUTE, move || value));
        };
        call();
        fixture.clock.advance(2 * MINUTE);
        let replace = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call));
        assert_eq!(
            drops.load(Ordering::SeqCst),
            2,
            "the old value, and the new one as it is removed"
        );
        drop(replace);
        assert_eq!(fixture.cache.get::<u64>(&key("other")).expect("read"), Some(5));
        assert!(!fixture.cache.remove(&key("k")).expect("remove"), "removed by the destructor");
    });
}

/// A map from which another process removes a record while it is read.
#[derive(Default)]
struct RemovesInReads {
    map: MapBackend<AnyValue>,
    /// The number of reads up to that one.
    reads_left: AtomicUsize,
    /// `true` if that read still finds the record.
    is_found: bool,
}

#[async_trait]
impl crate::backend::Backend for RemovesInReads {
    type Stored = AnyValue;
    fn read(&self, key: &Key) -> crate::Result<Option<Record<AnyValue>>> {
        let left = self.reads_left.load(Ordering::SeqCst);
        self.reads_left.store(left.saturating_sub(1), Ordering::SeqCst);
        let found = if left == 1 && !self.is_found { None } else { self.map.read(key)? };
        if left == 1 {
            self.map.delete(key)?;
        }
        Ok(found)
    }
    async fn read_async(&self, key: &Key) -> crate::Result<Option<Record<AnyValue>>> {
        self.read(key)
    }
    crate::forward_backend! { |this| this.map => write delete write_async delete_async clock }
}

/// A value that calls its cache for its own key when it is dropped: the first one for which that is enabled.
#[derive(Clone)]
struct CallsInDrop(Option<Arc<CallInDrop>>);

struct CallInDrop {
    cache: Cache<RemovesInReads, ByReference>,
    is_enabled: AtomicBool,
    /// The flights that were running at the call.
    in_flight: OnceLock<usize>,
}

impl Drop for CallsInDrop {
    fn drop(&mut self) {
        let call = self.0.take().filter(|call| call.is_enabled.swap(false, Ordering::SeqCst));
        let Some(call) = call else { return };
        call.in_flight.set(call.cache.stats().in_flight).expect("one call");
        drop(call.cache.get_or_insert_with(&key("k"), MINUTE, || Self(None)));
    }
}

/// Checks that the last reference to a value past its ttl, which is dropped when the leader reads again, may call for the same key.
fn call_in_drop_of_a_leader<L: Retention<CallsInDrop>>(is_found: bool, retention: impl Fn() -> L) {
    for is_async in [false, true] {
        let clock = ManualClock::new();
        let map = MapBackend::with_clock(clock.clone());
        let backend = RemovesInReads { map, is_found, ..RemovesInReads::default() };
        let cache = Cache::<_, ByReference>::with_backend(backend);
        let call = |value: CallsInDrop| {
            let policy = Policy::new(key("k"), PlainOutput::new(), &ByReference, retention())
                .stale(60 * MINUTE);
            if is_async {
                let body = std::pin::pin!(async { value });
                drop(block_on(future::run(cache.engine(), &policy, body)));
            } else {
                drop(blocking::run(cache.engine(), policy, || value));
            }
        };
        let in_drop = Arc::new(CallInDrop {
            cache: cache.clone(),
            is_enabled: AtomicBool::new(false),
            in_flight: OnceLock::new(),
        });
        call(CallsInDrop(Some(Arc::clone(&in_drop))));
        clock.advance(MINUTE);
        in_drop.is_enabled.store(true, Ordering::SeqCst);
        // The lookup, and the leader.
        cache.backend().reads_left.store(2, Ordering::SeqCst);
        call(CallsInDrop(None));
        assert_eq!(in_drop.in_flight.get(), Some(&1), "async: {is_async}");
        assert_eq!(cache.stats().in_flight, 0);
    }
}

/// A value that calls its cache for its own key when it is cloned: for the second time since that is enabled.
struct CallsInClone(Option<Arc<CallInClone>>);

struct CallInClone {
    fixture: Arc<Fixture>,
    clones_left: AtomicUsize,
    /// The flights that were running at the call.
    in_flight: OnceLock<usize>,
}

impl Clone for CallsInClone {
    fn clone(&self) -> Self {
        let Some(call) = &self.0 else { return Self(None) };
        if call.clones_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            == Ok(1)
        {
            call.in_flight.set(call.fixture.cache.stats().in_flight).expect("one call");
            drop(call.fixture.cache.get_or_insert_with(&key("k"), MINUTE, || Self(None)));
        }
        Self(self.0.clone())
    }
}

#[test]
fn clone_of_the_value_that_a_run_replaces_may_call_for_the_same_key() {
    let test = |is_async: bool| {
        let call = Arc::new(CallInClone {
            fixture: Fixture::new(),
            clones_left: AtomicUsize::new(0),
            in_flight: OnceLock::new(),
        });
        let (cache, clock) = (&call.fixture.cache, &call.fixture.clock);
        let run = |value: CallsInClone| {
            let ttl = revalidate(PlainOutput::<CallsInClone>::new(), FixedTtl::new(MINUTE));
            let policy =
                Policy::new(key("k"), PlainOutput::new(), &ByReference, ttl).stale(60 * MINUTE);
            if is_async {
                let body = std::pin::pin!(async { value });
                drop(block_on(future::run(cache.engine(), &policy, body)));
            } else {
                drop(blocking::run(cache.engine(), policy, || value));
            }
        };
        run(CallsInClone(Some(Arc::clone(&call))));
        clock.advance(MINUTE);
        // That of the lookup, and that of the value which the run replaces.
        call.clones_left.store(2, Ordering::SeqCst);
        run(CallsInClone(None));
        assert_eq!(call.in_flight.get(), Some(&1), "async: {is_async}");
        assert_eq!(cache.stats().in_flight, 0);
    };
    watchdog(HANG, move || [false, true].map(test));
}

#[test]
fn drop_of_a_value_that_the_leader_reads_again_may_call_for_the_same_key() {
    watchdog(HANG, || call_in_drop_of_a_leader(true, || FixedTtl::new(MINUTE)));
}

#[test]
fn drop_of_a_value_that_the_leader_has_kept_may_call_for_the_same_key() {
    let shape = PlainOutput::<CallsInDrop>::new;
    watchdog(HANG, move || {
        call_in_drop_of_a_leader(false, || revalidate(shape(), FixedTtl::new(MINUTE)));
    });
}

#[test]
fn predicate_and_ttl_that_panic_are_survived() {
    let fixture = Fixture::new();
    let key = key("k");
    let (ttl, predicate) =
        (FixedTtl::new(MINUTE), |_: &usize| panic!("planned panic of a predicate"));
    let ttl = CacheIf { ttl, predicate };
    let policy = Policy::new(&key, PlainOutput::new(), &ByReference, ttl);
    assert_eq!(blocking::run(fixture.cache.engine(), policy, || fixture.run()), 1);
    let ttl = TtlFn(|_: &usize| -> Duration { panic!("planned panic of a ttl") });
    let policy = Policy::new(&key, PlainOutput::new(), &ByReference, ttl);
    assert_eq!(blocking::run(fixture.cache.engine(), policy, || fixture.run()), 2);
    assert_eq!(fixture.cache.stats().errors_of(ErrorKind::Panic), 2);
    assert_eq!(fixture.cache.stats().inserts, 0);
}

#[test]
fn value_that_is_not_to_be_cached_is_returned_and_not_stored() {
    let fixture = Fixture::new();
    let key = key("k");
    let call = || {
        let ttl = CacheIf { ttl: FixedTtl::new(MINUTE), predicate: |run: &usize| *run >= 2 };
        let policy = Policy::new(&key, PlainOutput::new(), &ByReference, ttl);
        blocking::run(fixture.cache.engine(), policy, || fixture.run())
    };
    assert_eq!((call(), call(), call()), (1, 2, 2));
}

#[test]
fn arguments_that_cannot_be_encoded_make_a_call_without_the_cache() {
    struct Unspeakable;
    impl serde::Serialize for Unspeakable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("planned panic of an argument")
        }
    }
    struct Refusing;
    impl serde::Serialize for Refusing {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("planned refusal"))
        }
    }
    let fixture = Fixture::new();
    let call = |encode: &dyn Fn(&mut KeyBuilder)| {
        let mut builder = KeyBuilder::arguments();
        encode(&mut builder);
        builder.end_arguments();
        builder.finish("f");
        let policy = Policy::new(builder, PlainOutput::new(), &ByReference, FixedTtl::new(MINUTE));
        blocking::run(fixture.cache.engine(), policy, || fixture.run())
    };
    assert_eq!(call(&|builder| builder.encode(&Unspeakable)), 1);
    assert_eq!(call(&|builder| builder.encode(&Unspeakable)), 2);
    assert_eq!(call(&|builder| builder.encode(&Refusing)), 3);
    let stats = fixture.cache.stats();
    assert_eq!((stats.errors_of(ErrorKind::Panic), stats.errors_of(ErrorKind::Encode)), (2, 1));
    assert_eq!(stats.misses, 3, "they are calls all the same");
}

#[test]
fn thread_local_destructor_may_make_cached_calls() {
    struct AtExit(Arc<Fixture>, Arc<Mutex<Vec<usize>>>);
    impl Drop for AtExit {
        fn drop(&mut self) {
            let fixture = &self.0;
            let value = fixture.cache.get_or_insert_with(&key("k"), MINUTE, || {
                // The inner call is inside of the outer one.
                fixture.cache.get_or_insert_with(&key("k"), MINUTE, || fixture.run())
            });
            self.1.lock().expect("values").push(value);
        }
    }
    std::thread_local! {
        static AT_EXIT: std::cell::RefCell<Vec<AtExit>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let values = Arc::new(Mutex::new(Vec::new()));
        let at_exit = AtExit(Arc::clone(&fixture), Arc::clone(&values));
        let cache = fixture.cache.clone();
        thread::spawn(move || {
            AT_EXIT.with(|list| list.borrow_mut().push(at_exit));
            // The thread-locals of the cache are created after ours, and dropped before it.
            cache.get_or_insert_with(&key("other"), MINUTE, || 0);
        })
        .join()
        .expect("no panic at the end of the thread");
        assert_eq!(*values.lock().expect("values"), [1]);
    });
}

/// A backend in memory that calls a closure in each write.
struct CallsInWrites {
    map: MapBackend<AnyValue>,
    /// `false` if nothing is stored.
    stores: bool,
    in_write: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[async_trait]
impl crate::backend::Backend for CallsInWrites {
    type Stored = AnyValue;
    fn write(&self, key: &Key, record: Record<AnyValue>) -> crate::Result<()> {
        if let Some(in_write) = self.in_write.get() {
            in_write();
        }
        if self.stores { self.map.write(key, record) } else { Ok(()) }
    }
    async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> crate::Result<()> {
        self.write(key, record)
    }
    fn is_in_process(&self) -> bool {
        true
    }
    crate::forward_backend! { |this| this.map => read delete read_async delete_async clock }
}

#[test]
fn ttl_is_computed_once_for_a_caller_that_joins_while_the_value_is_stored() {
    for stores in [true, false] {
        watchdog(HANG, move || {
            let clock = ManualClock::new();
            let map = MapBackend::with_clock(clock.clone());
            let backend = CallsInWrites { map, stores, in_write: OnceLock::new() };
            let cache = Cache::<_, ByReference>::with_backend(backend);
            let is_storing = Arc::new(AtomicBool::new(false));
            let in_write = {
                let is_storing = Arc::clone(&is_storing);
                Box::new(move || {
                    is_storing.store(true, Ordering::SeqCst);
                    until(|| clock.sleepers() >= 1);
                })
            };
            assert!(cache.backend().in_write.set(in_write).is_ok());
            let (runs, ttls) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let key = key("k");
            let call = || {
                let ttl = TtlFn(|_: &usize| {
                    ttls.fetch_add(1, Ordering::SeqCst);
                    MINUTE
                });
                let policy = Policy::new(&key, PlainOutput::new(), &ByReference, ttl);
                blocking::run(cache.engine(), policy, || runs.fetch_add(1, Ordering::SeqCst) + 1)
            };
            thread::scope(|scope| {
                let leader = scope.spawn(call);
                until(|| is_storing.load(Ordering::SeqCst));
                assert_eq!(call(), 1);
                assert_eq!(leader.join().expect("no panic"), 1);
            });
            let counts = (runs.load(Ordering::SeqCst), ttls.load(Ordering::SeqCst));
            assert_eq!(counts, (1, 1), "stores: {stores}");
        });
    }
}

use async_trait::async_trait;

use super::*;
use crate::backend::{Backend, Capabilities, Offline};
use crate::call::{FixedTtl, PlainOutput, Policy, blocking, future};
use crate::generation::Group;
use crate::record::Record;
use crate::serializer::{Serializer, SerializerId};
use crate::sync::block_on;
use crate::testing::Fault;
use crate::{Error, ErrorKind, Result};

fn call(fixture: &Fixture, is_async: bool) -> usize {
    let key = key("k");
    if is_async {
        let body = async { fixture.run() };
        block_on(fixture.cache.get_or_insert_with_async(&key, MINUTE, body))
    } else {
        fixture.cache.get_or_insert_with(&key, MINUTE, || fixture.run())
    }
}

#[test]
fn read_that_fails_or_panics_is_a_miss_that_is_counted() {
    for is_async in [false, true] {
        for (fault, kind) in
            [(Fault::FailsReads, ErrorKind::Backend), (Fault::PanicsInReads, ErrorKind::Panic)]
        {
            let fixture = Fixture::new();
            assert_eq!(call(&fixture, is_async), 1);
            fixture.cache.backend().set_fault(fault);
            assert_eq!(call(&fixture, is_async), 2);
            assert!(fixture.cache.stats().errors_of(kind) > 0, "{fault:?}");
            fixture.cache.backend().set_fault(None);
            assert_eq!(call(&fixture, is_async), 2, "what the second call stored");
        }
    }
}

#[test]
fn value_is_returned_although_its_write_fails_or_panics() {
    for is_async in [false, true] {
        for (fault, kind) in
            [(Fault::FailsWrites, ErrorKind::Backend), (Fault::PanicsInWrites, ErrorKind::Panic)]
        {
            let fixture = Fixture::new();
            fixture.cache.backend().set_fault(fault);
            assert_eq!(call(&fixture, is_async), 1);
            assert_eq!(call(&fixture, is_async), 2);
            let stats = fixture.cache.stats();
            assert_eq!((stats.inserts, stats.errors_of(kind)), (0, 2), "{fault:?}");
        }
    }
}

#[test]
fn methods_of_the_cache_return_the_error_of_the_backend() {
    let fixture = Fixture::new();
    let (cache, key) = (&fixture.cache, key("k"));
    cache.backend().set_fault(Fault::PanicsInReads);
    assert_eq!(cache.get::<u8>(&key).expect_err("a panic").kind(), ErrorKind::Panic);
    assert_eq!(
        block_on(cache.get_async::<u8>(&key)).expect_err("a panic").kind(),
        ErrorKind::Panic
    );
    cache.backend().set_fault(Fault::FailsWrites);
    assert_eq!(cache.set(&key, &1, MINUTE).expect_err("a fault").kind(), ErrorKind::Backend);
    cache.backend().set_fault(Fault::FailsDeletes);
    assert_eq!(cache.remove(&key).expect_err("a fault").kind(), ErrorKind::Backend);
}

#[test]
fn waiters_get_the_value_although_it_could_not_be_stored() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        fixture.cache.backend().set_fault(Fault::FailsWrites);
        thread::scope(|scope| {
            let leader = scope.spawn(|| {
                fixture.cache.get_or_insert_with(&key("k"), MINUTE, || {
                    fixture.until_waiting(1);
                    fixture.run()
                })
            });
            until(|| fixture.cache.stats().in_flight == 1);
            assert_eq!(call(&fixture, false), 1);
            assert_eq!(leader.join().expect("the leader"), 1);
        });
        assert_eq!(fixture.runs(), 1);
    });
}

/// A map as a server, and another one as the part of the backend that works without it.
#[derive(Default)]
struct WithOffline {
    server: MapBackend<AnyValue>,
    offline: OfflinePart,
}

#[derive(Default)]
struct OfflinePart(MapBackend<AnyValue>);

#[async_trait]
impl Backend for WithOffline {
    type Stored = AnyValue;
    fn capabilities(&self) -> Capabilities<'_, AnyValue> {
        Capabilities::none().with_offline(&self.offline)
    }
    crate::forward_backend! { |this| this.server => read write delete read_async write_async delete_async clock }
}

impl Offline for OfflinePart {
    type Stored = AnyValue;
    fn read(&self, key: &Key) -> Result<Option<Record<AnyValue>>> {
        self.0.read(key)
    }
    fn write(&self, key: &Key, record: Record<AnyValue>) -> Result<()> {
        self.0.write(key, record)
    }
    fn delete(&self, key: &Key) -> Result<()> {
        self.0.delete(key).map(drop)
    }
    fn generation(&self, _: Group) -> Result<u64> {
        Ok(0)
    }
}

/// A serializer that decodes with a service, which does not respond.
struct DecodesRemotely;

impl Serializer<usize> for DecodesRemotely {
    type Stored = AnyValue;
    fn id(&self) -> SerializerId {
        SerializerId::BY_REFERENCE
    }
    fn serialize(&self, value: &usize) -> Result<AnyValue> {
        ByReference.serialize(value)
    }
    fn deserialize(&self, _: &AnyValue) -> Result<usize> {
        Err(Error::new(ErrorKind::Timeout, "planned timeout of a serializer"))
    }
}

#[test]
fn call_whose_serializer_times_out_stores_its_value_offline() {
    for waiter_is_async in [false, true] {
        watchdog(HANG, move || {
            let clock = ManualClock::new();
            let server = MapBackend::with_clock(clock.clone());
            let backend = WithOffline { server, ..WithOffline::default() };
            let cache = Cache::<_, ByReference>::with_backend(backend);
            let engine = cache.engine();
            let policy = || {
                let ttl = FixedTtl::new(MINUTE);
                Policy::new(key("k"), PlainOutput::new(), &DecodesRemotely, ttl)
            };
            let call_async = |value: usize, polls: usize| async move {
                let body = async {
                    Yield(polls).await;
                    value
                };
                future::run(engine, &policy(), std::pin::pin!(body)).await
            };
            let mut leader = Task::new(call_async(1, 1));
            assert!(leader.poll().is_pending());
            thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    if waiter_is_async {
                        block_on(call_async(2, 0))
                    } else {
                        blocking::run(engine, policy(), || 2)
                    }
                });
                until(|| clock.sleepers() >= 1);
                assert_eq!(leader.poll(), Poll::Ready(1));
                assert_eq!(
                    waiter.join().expect("no panic"),
                    2,
                    "the value of the leader is not decoded"
                );
            });
            assert_eq!(cache.stats().errors_of(ErrorKind::Timeout), 1);
            let stored = [&cache.backend().server, &cache.backend().offline.0].map(|part| {
                let record = part.read(&key("k")).expect("no fault").expect("a record");
                record.value().downcast_ref::<usize>().copied()
            });
            assert_eq!(stored, [Some(1), Some(2)], "async: {waiter_is_async}");
        });
    }
}

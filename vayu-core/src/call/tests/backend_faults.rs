use super::*;
use crate::ErrorKind;
use crate::sync::block_on;
use crate::testing::Fault;

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

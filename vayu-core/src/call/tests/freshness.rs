use std::cell::Cell;

use super::*;
use crate::call::{PlainOutput, Policy, TtlFn, blocking};
use crate::clock::{Clock, Timestamp};
use crate::record::Record;
use crate::{Backend as _, ErrorKind};

#[test]
fn ttl_counts_from_the_end_of_the_computation() {
    let fixture = Fixture::new();
    let call = || {
        fixture.cache.get_or_insert_with(&key("k"), Duration::from_millis(1), || {
            fixture.clock.advance(Duration::from_millis(5));
            fixture.run()
        })
    };
    assert_eq!(call(), 1);
    fixture.clock.advance(Duration::from_micros(999));
    assert_eq!(call(), 1);
    fixture.clock.advance(Duration::from_micros(1));
    assert_eq!(call(), 2);
}

#[test]
fn entry_older_than_the_ttl_of_the_caller_is_a_miss() {
    let fixture = Fixture::new();
    let call = |ttl| fixture.cache.get_or_insert_with(&key("k"), ttl, || fixture.run());
    assert_eq!(call(60 * MINUTE), 1);
    fixture.clock.advance(MINUTE);
    assert_eq!(call(60 * MINUTE), 1);
    assert_eq!(call(MINUTE), 2, "the ttl is now a minute");
}

#[test]
fn ttl_by_value_is_computed_when_the_value_is_stored_and_never_again() {
    let fixture = Fixture::new();
    let computed = Cell::new(0);
    let call = |minutes: u32| {
        let key = key("k");
        let ttl = TtlFn(|_: &usize| {
            computed.set(computed.get() + 1);
            MINUTE * minutes
        });
        let policy = Policy::new(&key, PlainOutput::new(), &ByReference, ttl);
        blocking::run(fixture.cache.engine(), policy, || fixture.run())
    };
    assert_eq!(call(60), 1);
    fixture.clock.advance(2 * MINUTE);
    assert_eq!((call(60), call(1), computed.get()), (1, 1, 1));
    fixture.clock.advance(58 * MINUTE);
    assert_eq!((call(1), computed.get()), (2, 2));
}

#[test]
fn entry_without_expiry_is_served_after_a_century() {
    let fixture = Fixture::new();
    let call = || fixture.cache.get_or_insert_with(&key("k"), Duration::MAX, || fixture.run());
    assert_eq!(call(), 1);
    fixture.clock.advance(Duration::from_secs(100 * 365 * 24 * 60 * 60));
    assert_eq!(call(), 1);
}

#[test]
fn clock_that_steps_back_makes_an_entry_of_the_future_a_miss() {
    let fixture = Fixture::new();
    let call = || fixture.cache.get_or_insert_with(&key("k"), 60 * MINUTE, || fixture.run());
    assert_eq!(call(), 1);
    let now = fixture.clock.now().as_micros();
    fixture.clock.set(Timestamp::from_micros(now - 60_000_000));
    assert_eq!(call(), 1, "a minute is within what clocks differ by");
    fixture.clock.set(Timestamp::from_micros(now - 600_000_000));
    assert_eq!(call(), 2);
}

#[test]
fn zero_ttl_computes_every_time_and_stores_nothing() {
    let fixture = Fixture::new();
    let call = || fixture.cache.get_or_insert_with(&key("k"), Duration::ZERO, || fixture.run());
    assert_eq!((call(), call()), (1, 2));
    let stats = fixture.cache.stats();
    assert_eq!((stats.inserts, stats.errors_of(ErrorKind::Configuration)), (0, 2));
    let set = fixture.cache.set(&key("k"), &1, Duration::ZERO);
    assert_eq!(set.expect_err("no ttl").kind(), ErrorKind::Configuration);
}

#[test]
fn record_of_another_schema_or_serializer_is_a_miss() {
    let fixture = Fixture::new();
    let now = fixture.clock.now();
    let record = Record::new(AnyValue::new(0_usize), now, now.saturating_add(MINUTE));
    let backend = fixture.cache.backend();
    backend.write(&key("schema"), record.clone().with_schema(1)).expect("write");
    let other = crate::SerializerId::user(1);
    backend.write(&key("format"), record.with_serializer(other)).expect("write");
    for name in ["schema", "format"] {
        let value = fixture.cache.get_or_insert_with(&key(name), MINUTE, || fixture.run());
        assert_ne!(value, 0, "{name}");
    }
}

#[test]
fn error_is_not_stored() {
    let fixture = Fixture::new();
    let call = |result: Result<u8, u8>| {
        fixture.cache.try_get_or_insert_with(&key("k"), MINUTE, || {
            fixture.run();
            result
        })
    };
    assert_eq!(call(Err(1)), Err(1));
    assert_eq!(call(Ok(2)), Ok(2));
    assert_eq!(call(Err(3)), Ok(2));
    assert_eq!(fixture.runs(), 2);
}

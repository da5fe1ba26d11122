//! Hedged requests: callers that wait for a slow computation, and then compute in parallel.

use std::pin::pin;

use super::*;
use crate::call::{CacheIf, FixedTtl, Policy, SharedResultOutput, future};
use crate::{AnyValue, Backend, Record};

/// The time after which a computation of a function without a recorded hedge is hedged.
const HEDGE: Duration = Duration::from_secs(3);
const MICROSECOND: Duration = Duration::from_micros(1);

/// Returns the time, less one microsecond.
fn almost(time: Duration) -> Duration {
    time.checked_sub(MICROSECOND).expect("a time")
}

/// Makes a call whose body is ready after this many polls.
async fn call(fixture: &Fixture, polls: usize) -> usize {
    let body = async {
        let run = fixture.run();
        Yield(polls).await;
        run
    };
    fixture.cache.get_or_insert_with_async(&key("k"), 60 * MINUTE, body).await
}

fn stored(fixture: &Fixture) -> Option<usize> {
    fixture.cache.get(&key("k")).expect("read")
}

#[test]
fn one_caller_of_a_slow_computation_hedges_it_and_all_get_its_value() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let mut slow = Task::new(call(fixture, 1));
    assert!(slow.poll().is_pending());
    let mut waiting = [(); 4].map(|()| Task::new(call(fixture, 0)));
    assert!(waiting.iter_mut().all(|task| task.poll().is_pending()));
    fixture.clock.advance(almost(HEDGE));
    assert!(waiting.iter_mut().all(|task| task.poll().is_pending()));
    fixture.clock.advance(MICROSECOND);
    assert!(waiting.iter_mut().all(|task| task.poll() == Poll::Ready(2)));
    assert_eq!((fixture.runs(), stored(fixture)), (2, Some(2)));
    assert_eq!(slow.poll(), Poll::Ready(1), "the slow one has its own value");
    assert_eq!(stored(fixture), Some(2), "and does not replace the newer one");
    let stats = fixture.cache.stats();
    assert_eq!((stats.misses, stats.coalesced), (2, 3));
}

#[test]
fn sync_caller_hedges_a_slow_computation() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let mut slow = Task::new(call(&fixture, 1));
        assert!(slow.poll().is_pending());
        thread::scope(|scope| {
            let sync_call =
                || fixture.cache.get_or_insert_with(&key("k"), MINUTE, || fixture.run());
            let waiting = [(); 3].map(|()| scope.spawn(sync_call));
            fixture.until_waiting(3);
            fixture.clock.advance(HEDGE);
            assert!(waiting.into_iter().all(|caller| caller.join().expect("no panic") == 2));
        });
        assert_eq!((slow.poll(), stored(&fixture)), (Poll::Ready(1), Some(2)));
    });
}

#[test]
fn leader_that_is_faster_than_its_hedge_serves_all_others() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let mut slow = Task::new(call(fixture, 1));
    let mut waiting = [(); 3].map(|()| Task::new(call(fixture, 2)));
    assert!(slow.poll().is_pending());
    assert!(waiting.iter_mut().all(|task| task.poll().is_pending()));
    fixture.clock.advance(HEDGE);
    assert!(waiting.iter_mut().all(|task| task.poll().is_pending()));
    assert_eq!(fixture.runs(), 2);
    assert_eq!(slow.poll(), Poll::Ready(1));
    let [hedge, others @ ..] = &mut waiting;
    assert!(others.iter_mut().all(|task| task.poll() == Poll::Ready(1)));
    assert!(hedge.poll().is_pending());
    assert_eq!(hedge.poll(), Poll::Ready(2));
    assert_eq!(stored(fixture), Some(1));
}

#[test]
fn hedges_of_one_computation_are_further_apart_each_time() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let mut calls: Vec<_> = (0..10).map(|_| Task::new(call(fixture, 1000))).collect();
    let mut begun = Vec::new();
    for second in 0..32 {
        assert!(calls.iter_mut().all(|task| task.poll().is_pending()));
        begun.resize(fixture.runs(), second);
        fixture.clock.advance(Duration::from_secs(1));
    }
    // Past the deadline of the call all run.
    assert_eq!(begun, [0, 3, 9, 21, 30, 30, 30, 30, 30, 30]);
}

#[test]
fn function_is_hedged_after_eight_times_what_its_last_hedge_took() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let second = Duration::from_secs(1);
    for (round, (after, took)) in [(3, 1), (8, 2), (16, 0), (3, 0)].into_iter().enumerate() {
        let key = &key(&round.to_string());
        let call = |polls, took| async move {
            let body = async {
                fixture.clock.advance(took * second);
                Yield(polls).await;
            };
            fixture.cache.get_or_insert_with_async(key, 60 * MINUTE, body).await;
        };
        let (mut slow, mut waiting) = (Task::new(call(1, 0)), Task::new(call(0, took)));
        assert!(slow.poll().is_pending() && waiting.poll().is_pending());
        fixture.clock.advance(almost(after * second));
        assert!(waiting.poll().is_pending(), "round {round}");
        fixture.clock.advance(MICROSECOND);
        assert!(waiting.poll().is_ready() && slow.poll().is_ready(), "round {round}");
    }
}

#[test]
fn hedge_without_a_value_leaves_the_flight_to_its_leader() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let call = |result: Result<u8, u8>, polls| async move {
        let body = async {
            Yield(polls).await;
            result
        };
        fixture.cache.try_get_or_insert_with_async(&key("k"), MINUTE, body).await
    };
    let mut slow = Task::new(call(Ok(1), 1));
    let (mut hedge, mut other) = (Task::new(call(Err(2), 0)), Task::new(call(Err(3), 0)));
    assert!(slow.poll().is_pending() && hedge.poll().is_pending() && other.poll().is_pending());
    fixture.clock.advance(HEDGE);
    assert_eq!(hedge.poll(), Poll::Ready(Err(2)));
    assert!(other.poll().is_pending());
    assert_eq!((slow.poll(), other.poll()), (Poll::Ready(Ok(1)), Poll::Ready(Ok(1))));
    assert_eq!(fixture.cache.get::<u8>(&key("k")).expect("read"), Some(1));
}

#[test]
fn value_of_a_hedge_that_was_invalidated_is_not_stored() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let (mut slow, mut hedge) = (Task::new(call(fixture, 1)), Task::new(call(fixture, 1)));
    assert!(slow.poll().is_pending() && hedge.poll().is_pending());
    fixture.clock.advance(HEDGE);
    assert!(hedge.poll().is_pending());
    fixture.cache.remove(&key("k")).expect("removed");
    assert_eq!((hedge.poll(), slow.poll()), (Poll::Ready(2), Poll::Ready(1)));
    assert_eq!(stored(fixture), None);
}

#[test]
fn waiting_caller_of_an_invalidated_computation_does_not_wait_for_long() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let (mut slow, mut waiting) = (Task::new(call(fixture, 1)), Task::new(call(fixture, 0)));
    assert!(slow.poll().is_pending() && waiting.poll().is_pending());
    fixture.cache.remove(&key("k")).expect("removed");
    fixture.clock.advance(HEDGE);
    assert_eq!((waiting.poll(), stored(fixture)), (Poll::Ready(2), Some(2)));
    assert_eq!((slow.poll(), stored(fixture)), (Poll::Ready(1), Some(2)));
}

#[test]
fn next_leader_of_an_abandoned_flight_has_its_own_time() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let mut dropped = Task::new(call(fixture, 1));
    let (mut next, mut waiting) = (Task::new(call(fixture, 1)), Task::new(call(fixture, 0)));
    assert!(dropped.poll().is_pending() && next.poll().is_pending());
    assert!(waiting.poll().is_pending());
    fixture.clock.advance(almost(HEDGE));
    drop(dropped);
    assert!(next.poll().is_pending() && waiting.poll().is_pending());
    fixture.clock.advance(MICROSECOND);
    assert!(waiting.poll().is_pending(), "it has led for a microsecond");
    assert_eq!((next.poll(), waiting.poll()), (Poll::Ready(2), Poll::Ready(2)));
}

#[test]
fn limit_that_was_set_replaces_hedges() {
    let fixture = Fixture::new();
    let cache = fixture.cache.clone().with_max_wait(MAX_WAIT);
    let mut slow = Task::new(call(&fixture, 1));
    assert!(slow.poll().is_pending());
    let body = async { fixture.run() };
    let key = key("k");
    let mut waiting = Task::new(cache.get_or_insert_with_async(&key, MINUTE, body));
    assert!(waiting.poll().is_pending());
    fixture.clock.advance(almost(MAX_WAIT));
    assert!(waiting.poll().is_pending());
    fixture.clock.advance(MICROSECOND);
    assert_eq!((waiting.poll(), slow.poll()), (Poll::Ready(2), Poll::Ready(1)));
}

#[test]
fn callers_with_a_short_limit_do_not_keep_a_value_from_one_with_a_long_limit() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let second = Duration::from_secs(1);
    // The function takes 2.5 s, and every half second a caller comes that waits for one second.
    let call = |limit| async move {
        let run = fixture.run();
        let body = async {
            crate::Clock::sleep(&fixture.clock, 5 * second / 2).await;
            run
        };
        let cache = fixture.cache.clone().with_max_wait(limit);
        cache.get_or_insert_with_async(&key("k"), 60 * MINUTE, body).await
    };
    let (mut short, mut long) = (Vec::new(), None);
    for half in 0..20 {
        short.push(Task::new(call(second)));
        short.retain_mut(|task| task.poll().is_pending());
        if half == 1 {
            long = Some(Task::new(call(60 * MINUTE)));
        }
        match long.as_mut().map(Task::poll) {
            Some(Poll::Ready(run)) => {
                assert_eq!((half, run), (5, 1), "the value of the first computation");
                break;
            }
            _ => assert!(half < 5),
        }
        fixture.clock.advance(second / 2);
    }
    while !short.is_empty() {
        fixture.clock.advance(second / 2);
        short.retain_mut(|task| task.poll().is_pending());
    }
}

/// Makes a call whose errors callers share, and whose body is ready after this many polls.
async fn fallible_of(
    cache: &TestCache,
    fixture: &Fixture,
    result: Result<u8, u8>,
    polls: usize,
) -> Result<u8, u8> {
    let key = key("k");
    let policy =
        Policy::new(&key, SharedResultOutput::new(), &ByReference, FixedTtl::new(60 * MINUTE));
    let body = pin!(async {
        fixture.run();
        Yield(polls).await;
        result
    });
    future::run(cache.engine(), &policy, body).await
}

/// [`fallible_of`] the cache with hedges.
async fn fallible(fixture: &Fixture, result: Result<u8, u8>, polls: usize) -> Result<u8, u8> {
    fallible_of(&fixture.cache, fixture, result, polls).await
}

#[test]
fn error_of_a_hedge_is_not_shared_while_the_leader_is_running() {
    for last in [Ok(1), Err(1)] {
        let fixture = Fixture::new();
        let mut slow = Task::new(fallible(&fixture, last, 1));
        let mut hedge = Task::new(fallible(&fixture, Err(2), 0));
        let mut other = Task::new(fallible(&fixture, Err(3), 0));
        assert!(slow.poll().is_pending() && hedge.poll().is_pending());
        assert!(other.poll().is_pending());
        fixture.clock.advance(HEDGE);
        assert_eq!(hedge.poll(), Poll::Ready(Err(2)));
        assert!(other.poll().is_pending());
        assert_eq!((slow.poll(), other.poll()), (Poll::Ready(last), Poll::Ready(last)));
        assert_eq!(fixture.runs(), 2);
    }
}

#[test]
fn error_of_a_leader_is_not_shared_while_its_hedge_is_running() {
    for last in [Ok(2), Err(2)] {
        let fixture = Fixture::new();
        let mut slow = Task::new(fallible(&fixture, Err(1), 1));
        let mut hedge = Task::new(fallible(&fixture, last, 1));
        let mut other = Task::new(fallible(&fixture, Err(3), 0));
        assert!(slow.poll().is_pending() && hedge.poll().is_pending());
        assert!(other.poll().is_pending());
        fixture.clock.advance(HEDGE);
        assert!(hedge.poll().is_pending() && other.poll().is_pending());
        assert_eq!(slow.poll(), Poll::Ready(Err(1)));
        assert!(other.poll().is_pending());
        let mut later = Task::new(fallible(&fixture, Err(4), 0));
        assert!(later.poll().is_pending(), "a later caller waits for the hedge, too");
        assert_eq!((hedge.poll(), other.poll()), (Poll::Ready(last), Poll::Ready(last)));
        assert_eq!((later.poll(), fixture.runs()), (Poll::Ready(last), 2));
    }
}

#[test]
fn caller_computes_after_a_leader_that_failed_and_a_hedge_that_was_dropped() {
    let fixture = Fixture::new();
    let mut slow = Task::new(fallible(&fixture, Err(1), 1));
    let mut hedge = Task::new(fallible(&fixture, Ok(2), 1));
    let mut others = [3, 4].map(|value| Task::new(fallible(&fixture, Ok(value), 0)));
    assert!(slow.poll().is_pending() && hedge.poll().is_pending());
    assert!(others.iter_mut().all(|task| task.poll().is_pending()));
    fixture.clock.advance(HEDGE);
    assert!(hedge.poll().is_pending());
    assert_eq!(slow.poll(), Poll::Ready(Err(1)));
    assert!(others.iter_mut().all(|task| task.poll().is_pending()));
    assert_eq!(fixture.cache.stats().in_flight, 1);
    drop(hedge);
    assert!(others.iter_mut().all(|task| task.poll() == Poll::Ready(Ok(3))));
    assert_eq!(fixture.runs(), 3);
}

#[test]
fn callers_of_a_replaced_leader_that_fails_wait_for_the_one_that_replaced_it() {
    let fixture = Fixture::new();
    let cache = fixture.cache.clone().with_max_wait(MAX_WAIT);
    let call = |result, polls| fallible_of(&cache, &fixture, result, polls);
    for last in [Ok(2), Err(2)] {
        fixture.runs.store(0, Ordering::SeqCst);
        let mut slow = Task::new(call(Err(1), 1));
        let mut first = Task::new(call(last, 2));
        assert!(slow.poll().is_pending() && first.poll().is_pending());
        fixture.clock.advance(MINUTE / 4);
        let mut second = Task::new(call(Err(3), 0));
        assert!(second.poll().is_pending());
        fixture.clock.advance(MINUTE / 4);
        assert!(first.poll().is_pending(), "it has replaced the leader");
        assert!(second.poll().is_pending(), "it has time left");
        assert_eq!(slow.poll(), Poll::Ready(Err(1)));
        assert!(second.poll().is_pending(), "it has joined the run of the first");
        assert!(first.poll().is_pending());
        assert_eq!((first.poll(), second.poll()), (Poll::Ready(last), Poll::Ready(last)));
        assert_eq!(fixture.runs(), 2);
        fixture.cache.clear().expect("cleared");
    }
}

#[test]
fn error_of_a_run_that_has_replaced_another_is_not_for_the_callers_of_that() {
    let fixture = Fixture::new();
    let cache = fixture.cache.clone().with_max_wait(MAX_WAIT);
    let call = |result, polls| fallible_of(&cache, &fixture, result, polls);
    let mut slow = Task::new(call(Ok(1), 1));
    let mut first = Task::new(call(Err(2), 0));
    assert!(slow.poll().is_pending() && first.poll().is_pending());
    fixture.clock.advance(MINUTE / 4);
    let mut second = Task::new(call(Err(3), 0));
    assert!(second.poll().is_pending());
    fixture.clock.advance(MINUTE / 4);
    assert_eq!(first.poll(), Poll::Ready(Err(2)));
    assert!(second.poll().is_pending(), "the leader that it has joined is running");
    assert_eq!((slow.poll(), second.poll()), (Poll::Ready(Ok(1)), Poll::Ready(Ok(1))));
}

/// Makes a call whose values are not cached.
async fn rejected(fixture: &Fixture, result: Result<u8, u8>, polls: usize) -> Result<u8, u8> {
    let key = key("k");
    let ttl = CacheIf { ttl: FixedTtl::new(60 * MINUTE), predicate: |_: &u8| false };
    let policy = Policy::new(&key, SharedResultOutput::new(), &ByReference, ttl);
    let body = pin!(async {
        fixture.run();
        Yield(polls).await;
        result
    });
    future::run(fixture.cache.engine(), &policy, body).await
}

#[test]
fn callers_are_woken_when_a_flight_that_was_left_to_its_hedge_is_replaced_or_invalidated() {
    for is_invalidated in [false, true] {
        let fixture = Fixture::new();
        let mut slow = Task::new(rejected(&fixture, Err(1), 1));
        let mut hedge = Task::new(rejected(&fixture, Ok(2), 1));
        let mut other = Task::new(rejected(&fixture, Ok(3), 0));
        assert!(slow.poll().is_pending() && hedge.poll().is_pending());
        assert!(other.poll().is_pending());
        fixture.clock.advance(HEDGE);
        assert!(hedge.poll().is_pending() && other.poll().is_pending());
        assert_eq!(slow.poll(), Poll::Ready(Err(1)));
        assert!(other.poll().is_pending(), "it waits for the hedge");
        if is_invalidated {
            fixture.cache.remove(&key("k")).expect("removed");
        }
        let before = other.wakes();
        assert_eq!(hedge.poll(), Poll::Ready(Ok(2)), "its value is not cached");
        assert!(other.wakes() > before, "no time has passed");
        assert_eq!(other.poll(), Poll::Ready(Ok(3)));
    }
}

/// A backend whose writes are pending for one poll.
struct SlowWrites(MapBackend<AnyValue>);

#[async_trait::async_trait]
impl Backend for SlowWrites {
    type Stored = AnyValue;

    async fn write_async(&self, key: &Key, record: Record<AnyValue>) -> crate::Result<()> {
        Yield(1).await;
        self.0.write(key, record)
    }

    crate::forward_backend! { |this| this.0 => read write delete read_async delete_async clock }
}

#[test]
fn error_of_a_replaced_leader_is_not_in_place_of_a_stored_value() {
    let clock = ManualClock::new();
    let backend = SlowWrites(MapBackend::with_clock(clock.clone()));
    let cache: Cache<SlowWrites, ByReference> = Cache::with_backend(backend);
    let runs = AtomicUsize::new(0);
    let call = async |result: Result<u8, u8>, polls| {
        let key = key("k");
        let policy =
            Policy::new(&key, SharedResultOutput::new(), &ByReference, FixedTtl::new(60 * MINUTE));
        let body = pin!(async {
            runs.fetch_add(1, Ordering::SeqCst);
            Yield(polls).await;
            result
        });
        future::run(cache.engine(), &policy, body).await
    };
    let mut slow = Task::new(call(Err(1), 1));
    let mut hedge = Task::new(call(Ok(2), 0));
    let mut other = Task::new(call(Err(3), 0));
    assert!(slow.poll().is_pending() && hedge.poll().is_pending());
    assert!(other.poll().is_pending());
    clock.advance(HEDGE);
    assert!(hedge.poll().is_pending(), "it has replaced the leader, and stores");
    assert_eq!(slow.poll(), Poll::Ready(Err(1)));
    assert_eq!((hedge.poll(), other.poll()), (Poll::Ready(Ok(2)), Poll::Ready(Ok(2))));
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

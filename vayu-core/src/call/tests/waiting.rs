//! Limits of waiting, and callers that do not wait.

use super::*;

#[test]
fn leader_that_is_never_polled_again_delays_others_by_max_wait_at_most() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let (fixture, clock) = (&fixture, &fixture.clock);
        let cache = &fixture.cache.clone().with_max_wait(MAX_WAIT);
        let call = |polls| async move {
            let body = async {
                Yield(polls).await;
                fixture.run()
            };
            cache.get_or_insert_with_async(&key("k"), MINUTE, body).await
        };
        let mut parked = Task::new(call(1));
        assert!(parked.poll().is_pending());
        let mut waiter = Task::new(call(0));
        assert!(waiter.poll().is_pending());
        clock.advance(Duration::from_micros(29_999_999));
        assert!(waiter.poll().is_pending());
        clock.advance(Duration::from_micros(1));
        assert_eq!(waiter.poll(), Poll::Ready(1));
        let mut late = Task::new(call(0));
        assert_eq!(late.poll(), Poll::Ready(1), "the value of the waiter was stored");
        assert_eq!(parked.poll(), Poll::Ready(2), "the parked one has its own");
        assert_eq!(fixture.cache.get::<usize>(&key("k")).expect("read"), Some(1));
    });
}

#[test]
fn wait_of_a_sync_caller_ends_after_max_wait_too() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let cache = fixture.cache.clone().with_max_wait(MINUTE * 60);
        thread::scope(|scope| {
            let parked = scope.spawn(|| {
                cache.get_or_insert_with(&key("k"), MINUTE, || {
                    until(|| fixture.runs() == 1);
                    0
                })
            });
            until(|| cache.stats().in_flight == 1);
            let waiter =
                scope.spawn(|| cache.get_or_insert_with(&key("k"), MINUTE, || fixture.run()));
            fixture.until_waiting(1);
            fixture.clock.advance(MINUTE * 59);
            fixture.until_waiting(1);
            assert_eq!(fixture.runs(), 0, "still waiting");
            fixture.clock.advance(MINUTE);
            assert_eq!(waiter.join().expect("the waiter"), 1);
            assert_eq!(parked.join().expect("the parked leader"), 0);
        });
    });
}

#[test]
fn function_slower_than_max_wait_is_cached_under_constant_demand() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let fixture = &fixture;
        // Each computation takes 45 s, callers wait 30 s, and one is added every 15 s.
        let call = || async move {
            let run = fixture.run();
            let body = async {
                Nap::until_after(&fixture.clock, Duration::from_secs(45)).await;
                run
            };
            fixture.cache.get_or_insert_with_async(&key("k"), 60 * MINUTE, body).await
        };
        let mut calls: Vec<Task<'_, usize>> = Vec::new();
        let mut first_hit = None;
        for quarter in 0..12 {
            let mut next = Task::new(call());
            if next.poll().is_ready() {
                first_hit = Some(quarter);
                break;
            }
            calls.push(next);
            fixture.clock.advance(Duration::from_secs(15));
            calls.retain_mut(|call| call.poll().is_pending());
        }
        assert_eq!(first_hit, Some(3), "after the first computation has ended");
        while !calls.is_empty() {
            fixture.clock.advance(Duration::from_secs(15));
            calls.retain_mut(|call| call.poll().is_pending());
        }
    });
}

/// A sleep on the manual clock.
struct Nap;

impl Nap {
    fn until_after(clock: &ManualClock, time: Duration) -> crate::Sleep {
        crate::Clock::sleep(clock, time)
    }
}

#[test]
fn slow_leader_does_not_overwrite_what_was_computed_since() {
    let fixture = Fixture::new();
    let fixture = &fixture;
    let call = |polls, value: &'static str| async move {
        let body = async {
            Yield(polls).await;
            value
        };
        fixture.cache.get_or_insert_with_async(&key("k"), 60 * MINUTE, body).await
    };
    let mut slow = Task::new(call(1, "old"));
    assert!(slow.poll().is_pending());
    let mut waiter = Task::new(call(0, "new"));
    assert!(waiter.poll().is_pending());
    fixture.clock.advance(MAX_WAIT);
    assert_eq!(waiter.poll(), Poll::Ready("new"));
    assert_eq!(slow.poll(), Poll::Ready("old"));
    assert_eq!(fixture.cache.get::<&str>(&key("k")).expect("read"), Some("new"));
}

#[test]
fn sync_caller_does_not_sleep_on_the_thread_that_the_leader_needs() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let sync_call = || fixture.cache.get_or_insert_with(&key("k"), MINUTE, || fixture.run());
        let body = async {
            Yield(1).await;
            fixture.run() + 100
        };
        let mut leader = Task::new(async {
            fixture.cache.get_or_insert_with_async(&key("k"), MINUTE, body).await
        });
        assert!(leader.poll().is_pending());
        // As in a runtime of one thread: the leader can only continue when this returns.
        assert_eq!(sync_call(), 1);
        assert_eq!(leader.poll(), Poll::Ready(102));
        assert_eq!(sync_call(), 102, "the value of the leader was stored");
        drop(leader);
    });
}

#[test]
fn two_leaders_on_two_threads_are_not_starved_by_sync_callers_of_each_other() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let fixture = &fixture;
        let hosting = AtomicUsize::new(0);
        let host = |own: &'static str, other: &'static str| {
            let (own, other) = (key(own), key(other));
            let body = async {
                Yield(1).await;
                fixture.run()
            };
            let mut leader = Task::new(async {
                fixture.cache.get_or_insert_with_async(&own, MINUTE, body).await
            });
            assert!(leader.poll().is_pending());
            hosting.fetch_add(1, Ordering::SeqCst);
            until(|| hosting.load(Ordering::SeqCst) == 2);
            fixture.cache.get_or_insert_with(&other, MINUTE, || fixture.run());
            assert!(leader.poll().is_ready());
        };
        thread::scope(|scope| {
            scope.spawn(|| host("a", "b"));
            scope.spawn(|| host("b", "a"));
        });
    });
}

#[test]
fn thread_may_sleep_again_once_another_one_polls_its_leader() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let sync_call = || fixture.cache.get_or_insert_with(&key("b"), MINUTE, || fixture.run());
        let mut leader = Task::new(async {
            let body = Yield(1);
            fixture.cache.get_or_insert_with_async(&key("a"), MINUTE, body).await;
        });
        assert!(leader.poll().is_pending());
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                fixture.cache.get_or_insert_with(&key("b"), MINUTE, || {
                    fixture.until_waiting(1);
                    100_usize
                })
            });
            until(|| fixture.cache.stats().in_flight == 2);
            assert_eq!(sync_call(), 1, "runs uncoordinated: a leader may need this thread");
            scope.spawn(move || assert!(leader.poll().is_ready())).join().expect("the new host");
            assert_eq!(sync_call(), 100, "waits");
            assert_eq!(other.join().expect("the other leader"), 100);
        });
    });
}

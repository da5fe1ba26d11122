//! Flights whose leader fails, panics or is dropped.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::sync::block_on;

const CALLERS: usize = if cfg!(miri) { 8 } else { 64 };

#[test]
fn many_threads_on_one_cold_key_compute_once() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    let value = fixture.cache.get_or_insert_with(&key("k"), MINUTE, || {
                        fixture.until_waiting(CALLERS - 1);
                        fixture.run()
                    });
                    assert_eq!(value, 1);
                });
            }
        });
        let stats = fixture.cache.stats();
        assert_eq!((stats.misses, stats.coalesced), (1, CALLERS as u64 - 1));
    });
}

#[test]
fn value_that_expires_at_once_is_shared_all_the_same() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    let ttl = Duration::from_millis(1);
                    fixture.cache.get_or_insert_with(&key("k"), ttl, || {
                        fixture.until_waiting(CALLERS - 1);
                        fixture.run();
                        fixture.clock.advance(Duration::from_millis(5));
                    });
                });
            }
        });
        assert_eq!(fixture.runs(), 1);
    });
}

#[test]
fn sync_and_async_callers_share_one_flight() {
    watchdog(HANG, || {
        for leader_is_async in [false, true] {
            let fixture = Fixture::new();
            let callers = CALLERS.min(16);
            let sync_call = || {
                fixture.cache.get_or_insert_with(&key("k"), MINUTE, || {
                    fixture.until_waiting(callers);
                    fixture.run()
                })
            };
            let async_call = || {
                let body = async {
                    fixture.until_waiting(callers);
                    fixture.run()
                };
                block_on(fixture.cache.get_or_insert_with_async(&key("k"), MINUTE, body))
            };
            thread::scope(|scope| {
                let lead = || if leader_is_async { async_call() } else { sync_call() };
                scope.spawn(move || assert_eq!(lead(), 1));
                until(|| fixture.cache.stats().in_flight == 1);
                for caller in 0..callers {
                    let call = move || if caller % 2 == 0 { async_call() } else { sync_call() };
                    scope.spawn(move || assert_eq!(call(), 1));
                }
            });
            assert_eq!(fixture.runs(), 1);
        }
    });
}

#[test]
fn leader_keeps_its_panic_and_one_waiter_takes_over() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let results: Vec<_> = thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|_| {
                    scope.spawn(|| {
                        catch_unwind(AssertUnwindSafe(|| {
                            fixture.cache.get_or_insert_with(&key("k"), MINUTE, || {
                                if fixture.run() == 1 {
                                    fixture.until_waiting(CALLERS - 1);
                                    std::panic::panic_any("the payload of the leader");
                                }
                                fixture.runs()
                            })
                        }))
                    })
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().expect("caught")).collect()
        });
        let payloads: Vec<&&str> =
            results.iter().filter_map(|result| result.as_ref().err()?.downcast_ref()).collect();
        assert_eq!(payloads, [&"the payload of the leader"]);
        assert!(results.iter().filter_map(|result| result.as_ref().ok()).all(|run| *run == 2));
        assert_eq!(fixture.runs(), 2, "the leader and one of those who waited");
    });
}

#[test]
fn waiters_of_a_leader_that_failed_run_at_the_same_time() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        let callers = CALLERS.min(16);
        let running = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..callers {
                scope.spawn(|| {
                    let value: Result<(), &str> =
                        fixture.cache.try_get_or_insert_with(&key("k"), MINUTE, || {
                            if fixture.run() == 1 {
                                fixture.until_waiting(callers - 1);
                            } else {
                                // Each waits for all the others: one after another would hang.
                                running.fetch_add(1, Ordering::SeqCst);
                                until(|| running.load(Ordering::SeqCst) == callers - 1);
                            }
                            Err("down")
                        });
                    assert_eq!(value, Err("down"));
                });
            }
        });
        assert_eq!(fixture.runs(), callers);
    });
}

#[test]
fn value_of_a_caller_that_runs_after_a_failure_is_stored() {
    watchdog(HANG, || {
        let fixture = Fixture::new();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let _ = fixture.cache.try_get_or_insert_with(&key("k"), MINUTE, || {
                        let run = fixture.run();
                        if run == 1 {
                            fixture.until_waiting(3);
                            return Err("down");
                        }
                        Ok(run)
                    });
                });
            }
        });
        assert!(fixture.cache.get::<usize>(&key("k")).expect("read").is_some());
    });
}

#[test]
fn leader_dropped_at_any_await_point_is_replaced_within_one_poll() {
    const POINTS: usize = 5;
    for polls in 1..=POINTS {
        let fixture = Fixture::new();
        let call = || {
            let body = async {
                Yield(POINTS).await;
                fixture.run()
            };
            let fixture = &fixture;
            async move { fixture.cache.get_or_insert_with_async(&key("k"), MINUTE, body).await }
        };
        let mut leader = Task::new(call());
        for _ in 0..polls {
            assert!(leader.poll().is_pending());
        }
        let mut waiter = Task::new(call());
        assert!(waiter.poll().is_pending());
        let before = waiter.wakes();
        drop(leader);
        assert_eq!(fixture.cache.stats().in_flight, 0);
        assert!(waiter.wakes() > before, "dropped after {polls} polls, no caller was woken");
        for _ in 0..POINTS {
            assert!(waiter.poll().is_pending());
            assert_eq!(fixture.cache.stats().in_flight, 1, "it has the lead");
        }
        assert_eq!(waiter.poll(), Poll::Ready(1), "dropped after {polls} polls");
    }
}

#[test]
fn dropped_waiter_does_not_affect_the_others() {
    let fixture = Fixture::new();
    let call = |polls| {
        let fixture = &fixture;
        async move {
            let body = async {
                Yield(polls).await;
                fixture.run()
            };
            fixture.cache.get_or_insert_with_async(&key("k"), MINUTE, body).await
        }
    };
    let mut leader = Task::new(call(2));
    assert!(leader.poll().is_pending());
    let (mut first, mut second) = (Task::new(call(0)), Task::new(call(0)));
    assert!(first.poll().is_pending() && second.poll().is_pending());
    drop(first);
    drop(leader);
    assert_eq!(second.poll(), Poll::Ready(1), "woken although the first in the queue is gone");
}

#[test]
fn failing_distinct_keys_leave_nothing_behind() {
    let fixture = Fixture::new();
    let keys = if cfg!(miri) { 30 } else { 100_000 };
    for n in 0..keys {
        let key = Key::new("many", &(n,)).expect("a number");
        let result: Result<(), ()> = fixture.cache.try_get_or_insert_with(&key, MINUTE, || Err(()));
        assert!(result.is_err());
    }
    assert_eq!(fixture.cache.stats().in_flight, 0);
}

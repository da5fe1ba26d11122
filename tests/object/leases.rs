//! Leases in a store: one process computes, whatever ends its call, and stores without conditions have none.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use vayu::backend::{Backend, Lease, LeaseGuard};
use vayu::testing::{ManualClock, watchdog};
use vayu::{Key, ObjectCache, ObjectOptions, SingleFlight, cached};

use crate::faulty_store::{Fault, FaultyStore};
use crate::{HANG, cache_with, until};

const HOUR: Duration = Duration::from_secs(3600);

/// The watchdog reports a call that waits for a lease which was not released.
fn open(store: &Arc<FaultyStore>, clock: &ManualClock) -> ObjectCache {
    let options = ObjectOptions::new().single_flight(SingleFlight::Everywhere).lease_ttl(HOUR);
    cache_with(store, options.clock(clock.clone()))
}

fn acquire(cache: &ObjectCache, key: &Key) -> vayu::Result<Option<LeaseGuard>> {
    match cache.backend().capabilities().leases.expect("it has leases").try_acquire(key)? {
        Lease::Acquired(guard) => Ok(Some(guard)),
        Lease::Held => Ok(None),
        other => panic!("{other:?}"),
    }
}

fn key() -> Key {
    Key::from_text("a", "b")
}

#[cached(cache = cache, ttl = "1h", prefix = "run", skip(cache, store))]
async fn run(cache: &ObjectCache, store: &FaultyStore, how: &str) -> Result<u32, String> {
    assert_eq!(store.names("/leases/").len(), 1, "the lease is held during the run");
    tokio::task::yield_now().await;
    match how {
        "value" => Ok(1),
        "failure" => Err("as requested".to_owned()),
        "never" => std::future::pending().await,
        _ => std::panic::resume_unwind(Box::new("as requested")),
    }
}

#[test]
fn lease_is_released_however_the_call_ends() {
    for how in ["value", "failure", "panic", "never"] {
        watchdog(HANG, move || {
            let (store, clock) = (FaultyStore::new(), ManualClock::new());
            let cache = open(&store, &clock);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _ = catch_unwind(AssertUnwindSafe(|| {
                runtime.block_on(async {
                    let limit = Duration::from_millis(200);
                    let _ = tokio::time::timeout(limit, run(&cache, &store, how)).await;
                });
            }));
            until(how, || store.names("/leases/").is_empty());
            assert_eq!(cache.stats().errors, 0, "{how}");
        });
    }
}

#[test]
fn one_cache_acquires_and_another_takes_over_when_the_lease_has_expired() {
    watchdog(HANG, || {
        let (store, clock) = (FaultyStore::new(), ManualClock::new());
        let (one, other) = (open(&store, &clock), open(&store, &clock));
        let guard = acquire(&one, &key()).unwrap().expect("it is free");
        assert!(acquire(&other, &key()).unwrap().is_none());
        clock.advance(HOUR.saturating_sub(Duration::from_secs(1)));
        assert!(acquire(&other, &key()).unwrap().is_none());
        clock.advance(Duration::from_secs(1));
        let taken = acquire(&other, &key()).unwrap().expect("it has expired");
        // The former holder does not release the lease of another.
        guard.release().unwrap();
        assert!(acquire(&one, &key()).unwrap().is_none());
        taken.release().unwrap();
        assert!(store.names("/leases/").is_empty());
    });
}

#[test]
fn of_many_that_take_over_one_acquires() {
    watchdog(HANG, || {
        for _ in 0..20 {
            let (store, clock) = (FaultyStore::new(), ManualClock::new());
            let dead = open(&store, &clock);
            std::mem::forget(acquire(&dead, &key()).unwrap().expect("it is free"));
            clock.advance(HOUR);
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    let cache = open(&store, &clock);
                    std::thread::spawn(move || acquire(&cache, &key()).unwrap())
                })
                .collect();
            let guards: Vec<_> =
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
            assert_eq!(guards.len(), 1);
        }
    });
}

#[test]
fn foreign_object_in_place_of_a_lease_is_replaced() {
    watchdog(HANG, || {
        for foreign in [vec![], b"foreign".to_vec(), vec![0; 40], vec![0; 100_000]] {
            let (store, clock) = (FaultyStore::new(), ManualClock::new());
            let cache = open(&store, &clock);
            let guard = acquire(&cache, &key()).unwrap().expect("it is free");
            let name = store.names("/leases/").pop().unwrap();
            store.replace(&name, foreign);
            drop(guard);
            assert_eq!(store.names("/leases/").len(), 1, "it is not ours");
            let guard = acquire(&cache, &key()).unwrap().expect("it is not a lease");
            guard.release().unwrap();
        }
    });
}

#[test]
fn store_without_conditions_has_no_leases_which_is_an_error_once() {
    for fault in [Fault::HasNoConditions, Fault::IgnoresConditions, Fault::FailsConditions] {
        watchdog(HANG, move || {
            let (store, clock) = (FaultyStore::new(), ManualClock::new());
            let cache = open(&store, &clock);
            store.set(fault);
            let error = format!("{:?}", acquire(&cache, &key()).unwrap_err());
            assert!(error.contains("conditional requests"), "{error}");
            for _ in 0..3 {
                let leases = cache.backend().capabilities().leases.expect("it has leases");
                assert!(matches!(leases.try_acquire(&key()), Ok(Lease::NotRequired)), "{fault:?}");
            }
            assert!(store.names("/leases/").is_empty());
            cache.invalidate_tag("t").unwrap();
            assert_eq!(cache.get_or_insert_with(&key(), HOUR, || 1_u64), 1);
            assert_eq!(cache.get::<u64>(&key()).unwrap(), Some(1), "generations work: {fault:?}");
        });
    }
}

#[test]
fn lease_that_cannot_be_released_is_reported_once_and_tried_again_after_its_ttl() {
    for (fault, is_dropped) in [
        (Fault::DeniesDeletes, false),
        (Fault::DeniesDeletes, true),
        (Fault::FailsDeletes, false),
        (Fault::FailsDeletes, true),
    ] {
        watchdog(HANG, move || {
            let (store, clock) = (FaultyStore::new(), ManualClock::new());
            let cache = open(&store, &clock);
            let leases = cache.backend().capabilities().leases.expect("it has leases");
            store.set(fault);
            let guard = acquire(&cache, &key()).unwrap().expect("it is free");
            if is_dropped {
                drop(guard);
                leases.try_acquire(&key()).unwrap_err();
            } else {
                guard.release().unwrap_err();
            }
            for n in 0..10 {
                let other = Key::from_text("other", format!("{n}"));
                assert!(matches!(leases.try_acquire(&other), Ok(Lease::NotRequired)));
            }
            clock.advance(HOUR);
            let guard = acquire(&cache, &key()).unwrap().expect("it has expired");
            guard.release().expect("it was reported");
            store.set(Fault::None);
            clock.advance(HOUR);
            let guard = acquire(&cache, &key()).unwrap().expect("it has expired");
            guard.release().unwrap();
            assert!(store.names("/leases/").is_empty());
        });
    }
}

#[test]
fn timeout_of_a_lease_is_less_than_half_of_its_ttl() {
    let (store, timeout) = (FaultyStore::new(), Duration::from_secs(30));
    let options = ObjectOptions::new().timeout(timeout).lease_ttl(2 * timeout);
    let error = options
        .clone()
        .single_flight(SingleFlight::Everywhere)
        .open(store.clone())
        .expect_err("no lease would be released");
    assert!(error.to_string().contains("`lease_ttl`"), "{error}");
    options.open(store).expect("it has no leases");
}

#[test]
fn lease_whose_reply_was_lost_is_released() {
    watchdog(HANG, || {
        let (store, clock) = (FaultyStore::new(), ManualClock::new());
        let cache = open(&store, &clock);
        store.set(Fault::LosesReplies);
        acquire(&cache, &key()).unwrap_err();
        until("it is released", || store.names("/leases/").is_empty());
    });
}

#[test]
fn attempt_to_acquire_a_lease_that_is_held_writes_nothing() {
    watchdog(HANG, || {
        let (store, clock) = (FaultyStore::new(), ManualClock::new());
        let (one, other) = (open(&store, &clock), open(&store, &clock));
        let guard = acquire(&one, &key()).unwrap().expect("it is free");
        store.take_writes();
        store.take_requests();
        for _ in 0..10 {
            assert!(acquire(&other, &key()).unwrap().is_none());
        }
        assert_eq!((store.take_requests(), store.take_writes()), (10, 0));
        guard.release().unwrap();
    });
}

#[test]
fn refused_conditions_after_a_verification_are_an_outage() {
    watchdog(HANG, || {
        let (store, clock) = (FaultyStore::new(), ManualClock::new());
        let cache = open(&store, &clock);
        acquire(&cache, &key()).unwrap().expect("it is free").release().unwrap();
        store.set(Fault::FailsConditions);
        acquire(&cache, &key()).unwrap_err();
        store.set(Fault::None);
        acquire(&cache, &key()).unwrap().expect("leases were not given up");
    });
}

#[test]
fn lease_is_renewed_while_it_is_held() {
    watchdog(HANG, || {
        let (store, clock) = (FaultyStore::new(), ManualClock::new());
        // It is renewed after a second of the system.
        let ttl = Duration::from_secs(3);
        let open = || {
            let options = ObjectOptions::new().timeout(Duration::from_secs(1)).lease_ttl(ttl);
            let options = options.single_flight(SingleFlight::Everywhere).clock(clock.clone());
            cache_with(&store, options)
        };
        let (one, other) = (open(), open());
        let guard = acquire(&one, &key()).unwrap().expect("it is free");
        let name = store.names("/leases/").pop().unwrap();
        let first = store.bytes(&name);
        clock.advance(ttl.saturating_sub(Duration::from_millis(1)));
        until("it is renewed", || store.bytes(&name) != first);
        clock.advance(ttl.saturating_sub(Duration::from_millis(1)));
        assert!(acquire(&other, &key()).unwrap().is_none());
        guard.release().unwrap();
        acquire(&other, &key()).unwrap().expect("it was released").release().unwrap();
        assert!(store.names("/leases/").is_empty());
    });
}

#[test]
fn process_that_waits_polls_less_and_less_often() {
    watchdog(HANG, || {
        let (store, clock) = (FaultyStore::new(), ManualClock::new());
        let (one, other) = (open(&store, &clock), open(&store, &clock).with_max_wait(HOUR));
        let guard = acquire(&one, &key()).unwrap().expect("it is free");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| other.get_or_insert_with(&key(), HOUR, || 1_u64));
            until("it waits", || clock.sleepers() > 0);
            store.take_requests();
            for _ in 0..1000 {
                clock.advance(Duration::from_millis(10));
                until("it waits again", || clock.sleepers() > 0);
            }
            let requests = store.take_requests();
            assert!((20..100).contains(&requests), "{requests} in ten seconds");
            guard.release().unwrap();
            while !waiter.is_finished() {
                clock.advance(Duration::from_secs(1));
                std::thread::yield_now();
            }
            assert_eq!(waiter.join().unwrap(), 1);
        });
    });
}

//! The table of flights under every interleaving with few preemptions.
//!
//! The environment variable `LOOM_MAX_PREEMPTIONS` sets the number, 2 by default.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use loom::thread;

use super::*;
use crate::Key;
use crate::sync::{Mutex, block_on, lock};

/// One key, one slot for its value, and callers that follow the protocol of the driver.
struct World {
    flights: Flights<usize>,
    stored: Mutex<Option<usize>>,
    runs: AtomicUsize,
    /// Set before the invalidation begins.
    is_invalidated: AtomicBool,
    /// The runs that began before that, as bits.
    outdated_runs: AtomicUsize,
}

/// The end of a leader's flight.
#[derive(Clone, Copy)]
enum End {
    Share,
    /// Shares the value, and keeps the lead until the flight is completed.
    ShareInPlace,
    Keep,
    /// Fails with an error for all callers.
    Fail,
    Abandon,
}

impl World {
    fn new() -> Arc<Self> {
        let flights = Flights::with_shards(1);
        Arc::new(Self {
            flights,
            stored: Mutex::new(None),
            runs: AtomicUsize::new(0),
            is_invalidated: AtomicBool::new(false),
            outdated_runs: AtomicUsize::new(0),
        })
    }

    fn call(&self, key: &Key, end: End) -> Option<usize> {
        let mut before = Some(self.flights.completions(key));
        if let Some(found) = *lock(&self.stored) {
            return Some(found);
        }
        loop {
            match self.flights.join(key, 0, before.take()) {
                Join::Lead { lead, recheck } => {
                    if recheck && let Some(found) = *lock(&self.stored) {
                        return Some(found);
                    }
                    return self.lead(lead, end);
                }
                Join::Wait { ticket, outdated } => {
                    let mut never = Deadline::default();
                    match block_on(ticket.turn(&mut never, Duration::MAX)) {
                        Turn::Lead(lead) => return self.lead(lead, end),
                        Turn::Completed(Outcome::Computed { value, .. }) if !outdated => {
                            return value.get().copied();
                        }
                        Turn::Completed(Outcome::Failed { error, .. }) if !outdated => {
                            return error.to_error();
                        }
                        Turn::Completed(Outcome::NotShareable) if !outdated => {
                            return match self.flights.try_lead(key, 0, false) {
                                Some(lead) => self.lead(lead, end),
                                None => Some(self.run()),
                            };
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    fn lead(&self, mut lead: Lead<'_, usize>, end: End) -> Option<usize> {
        let value = self.run();
        let outcome = Outcome::computed(value);
        match end {
            End::Fail => assert_eq!(lead.fail(true, || failed(value)), Completion::Done),
            End::Abandon if value == 1 => return None,
            End::Keep => {
                let _ = lead.computed(Outcome::NotShareable).complete();
            }
            End::Share | End::Abandon => {
                let mut lead = lead.computed(outcome);
                if lead.begin_store() != StorePermission::Refused {
                    *lock(&self.stored) = Some(value);
                }
                while lead.complete() == Completion::MustDelete {
                    *lock(&self.stored) = None;
                }
            }
            End::ShareInPlace => {
                if lead.begin_store() != StorePermission::Refused {
                    *lock(&self.stored) = Some(value);
                }
                while lead.complete(|| outcome.clone()) == Completion::MustDelete {
                    *lock(&self.stored) = None;
                }
            }
        }
        Some(value)
    }

    fn run(&self) -> usize {
        let is_outdated = !self.is_invalidated.load(Ordering::SeqCst);
        let run = self.runs.fetch_add(1, Ordering::SeqCst) + 1;
        self.outdated_runs.fetch_or(usize::from(is_outdated) << run, Ordering::SeqCst);
        run
    }
}

/// The outcome of a run that has failed.
fn failed(run: usize) -> Outcome<usize> {
    Outcome::Failed { error: SharedError::new(&run), compute_time: Duration::ZERO }
}

fn model(test: fn(Arc<World>)) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.check(move || {
        let world = World::new();
        test(Arc::clone(&world));
        assert_eq!(world.flights.len(), 0);
    });
}

fn key() -> Key {
    Key::from_text("model", "k")
}

fn in_threads<const N: usize>(world: &Arc<World>, ends: [End; N]) -> Vec<Option<usize>> {
    let threads = ends.map(|end| {
        let world = Arc::clone(world);
        thread::spawn(move || world.call(&key(), end))
    });
    threads.into_iter().map(|thread| thread.join().expect("a caller")).collect()
}

#[test]
fn callers_compute_once() {
    model(|world| {
        assert_eq!(in_threads(&world, [End::Share; 2]), [Some(1); 2]);
        assert_eq!(world.runs.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn outcome_is_for_callers_that_join_at_any_moment() {
    model(|world| {
        assert_eq!(in_threads(&world, [End::ShareInPlace; 2]), [Some(1); 2]);
        assert_eq!(world.runs.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn abandoned_flight_is_taken_over() {
    model(|world| {
        let outputs = in_threads(&world, [End::Abandon; 2]);
        assert_eq!(outputs.iter().flatten().collect::<Vec<_>>(), [&2]);
    });
}

#[test]
fn flight_without_a_shareable_value_wakes_waiting_callers() {
    model(|world| {
        let outputs = in_threads(&world, [End::Keep; 2]);
        assert!(outputs.contains(&Some(1)) && outputs.contains(&Some(2)));
    });
}

#[test]
fn error_is_for_callers_that_joined_before_it() {
    model(|world| {
        let outputs = in_threads(&world, [End::Fail; 2]);
        let runs = world.runs.load(Ordering::SeqCst);
        assert!(outputs == [Some(1); 2] && runs == 1 || outputs != [Some(1); 2] && runs == 2);
    });
}

#[test]
fn callers_of_a_failing_flight_that_is_invalidated_are_woken() {
    model(|world| invalidate_during(&world, [End::Fail; 2]));
}

#[test]
fn value_of_a_hedge_is_for_the_callers_of_a_leader_that_fails() {
    model(|world| hedge_during_failure(&world, true));
}

#[test]
fn error_of_the_last_run_of_a_flight_wakes_its_callers() {
    model(|world| hedge_during_failure(&world, false));
}

/// Ends the hedge of a flight while its leader fails, in any order.
fn hedge_during_failure(world: &Arc<World>, has_value: bool) {
    let leader = {
        let world = Arc::clone(world);
        thread::spawn(move || world.call(&key(), End::Fail))
    };
    let key = key();
    if let Join::Wait { ticket, .. } = world.flights.join(&key, 0, None)
        && let Some(hedge) = world.flights.begin_hedge(&key, ticket.flight())
    {
        let run = world.run();
        if has_value {
            let lead = world.flights.replace_overdue(&key, 0, hedge.flight());
            drop(hedge);
            let mut lead = lead.expect("a flight stays in the table while its hedge is running");
            assert_eq!(lead.complete(|| Outcome::computed(run)), Completion::Done);
        } else {
            hedge.fail(|| failed(run));
        }
        let mut never = Deadline::default();
        match block_on(ticket.turn(&mut never, Duration::MAX)) {
            Turn::Completed(Outcome::Computed { value, .. }) => {
                assert!(has_value && value.get() == Some(&run));
            }
            Turn::Completed(Outcome::Failed { .. }) => assert!(!has_value),
            _ => panic!("the flight is over"),
        }
    }
    leader.join().expect("a caller");
}

#[test]
fn invalidated_value_does_not_stay() {
    model(|world| invalidate_during(&world, [End::Share]));
}

#[test]
fn callers_of_an_invalidated_flight_are_woken() {
    model(|world| invalidate_during(&world, [End::ShareInPlace; 2]));
}

#[test]
fn callers_of_a_flight_that_is_abandoned_and_invalidated_are_woken() {
    model(|world| invalidate_during(&world, [End::Abandon; 2]));
}

fn invalidate_during<const N: usize>(world: &Arc<World>, ends: [End; N]) {
    let callers = ends.map(|end| {
        let world = Arc::clone(world);
        thread::spawn(move || world.call(&key(), end))
    });
    // The callers may get to any point before.
    thread::yield_now();
    world.is_invalidated.store(true, Ordering::SeqCst);
    match world.flights.invalidate(&key()) {
        // What was being stored is deleted when the flight is completed.
        Some(flight) => {
            let mut never = Deadline::default();
            block_on(flight.completed(&mut never));
        }
        // What is stored was stored before, or is computed after this.
        None => *lock(&world.stored) = None,
    }
    for caller in callers {
        caller.join().expect("a caller");
    }
    let outdated = world.outdated_runs.load(Ordering::SeqCst);
    assert!(lock(&world.stored).is_none_or(|run| outdated >> run & 1 == 0));
}

#[test]
fn flights_of_other_keys_of_the_shard_end_in_any_order() {
    model(|world| {
        let callers = ["k", "l"].map(|text| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let key = Key::from_text("model", text);
                let Join::Lead { mut lead, .. } = world.flights.join(&key, 0, None) else {
                    panic!("no other caller has this key")
                };
                // One of them is found by a caller, which needs the lock.
                let is_shared = text == "l";
                if is_shared {
                    let found = world.flights.running(&key, 0).expect("the flight is running");
                    assert_eq!(found.id(), lead.id());
                }
                assert_eq!(lead.begin_store(), StorePermission::Granted);
                let mut outcome = Outcome::computed(1);
                assert_eq!(lead.complete(|| outcome.clone()), Completion::Done);
                lead.id()
            })
        });
        let ids = callers.map(|caller| caller.join().expect("a caller"));
        assert_ne!(ids[0], ids[1]);
        assert!(world.flights.is_open(&key()), "the next flight needs no lock");
    });
}

#[test]
fn overdue_flight_and_the_one_that_replaces_it_end_in_any_order() {
    model(|world| {
        let callers = [(); 2].map(|()| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.call(&key(), End::ShareInPlace))
        });
        let key = key();
        if let Join::Wait { ticket, .. } = world.flights.join(&key, 0, None)
            && let Some(lead) = world.flights.replace_overdue(&key, 0, ticket.flight())
        {
            drop(ticket);
            assert!(world.lead(lead, End::ShareInPlace).is_some());
        }
        for caller in callers {
            assert!(caller.join().expect("a caller").is_some());
        }
    });
}

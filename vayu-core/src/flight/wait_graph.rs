//! Deadlock detection by a *wait-for graph*: a call must not wait for a flight that waits for this call.
//!
//! The graph of the process has an edge from each flight of a waiting caller to the flight
//! that it waits for. Before a caller waits, a search of the graph detects whether the new edge would
//! close a cycle; then the caller does not wait and computes. A caller outside of all flights adds no
//! edge and takes no lock.
//!
//! A batch leads several flights by one run of its function. A run of more than one flight has an id of its own
//! ([`BatchRun`]), which stands for it on the stack and in the graph, where each of its flights has an edge to the run.
//!
//! A wait that blocks the thread is also refused while an async leader [may need](may_host_leader) it. Without threads, no
//! sync caller waits: the only thread has to run the leader.

use std::sync::{LazyLock, Mutex, MutexGuard};

use crate::flight::context::entered_flights;
use crate::flight::leader_future::may_host_leader;
use crate::flight::{FlightId, FlightIds};
use crate::per_process::PerProcess;
use crate::platform::HAS_THREADS;

static GRAPH: LazyLock<PerProcess<Mutex<Graph>>> =
    LazyLock::new(|| PerProcess::new(Mutex::default()));

/// Locks the graph. If a thread of a parent process holds the lock, the graph of the child starts empty: the flights
/// of the parent do not end there.
fn graph() -> MutexGuard<'static, Graph> {
    GRAPH.lock(Graph::default)
}

/// The wait-for graph.
#[derive(Debug, Default)]
struct Graph {
    /// Edges from each flight that a waiting caller is part of, to the flight that it waits for. Callers
    /// outside of all flights are not in it, since no cycle goes through them.
    waits: Vec<(FlightId, FlightId)>,
    /// The runs of batches, each with the flights that it leads, in ascending order.
    batches: Vec<(FlightId, Vec<FlightId>)>,
}

impl Graph {
    /// Returns whether one of `targets` is reachable from `start`.
    fn is_reachable(&self, start: FlightId, targets: &[FlightId]) -> bool {
        let mut reached = vec![start];
        let mut next = 0;
        while let Some(&flight) = reached.get(next) {
            if targets.contains(&flight) {
                return true;
            }
            let is_led = |(_, led): &&(FlightId, Vec<FlightId>)| led.binary_search(&flight).is_ok();
            let runs = self.batches.iter().filter(is_led).map(|&(run, _)| run);
            let waits = self.waits.iter().filter(|(from, _)| *from == flight).map(|&(_, to)| to);
            for to in runs.chain(waits) {
                if !reached.contains(&to) {
                    reached.push(to);
                }
            }
            next += 1;
        }
        false
    }
}

/// A run of a batch function. One that leads several flights is in the graph until it is dropped, under an id of its own. One of
/// a single flight has the id of that.
#[derive(Debug)]
pub(crate) struct BatchRun {
    id: FlightId,
    is_in_graph: bool,
}

impl BatchRun {
    /// Begins a run that leads these flights.
    pub(crate) fn begin(flights: impl Iterator<Item = FlightId>) -> Self {
        let mut led: Vec<FlightId> = flights.collect();
        if let [flight] = led[..] {
            return Self { id: flight, is_in_graph: false };
        }
        led.sort_unstable();
        let id = FlightIds::default().assign();
        let is_in_graph = !led.is_empty();
        if is_in_graph {
            graph().batches.push((id, led));
        }
        Self { id, is_in_graph }
    }

    /// Returns the id of the run, for the stack and for waits.
    pub(crate) fn id(&self) -> FlightId {
        self.id
    }
}

impl Drop for BatchRun {
    fn drop(&mut self) {
        if self.is_in_graph {
            let mut graph = graph();
            if let Some(index) = graph.batches.iter().position(|(run, _)| *run == self.id) {
                graph.batches.swap_remove(index);
            }
        }
    }
}

/// A wait in the graph, removed on drop.
#[derive(Debug)]
pub(crate) struct Waiting {
    from: Vec<FlightId>,
    to: FlightId,
}

impl Waiting {
    /// Adds a wait that blocks this thread. Returns `None` if the code must not wait: the flight waits
    /// for it, an async leader may need the thread, or there is no other thread.
    pub(crate) fn begin_blocking(to: FlightId) -> Option<Self> {
        if !HAS_THREADS || may_host_leader() { None } else { Self::begin(to) }
    }

    /// Adds a wait of the running code for a flight. Returns `None` if the code must not wait: it is
    /// part of that flight or of one that the flight waits for, or its thread is exiting.
    pub(crate) fn begin(to: FlightId) -> Option<Self> {
        let from = entered_flights()?;
        if from.is_empty() {
            return Some(Self { from, to });
        }
        let mut graph = graph();
        if graph.is_reachable(to, &from) {
            return None;
        }
        graph.waits.extend(from.iter().map(|&flight| (flight, to)));
        Some(Self { from, to })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.from.is_empty() {
            return;
        }
        let mut graph = graph();
        for &flight in &self.from {
            // Two branches of one function may wait for the same flight: each removes one edge.
            if let Some(index) = graph.waits.iter().position(|&edge| edge == (flight, self.to)) {
                graph.waits.swap_remove(index);
            }
        }
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;
    use crate::flight::enter;

    const A: FlightId = FlightId(1);
    const B: FlightId = FlightId(2);
    const C: FlightId = FlightId(3);
    const D: FlightId = FlightId(4);

    #[test]
    fn search_follows_several_edges_and_ends_in_a_cycle() {
        let graph = Graph { waits: vec![(A, B), (B, C), (C, B)], batches: Vec::new() };
        assert!(graph.is_reachable(A, &[C]));
        assert!(!graph.is_reachable(A, &[D]));
        assert!(!graph.is_reachable(C, &[A]));
    }

    #[test]
    fn flight_of_a_batch_leads_to_all_that_the_batch_waits_for() {
        let graph = Graph { waits: vec![(D, A)], batches: vec![(D, vec![B, C])] };
        assert!(graph.is_reachable(B, &[D]));
        assert!(graph.is_reachable(C, &[A]));
        assert!(!graph.is_reachable(B, &[C]), "one flight of a batch does not wait for another");
        assert!(!graph.is_reachable(A, &[B]));
    }

    #[test]
    fn batch_is_in_the_graph_while_it_runs() {
        let flights = [(); 3].map(|()| FlightIds::default().assign());
        let may_wait = || flights.map(|flight| Waiting::begin(flight).is_some());
        let run = BatchRun::begin(flights[..2].iter().copied());
        assert_eq!(enter(run.id(), may_wait), [false, false, true]);
        let id = run.id();
        drop(run);
        assert_eq!(enter(id, may_wait), [true; 3]);
        assert_eq!(BatchRun::begin(flights[..1].iter().copied()).id(), flights[0]);
    }

    #[test]
    fn marks_are_gone_after_a_panic() {
        let result = std::panic::catch_unwind(|| enter(A, || panic!("planned")));
        assert!(result.is_err());
        assert!(Waiting::begin(A).is_some());
    }

    #[test]
    fn code_may_wait_for_all_flights_but_those_it_is_part_of() {
        enter(A, || {
            enter(B, || {
                assert!(Waiting::begin(A).is_none());
                assert!(Waiting::begin(B).is_none());
                assert!(Waiting::begin(C).is_some());
            });
            assert!(Waiting::begin(B).is_some());
            assert!(Waiting::begin(A).is_none());
        });
    }

    #[test]
    fn flight_that_waits_for_the_running_code_is_not_waited_for() {
        enter(A, || {
            let waiting = Waiting::begin(C).expect("no other wait yet");
            std::thread::scope(|scope| {
                let other = || enter(C, || assert!(Waiting::begin(A).is_none()));
                scope.spawn(other);
            });
            drop(waiting);
            std::thread::scope(|scope| {
                let other = || enter(C, || assert!(Waiting::begin(A).is_some()));
                scope.spawn(other);
            });
        });
    }
}

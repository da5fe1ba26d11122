//! Deadlock detection: a call must not wait for a flight that waits for this call.
//!
//! A thread-local stack holds the flights that the running code is part of. A sync leader pushes its
//! flight while its function runs, an async leader whenever its future is polled ([`LeaderFuture`]),
//! so the marks follow a task from thread to thread without help of the runtime. [`FlightContext`]
//! copies them to other threads and tasks.
//!
//! A *wait-for graph* of the process has an edge from each flight of a waiting caller to the flight
//! that it waits for. Before a caller waits, a search of the graph detects whether the new edge would
//! close a cycle; then the caller does not wait and computes. A caller outside of all flights adds no
//! edge and takes no lock.
//!
//! A batch leads several flights by one run of its function. The run has an id of its own ([`BatchRun`]), which
//! stands for it on the stack and in the graph, where each of its flights has an edge to the run.
//!
//! A thread must not block, either, while an async leader may have to be polled on it: one that is
//! being polled further up on its stack, or that was last polled there and is pending. The future of a call with `spawn`
//! that has the lead counts as pending on the thread that spawns it, until the task is polled. Without threads, no
//! sync caller waits: the only thread has to run the leader.
//!
//! Work that a function hands to another thread or task without a context is not marked. A wait of
//! such work for its own flight ends by a hedge or by the deadline.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::flight::{FlightId, FlightIds};
use crate::per_process::PerProcess;
use crate::platform::HAS_THREADS;
use crate::sync::thread_local;

thread_local! {
    /// The flights that the running code is part of, outermost first.
    #[allow(clippy::missing_const_for_thread_local, reason = "the macro of loom takes no block")]
    static ENTERED: RefCell<Vec<FlightId>> = RefCell::new(Vec::new());
    /// The number of pending async leaders that were last polled on this thread.
    static HOSTED_LEADERS: Arc<AtomicUsize> = Arc::new(AtomicUsize::new(0));
    /// The number of async leaders that this thread is polling, nested in one another.
    #[allow(clippy::missing_const_for_thread_local, reason = "the macro of loom takes no block")]
    static POLL_DEPTH: Cell<usize> = Cell::new(0);
}

/// Returns whether an async leader may need this thread to make progress. Such a thread must not block.
fn may_host_leader() -> bool {
    let polled = POLL_DEPTH.try_with(Cell::get);
    let hosted = HOSTED_LEADERS.try_with(|hosted| hosted.load(Ordering::Relaxed));
    match (polled, hosted) {
        (Ok(polled), Ok(hosted)) => polled + hosted > 0,
        _ => true,
    }
}

/// Runs `code` as part of a flight.
pub(crate) fn enter<T>(flight: FlightId, code: impl FnOnce() -> T) -> T {
    let _mark = Mark::push(flight);
    code()
}

/// Marks the running code as part of a flight, until the mark is dropped.
#[inline]
pub(crate) fn mark(flight: FlightId) -> Option<Mark> {
    Mark::push(flight)
}

/// Returns the flight that the running code is part of, the innermost one.
pub(crate) fn innermost_flight() -> Option<FlightId> {
    ENTERED.try_with(|entered| entered.borrow().last().copied()).ok().flatten()
}

/// Runs `code` as part of a flight whose leader this thread is polling.
pub(crate) fn enter_polled<T>(flight: FlightId, code: impl FnOnce() -> T) -> T {
    count_poll(|| enter(flight, code))
}

/// A flight on the stack of this thread, removed on drop. Out of line: each cached function has its own
/// [`enter`].
pub(crate) struct Mark;

impl Mark {
    /// Returns `None` in a thread that is exiting.
    #[inline(never)]
    fn push(flight: FlightId) -> Option<Self> {
        ENTERED.try_with(|entered| entered.borrow_mut().push(flight)).ok().map(|()| Self)
    }
}

impl Drop for Mark {
    #[inline(never)]
    fn drop(&mut self) {
        let _ = ENTERED.try_with(|entered| entered.borrow_mut().pop());
    }
}

/// The computations that the running code is part of, to be passed on to other threads and tasks.
///
/// A cached call that is made below a running computation of the same key must not wait for it: it
/// runs the function. vayu keeps track of this for the thread that runs a function, and for the
/// future of an async one. It does not see that a scoped thread, a task or a job of a thread pool
/// belongs to a computation. Take the context where the work is handed over and run the work in its
/// scope; otherwise a call in it may wait for its own computation until that is hedged (see
/// [`Cache::with_max_wait`](crate::Cache::with_max_wait)).
///
/// A context names computations of all caches. It costs one allocation, clones of it are cheap, and
/// outside of a computation it is empty. It may be kept: once a computation has ended, it has no
/// effect any more.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
/// # use vayu_core as vayu;
/// use std::time::Duration;
/// use vayu::testing::MapBackend;
/// use vayu::{Cache, FlightContext, Key, MessagePack};
///
/// fn depth(cache: &Cache<MapBackend, MessagePack>, n: u32) -> u32 {
///     let key = Key::from_text("depth", "of all trees");
///     cache.get_or_insert_with(&key, Duration::from_secs(60), || {
///         if n == 0 {
///             return 0;
///         }
///         let context = FlightContext::current();
///         std::thread::scope(|scope| {
///             let below = scope.spawn(|| context.in_scope(|| depth(cache, n - 1)));
///             below.join().unwrap() + 1
///         })
///     })
/// }
///
/// assert_eq!(depth(&Cache::new(), 3), 3); // does not wait for itself
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct FlightContext {
    /// The flights, outermost first. `None` if there are none.
    flights: Option<Arc<[FlightId]>>,
}

impl FlightContext {
    /// Returns the context of the running code.
    pub fn current() -> Self {
        let entered = ENTERED.try_with(|entered| Arc::from(&**entered.borrow()));
        Self { flights: entered.ok().filter(|flights: &Arc<[_]>| !flights.is_empty()) }
    }

    /// Runs `code` as part of these computations, besides those that this thread is part of.
    pub fn in_scope<T>(&self, code: impl FnOnce() -> T) -> T {
        /// Truncates the stack to this length on drop.
        struct Scope(usize);
        impl Drop for Scope {
            fn drop(&mut self) {
                let _ = ENTERED.try_with(|entered| entered.borrow_mut().truncate(self.0));
            }
        }
        let push = |entered: &RefCell<Vec<FlightId>>| {
            let mut entered = entered.borrow_mut();
            let scope = Scope(entered.len());
            for flight in self.flights.iter().flat_map(|flights| flights.iter()) {
                if !entered.contains(flight) {
                    entered.push(*flight);
                }
            }
            scope
        };
        let _scope = ENTERED.try_with(push).ok();
        code()
    }

    /// Returns a future that is polled as part of these computations, for example to spawn it.
    pub fn in_scope_async<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        InScope { context: self.clone(), future }
    }
}

pin_project! {
    /// A future that is polled in the scope of a context.
    struct InScope<F> {
        context: FlightContext,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for InScope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.context.in_scope(|| this.future.poll(context))
    }
}

pin_project! {
    /// The future of an async leader, which marks the thread that polls it.
    pub(crate) struct LeaderFuture<F> {
        // Dropped before the future.
        polled_on: PolledOn,
        #[pin]
        future: F,
    }
}

/// The thread that a pending leader was last polled on.
struct PolledOn {
    flight: FlightId,
    host: Option<HostedLeader>,
}

/// The count of a pending leader for a thread that may have to poll it, until it is dropped.
pub(crate) struct HostedLeader(Arc<AtomicUsize>);

impl HostedLeader {
    /// Counts a leader for this thread. `None` if the thread is exiting.
    pub(crate) fn here() -> Option<Self> {
        let here = HOSTED_LEADERS.try_with(Arc::clone).ok()?;
        here.fetch_add(1, Ordering::Relaxed);
        Some(Self(here))
    }

    fn is_here(&self) -> bool {
        HOSTED_LEADERS.try_with(|here| Arc::ptr_eq(&self.0, here)).unwrap_or(false)
    }
}

impl Drop for HostedLeader {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<F> LeaderFuture<F> {
    pub(crate) fn new(flight: FlightId, future: F) -> Self {
        Self { polled_on: PolledOn { flight, host: None }, future }
    }
}

impl<F: Future> LeaderFuture<F> {
    /// Polls the future of a leader that blocks the thread. It is ready after that.
    pub(crate) fn poll_blocking(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<F::Output> {
        let this = self.project();
        enter(this.polled_on.flight, || this.future.poll(context))
    }
}

impl<F: Future> Future for LeaderFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.polled_on.host.take_if(|host| !host.is_here());
        let polled = enter_polled(this.polled_on.flight, || this.future.poll(context));
        // Most are ready at once, and are never counted.
        if polled.is_pending() && this.polled_on.host.is_none() {
            this.polled_on.host = HostedLeader::here();
        }
        polled
    }
}

/// Runs `code`, which polls a leader, and counts that for the thread.
fn count_poll<T>(code: impl FnOnce() -> T) -> T {
    struct Mark;
    impl Drop for Mark {
        fn drop(&mut self) {
            let _ = POLL_DEPTH.try_with(|polled| polled.set(polled.get() - 1));
        }
    }
    let mark = POLL_DEPTH.try_with(|polled| polled.set(polled.get() + 1));
    let _mark = mark.ok().map(|()| Mark);
    code()
}

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

/// A run of a batch function, which leads several flights. It is in the graph until it is dropped.
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

    /// Returns the id of the run, to be used as that of a flight.
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
        let from = ENTERED.try_with(|entered| entered.borrow().clone()).ok()?;
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
    use std::pin::pin;
    use std::task::Waker;

    use super::*;

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
    fn thread_does_not_block_while_it_polls_a_leader_nor_while_that_is_pending() {
        let may_block = || Waiting::begin_blocking(B).is_some();
        let poll = |leader: &mut LeaderFuture<Pin<&mut dyn Future<Output = ()>>>| {
            Pin::new(leader).poll(&mut Context::from_waker(Waker::noop()))
        };
        let at_once = pin!(async { assert!(!may_block(), "it is being polled") });
        assert!(poll(&mut LeaderFuture::new(A, at_once)).is_ready());
        assert!(may_block());
        let later = pin!(std::future::pending());
        let mut later = LeaderFuture::<Pin<&mut dyn Future<Output = ()>>>::new(A, later);
        assert!(poll(&mut later).is_pending());
        assert!(!may_block(), "it may have to be polled here");
        drop(later);
        assert!(may_block());
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

//! Who is inside which flight, known without a runtime.
//!
//! While a body runs, and while an async body is polled, its flight is marked on the thread. A
//! nested call sees the marks: it must not wait for a flight that it is itself a part of. A wait
//! of a caller that is inside flights is noted in one graph for the process, and a wait that would
//! close a cycle is refused. What a body hands to another thread or task cannot be seen; there the
//! bounded wait is the way out.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::flight::FlightId;
use crate::sync::IgnorePoison;
use crate::sync::thread_local;

thread_local! {
    /// The flights that the running code is inside of, outermost first.
    #[allow(clippy::missing_const_for_thread_local, reason = "the macro of loom takes no block")]
    static INSIDE: RefCell<Vec<FlightId>> = RefCell::new(Vec::new());
    /// How many async leaders were last polled on this thread, were not ready and have not landed.
    static HOSTED: Arc<AtomicUsize> = Arc::new(AtomicUsize::new(0));
    /// How many async leaders this thread polls at the moment, one inside of the other.
    #[allow(clippy::missing_const_for_thread_local, reason = "the macro of loom takes no block")]
    static POLLED: Cell<usize> = Cell::new(0);
}

/// Whether an async leader may need this thread to go on. Such a thread must not sleep.
fn is_host() -> bool {
    let polled = POLLED.try_with(Cell::get);
    let hosted = HOSTED.try_with(|hosted| hosted.load(Ordering::Relaxed));
    match (polled, hosted) {
        (Ok(polled), Ok(hosted)) => polled + hosted > 0,
        _ => true,
    }
}

/// Marks the thread as inside a flight while `code` runs.
pub(crate) fn inside<T>(flight: FlightId, code: impl FnOnce() -> T) -> T {
    struct Mark;
    impl Drop for Mark {
        fn drop(&mut self) {
            let _ = INSIDE.try_with(|inside| inside.borrow_mut().pop());
        }
    }
    let _mark = INSIDE.try_with(|inside| inside.borrow_mut().push(flight)).ok().map(|()| Mark);
    code()
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
/// use std::time::Duration;
/// use vayu_core::testing::MapBackend;
/// use vayu_core::{Cache, FlightContext, Key, MessagePack};
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
    /// Outermost first. `None` stands for no flights.
    flights: Option<Arc<[FlightId]>>,
}

impl FlightContext {
    /// Returns the context of the running code.
    pub fn current() -> Self {
        let inside = INSIDE.try_with(|inside| Arc::from(&**inside.borrow()));
        Self { flights: inside.ok().filter(|flights: &Arc<[_]>| !flights.is_empty()) }
    }

    /// Runs `code` as part of these computations, besides those that this thread is part of.
    pub fn in_scope<T>(&self, code: impl FnOnce() -> T) -> T {
        /// Removes the marks that were added to this many.
        struct Scope(usize);
        impl Drop for Scope {
            fn drop(&mut self) {
                let _ = INSIDE.try_with(|inside| inside.borrow_mut().truncate(self.0));
            }
        }
        let enter = |inside: &RefCell<Vec<FlightId>>| {
            let mut inside = inside.borrow_mut();
            let scope = Scope(inside.len());
            for flight in self.flights.iter().flat_map(|flights| flights.iter()) {
                if !inside.contains(flight) {
                    inside.push(*flight);
                }
            }
            scope
        };
        let _scope = INSIDE.try_with(enter).ok();
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
    /// A leader's future: marks the thread that polls it.
    pub(crate) struct Hosted<F> {
        // Leaves before the future is dropped.
        stay: Stay,
        #[pin]
        future: F,
    }
}

/// Where a leader's future was last polled, as long as it is not ready.
struct Stay {
    flight: FlightId,
    host: Option<Arc<AtomicUsize>>,
}

impl<F> Hosted<F> {
    pub(crate) fn new(flight: FlightId, future: F) -> Self {
        Self { stay: Stay { flight, host: None }, future }
    }
}

impl Stay {
    /// Notes that this thread is the one that the future was last polled on.
    fn stay_here(&mut self) {
        let Ok(here) = HOSTED.try_with(Arc::clone) else { return };
        if self.host.is_none() {
            here.fetch_add(1, Ordering::Relaxed);
            self.host = Some(here);
        }
    }

    /// Leaves the thread on which the future was last polled, if that is another one.
    fn move_here(&mut self) {
        let is_here = |host| HOSTED.try_with(|here| Arc::ptr_eq(host, here)).unwrap_or(false);
        if self.host.as_ref().is_some_and(|host| !is_here(host)) {
            self.leave();
        }
    }

    fn leave(&mut self) {
        if let Some(host) = self.host.take() {
            host.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl<F: Future> Future for Hosted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.stay.move_here();
        let polled = polled(|| inside(this.stay.flight, || this.future.poll(context)));
        // Most are ready at once: nothing is noted for them.
        if polled.is_pending() {
            this.stay.stay_here();
        }
        polled
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Marks the thread as one that polls a leader while `code` runs.
fn polled<T>(code: impl FnOnce() -> T) -> T {
    struct Mark;
    impl Drop for Mark {
        fn drop(&mut self) {
            let _ = POLLED.try_with(|polled| polled.set(polled.get() - 1));
        }
    }
    let mark = POLLED.try_with(|polled| polled.set(polled.get() + 1));
    let _mark = mark.ok().map(|()| Mark);
    code()
}

/// Who waits for whom: from each flight that a waiting caller is inside of, to the one it waits
/// for. Callers outside of all flights are not in it; no cycle goes through them.
static WAITS: Mutex<Vec<(FlightId, FlightId)>> = Mutex::new(Vec::new());

/// A wait that is noted in the graph as long as this lives.
#[derive(Debug)]
pub(crate) struct Waiting {
    from: Vec<FlightId>,
    to: FlightId,
}

impl Waiting {
    /// Notes that the running code waits for a flight, asleep on this thread, or `None` if it must
    /// not: the flight waits for it, directly or not, or a leader may need the thread.
    pub(crate) fn begin_asleep(to: FlightId) -> Option<Self> {
        if is_host() { None } else { Self::begin(to) }
    }

    /// Notes that the running code waits for a flight, or `None` if it must not: the code is inside
    /// of that flight, or of one that waits for it, or its thread is being torn down.
    pub(crate) fn begin(to: FlightId) -> Option<Self> {
        let from = INSIDE.try_with(|inside| inside.borrow().clone()).ok()?;
        if from.is_empty() {
            return Some(Self { from, to });
        }
        let mut waits = WAITS.lock().ignore_poison();
        if is_reached_from(to, &from, &waits) {
            return None;
        }
        waits.extend(from.iter().map(|&flight| (flight, to)));
        Some(Self { from, to })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.from.is_empty() {
            return;
        }
        let mut waits = WAITS.lock().ignore_poison();
        for &flight in &self.from {
            // Two branches of one body may wait for one flight: each removes its own note.
            if let Some(index) = waits.iter().position(|&edge| edge == (flight, self.to)) {
                waits.swap_remove(index);
            }
        }
    }
}

/// Whether a way along `edges` leads from `start` to one of `targets`.
fn is_reached_from(start: FlightId, targets: &[FlightId], edges: &[(FlightId, FlightId)]) -> bool {
    let mut reached = vec![start];
    let mut next = 0;
    while let Some(&flight) = reached.get(next) {
        if targets.contains(&flight) {
            return true;
        }
        for &(from, to) in edges {
            if from == flight && !reached.contains(&to) {
                reached.push(to);
            }
        }
        next += 1;
    }
    false
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
    fn way_is_found_over_several_flights_and_past_a_cycle() {
        let edges = [(A, B), (B, C), (C, B)];
        assert!(is_reached_from(A, &[C], &edges));
        assert!(!is_reached_from(A, &[D], &edges));
        assert!(!is_reached_from(C, &[A], &edges));
    }

    #[test]
    fn marks_are_gone_after_a_panic() {
        let result = std::panic::catch_unwind(|| inside(A, || panic!("planned")));
        assert!(result.is_err());
        assert!(Waiting::begin(A).is_some());
    }

    #[test]
    fn code_may_wait_for_all_but_the_flights_it_is_inside_of() {
        inside(A, || {
            inside(B, || {
                assert!(Waiting::begin(A).is_none());
                assert!(Waiting::begin(B).is_none());
                assert!(Waiting::begin(C).is_some());
            });
            assert!(Waiting::begin(B).is_some());
            assert!(Waiting::begin(A).is_none());
        });
    }

    #[test]
    fn thread_does_not_sleep_while_it_polls_a_leader_nor_while_that_is_not_ready() {
        let may_sleep = || Waiting::begin_asleep(B).is_some();
        let poll = |leader: &mut Hosted<Pin<&mut dyn Future<Output = ()>>>| {
            Pin::new(leader).poll(&mut Context::from_waker(Waker::noop()))
        };
        let at_once = pin!(async { assert!(!may_sleep(), "it is being polled") });
        assert!(poll(&mut Hosted::new(A, at_once)).is_ready());
        assert!(may_sleep());
        let later = pin!(std::future::pending());
        let mut later = Hosted::<Pin<&mut dyn Future<Output = ()>>>::new(A, later);
        assert!(poll(&mut later).is_pending());
        assert!(!may_sleep(), "it may have to be polled here");
        drop(later);
        assert!(may_sleep());
    }

    #[test]
    fn flight_that_waits_for_the_running_code_is_not_waited_for() {
        inside(A, || {
            let waiting = Waiting::begin(C).expect("nobody waits yet");
            std::thread::scope(|scope| {
                let other = || inside(C, || assert!(Waiting::begin(A).is_none()));
                scope.spawn(other);
            });
            drop(waiting);
            std::thread::scope(|scope| {
                let other = || inside(C, || assert!(Waiting::begin(A).is_some()));
                scope.spawn(other);
            });
        });
    }
}

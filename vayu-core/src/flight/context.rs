//! The flights that the running code is part of: a stack of each thread, and [`FlightContext`], which copies it to other
//! threads and tasks.
//!
//! Each flight on the stack is a *mark* of the running code. A sync leader pushes its flight while its function runs, an
//! async leader whenever its future is polled ([`LeaderFuture`](super::leader_future::LeaderFuture)), so the marks follow a
//! task from thread to thread without help of the runtime.
//!
//! Work that a function hands to another thread or task without a context is not marked. A wait of
//! such work for its own flight ends by a hedge or by the deadline.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::flight::FlightId;
use crate::sync::thread_local;

thread_local! {
    /// The flights that the running code is part of, outermost first.
    #[allow(clippy::missing_const_for_thread_local, reason = "the macro of loom takes no block")]
    static ENTERED: RefCell<Vec<FlightId>> = RefCell::new(Vec::new());
}

/// Runs `code` as part of a flight.
pub(crate) fn enter<T>(flight: FlightId, code: impl FnOnce() -> T) -> T {
    let _mark = mark(flight);
    code()
}

/// Marks the running code as part of a flight, until the mark is dropped. Returns `None` in a thread that is exiting.
///
/// Out of line: each cached function has its own [`enter`].
#[inline(never)]
pub(crate) fn mark(flight: FlightId) -> Option<Mark> {
    ENTERED.try_with(|entered| entered.borrow_mut().push(flight)).ok().map(|()| Mark)
}

/// Returns the flight that the running code is part of, the innermost one.
pub(crate) fn innermost_flight() -> Option<FlightId> {
    ENTERED.try_with(|entered| entered.borrow().last().copied()).ok().flatten()
}

/// Returns the flights that the running code is part of, outermost first, or `None` in a thread that is exiting.
pub(super) fn entered_flights() -> Option<Vec<FlightId>> {
    ENTERED.try_with(|entered| entered.borrow().clone()).ok()
}

/// A flight on the stack of this thread, removed on drop.
pub(crate) struct Mark;

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
        let copy = |entered: &RefCell<Vec<FlightId>>| {
            let entered = entered.borrow();
            if entered.is_empty() { None } else { Some(Arc::from(&**entered)) }
        };
        Self { flights: ENTERED.try_with(copy).ok().flatten() }
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

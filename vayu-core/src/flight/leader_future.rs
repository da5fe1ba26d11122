//! The future of a leader, and the threads that may have to poll that of an async one.
//!
//! A thread must not block while an async leader may have to be polled on it: one that is
//! being polled further up on its stack, or that was last polled there and is pending. The future of a call with `spawn`
//! that has the lead counts as pending on the thread that spawns it, until the task is polled.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::flight::FlightId;
use crate::flight::context::enter;
use crate::sync::thread_local;

thread_local! {
    /// The number of pending async leaders that were last polled on this thread.
    static HOSTED_LEADERS: Arc<AtomicUsize> = Arc::new(AtomicUsize::new(0));
    /// The number of async leaders that this thread is polling, nested in one another.
    #[allow(clippy::missing_const_for_thread_local, reason = "the macro of loom takes no block")]
    static POLL_DEPTH: Cell<usize> = Cell::new(0);
}

/// Returns whether an async leader may need this thread to make progress. Such a thread must not block.
pub(super) fn may_host_leader() -> bool {
    let polled = POLL_DEPTH.try_with(Cell::get);
    let hosted = HOSTED_LEADERS.try_with(|hosted| hosted.load(Ordering::Relaxed));
    match (polled, hosted) {
        (Ok(polled), Ok(hosted)) => polled + hosted > 0,
        _ => true,
    }
}

/// Runs `code` as part of a flight whose leader this thread is polling.
pub(crate) fn enter_polled<T>(flight: FlightId, code: impl FnOnce() -> T) -> T {
    count_poll(|| enter(flight, code))
}

pin_project! {
    /// The future of a leader, which marks the thread that polls it as part of the flight.
    pub(crate) struct LeaderFuture<F> {
        flight: FlightId,
        // The count for the thread that it was last polled on, while it is pending. It is dropped before the future: what
        // runs while the future is dropped may block the thread, which need not poll it any more.
        host: Option<HostedLeader>,
        #[pin]
        future: F,
    }
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
        Self { flight, host: None, future }
    }
}

impl<F: Future> LeaderFuture<F> {
    /// Runs the future of a sync leader to its end by one poll: it blocks the thread where it would suspend. So the thread
    /// is not counted as one that polls an async leader.
    pub(crate) fn poll_blocking(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<F::Output> {
        let this = self.project();
        enter(*this.flight, || this.future.poll(context))
    }
}

impl<F: Future> Future for LeaderFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.host.take_if(|host| !host.is_here());
        let polled = enter_polled(*this.flight, || this.future.poll(context));
        // Most are ready at once, and are never counted.
        if polled.is_pending() && this.host.is_none() {
            *this.host = HostedLeader::here();
        }
        polled
    }
}

/// Runs `code`, which polls a leader, and counts that for the thread.
fn count_poll<T>(code: impl FnOnce() -> T) -> T {
    /// One poll, counted until it is dropped.
    struct PollCount;
    impl Drop for PollCount {
        fn drop(&mut self) {
            let _ = POLL_DEPTH.try_with(|polled| polled.set(polled.get() - 1));
        }
    }
    let counted = POLL_DEPTH.try_with(|polled| polled.set(polled.get() + 1));
    let _count = counted.ok().map(|()| PollCount);
    code()
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use std::pin::pin;
    use std::task::Waker;

    use super::*;
    use crate::flight::Waiting;

    const A: FlightId = FlightId(1);
    const B: FlightId = FlightId(2);

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
}

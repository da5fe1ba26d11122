//! Waiting, by blocking the thread or by awaiting.
//!
//! The operations of a cache are written once, as async code over [`Io`]. An async caller awaits it
//! ([`Awaiting`]). For a sync caller each step blocks the thread until it is done ([`Blocking`]), so
//! the code does not suspend, and polling it once runs it to its end ([`run_blocking`]).

use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use pin_project_lite::pin_project;

use crate::error::Result;
use crate::flight::{FlightId, LeaderFuture, Waiting};
use crate::panic::{BoxFuture, CatchPanic, catch_panic};
use crate::platform::HAS_THREADS;
use crate::sync::block_on;

/// The way in which a caller waits.
pub(crate) trait Io: 'static {
    /// `true` if a step blocks the thread.
    const BLOCKS: bool;
    /// `true` if the caller may wait for others: not if it would block the only thread.
    const MAY_WAIT: bool = !Self::BLOCKS || HAS_THREADS;

    /// Waits for a future.
    #[inline]
    fn wait<F: Future>(future: F) -> Wait<Self, F>
    where
        Self: Sized,
    {
        Wait { future, io: PhantomData }
    }

    /// Runs a part of the work of a leader, as part of its flight.
    #[inline]
    fn lead<F: Future>(flight: FlightId, future: F) -> Lead<Self, F>
    where
        Self: Sized,
    {
        Lead { future: LeaderFuture::new(flight, future), io: PhantomData }
    }

    /// Registers that the running code waits for a flight, or returns `None` if it must not.
    fn begin_wait(flight: FlightId) -> Option<Waiting>;
}

/// Blocks the thread.
pub(crate) struct Blocking;

/// Suspends the future.
pub(crate) struct Awaiting;

impl Io for Blocking {
    const BLOCKS: bool = true;

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn begin_wait(flight: FlightId) -> Option<Waiting> {
        Waiting::begin_blocking(flight)
    }
}

impl Io for Awaiting {
    const BLOCKS: bool = false;

    #[inline]
    fn begin_wait(flight: FlightId) -> Option<Waiting> {
        Waiting::begin(flight)
    }
}

pin_project! {
    /// The future of [`Io::wait`]. It can be sent to another thread if that for which it waits can be.
    pub(crate) struct Wait<M, F> {
        #[pin]
        future: F,
        io: PhantomData<fn() -> M>,
    }
}

impl<M: Io, F: Future> Future for Wait<M, F> {
    type Output = F::Output;

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.project().future;
        if M::BLOCKS { Poll::Ready(block_on(future)) } else { future.poll(context) }
    }
}

pin_project! {
    /// The future of [`Io::lead`].
    pub(crate) struct Lead<M, F> {
        #[pin]
        future: LeaderFuture<F>,
        io: PhantomData<fn() -> M>,
    }
}

impl<M: Io, F: Future> Future for Lead<M, F> {
    type Output = F::Output;

    #[cfg_attr(not(debug_assertions), inline(always))]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let leader = self.project().future;
        if M::BLOCKS { leader.poll_blocking(context) } else { leader.poll(context) }
    }
}

/// Runs async code over [`Blocking`], which never suspends.
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn run_blocking<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("code that blocks does not suspend"),
    }
}

/// An operation of a backend. A panic of it is an error.
pub(crate) enum Operation<'a, T> {
    /// It is done. The result is taken by the first poll.
    Done(Option<Result<T>>),
    Pending(CatchPanic<'a, T>),
}

impl<'a, T> Operation<'a, T> {
    /// Creates an operation that is done.
    #[inline]
    pub(crate) fn done(result: Result<T>) -> Self {
        Self::Done(Some(result))
    }

    /// Performs an operation in its blocking form.
    #[inline]
    pub(crate) fn blocking(name: &'static str, code: impl FnOnce() -> Result<T>) -> Self {
        Self::done(catch_panic(name, code))
    }

    /// Begins an operation in its async form.
    pub(crate) fn awaiting(name: &'static str, make: impl FnOnce() -> BoxFuture<'a, T>) -> Self {
        match CatchPanic::new(name, make) {
            Ok(future) => Self::Pending(future),
            Err(error) => Self::done(Err(error)),
        }
    }

    /// Performs an operation that has both forms.
    #[inline]
    pub(crate) fn perform<M: Io>(
        name: &'static str,
        blocking: impl FnOnce() -> Result<T>,
        awaiting: impl FnOnce() -> BoxFuture<'a, T>,
    ) -> Self {
        if M::BLOCKS { Self::blocking(name, blocking) } else { Self::awaiting(name, awaiting) }
    }
}

/// Nothing is pinned in it: the future of a backend is in a box.
impl<T> Unpin for Operation<'_, T> {}

impl<T> Future for Operation<'_, T> {
    type Output = Result<T>;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        match self.get_mut() {
            Self::Done(result) => Poll::Ready(result.take().expect("it is polled once")),
            Self::Pending(future) => Pin::new(future).poll(context),
        }
    }
}

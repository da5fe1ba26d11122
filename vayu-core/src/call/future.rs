//! Async calls: the code of the driver, awaited.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tracing::Instrument;

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::driver::{Prepared, into_lead, prepare, prepare_now, resume_lookup};
use crate::call::leading::{Leading, complete, complete_now};
use crate::call::lookup::{Lookup, begin};
use crate::call::previous::{InRun, in_run};
use crate::call::{CachedFn, Call, ComputeReason};
use crate::flight::{LeaderFuture, enter_polled};
use crate::io::Awaiting;

/// Returns the output of a call from the cache, or else awaits its function and caches the value.
pub(crate) async fn run<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
    body: Pin<&mut impl Future<Output = F::Output>>,
) -> F::Output {
    match begin(engine, function) {
        Ok(output) => output,
        Err(lookup) => finish(engine, function, lookup, body).await,
    }
}

/// Finishes a call that its lookup could not end.
pub(crate) fn finish<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    lookup: Lookup<'a, B, F>,
    body: Pin<&mut impl Future<Output = F::Output>>,
) -> impl Future<Output = F::Output> {
    match lookup {
        Lookup::Bypass => Finish::Body(body),
        Lookup::Compute(call, reason) => Finish::Compute(boxed(|| compute(call, reason, body))),
        lookup => Finish::Resume(boxed(|| resume(engine, function, lookup, body))),
    }
}

/// Reads what the lookup could not, and awaits the function unless that has found a value.
async fn resume<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    lookup: Lookup<'a, B, F>,
    body: Pin<&mut impl Future<Output = F::Output>>,
) -> F::Output {
    match resume_lookup::<Awaiting, B, F>(engine, function, lookup).await {
        Ok((call, reason)) => compute(call, reason, body).await,
        Err(Prepared::Output(output)) => output,
        Err(_) => InRun::bypassed(body).await,
    }
}

/// The rest of an async call, which takes a few words in the future of the function.
pub(super) enum Finish<T, D, C, R> {
    Ready(Option<T>),
    /// The function runs without the cache.
    Body(D),
    /// The function runs, or the call waits for another caller.
    Compute(Pin<Box<C>>),
    /// The backend is read first.
    Resume(Pin<Box<R>>),
}

/// The output is not pinned.
impl<T, D, C, R> Unpin for Finish<T, D, C, R> {}

impl<T, D, C, R> Future for Finish<T, D, C, R>
where
    D: Future<Output = T> + Unpin,
    C: Future<Output = T>,
    R: Future<Output = T>,
{
    type Output = T;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.get_mut() {
            Self::Ready(output) => Poll::Ready(output.take().expect("it is polled once")),
            Self::Body(body) => in_run(None, || Pin::new(body).poll(context)),
            Self::Compute(future) => future.as_mut().poll(context),
            Self::Resume(future) => future.as_mut().poll(context),
        }
    }
}

/// Boxes the future of a call that computes or waits. The future of a function contains those of the
/// calls that it awaits, so each level would contain all of this. The frame is separate, so that the
/// future is never on the stack of the body. The parts of it that wait are boxed once more, when they are
/// needed, so that a miss in memory allocates and moves little.
#[inline(never)]
pub(super) fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::pin(make())
}

/// Awaits the function, unless another caller computes the value.
pub(super) async fn compute<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: Call<'_, B, F>,
    reason: ComputeReason<F::Output>,
    body: Pin<&mut impl Future<Output = F::Output>>,
) -> F::Output {
    let prepared = match prepare_now(call, reason) {
        Ok(prepared) => prepared,
        Err(unprepared) => {
            let future = boxed(|| prepare::<Awaiting, B, F>(unprepared));
            OutOfLine { future }.await
        }
    };
    run_prepared(prepared, body).await
}

/// Awaits the function of a call that is prepared for it.
pub(super) async fn run_prepared<B: Backend, F: CachedFn<Stored = B::Stored>>(
    mut prepared: Prepared<'_, B, F>,
    body: Pin<&mut impl Future<Output = F::Output>>,
) -> F::Output {
    let Some(flight) = prepared.begin_run() else {
        return if let Prepared::Output(output) = prepared {
            output
        } else {
            InRun::bypassed(body).await
        };
    };
    let slot = prepared.previous().map(|(flight, slot)| (flight, slot.clone()));
    let leader = LeaderFuture::new(flight, InRun { slot, body });
    let output = match prepared.run_span() {
        None => leader.await,
        Some(span) => boxed(|| leader.instrument(*span)).await,
    };
    if let Prepared::Lead(leading) = &mut prepared
        && leading.never_waits()
    {
        return complete_apart(leading, output);
    }
    match into_lead(prepared, &output) {
        Some(mut leading) if leading.never_waits() => complete_apart(&mut leading, output),
        Some(leading) => {
            let flight = leading.flight();
            let future = boxed(|| complete::<Awaiting, B, F>(leading, output));
            OutOfLine { future: LeaderFuture::new(flight, future) }.await
        }
        None => output,
    }
}

/// Does all that follows the function if nothing is to be waited for, in a separate frame.
#[inline(never)]
fn complete_apart<B: Backend, F: CachedFn<Stored = B::Stored>>(
    leading: &mut Leading<'_, B, F>,
    output: F::Output,
) -> F::Output {
    enter_polled(leading.flight(), || complete_now(leading, output))
}

pin_project! {
    /// A future that is polled in a separate frame, which is not on the stack while the function is
    /// polled.
    struct OutOfLine<F> {
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for OutOfLine<F> {
    type Output = F::Output;

    #[inline(never)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.project().future.poll(context)
    }
}

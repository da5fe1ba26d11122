//! Async calls: the code of the driver, awaited.

use std::future::Future;
use std::mem;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};

use tracing::Instrument;

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::driver::{
    Missed, Prepared, Unprepared, into_lead, prepare, prepare_now, resume_lookup,
};
use crate::call::leading::{Encoded, Leading, complete, complete_alike, complete_now};
use crate::call::lookup::{Lookup, Rest, begin};
use crate::call::previous::{InRun, in_run};
use crate::call::steps::{Suspending, await_with_steps};
use crate::call::typed::{Frame, TypedCall};
use crate::call::{CachedFn, Call, Properties};
use crate::error::Result;
use crate::flight::{Deadline, LeaderFuture, enter_polled};
use crate::io::{Awaiting, Io};
use crate::key::Key;
use crate::outlined::Outlined;

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
pub(crate) fn finish<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
    lookup: Lookup<F::Output>,
    body: Pin<&mut impl Future<Output = F::Output>>,
) -> impl Future<Output = F::Output> {
    match lookup.rest {
        Rest::Bypass => Finish::Body(body),
        _ => Finish::rest(boxed(|| finish_apart(engine, function, lookup, body))),
    }
}

/// Reads what the lookup could not, and awaits the function unless that has found a value.
async fn finish_apart<B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
    lookup: Lookup<F::Output>,
    body: Pin<&mut impl Future<Output = F::Output>>,
) -> F::Output {
    let Ok(key) = function.key() else { return InRun::bypassed(body).await };
    let properties = Properties::of(function);
    let mut frame = Frame::with_found(function, lookup.found);
    let (mut left, mut unread) = (None, None);
    // Not assigned later, as what follows may: only an initial value is returned into the variable.
    let mut prepared = match lookup.rest {
        Rest::Compute(begun, reason) => {
            let missed = (Call::resumed(engine, &properties, key, begun), reason);
            prepare_now(missed, &mut frame, &mut left)
        }
        rest => {
            unread = Some(rest);
            Prepared::Bypass
        }
    };
    if let Some(unprepared) = left {
        prepared = apart(|| prepare_apart::<Awaiting, B, F>(*unprepared, &mut frame)).await;
    } else if let Some(rest) = unread {
        prepared = apart(|| resume_and_prepare(engine, &properties, key, rest, &mut frame)).await;
    }
    run_prepared(&mut prepared, &mut frame, body).await
}

/// The rest of an async call, which takes a few words in the future of the function.
pub(super) enum Finish<T, D, C> {
    Ready(Option<T>),
    /// The function runs without the cache.
    Body(D),
    /// The call reads what the lookup could not, runs the function, or waits for another caller.
    Rest(Outlined<Option<Pin<Box<C>>>>),
}

impl<T, D, C> Finish<T, D, C> {
    pub(super) fn rest(future: Pin<Box<C>>) -> Self {
        Self::Rest(Outlined::new(Some(future)))
    }
}

/// The output is not pinned.
impl<T, D, C> Unpin for Finish<T, D, C> {}

impl<T, D, C> Future for Finish<T, D, C>
where
    D: Future<Output = T> + Unpin,
    C: Future<Output = T>,
{
    type Output = T;

    #[inline]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        match self.get_mut() {
            Self::Ready(output) => Poll::Ready(output.take().expect("it is polled once")),
            Self::Body(body) => in_run(None, || Pin::new(body).poll(context)),
            Self::Rest(future) => {
                future.as_mut().expect("it is taken when it is dropped").as_mut().poll(context)
            }
        }
    }
}

/// Boxes the future of a call that computes or waits. The future of a function contains those of the
/// calls that it awaits, so each level would contain all of this. The frame is separate, so that the
/// future is never on the stack of the body. The parts of it that wait are boxed once more, when they are
/// needed, so that a miss in memory allocates and moves little.
#[inline(never)]
pub(super) fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    // The memory is allocated first, so that the future is made in it.
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// A part of a call that waits. It is polled in a separate frame, which is not on the stack while the function is
/// polled.
struct Apart<F>(Pin<Box<F>>);

/// Returns a part of a call that waits, in a box.
fn apart<F: Future>(make: impl FnOnce() -> F) -> Apart<F> {
    Apart(boxed(make))
}

impl<F: Future> Future for Apart<F> {
    type Output = F::Output;

    #[inline(never)]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().poll(context)
    }
}

/// Reads the generations and the backend, as far as the lookup could not. Returns the reason to run
/// the function, or else the rest of the call.
pub(super) async fn resume<'a, M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a Properties<'a>,
    key: &'a Key,
    rest: Rest,
    frame: &mut Frame<'_, F>,
) -> Result<Missed<'a, B>, Prepared<'a, B>> {
    if let Rest::Compute(begun, reason) = rest {
        return Ok((Call::resumed(engine, function, key, begun), reason));
    }
    let steps = Suspending::new::<M>();
    let driver = boxed(|| resume_lookup::<M, B>(engine, function, key, rest, &steps));
    await_with_steps((engine, function, key), frame, &steps, driver).await
}

/// Does all that precedes the function of a call that its lookup could not end.
pub(super) async fn resume_and_prepare<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a Properties<'a>,
    key: &'a Key,
    rest: Rest,
    frame: &mut Frame<'_, F>,
) -> Prepared<'a, B> {
    match resume::<Awaiting, B, F>(engine, function, key, rest, frame).await {
        Ok(missed) => prepare_missed::<Awaiting, B, F>(missed, frame).await,
        Err(prepared) => prepared,
    }
}

/// Does all that precedes the function of a call whose lookup has found no value.
pub(super) async fn prepare_missed<'a, M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    missed: Missed<'a, B>,
    frame: &mut Frame<'_, F>,
) -> Prepared<'a, B> {
    let mut left = None;
    let prepared = prepare_now(missed, frame, &mut left);
    match left {
        None => prepared,
        Some(unprepared) => apart(|| prepare_apart::<M, B, F>(*unprepared, frame)).await,
    }
}

/// Does all that precedes the function of a call that may have to wait.
async fn prepare_apart<'a, M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    unprepared: Unprepared<'a, B>,
    frame: &mut Frame<'_, F>,
) -> Prepared<'a, B> {
    let Call { engine, function, key, .. } = unprepared.call;
    let steps = Suspending::new::<M>();
    let driver = boxed(|| prepare::<M, B>(unprepared, &steps));
    await_with_steps((engine, function, key), frame, &steps, driver).await
}

/// Does all that precedes the function of a refresh that a call leads.
///
/// # Errors
///
/// That of [`Leading::prepare`].
pub(super) async fn prepare_refresh<'a, M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    leading: Leading<'a, B>,
    frame: &mut Frame<'_, F>,
) -> Result<Prepared<'a, B>, Leading<'a, B>> {
    let Call { engine, function, key, .. } = leading.call;
    let (mut deadline, steps) = (Deadline::default(), Suspending::new::<M>());
    let driver = boxed(|| leading.prepare::<M>(true, &mut deadline, &steps));
    await_with_steps((engine, function, key), frame, &steps, driver).await.map(Prepared::from)
}

/// Awaits the function of a call that is prepared for it.
pub(super) async fn run_prepared<B: Backend, F: CachedFn<Stored = B::Stored>>(
    prepared: &mut Prepared<'_, B>,
    frame: &mut Frame<'_, F>,
    body: Pin<&mut impl Future<Output = F::Output>>,
) -> F::Output {
    let Some(flight) = prepared.begin_run() else {
        return if let Prepared::Found = prepared {
            frame.take_found()
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
    frame.set_returned(output);
    let completed = match prepared {
        Prepared::Lead(leading) => enter_polled(flight, || complete_alike(leading, frame)),
        _ => None,
    };
    let is_stale = match completed {
        Some(is_stale) => is_stale,
        None => match after(prepared, frame) {
            ControlFlow::Break(is_stale) => is_stale,
            ControlFlow::Continue(encoded) => {
                let flight = encoded.flight();
                LeaderFuture::new(flight, apart(|| complete_apart(*encoded, frame))).await
            }
        },
    };
    frame.take_output(is_stale)
}

/// Stores the record of an output. Returns whether the call returns the value past its ttl instead of the new output.
async fn complete_apart<B: Backend, F: CachedFn<Stored = B::Stored>>(
    encoded: Encoded<'_, B>,
    frame: &mut Frame<'_, F>,
) -> bool {
    let Call { engine, function, key, .. } = *encoded.call();
    let steps = Suspending::new::<Awaiting>();
    let driver = boxed(|| complete::<Awaiting, B>(encoded, &steps));
    let completed = await_with_steps((engine, function, key), frame, &steps, driver).await;
    completed.conclude(frame)
}

/// Does all that follows the function if nothing is to be waited for. Breaks with whether the call returns the value past its
/// ttl instead of the new output, or else returns the rest of the call.
#[inline(never)]
fn after<'a, B: Backend>(
    prepared: &mut Prepared<'a, B>,
    typed: &mut dyn TypedCall<B>,
) -> ControlFlow<bool, Box<Encoded<'a, B>>> {
    if let Prepared::Lead(leading) = prepared
        && leading.never_waits()
    {
        let flight = leading.flight();
        return ControlFlow::Break(enter_polled(flight, || complete_now(leading, typed)));
    }
    let Some(mut leading) = into_lead(mem::replace(prepared, Prepared::Bypass), typed) else {
        return ControlFlow::Break(false);
    };
    let flight = leading.flight();
    if leading.never_waits() {
        return ControlFlow::Break(enter_polled(flight, || complete_now(&mut leading, typed)));
    }
    ControlFlow::Continue(Box::new(enter_polled(flight, || leading.encode(typed))))
}

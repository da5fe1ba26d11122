//! Refreshes in the background: a call returns a value past its ttl, and a task or a thread replaces it.
//!
//! The call hands its [`Refresh`] over to what the user spawns with, which leads the flight once it runs: no caller waits for
//! a refresh that is in a queue. One that is dropped before that is left to the next call.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::thread;

use crate::backend::Backend;
use crate::background::BackgroundRun;
use crate::cache::Engine;
use crate::call::driver::Prepared;
use crate::call::future::{Finish, boxed};
use crate::call::kept::Kept;
use crate::call::leading::Leading;
use crate::call::lookup::{Lookup, Rest};
use crate::call::previous::InRun;
use crate::call::steps::Direct;
use crate::call::typed::{Frame, TypedCall, UntypedCall};
use crate::call::{
    CachedFn, Call, ComputeReason, Properties, StaleValue, blocking, future, usable_key,
};
use crate::flight::{Deadline, Lead};
use crate::io::{Awaiting, Blocking, run_blocking};
use crate::key::{Key, Prefix};
use crate::panic::drop_quietly;
use crate::record::Record;
use crate::watch::{CallsOfTask, Unwatched};

/// A refresh that a call hands over, with its body `D`.
#[derive(Debug)]
pub struct Refresh<D> {
    body: D,
    /// In a box, since the future of a call has space for it.
    begun: Box<Begun>,
}

/// A refresh that has begun, without its body.
#[derive(Debug)]
struct Begun {
    prefix: Prefix,
    stamp: u64,
    kept: Option<Kept>,
    run: BackgroundRun,
}

/// The output of a call, and the refresh that it hands over, if it has begun one.
pub type Refreshed<R, D> = (R, Option<Refresh<D>>);

impl<D> Refresh<D> {
    /// Returns the prefix of the function.
    pub fn function(&self) -> Prefix {
        self.begun.prefix.clone()
    }

    /// Returns the refresh with another body, made of this one.
    pub fn map<E>(self, make: impl FnOnce(D) -> E) -> Refresh<E> {
        let Self { body, begun } = self;
        Refresh { body: make(body), begun }
    }
}

/// The body of an async call, which runs in the caller or in a refresh.
pub trait StartBody {
    /// The body for a refresh.
    type Body;
    /// The body in the caller.
    type Future: Future;

    /// Returns the body for a refresh.
    fn into_body(self) -> Self::Body;

    /// Returns the body for the caller.
    fn start(self) -> Pin<Box<Self::Future>>;
}

impl<T: Future> StartBody for Pin<Box<T>> {
    type Body = Self;
    type Future = T;

    fn into_body(self) -> Self {
        self
    }

    fn start(self) -> Self {
        self
    }
}

/// A body, and the closure that makes the future of it that runs in the caller.
pub struct CallerBody<D, S> {
    body: D,
    start: S,
}

impl<D, S> CallerBody<D, S> {
    pub(crate) fn new(body: D, start: S) -> Self {
        Self { body, start }
    }
}

impl<D, S> fmt::Debug for CallerBody<D, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallerBody").finish_non_exhaustive()
    }
}

impl<D, T: Future, S: FnOnce(D) -> Pin<Box<T>>> StartBody for CallerBody<D, S> {
    type Body = D;
    type Future = T;

    fn into_body(self) -> D {
        self.body
    }

    fn start(self) -> Pin<Box<T>> {
        (self.start)(self.body)
    }
}

/// Finishes a call as [`future::finish`](super::future::finish) does, but returns a value past its
/// ttl with the refresh of it.
pub(crate) fn finish<B, F, D>(
    engine: &Engine<B>,
    function: &F,
    lookup: Lookup<F::Output>,
    body: D,
) -> impl Future<Output = Refreshed<F::Output, D::Body>>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: StartBody<Future: Future<Output = F::Output>>,
{
    match (lookup.rest, function.key()) {
        (Rest::Bypass, _) | (_, Err(_)) => Finish::Body(boxed(|| bypass(body.start()))),
        (Rest::Compute(begun, ComputeReason::Expired(stale)), Ok(key)) => {
            let properties = Properties::of(function);
            let mut frame = Frame::with_found(function, lookup.found);
            let call = Call::resumed(engine, &properties, key, begun);
            Finish::Ready(Some(serve_stale(&call, *stale, &mut frame, body.into_body())))
        }
        (rest, Ok(_)) => {
            let lookup = Lookup { rest, ..lookup };
            Finish::rest(boxed(|| finish_apart(engine, function, lookup, body)))
        }
    }
}

/// Reads what the lookup could not, and goes on as [`finish`] does.
async fn finish_apart<B, F, D>(
    engine: &Engine<B>,
    function: &F,
    lookup: Lookup<F::Output>,
    body: D,
) -> Refreshed<F::Output, D::Body>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: StartBody<Future: Future<Output = F::Output>>,
{
    let Ok(key) = function.key() else { return bypass(body.start()).await };
    // Dropped last, after the lead.
    let mut started = None;
    let properties = Properties::of(function);
    let mut frame = Frame::with_found(function, lookup.found);
    let mut prepared =
        match future::resume::<Awaiting, B, F>(engine, &properties, key, lookup.rest, &mut frame)
            .await
        {
            Ok((call, ComputeReason::Expired(stale))) => {
                return serve_stale(&call, *stale, &mut frame, body.into_body());
            }
            Ok(missed) => future::prepare_missed::<Awaiting, B, F>(missed, &mut frame).await,
            Err(prepared) => prepared,
        };
    if let Prepared::Found = prepared {
        return (frame.take_found(), None);
    }
    let body = started.insert(body.start()).as_mut();
    (future::run_prepared(&mut prepared, &mut frame, body).await, None)
}

/// [`finish`] for a sync function.
#[cold]
#[inline(never)]
pub(crate) fn finish_blocking<B, F, D>(
    engine: &Engine<B>,
    function: &F,
    lookup: Lookup<F::Output>,
    body: D,
    run: impl FnOnce(D) -> F::Output,
) -> Refreshed<F::Output, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
{
    let properties = Properties::of(function);
    let mut frame = Frame::with_found(function, lookup.found);
    let key = function.key().ok();
    let prepared = match blocking::resume(engine, &properties, key, lookup.rest, &mut frame) {
        Ok((call, ComputeReason::Expired(stale))) => {
            return serve_stale(&call, *stale, &mut frame, body);
        }
        Ok(missed) => blocking::prepare_missed(missed, &mut frame),
        Err(prepared) => prepared,
    };
    (blocking::run_prepared(prepared, &mut frame, || run(body)), None)
}

/// Returns a stale value, which was found, with the refresh of it if that begins.
fn serve_stale<B, F, D>(
    call: &UntypedCall<'_, B>,
    mut stale: StaleValue,
    frame: &mut Frame<'_, F>,
    body: D,
) -> Refreshed<F::Output, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
{
    let refresh = begin(call, &mut stale, frame).map(|begun| Refresh { body, begun });
    call.serve_stale(&stale);
    (frame.take_found(), refresh)
}

/// Begins a refresh, unless one is running, the last attempt was too recent, or too many are running.
#[cold]
fn begin<B: Backend>(
    call: &UntypedCall<'_, B>,
    stale: &mut StaleValue,
    typed: &dyn TypedCall<B>,
) -> Option<Box<Begun>> {
    let run = begin_refresh(call, typed).then(|| call.begin_background_run()).flatten()?;
    let (prefix, stamp, kept) = (call.key.prefix().clone(), call.stamp, stale.kept.take());
    Some(Box::new(Begun { prefix, stamp, kept, run }))
}

/// Begins a refresh, without a run, unless one is running, or the last attempt was too recent.
fn begin_refresh<B: Backend>(call: &UntypedCall<'_, B>, typed: &dyn TypedCall<B>) -> bool {
    !is_refreshed(call) && !call.has_cached_error(typed) && call.begin_refresh()
}

/// Returns whether a refresh is running.
pub(super) fn is_refreshed<B: Backend>(call: &UntypedCall<'_, B>) -> bool {
    let running = call.engine.flights().running(call.key, call.stamp);
    running.is_some_and(|flight| !call.is_overdue(&flight))
}

/// Leads a refresh that has begun, unless another caller computes the value.
pub(super) fn lead<'a, B: Backend>(
    call: &UntypedCall<'a, B>,
) -> Option<Lead<'a, Record<B::Stored>>> {
    let flights = call.engine.flights();
    match flights.running(call.key, call.stamp) {
        Some(flight) if call.is_overdue(&flight) => {
            flights.replace_overdue(call.key, call.stamp, &flight)
        }
        Some(_) => None,
        None => flights.try_lead(call.key, call.stamp, false),
    }
}

/// Leads a refresh that has begun, unless another caller computes the value. The guard is to be kept until the function has
/// ended.
fn start<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    properties: &'a Properties<'a>,
    stamp: u64,
    kept: Option<Kept>,
) -> Option<(Leading<'a, B>, CountPanic<'a, B>)> {
    let key = usable_key(engine, engine.flags(), function)?;
    let call = Call::new(engine, properties, key, stamp);
    let lead = lead(&call)?;
    let panic = CountPanic::new(engine, properties, key, stamp);
    Some((Leading::new(call, lead, ComputeReason::Background).keeping(kept), panic))
}

/// Awaits the function without the cache.
async fn bypass<D, T: Future>(mut body: Pin<Box<T>>) -> Refreshed<T::Output, D> {
    (InRun::bypassed(body.as_mut()).await, None)
}

/// Returns a task that runs a refresh, unless another caller computes the value.
pub(crate) fn task<B, F, T>(
    engine: Engine<B>,
    function: F,
    refresh: Refresh<Pin<Box<T>>>,
) -> impl Future<Output = ()> + use<B, F, T>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    let owned = Unstarted(Some((engine, function)));
    Unwatched::new(async move {
        // It ends last.
        let Begun { run, stamp, kept, .. } = *refresh.begun;
        let mut body = refresh.body;
        let Some((engine, function)) = owned.start() else { return };
        run.start(engine.now());
        let properties = Properties::of(&function);
        let started = start(&engine, &function, &properties, stamp, kept);
        let Some((leading, _panic)) = started else { return };
        let mut frame = Frame::new(&function);
        let prepared = boxed(|| future::prepare_refresh::<Awaiting, B, F>(leading, &mut frame));
        // If another process holds the lease, that one refreshes the value.
        let Ok(mut prepared) = prepared.await else { return };
        drop_quietly(future::run_prepared(&mut prepared, &mut frame, body.as_mut()).await);
    })
}

/// [`task`] for a sync function: a closure. A panic of the function ends there, since some pools of threads end the
/// process.
pub(crate) fn job<B, F, D>(
    engine: Engine<B>,
    function: F,
    refresh: Refresh<D>,
) -> impl FnOnce() + use<B, F, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: FnOnce() -> F::Output,
{
    let owned = Unstarted(Some((engine, function)));
    move || {
        // It ends last.
        let Begun { run, stamp, kept, .. } = *refresh.begun;
        let body = refresh.body;
        let Some((engine, function)) = owned.start() else { return };
        run.start(engine.now());
        let run = || {
            let properties = Properties::of(&function);
            let started = start(&engine, &function, &properties, stamp, kept);
            let Some((leading, _panic)) = started else { return };
            let mut frame = Frame::new(&function);
            if let Some(prepared) = prepare_blocking(leading, &mut frame) {
                drop_quietly(blocking::run_prepared(prepared, &mut frame, body));
            }
        };
        let run = || CallsOfTask::default().collect(run);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
            drop_quietly(payload);
        }
    }
}

/// Does all else that precedes the function in the refresh of a sync function. If another process holds the lease, that one
/// refreshes the value.
fn prepare_blocking<'a, B: Backend>(
    leading: Leading<'a, B>,
    typed: &mut dyn TypedCall<B>,
) -> Option<Prepared<'a, B>> {
    let (mut deadline, steps) = (Deadline::default(), Direct::new(typed));
    let prepared = run_blocking(leading.prepare::<Blocking>(true, &mut deadline, &steps));
    prepared.ok().map(Prepared::from)
}

/// A refresh that has not started. Dropped, it is left to the next call, unless the spawner has panicked: then to one after
/// the pause of a refresh that has failed.
struct Unstarted<B: Backend, F: CachedFn<Stored = B::Stored>>(Option<(Engine<B>, F)>);

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Unstarted<B, F> {
    fn start(mut self) -> Option<(Engine<B>, F)> {
        self.0.take()
    }
}

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Drop for Unstarted<B, F> {
    fn drop(&mut self) {
        if let Some((engine, function)) = &self.0
            && let Ok(key) = function.key()
            && !thread::panicking()
        {
            engine.refresh_backoff().remove(key);
        }
    }
}

/// Counts a panic of a run as a refresh that has failed.
pub(super) struct CountPanic<'a, B: Backend>(UntypedCall<'a, B>);

impl<'a, B: Backend> CountPanic<'a, B> {
    pub(super) fn new(
        engine: &'a Engine<B>,
        function: &'a Properties<'a>,
        key: &'a Key,
        stamp: u64,
    ) -> Self {
        Self(Call::new(engine, function, key, stamp))
    }
}

impl<B: Backend> Drop for CountPanic<'_, B> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.record_failed_refresh(None);
        }
    }
}

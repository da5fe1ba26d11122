//! Refreshes in the background: a call returns a value past its ttl, and a task or a thread replaces it.
//!
//! The call hands its [`Refresh`] over to what the user spawns with, which leads the flight once it runs: no caller waits for
//! a refresh that is in a queue. One that is dropped before that is left to the next call.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::thread;

use crate::backend::Backend;
use crate::background::BackgroundRun;
use crate::cache::Engine;
use crate::call::blocking;
use crate::call::driver::{Prepared, resume_lookup};
use crate::call::future::{Finish, boxed, compute, run_prepared};
use crate::call::leading::Leading;
use crate::call::lookup::Lookup;
use crate::call::previous::{InRun, Kept};
use crate::call::{CachedFn, Call, ComputeReason, StaleValue, usable_key};
use crate::flight::{Deadline, Lead};
use crate::io::{Awaiting, Blocking, Io, run_blocking};
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

/// Finishes a call as [`future::finish`](super::future::finish) does, but returns a value past its
/// ttl with the refresh of it. `start` makes the future of a body that runs in the caller.
pub(crate) fn finish<'a, B, F, D, T>(
    engine: &'a Engine<B>,
    function: &'a F,
    lookup: Lookup<'a, B, F>,
    body: D,
    start: impl FnOnce(D) -> Pin<Box<T>>,
) -> impl Future<Output = Refreshed<F::Output, D>>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    match lookup {
        Lookup::Bypass => Finish::Body(boxed(|| bypass(start(body)))),
        Lookup::Compute(call, ComputeReason::Expired(stale)) => {
            Finish::Ready(Some(serve_stale(&call, *stale, body)))
        }
        Lookup::Compute(call, reason) => Finish::Compute(boxed(|| run(call, reason, start(body)))),
        lookup => Finish::Resume(boxed(|| resume(engine, function, lookup, body, start))),
    }
}

/// Reads what the lookup could not, and goes on as [`finish`] does.
async fn resume<'a, B, F, D, T>(
    engine: &'a Engine<B>,
    function: &'a F,
    lookup: Lookup<'a, B, F>,
    body: D,
    start: impl FnOnce(D) -> Pin<Box<T>>,
) -> Refreshed<F::Output, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    match resume_lookup::<Awaiting, B, F>(engine, function, lookup).await {
        Ok((call, ComputeReason::Expired(stale))) => serve_stale(&call, *stale, body),
        Ok((call, reason)) => run(call, reason, start(body)).await,
        Err(Prepared::Output(output)) => (output, None),
        Err(_) => bypass(start(body)).await,
    }
}

/// [`finish`] for a sync function.
#[cold]
#[inline(never)]
pub(crate) fn finish_blocking<'a, B, F, D>(
    engine: &'a Engine<B>,
    function: &'a F,
    lookup: Lookup<'a, B, F>,
    body: D,
    run: impl FnOnce(D) -> F::Output,
) -> Refreshed<F::Output, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
{
    let resumed = run_blocking(resume_lookup::<Blocking, B, F>(engine, function, lookup));
    let prepared = match resumed {
        Ok((call, ComputeReason::Expired(stale))) => return serve_stale(&call, *stale, body),
        Ok((call, reason)) => blocking::prepare_missed(call, reason),
        Err(prepared) => prepared,
    };
    (blocking::run_prepared(prepared, || run(body)), None)
}

/// Returns a stale value, with the refresh of it if that begins.
fn serve_stale<B, F, D>(
    call: &Call<'_, B, F>,
    mut stale: StaleValue<F::Output>,
    body: D,
) -> Refreshed<F::Output, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
{
    let (prefix, stamp) = (call.key.prefix().clone(), call.stamp);
    let kept = stale.kept.take();
    let refresh = begin(call)
        .map(|run| Refresh { body, begun: Box::new(Begun { prefix, stamp, kept, run }) });
    (call.serve_stale(stale), refresh)
}

/// Begins a refresh, unless one is running, the last attempt was too recent, or too many are running.
fn begin<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
) -> Option<BackgroundRun> {
    begin_refresh(call).then(|| call.begin_background_run()).flatten()
}

/// Begins a refresh, without a run, unless one is running, or the last attempt was too recent.
pub(super) fn begin_refresh<B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
) -> bool {
    let running = call.engine.flights().running(call.key, call.stamp);
    let is_running = running.is_some_and(|flight| !call.is_overdue(&flight));
    !is_running && call.begin_refresh()
}

/// Leads a refresh that has begun, unless another caller computes the value.
pub(super) fn lead<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'a, B, F>,
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

/// Does all that precedes the function in a refresh that has begun, unless another caller or process computes the
/// value. The guard is to be kept until the function has ended.
async fn prepare<'a, M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    function: &'a F,
    stamp: u64,
    kept: Option<Kept>,
) -> Option<(Prepared<'a, B, F>, CountPanic<'a, B, F>)> {
    let key = usable_key(engine, engine.flags(), function)?;
    let call = Call::new(engine, function, key, stamp);
    let lead = lead(&call)?;
    let panic = CountPanic::new(engine, function, key, stamp);
    let (mut deadline, reason) = (Deadline::default(), ComputeReason::Background);
    let leading = Leading::new(call, lead, reason).keeping(kept);
    // If another process holds the lease, that one refreshes the value.
    let prepared = leading.prepare::<M>(true, &mut deadline).await.ok()?;
    Some((prepared.into(), panic))
}

/// Awaits the function, unless another caller computes the value.
async fn run<B, F, D, T>(
    call: Call<'_, B, F>,
    reason: ComputeReason<F::Output>,
    mut body: Pin<Box<T>>,
) -> Refreshed<F::Output, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    (compute(call, reason, body.as_mut()).await, None)
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
        let prepared = prepare::<Awaiting, B, F>(&engine, &function, stamp, kept).await;
        let Some((prepared, _panic)) = prepared else { return };
        drop_quietly(run_prepared(prepared, body.as_mut()).await);
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
            let prepared = prepare::<Blocking, B, F>(&engine, &function, stamp, kept);
            let Some((prepared, _panic)) = run_blocking(prepared) else { return };
            drop_quietly(blocking::run_prepared(prepared, body));
        };
        let run = || CallsOfTask::default().collect(run);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
            drop_quietly(payload);
        }
    }
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
pub(super) struct CountPanic<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(Call<'a, B, F>);

impl<'a, B: Backend, F: CachedFn<Stored = B::Stored>> CountPanic<'a, B, F> {
    pub(super) fn new(engine: &'a Engine<B>, function: &'a F, key: &'a Key, stamp: u64) -> Self {
        Self(Call::new(engine, function, key, stamp))
    }
}

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Drop for CountPanic<'_, B, F> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.record_failed_refresh(None);
        }
    }
}

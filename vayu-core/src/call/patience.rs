//! Callers that wait a while for the refresh of a value past its ttl (a soft timeout).
//!
//! A call that is not a hit creates one future for the rest of it, which owns all that it needs, as in
//! [`task`](super::task). If the call has found a value past its ttl and leads the refresh, the future passes the
//! value to its caller and returns before the function runs. The caller moves the future to a task, and
//! waits for its output, up to the time limit. Other calls wait for the flight as long.
//!
//! A caller whose time is over, or that gets no new value, [looks the call up again](look_again): the entry may have been
//! invalidated in the meantime, and another process may have stored a new value. It returns the old value if a call that
//! begins now may return that. If there is none, the call goes on as a miss; one whose run is in a task waits for that.
//!
//! A sync call does the same, with steps that block. Its future returns to the caller once, where it passes the old value, and
//! the closure that is spawned polls it to its end.
//!
//! The run of the task is that of the call if its caller still waits ([`AwaitedRun`]), and one in the background otherwise:
//! each call is reported once. A run that hangs is replaced by that of a later call.

mod awaited_run;
mod hand_over;
mod old_value;

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

pub(crate) use self::awaited_run::AwaitedRun;
use self::hand_over::{HandOver, Old};
use self::old_value::{OldValue, look_again};
use crate::backend::Backend;
use crate::background::BackgroundRun;
use crate::cache::Engine;
use crate::call::background_refresh::CountPanic;
use crate::call::blocking;
use crate::call::driver::Prepared;
use crate::call::future::{prepare_missed, prepare_refresh, resume, run_prepared};
use crate::call::late_body::{LateBody, MakeBody};
use crate::call::leading::Leading;
use crate::call::lookup::Lookup;
use crate::call::task::{Task, spawn_task};
use crate::call::typed::{Frame, TypedCall, UntypedCall};
use crate::call::{CachedFn, Call, ComputeReason, FnOutput, Properties, StaleValue};
use crate::flight::{Deadline, Flight, HostedLeader, Lead, Outcome};
use crate::io::{Awaiting, Blocking, Io, run_blocking};
use crate::panic::drop_quietly;
use crate::record::Record;
use crate::watch::CallsOfTask;

/// The rest of a call, in a future whose refresh may move to a task.
pub struct PatientCall<B: Backend, F: FnOutput, T> {
    future: Pin<Box<T>>,
    old: HandOver<F::Output, B::Stored>,
    patience: Duration,
    function: Arc<F>,
}

impl<B: Backend, F: FnOutput, T> fmt::Debug for PatientCall<B, F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatientCall").finish_non_exhaustive()
    }
}

/// The body of a call, and the way in which the call waits.
pub(crate) trait RunBody<B: Backend, F: CachedFn<Stored = B::Stored>> {
    type Io: Io;

    /// Runs the body of a call that is prepared for it.
    fn run<'a>(
        self,
        prepared: Prepared<'a, B>,
        frame: Frame<'a, F>,
    ) -> impl Future<Output = F::Output>;
}

impl<B, F, T> RunBody<B, F> for Pin<Box<T>>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    type Io = Awaiting;

    async fn run<'a>(
        mut self,
        mut prepared: Prepared<'a, B>,
        mut frame: Frame<'a, F>,
    ) -> F::Output {
        run_prepared(&mut prepared, &mut frame, self.as_mut()).await
    }
}

/// The body of a sync function.
impl<B, F, D> RunBody<B, F> for LateBody<D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: FnOnce() -> F::Output,
{
    type Io = Blocking;

    async fn run<'a>(self, prepared: Prepared<'a, B>, mut frame: Frame<'a, F>) -> F::Output {
        if let Prepared::Found = prepared {
            return frame.take_found();
        }
        let body = self.made().await;
        blocking::run_prepared(prepared, &mut frame, body)
    }
}

/// Creates the rest of a call.
pub(crate) fn patient<B, F, R>(
    engine: Engine<B>,
    function: F,
    lookup: Lookup<F::Output>,
    body: R,
    patience: Duration,
) -> PatientCall<B, F, impl Future<Output = F::Output> + use<B, F, R>>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    R: RunBody<B, F>,
{
    let (function, old) = (Arc::new(function), HandOver::default());
    let owned = (Arc::clone(&function), old.clone());
    let future = Box::pin(finish(engine, owned.0, lookup, body, patience, owned.1));
    PatientCall { future, old, patience, function }
}

/// Finishes a call as [`future::finish`](super::future::finish) does. With a value past its ttl, it waits for the run
/// of another call, or passes the value to `hand_over` and leads the refresh.
async fn finish<B, F, R>(
    engine: Engine<B>,
    function: Arc<F>,
    lookup: Lookup<F::Output>,
    body: R,
    patience: Duration,
    hand_over: HandOver<F::Output, B::Stored>,
) -> F::Output
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    R: RunBody<B, F>,
{
    let (engine, function) = (&engine, &*function);
    let properties = Properties::of(function);
    let mut frame = Frame::with_found(function, lookup.found);
    let Ok(key) = function.key() else { return body.run(Prepared::Bypass, frame).await };
    let resumed = resume::<R::Io, B, F>(engine, &properties, key, lookup.rest, &mut frame).await;
    let (call, mut stale) = match resumed {
        Ok((call, ComputeReason::Expired(stale))) => (call, *stale),
        Ok(missed) => {
            let prepared = prepare_missed::<R::Io, B, F>(missed, &mut frame).await;
            return body.run(prepared, frame).await;
        }
        Err(prepared) => return body.run(prepared, frame).await,
    };
    let (lead, background) = match begin_refresh(&call, &frame) {
        Refresh::Lead(lead, background) => (lead, background),
        Refresh::Wait(flight) => {
            let patience = time_to_wait(engine, &stale, patience);
            let old = frame.take_found();
            if wait::<R::Io, B>(&call, &flight, patience).await && call.share(&flight, &mut frame) {
                drop_quietly(old);
                return frame.take_found();
            }
            let flight = Some(flight);
            let old = OldValue { output: old, stale, stamp: call.stamp, flight };
            let key = call.key;
            return match look_again::<R::Io, B, F>(engine, function, key, old).await {
                Ok(output) => output,
                Err((begun, reason)) => {
                    let missed = (Call::resumed(engine, &properties, key, begun), reason);
                    let prepared = prepare_missed::<R::Io, B, F>(missed, &mut frame).await;
                    body.run(prepared, frame).await
                }
            };
        }
        Refresh::Refused => {
            call.serve_stale(&stale);
            return frame.take_found();
        }
    };
    let run = Arc::new(AwaitedRun::new(stale.end));
    let kept = stale.kept.take();
    let flight = engine.flights().running(call.key, call.stamp);
    if let Some(flight) = &flight {
        // Its begin is set to now.
        flight.is_overdue(engine.now(), Duration::MAX);
    }
    let output = frame.take_found();
    let value = OldValue { output, stale, stamp: call.stamp, flight };
    // As in the module `task`. A sync call waits on this thread for its own task.
    let hosted = if R::Io::BLOCKS { None } else { HostedLeader::here() };
    let slot = background.slot();
    hand_over.pass(Old { value, run: Arc::clone(&run), background }).await;
    if let Some(slot) = slot {
        slot.start(engine.now());
    }
    drop(hosted);
    let _panic = CountPanic::new(engine, &properties, call.key, call.stamp);
    let leading = Leading::new(call, lead, ComputeReason::Awaited(run)).keeping(kept);
    let prepared = prepare_refresh::<R::Io, B, F>(leading, &mut frame).await;
    body.run(prepared.unwrap_or_else(Prepared::Lead), frame).await
}

/// The part of a call in the refresh of a value past its ttl.
enum Refresh<'a, V> {
    /// It leads, for a run in the background.
    Lead(Lead<'a, Record<V>>, BackgroundRun),
    /// It waits for another call.
    Wait(Arc<Flight<Record<V>>>),
    /// The last attempt was too recent, or too many refreshes are running.
    Refused,
}

fn begin_refresh<'a, B: Backend>(
    call: &UntypedCall<'a, B>,
    typed: &dyn TypedCall<B>,
) -> Refresh<'a, B::Stored> {
    let (flights, key, stamp) = (call.engine.flights(), call.key, call.stamp);
    if let Some(flight) = flights.running(key, stamp) {
        if call.is_overdue(&flight)
            && let Some(run) = call.begin_background_run()
            && let Some(lead) = flights.replace_overdue(key, stamp, &flight)
        {
            // For the case that its task is dropped.
            call.engine.refresh_backoff().record_attempt(key, call.engine.now());
            return Refresh::Lead(lead, run);
        }
        return Refresh::Wait(flight);
    }
    match flights.try_lead(key, stamp, false) {
        // In this order, so that a call that finds the backoff of another one finds its flight.
        Some(lead) if !call.has_cached_error(typed) && call.begin_refresh() => {
            match call.begin_background_run() {
                Some(run) => Refresh::Lead(lead, run),
                None => Refresh::Refused,
            }
        }
        Some(_) => Refresh::Refused,
        None => flights.running(key, stamp).map_or(Refresh::Refused, Refresh::Wait),
    }
}

/// Returns how long a call may wait before it returns the old value: not past the end of the time for which that may be
/// served.
fn time_to_wait<B: Backend>(
    engine: &Engine<B>,
    stale: &StaleValue,
    patience: Duration,
) -> Duration {
    patience.min(stale.end.saturating_since(engine.now()))
}

/// Waits for the run of another call. Returns whether it has a value in time.
async fn wait<M: Io, B: Backend>(
    call: &UntypedCall<'_, B>,
    flight: &Arc<Flight<Record<B::Stored>>>,
    patience: Duration,
) -> bool {
    let Some(waiting) = M::begin_wait(flight.id()) else { return false };
    let mut deadline = Deadline::default();
    M::wait(flight.completed(call.engine.begin_within(&mut deadline, patience))).await;
    drop(waiting);
    matches!(flight.outcome(), Some(Outcome::Computed { .. }))
}

impl<B, F, T> PatientCall<B, F, T>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    /// Awaits the call. If it leads the refresh of a value past its ttl, `spawn` runs the rest of it as a task.
    pub fn vayu_run<R>(
        self,
        engine: &Engine<B>,
        body: impl MakeBody,
        spawn: impl FnOnce(Task<T>) -> R,
    ) -> impl Future<Output = F::Output> {
        self.run::<Awaiting, R>(engine, body, spawn)
    }

    /// [`vayu_run`](Self::vayu_run) for a sync function: in another thread.
    pub fn vayu_run_blocking<R>(
        self,
        engine: &Engine<B>,
        body: impl MakeBody,
        spawn: impl FnOnce(Task<T>) -> R,
    ) -> F::Output {
        run_blocking(self.run::<Blocking, R>(engine, body, spawn))
    }

    async fn run<M: Io, R>(
        self,
        engine: &Engine<B>,
        mut body: impl MakeBody,
        spawn: impl FnOnce(Task<T>) -> R,
    ) -> F::Output {
        let Self { mut future, old, patience, function } = self;
        let output = poll_fn(|context| {
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(context) {
                    return Poll::Ready(Ok(output));
                }
                if let Some(old) = old.take() {
                    return Poll::Ready(Err(old));
                }
                if !body.make(false) {
                    return Poll::Pending;
                }
            }
        });
        let Old { value: old, run, background } = match output.await {
            Ok(output) => return output,
            Err(old) => old,
        };
        let properties = Properties::of(&*function);
        // A call that hands an old value over has a key.
        let Ok(key) = function.key() else { return future.await };
        let made = {
            let make = || {
                let _panic = CountPanic::new(engine, &properties, key, old.stamp);
                body.make(true);
            };
            catch_unwind(AssertUnwindSafe(make))
        };
        if let Err(payload) = made {
            // The flight is left.
            drop_quietly((future, background));
            return match look_again::<M, B, F>(engine, &function, key, old).await {
                Ok(output) => {
                    drop_quietly(payload);
                    output
                }
                Err(_) => resume_unwind(payload),
            };
        }
        let prefix = Some(key.prefix());
        let mut caller = spawn_task(engine, prefix, future, CallsOfTask::new(), background, spawn);
        // A thread that an async leader may need must not wait.
        let waiting =
            old.flight.as_ref().filter(|_| M::BLOCKS).map(|flight| M::begin_wait(flight.id()));
        let must_not_wait = matches!(waiting, Some(None));
        let patience = if must_not_wait { Duration::ZERO } else { patience };
        let mut sleep = engine.sleep(time_to_wait(engine, &old.stale, patience));
        let has_output = poll_fn(|context| match caller.poll_ended(context) {
            Poll::Ready(has_output) => Poll::Ready(has_output),
            // Its message is about to be sent.
            Poll::Pending if run.has_ended() => Poll::Pending,
            Poll::Pending => match sleep.as_mut().poll(context) {
                Poll::Ready(()) if run.give_up() => Poll::Ready(false),
                _ => Poll::Pending,
            },
        });
        let has_output = M::wait(has_output).await;
        drop(waiting);
        if has_output && run.failure().is_none() {
            drop_quietly(old);
            return M::wait(caller).await;
        }
        match look_again::<M, B, F>(engine, &function, key, old).await {
            Ok(output) => output,
            Err((begun, _)) => {
                let output = M::wait(caller).await;
                if let Some(times) = run.failure() {
                    Call::resumed(engine, &properties, key, begun).report_refresh(times);
                }
                output
            }
        }
    }
}

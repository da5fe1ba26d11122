//! Callers that wait a while for the refresh of a value past its ttl (a soft timeout).
//!
//! A call that is not a hit creates one future for the rest of it, which owns all that it needs, as in
//! [`task`](super::task). If the call has found a value past its ttl and leads the refresh, the future passes the
//! value to its caller and returns before the function runs. The caller moves the future to a task, and
//! waits for its output, up to the time limit. Other calls wait for the flight as long. A caller whose time is over,
//! or that gets no value, returns the old one. The task goes on.
//!
//! A run that takes longer than callers wait for others (`max_wait`) is replaced by that of a later call.

use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::driver::{Prepared, prepare_lead, resume_lookup};
use crate::call::future::{compute, run_prepared};
use crate::call::lookup::Lookup;
use crate::call::task::{Message, OwnedLookup, Task, spawn_task};
use crate::call::{CachedFn, Call, ComputeReason, StaleValue};
use crate::clock::Timestamp;
use crate::flight::{Deadline, Flight, Lead, Outcome};
use crate::io::{Awaiting, Io};
use crate::key::Prefix;
use crate::observer::CallTimes;
use crate::outcome::CallOutcome;
use crate::panic::drop_quietly;
use crate::record::Record;
use crate::sync::IgnorePoison;
use crate::watch::CallsOfTask;

/// The rest of a call, in a future whose refresh may move to a task.
pub struct PatientCall<T, R, V> {
    future: Pin<Box<T>>,
    old: Arc<Mutex<Option<Old<R, V>>>>,
    patience: Duration,
    /// The prefix of the function; `None` for a call without the cache.
    prefix: Option<Prefix>,
    is_quiet: bool,
    has_value: fn(&R) -> bool,
}

impl<T, R, V> fmt::Debug for PatientCall<T, R, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatientCall").finish_non_exhaustive()
    }
}

/// A value past its ttl, and the flight of the call that replaces it.
struct Old<R, V> {
    stale: StaleValue<R>,
    flight: Option<Arc<Flight<Record<V>>>>,
}

/// Creates the rest of a call.
pub(crate) fn patient<B, F, T>(
    engine: Engine<B>,
    function: F,
    lookup: OwnedLookup<F::Output>,
    body: Pin<Box<T>>,
    patience: Duration,
) -> PatientCall<impl Future<Output = F::Output> + use<B, F, T>, F::Output, B::Stored>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    let prefix = function.key().ok().map(|key| key.prefix().clone());
    let is_quiet = function.options().is_quiet;
    let old = Arc::new(Mutex::new(None));
    let hand_over = HandOver(Arc::clone(&old));
    let future = Box::pin(finish(engine, function, lookup, body, patience, hand_over));
    let has_value = |output: &F::Output| F::value(output).is_some();
    PatientCall { future, old, patience, prefix, is_quiet, has_value }
}

/// Finishes a call as [`future::finish`](super::future::finish) does. With a value past its ttl, it waits for the run
/// of another call, or passes the value to `hand_over` and leads the refresh.
async fn finish<B, F, T>(
    engine: Engine<B>,
    function: F,
    lookup: OwnedLookup<F::Output>,
    mut body: Pin<Box<T>>,
    patience: Duration,
    hand_over: HandOver<F::Output, B::Stored>,
) -> F::Output
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    let (engine, function) = (&engine, &function);
    let lookup: Lookup<'_, B, F> = lookup.resume(engine, function);
    let (call, stale) = match resume_lookup::<Awaiting, B, F>(engine, function, lookup).await {
        Ok((call, ComputeReason::Expired(stale))) => (call, *stale),
        Ok((call, reason)) => return compute(call, reason, body.as_mut()).await,
        Err(Prepared::Output(output)) => return output,
        Err(_) => return body.await,
    };
    let lead = match begin_refresh(&call) {
        Refresh::Lead(lead) => lead,
        Refresh::Wait(flight) => {
            let patience = time_to_wait(engine, &stale, patience);
            return match wait::<Awaiting, B, F>(&call, &flight, patience).await {
                Some(output) => output,
                None => call.serve_stale(stale),
            };
        }
        Refresh::Refused => return call.serve_stale(stale),
    };
    let flight = engine.flights().running(call.key, call.stamp);
    hand_over.pass(Old { stale, flight }).await;
    let (mut deadline, reason) = (Deadline::default(), ComputeReason::Background);
    let prepared = prepare_lead::<Awaiting, B, F>(call, lead, true, reason, &mut deadline).await;
    run_prepared(prepared, body.as_mut()).await
}

/// The way from the future of a call to its caller.
struct HandOver<R, V>(Arc<Mutex<Option<Old<R, V>>>>);

impl<R, V> HandOver<R, V> {
    /// Passes the old value to the caller, and returns to it once: it polls no more, the task does.
    async fn pass(self, old: Old<R, V>) {
        *self.0.lock().ignore_poison() = Some(old);
        drop(self);
        let mut has_returned = false;
        poll_fn(|_| {
            let is_task = mem::replace(&mut has_returned, true);
            if is_task { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// The part of a call in the refresh of a value past its ttl.
enum Refresh<'a, V> {
    /// It leads.
    Lead(Lead<'a, Record<V>>),
    /// It waits for another call.
    Wait(Arc<Flight<Record<V>>>),
    /// The last attempt was too recent.
    Refused,
}

fn begin_refresh<'a, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'a, B, F>,
) -> Refresh<'a, B::Stored> {
    let (flights, key, stamp) = (call.engine.flights(), call.key, call.stamp);
    if let Some(flight) = flights.running(key, stamp) {
        let is_overdue = call.begin_overdue_refresh();
        let lead = is_overdue.then(|| flights.replace_overdue(key, stamp, &flight)).flatten();
        return lead.map_or(Refresh::Wait(flight), Refresh::Lead);
    }
    match flights.try_lead(key, stamp, false) {
        // In this order, so that a call that finds the backoff of another one finds its flight.
        Some(lead) if call.begin_refresh() => Refresh::Lead(lead),
        Some(_) => Refresh::Refused,
        None => flights.running(key, stamp).map_or(Refresh::Refused, Refresh::Wait),
    }
}

/// Returns how long a call may wait before it returns the old value: not past the end of the time for which that may be
/// served.
fn time_to_wait<B: Backend, R>(
    engine: &Engine<B>,
    stale: &StaleValue<R>,
    patience: Duration,
) -> Duration {
    patience.min(stale.end.saturating_since(engine.now()))
}

/// Waits for the run of another call, and returns its value if there is one in time.
async fn wait<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    call: &Call<'_, B, F>,
    flight: &Arc<Flight<Record<B::Stored>>>,
    patience: Duration,
) -> Option<F::Output> {
    let waiting = M::begin_wait(flight.id())?;
    let mut deadline = Deadline::default();
    M::wait(flight.completed(call.engine.begin_within(&mut deadline, patience))).await;
    drop(waiting);
    match flight.outcome()? {
        Outcome::Computed(record) => call.decode_shared(record.get()?),
        Outcome::Failed { .. } | Outcome::NotShareable | Outcome::Abandoned => None,
    }
}

/// Awaits a call. If it leads the refresh of a value past its ttl, `spawn` runs the rest of it as a task.
pub(crate) async fn run<B: Backend, T: Future, S>(
    engine: &Engine<B>,
    call: PatientCall<T, T::Output, B::Stored>,
    spawn: impl FnOnce(Task<T>) -> S,
) -> T::Output {
    let PatientCall { mut future, old, patience, prefix, is_quiet, has_value } = call;
    let output = poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => match old.lock().ignore_poison().take() {
            Some(old) => Poll::Ready(Err(old)),
            None => Poll::Pending,
        },
    });
    let (Old { stale, flight }, prefix) = match (output.await, prefix) {
        (Ok(output), _) => return output,
        (Err(old), Some(prefix)) => (old, prefix),
        (Err(old), None) => return old.stale.output,
    };
    let mut caller = spawn_task(engine, Some(&prefix), future, CallsOfTask::default(), spawn);
    let mut sleep = engine.sleep(time_to_wait(engine, &stale, patience));
    let message = poll_fn(|context| match caller.poll_message(context) {
        Poll::Ready((message, _)) => Poll::Ready(Some(message)),
        Poll::Pending => sleep.as_mut().poll(context).map(|()| None),
    });
    let message = message.await;
    drop(caller);
    let now = engine.now();
    let (outcome, times, output) = match message {
        Some(Message::Output(output)) if has_value(&output) || now >= stale.end => {
            drop_quietly(stale.output);
            let ttl_left = flight.and_then(|flight| ttl_left(&flight, now));
            (CallOutcome::Coalesced, CallTimes { ttl_left, ..CallTimes::default() }, output)
        }
        message => {
            // A failure, or a panic, which is not that of this call, or a task that was dropped.
            drop_quietly(message);
            (CallOutcome::Stale, stale.times(), stale.output)
        }
    };
    engine.counters().call(outcome);
    engine.emit(&prefix, outcome, times, is_quiet);
    output
}

/// Returns the ttl that is left of the value of a completed flight.
fn ttl_left<V>(flight: &Flight<Record<V>>, now: Timestamp) -> Option<Duration> {
    match flight.outcome()? {
        Outcome::Computed(record) => Some(record.get()?.fresh_until().saturating_since(now)),
        Outcome::Failed { .. } | Outcome::NotShareable | Outcome::Abandoned => None,
    }
}

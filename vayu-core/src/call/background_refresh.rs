//! Refreshes in the background: an async call is served a stale value, and a task replaces it.

use std::future::Future;
use std::pin::Pin;

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::driver::{Prepared, prepare_lead, resume_lookup};
use crate::call::future::{Finish, boxed, compute, run_prepared};
use crate::call::lookup::Lookup;
use crate::call::{CachedFn, Call, ComputeReason, StaleValue, usable_key};
use crate::flight::Deadline;
use crate::io::Awaiting;
use crate::key::Prefix;
use crate::panic::drop_quietly;

/// A refresh that a call hands over to a task.
#[derive(Debug)]
pub struct Refresh<T> {
    pub(crate) prefix: Prefix,
    stamp: u64,
    body: Pin<Box<T>>,
}

/// Finishes a call as [`future::finish`](super::future::finish) does, but returns a value past its
/// ttl with the refresh of it.
pub(crate) fn finish<'a, B, F, T>(
    engine: &'a Engine<B>,
    function: &'a F,
    lookup: Lookup<'a, B, F>,
    body: Pin<Box<T>>,
) -> impl Future<Output = (F::Output, Option<Refresh<T>>)>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    match lookup {
        Lookup::Bypass => Finish::Body(boxed(|| bypass(body))),
        Lookup::Compute(call, ComputeReason::Expired(stale)) => {
            Finish::Ready(Some(serve_stale(&call, *stale, body)))
        }
        Lookup::Compute(call, reason) => Finish::Compute(boxed(|| run(call, reason, body))),
        lookup => Finish::Resume(boxed(|| resume(engine, function, lookup, body))),
    }
}

/// Reads what the lookup could not, and goes on as [`finish`] does.
async fn resume<'a, B, F, T>(
    engine: &'a Engine<B>,
    function: &'a F,
    lookup: Lookup<'a, B, F>,
    body: Pin<Box<T>>,
) -> (F::Output, Option<Refresh<T>>)
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    match resume_lookup::<Awaiting, B, F>(engine, function, lookup).await {
        Ok((call, ComputeReason::Expired(stale))) => serve_stale(&call, *stale, body),
        Ok((call, reason)) => run(call, reason, body).await,
        Err(Prepared::Output(output)) => (output, None),
        Err(_) => bypass(body).await,
    }
}

/// Returns a stale value, with the refresh of it unless the last attempt was too recent.
fn serve_stale<B, F, T>(
    call: &Call<'_, B, F>,
    stale: StaleValue<F::Output>,
    body: Pin<Box<T>>,
) -> (F::Output, Option<Refresh<T>>)
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
{
    let (prefix, stamp) = (call.key.prefix().clone(), call.stamp);
    let refresh = call.begin_refresh().then(|| Refresh { prefix, stamp, body });
    (call.serve_stale(stale), refresh)
}

/// Awaits the function, unless another caller computes the value.
async fn run<B, F, T>(
    call: Call<'_, B, F>,
    reason: ComputeReason<F::Output>,
    mut body: Pin<Box<T>>,
) -> (F::Output, Option<Refresh<T>>)
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    (compute(call, reason, body.as_mut()).await, None)
}

/// Awaits the function without the cache.
async fn bypass<T: Future>(body: Pin<Box<T>>) -> (T::Output, Option<Refresh<T>>) {
    (body.await, None)
}

/// Runs a refresh, unless another caller computes the value.
pub(crate) async fn refresh<B, F, T>(engine: Engine<B>, function: F, mut refresh: Refresh<T>)
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    T: Future<Output = F::Output>,
{
    let Some(key) = usable_key(&engine, engine.flags(), &function) else { return };
    let Some(lead) = engine.flights().try_lead(key, refresh.stamp, false) else { return };
    let call = Call::new(&engine, &function, key, refresh.stamp);
    let (mut deadline, reason) = (Deadline::default(), ComputeReason::Background);
    let prepared = prepare_lead::<Awaiting, B, F>(call, lead, true, reason, &mut deadline).await;
    drop_quietly(run_prepared(prepared, refresh.body.as_mut()).await);
}

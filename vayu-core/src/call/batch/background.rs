//! The refresh of elements in the background.
//!
//! As for one element, the refresh leads the flights once it runs, and is left to the next calls if it is dropped before. The
//! elements of one call are refreshed by one task.

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use crate::backend::Backend;
use crate::background::BackgroundRun;
use crate::cache::Engine;
use crate::call::background_refresh::{begin_refresh, lead};
use crate::call::batch::lookup::{Batch, Resumed, resume};
use crate::call::batch::{BatchBody, Part, Runner};
use crate::call::lookup::{Lookup, Rest};
use crate::call::typed::Frame;
use crate::call::{CachedFn, Call, ComputeReason, usable_key};
use crate::io::{Awaiting, Blocking, Io, run_blocking};
use crate::key::Prefix;
use crate::panic::drop_quietly;
use crate::watch::{CallsOfTask, Unwatched};

/// The refresh of elements of type `T`, which a call hands over.
pub struct BatchRefresh<T, F> {
    elements: Vec<T>,
    begun: Begun<F>,
}

/// A refresh that has begun, without its elements.
pub(crate) struct Begun<F> {
    prefix: Prefix,
    /// The call of each element, and its stamp.
    functions: Vec<(F, u64)>,
    run: BackgroundRun,
}

impl<T, F> fmt::Debug for BatchRefresh<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchRefresh").finish_non_exhaustive()
    }
}

impl<T, F> BatchRefresh<T, F> {
    /// Returns the prefix of the function.
    pub fn function(&self) -> Prefix {
        self.begun.prefix.clone()
    }

    /// Returns the elements, and the rest.
    pub(crate) fn into_parts(self) -> (Vec<T>, Begun<F>) {
        (self.elements, self.begun)
    }
}

/// Reads what the lookup of a batch could not. Elements past their ttl get the old value, and the refresh of them is returned, as
/// far as it begins.
pub(crate) async fn serve_stale<M: Io, B: Backend, T: Clone, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    batch: &mut Batch<'_, T, F>,
) -> Option<BatchRefresh<T, F>> {
    let (functions, lookups) = (mem::take(&mut batch.functions), mem::take(&mut batch.lookups));
    let indices: Vec<usize> = lookups.iter().map(|(index, _)| *index).collect();
    let (mut rest, mut expired) = (Vec::new(), Vec::new());
    for (index, lookup) in resume::<M, B, F>(engine, &functions, lookups, &mut batch.outputs).await
    {
        match lookup {
            Resumed::Compute(call, ComputeReason::Expired(stale)) => {
                if begin_refresh(&call, &Frame::new(call.function)) {
                    expired.push((index, call.stamp));
                }
                batch.outputs[index] = Some(call.serve_stale(*stale));
            }
            Resumed::Compute(call, reason) => {
                let (found, reason) = reason.split();
                let rest_of_call = Rest::Compute(call.into_begun(), reason);
                rest.push((index, Lookup { rest: rest_of_call, found }));
            }
            Resumed::Bypass => rest.push((index, Lookup { rest: Rest::Bypass, found: None })),
        }
    }
    rest.sort_unstable_by_key(|(index, _)| *index);
    expired.sort_unstable();
    let mut refreshed = Vec::with_capacity(expired.len());
    for (index, function) in indices.into_iter().zip(functions) {
        if rest.binary_search_by_key(&index, |(index, _)| *index).is_ok() {
            batch.functions.push(function);
        } else if let Ok(place) = expired.binary_search_by_key(&index, |(index, _)| *index) {
            refreshed.push((function, expired[place].1));
        }
    }
    batch.lookups = rest;
    let calls = refreshed.iter().filter_map(|(function, stamp)| {
        Some(Call::new(engine, function, function.key().ok()?, *stamp))
    });
    let calls: Vec<Call<'_, B, F>> = calls.collect();
    let first = calls.first()?;
    let Some(run) = first.begin_background_run() else {
        calls.iter().for_each(Call::end_refresh);
        return None;
    };
    let prefix = first.key.prefix().clone();
    drop(calls);
    let elements = expired.iter().map(|(index, _)| batch.elements[*index].clone()).collect();
    Some(BatchRefresh { elements, begun: Begun { prefix, functions: refreshed, run } })
}

/// Returns a task that runs a refresh, for the elements that no other caller computes.
pub(crate) fn task<B, F, D>(
    engine: Engine<B>,
    refresh: Begun<F>,
    at_most: usize,
    body: D,
) -> impl Future<Output = ()> + use<B, F, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    let Begun { functions, run, .. } = refresh;
    let unstarted = Unstarted(Some((engine, functions)));
    Unwatched::new(async move {
        // It ends last.
        let run = run;
        let mut body = body;
        let Some((engine, functions)) = unstarted.start() else { return };
        run.start(engine.now());
        refresh_now::<Awaiting, B, F, D>(&engine, &functions, at_most, &mut body).await;
    })
}

/// [`task`] for a sync function: a closure. A panic of the function ends there.
pub(crate) fn job<B, F, D>(
    engine: Engine<B>,
    refresh: Begun<F>,
    at_most: usize,
    body: D,
) -> impl FnOnce() + use<B, F, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    let Begun { functions, run, .. } = refresh;
    let unstarted = Unstarted(Some((engine, functions)));
    move || {
        // It ends last.
        let run = run;
        let mut body = body;
        let Some((engine, functions)) = unstarted.start() else { return };
        run.start(engine.now());
        let refresh = || {
            run_blocking(refresh_now::<Blocking, B, F, D>(&engine, &functions, at_most, &mut body));
        };
        let refresh = || CallsOfTask::default().collect(refresh);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(refresh)) {
            drop_quietly(payload);
        }
        drop_quietly((functions, body));
    }
}

/// Runs the function for the elements that no other caller computes.
async fn refresh_now<M: Io, B, F, D>(
    engine: &Engine<B>,
    functions: &[(F, u64)],
    at_most: usize,
    body: &mut D,
) where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    let mut outputs: Vec<Option<F::Output>> = functions.iter().map(|_| None).collect();
    let mut runner = Runner::new(engine, &mut outputs, at_most, body);
    runner.is_refresh = true;
    let mut parts = Vec::new();
    for (index, (function, stamp)) in functions.iter().enumerate() {
        let Some(key) = usable_key(engine, engine.flags(), function) else { continue };
        let call = Call::new(engine, function, key, *stamp);
        let Some(lead) = lead(&call) else { continue };
        parts.push(Part::lead(index, call, lead, true, ComputeReason::Background));
    }
    let result = runner.lead::<M>(parts).await;
    drop_quietly((result, outputs));
}

/// A refresh that has not started. Dropped, it is left to the next calls, unless the spawner has panicked: then to those after
/// the pause of a refresh that has failed.
struct Unstarted<B: Backend, F: CachedFn<Stored = B::Stored>>(Option<Calls<B, F>>);

/// The calls of a refresh, each with its stamp, and their cache.
type Calls<B, F> = (Engine<B>, Vec<(F, u64)>);

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Unstarted<B, F> {
    fn start(mut self) -> Option<Calls<B, F>> {
        self.0.take()
    }
}

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Drop for Unstarted<B, F> {
    fn drop(&mut self) {
        let Some((engine, functions)) = &self.0 else { return };
        if thread::panicking() {
            return;
        }
        for (function, _) in functions {
            if let Ok(key) = function.key() {
                engine.refresh_backoff().remove(key);
            }
        }
    }
}

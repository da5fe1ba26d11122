//! Calls of batch functions with `spawn`: they go on, or refresh old values, outside of the caller.

use std::future::{Future, ready};

use super::elements::Elements;
use super::output::{BatchOutput, ElementValue, Outputs};
use super::{BatchCall, LookedUp, RunElements, ValueIn};
use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::batch::background::{self, BatchRefresh};
use crate::call::batch::{Batch, Body, Found, Unusable, compute};
use crate::call::task::{SpawnableCall, spawnable_from};
use crate::call::{CachedFn, FnOutput, OutputShape};
use crate::io::{Awaiting, Blocking, run_blocking};

/// Creates the body of runs that own their elements. A macro, since the future of a run has no name, and the compiler has to see
/// that it is `Send`.
macro_rules! owned_body {
    ($elements:expr, $body:expr) => {{
        let (elements, mut body): (Vec<C::Element>, _) = ($elements, $body);
        Body::<_, H>::new(move |indices: &[usize]| {
            let selected: Vec<_> = indices.iter().map(|&index| elements[index].clone()).collect();
            let run =
                RunElements::<C, H::Output>::run(&mut body, C::collect(selected.iter().cloned()));
            async move { run.await.split(&selected.iter().collect::<Vec<_>>()) }
        })
    }};
}

/// The calls of functions with `spawn`.
impl<'e, C, H> BatchCall<'e, C, H>
where
    C: Elements + ?Sized,
    H: OutputShape<Output: BatchOutput<C::Element>>,
{
    /// Returns the task that refreshes elements.
    pub fn vayu_task_of<B, F, D>(
        self,
        engine: &Engine<B>,
        refresh: BatchRefresh<C::Element, F>,
        body: D,
    ) -> impl Future<Output = ()> + use<C, H, B, F, D>
    where
        B: Backend,
        F: CachedFn<Output = ValueIn<H>, Stored = B::Stored>,
        D: RunElements<C, H::Output>,
    {
        let (elements, refresh) = refresh.into_parts();
        let body = owned_body!(elements, body);
        background::task(engine.clone(), refresh, self.at_most, body)
    }

    /// Returns the closure that refreshes elements.
    pub fn vayu_job_of<B, F, D>(
        self,
        engine: &Engine<B>,
        refresh: BatchRefresh<C::Element, F>,
        mut body: D,
    ) -> impl FnOnce() + use<C, H, B, F, D>
    where
        B: Backend,
        F: CachedFn<Output = ValueIn<H>, Stored = B::Stored>,
        D: FnMut(C::Owned) -> H::Output,
    {
        let (elements, refresh) = refresh.into_parts();
        let body = move |elements| ready(body(elements));
        let body = owned_body!(elements, body);
        background::job(engine.clone(), refresh, self.at_most, body)
    }

    /// Creates the rest of a call whose computation may move to a task. What it returns is for
    /// [`vayu_joined`](Self::vayu_joined), with the elements.
    pub fn vayu_spawnable<B, F, D>(
        self,
        engine: &Engine<B>,
        LookedUp(batch): LookedUp<'e, C::Element, F>,
        mut body: D,
    ) -> (Asked<'e, C::Element>, SpawnableCall<impl Computing<H> + use<C, H, B, F, D>>)
    where
        B: Backend,
        F: CachedFn<Output = ValueIn<H>, Stored = B::Stored>,
        D: RunElements<C, H::Output>,
    {
        let Batch { elements, positions, mut outputs, functions, lookups } = batch;
        let owned: Vec<C::Element> = elements.iter().map(|&element| element.clone()).collect();
        let asked = positions.clone();
        let prefix =
            functions.first().and_then(|function| Some(function.key().ok()?.prefix().clone()));
        let (engine, at_most) = (engine.clone(), self.at_most);
        let call = spawnable_from(prefix, move |start| async move {
            let count = asked.as_ref().map_or(owned.len(), Vec::len);
            let mut run = owned_body!(owned.clone(), |elements| body.run(elements));
            let computed = compute::<Awaiting, _, _, _>(
                &engine,
                &functions,
                lookups,
                &mut outputs,
                at_most,
                &mut run,
                Some(start),
            );
            match computed.await {
                Ok(()) => return Ok(outputs),
                Err(Unusable::Failed(output)) => return Err(output),
                Err(Unusable::Unpaired { output, wanted, .. }) if wanted == count => {
                    return Err(output);
                }
                Err(Unusable::Unpaired { .. }) => {}
            }
            drop(run);
            let all = match asked {
                None => owned,
                Some(asked) => asked.into_iter().map(|index| owned[index].clone()).collect(),
            };
            Err(body.run(C::collect(all.into_iter())).await)
        });
        (Asked { elements, positions }, call)
    }

    /// Returns the output of a call from what its computation has returned.
    pub fn vayu_joined(
        self,
        asked: Asked<'e, C::Element>,
        computed: Result<Vec<Option<ValueIn<H>>>, H::Output>,
    ) -> H::Output {
        let Asked { elements, positions } = asked;
        match computed {
            Ok(outputs) => {
                let values = Found::Some(outputs);
                H::Output::join(Outputs { elements: || elements, positions, values })
            }
            Err(output) => output,
        }
    }
}

impl<T: Clone, F: FnOutput> LookedUp<'_, T, F> {
    /// Reads what the lookup could not. Elements past their ttl get the old value, and the refresh of them is returned, as far
    /// as it begins.
    pub fn vayu_serve_stale<B: Backend>(&mut self, engine: &Engine<B>) -> Option<BatchRefresh<T, F>>
    where
        F: CachedFn<Stored = B::Stored>,
    {
        run_blocking(background::serve_stale::<Blocking, B, T, F>(engine, &mut self.0))
    }

    /// [`vayu_serve_stale`](Self::vayu_serve_stale) for async callers.
    pub async fn vayu_serve_stale_async<B: Backend>(
        &mut self,
        engine: &Engine<B>,
    ) -> Option<BatchRefresh<T, F>>
    where
        F: CachedFn<Stored = B::Stored>,
    {
        Box::pin(background::serve_stale::<Awaiting, B, T, F>(engine, &mut self.0)).await
    }
}

/// The elements of a call, each once.
#[derive(Debug)]
pub struct Asked<'e, T> {
    elements: Vec<&'e T>,
    positions: Option<Vec<usize>>,
}

/// The computation of a call. It returns the values of the elements, or else the whole output.
pub trait Computing<H: OutputShape<Output: ElementValue>>:
    Future<Output = Result<Vec<Option<ValueIn<H>>>, H::Output>>
{
}

impl<H, T> Computing<H> for T
where
    H: OutputShape<Output: ElementValue>,
    T: Future<Output = Result<Vec<Option<ValueIn<H>>>, H::Output>>,
{
}

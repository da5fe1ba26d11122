//! Calls of batch functions with `spawn`: they go on, or refresh old values, outside of the caller.

use std::future::{Future, ready};

use super::LookedUp;
use super::elements::{Each, Elements};
use super::output::{BatchOutput, OutputType, Outputs};
use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::batch::background::{self, BatchRefresh};
use crate::call::batch::{Batch, Body, Unusable, compute};
use crate::call::task::{SpawnableCall, spawnable_from};
use crate::call::{CachedFn, FnOutput, OutputShape};
use crate::io::{Awaiting, Blocking, run_blocking};

/// Creates the body of runs that own their elements. A macro, since the future of a run has no name, and the compiler has to see
/// that it is `Send`.
macro_rules! owned_body {
    ($collection:ty, $elements:expr, $body:expr) => {{
        let (elements, mut body): (Vec<<$collection as Elements>::Element>, _) = ($elements, $body);
        Body::<_, H>::new(move |indices: Vec<usize>| {
            let selected: Vec<_> =
                indices.into_iter().map(|index| elements[index].clone()).collect();
            let run = body(<$collection>::collect(selected.iter().cloned()));
            async move {
                let output: R = run.await;
                output.split(&selected.iter().collect::<Vec<_>>())
            }
        })
    }};
}

/// The calls of functions with `spawn`.
impl<R, V, H: OutputShape<Output = R>> OutputType<R, V, H> {
    /// Returns the task that refreshes elements.
    pub fn vayu_task_of<B, S, C, F, T, D>(
        &self,
        cache: &Cache<B, S>,
        _: Each<'_, C>,
        refresh: BatchRefresh<C::Element, F>,
        at_most: usize,
        body: D,
    ) -> impl Future<Output = ()> + use<R, V, H, B, S, C, F, T, D>
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        T: Future<Output = R>,
        D: FnMut(C::Owned) -> T,
    {
        let (elements, refresh) = refresh.into_parts();
        let body = owned_body!(C, elements, body);
        background::task(cache.engine().clone(), refresh, at_most, body)
    }

    /// Returns the closure that refreshes elements.
    pub fn vayu_job_of<B, S, C, F, D>(
        &self,
        cache: &Cache<B, S>,
        _: Each<'_, C>,
        refresh: BatchRefresh<C::Element, F>,
        at_most: usize,
        mut body: D,
    ) -> impl FnOnce() + use<R, V, H, B, S, C, F, D>
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        D: FnMut(C::Owned) -> R,
    {
        let (elements, refresh) = refresh.into_parts();
        let body = move |elements| ready(body(elements));
        let body = owned_body!(C, elements, body);
        background::job(cache.engine().clone(), refresh, at_most, body)
    }

    /// Creates the rest of a call whose computation may move to a task, for [`run_spawning`](super::run_spawning). What it
    /// returns is for [`vayu_joined`](Self::vayu_joined), with the elements.
    pub fn vayu_spawnable<'e, B, S, C, F, T, D>(
        &self,
        cache: &Cache<B, S>,
        _: Each<'e, C>,
        LookedUp(batch): LookedUp<'e, C::Element, F>,
        at_most: usize,
        body: D,
    ) -> (Asked<'e, C::Element>, SpawnableCall<impl Computing<R, V> + use<R, V, H, B, S, C, F, T, D>>)
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        T: Future<Output = R>,
        D: FnMut(C::Owned) -> T,
    {
        let Batch { elements, positions, mut outputs, functions, lookups } = batch;
        let owned: Vec<C::Element> = elements.iter().map(|&element| element.clone()).collect();
        let asked = positions.clone();
        let prefix =
            functions.first().and_then(|function| Some(function.key().ok()?.prefix().clone()));
        let (engine, mut body) = (cache.engine().clone(), body);
        let call = spawnable_from(prefix, move |start| async move {
            let count = asked.as_ref().map_or(owned.len(), Vec::len);
            let mut run = owned_body!(C, owned.clone(), |elements| body(elements));
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
            Err(body(C::collect(all.into_iter())).await)
        });
        (Asked { elements, positions }, call)
    }

    /// Returns the output of a call from what its computation has returned.
    pub fn vayu_joined<T>(&self, asked: Asked<'_, T>, computed: Result<Vec<Option<V>>, R>) -> R
    where
        R: BatchOutput<T, Value = V>,
    {
        let Asked { elements, positions } = asked;
        match computed {
            Ok(values) => R::join(Outputs { elements, positions, values }),
            Err(output) => output,
        }
    }
}

impl<T: Clone, F: FnOutput> LookedUp<'_, T, F> {
    /// Reads what the lookup could not. Elements past their ttl get the old value, and the refresh of them is returned, as far
    /// as it begins.
    pub fn vayu_serve_stale<B: Backend, S>(
        &mut self,
        cache: &Cache<B, S>,
    ) -> Option<BatchRefresh<T, F>>
    where
        F: CachedFn<Stored = B::Stored>,
    {
        run_blocking(background::serve_stale::<Blocking, B, T, F>(cache.engine(), &mut self.0))
    }

    /// [`vayu_serve_stale`](Self::vayu_serve_stale) for async callers.
    pub async fn vayu_serve_stale_async<B: Backend, S>(
        &mut self,
        cache: &Cache<B, S>,
    ) -> Option<BatchRefresh<T, F>>
    where
        F: CachedFn<Stored = B::Stored>,
    {
        Box::pin(background::serve_stale::<Awaiting, B, T, F>(cache.engine(), &mut self.0)).await
    }
}

/// The elements of a call, each once.
#[derive(Debug)]
pub struct Asked<'e, T> {
    elements: Vec<&'e T>,
    positions: Option<Vec<usize>>,
}

/// The computation of a call. It returns the values of the elements, or else the whole output.
pub trait Computing<R, V>: Future<Output = Result<Vec<Option<V>>, R>> {}

impl<R, V, T: Future<Output = Result<Vec<Option<V>>, R>>> Computing<R, V> for T {}

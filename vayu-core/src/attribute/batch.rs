//! Batch functions: the collection of the elements, the output, and the call.

mod elements;
mod output;
mod spawn;

use std::fmt;
use std::future::{Future, ready};

#[cfg(test)]
pub(crate) use self::elements::each;
pub use self::elements::{Each, EachIn, Elements, batch_body, batch_body_async, lend};
#[cfg(test)]
pub(crate) use self::output::output_type;
pub use self::output::{BatchOutput, ElementValue, MapKey, OutputOfEach, OutputType, Outputs};
use crate::backend::Backend;
use crate::cache::{Cache, Engine};
use crate::call::batch::{self, Batch, Body, Unusable, compute};
use crate::call::{CachedFn, FnOutput, OutputShape};
use crate::io::{Awaiting, Blocking, Io, run_blocking};

/// The elements of a call, looked up as far as nothing had to be waited for.
pub struct LookedUp<'e, T, F: FnOutput>(Batch<'e, T, F>);

impl<T, F: FnOutput> fmt::Debug for LookedUp<'_, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookedUp").finish_non_exhaustive()
    }
}

/// Reports a `Vec` of values for a collection that is created again in another order.
const fn assert_order<C: Elements + ?Sized, T, R: BatchOutput<T>>() {
    assert!(
        C::IS_ORDERED || !R::IS_BY_ORDER,
        "a `HashSet` has no order by which a `Vec` could be assigned to its elements; return a map"
    );
}

/// The call. Methods, so that nothing is reported if the output is not one of a batch function.
impl<R, V, H: OutputShape<Output = R>> OutputType<R, V, H> {
    /// Looks up a call. `describe` returns the call of one element.
    ///
    /// # Errors
    ///
    /// The rest of the call, unless all elements were found.
    pub fn vayu_look_up<'e, B, S, C, F>(
        &self,
        cache: &Cache<B, S>,
        each: Each<'e, C>,
        describe: impl Fn(&'e C::Element) -> F,
    ) -> Result<R, LookedUp<'e, C::Element, F>>
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
    {
        const { assert_order::<C, C::Element, R>() };
        let batch = batch::look_up(cache.engine(), each.0.elements(), C::ARE_DISTINCT, describe);
        Self::join_found(batch).map_err(LookedUp)
    }

    /// Runs a call of a sync batch function. `describe` returns the call of one element.
    #[inline]
    pub fn vayu_call<'e, B, S, C, F, D>(
        self,
        cache: &Cache<B, S>,
        each: Each<'e, C>,
        at_most: usize,
        describe: impl Fn(&'e C::Element) -> F,
        body: D,
    ) -> R
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        D: FnMut(C::Owned) -> R,
    {
        self.vayu_look_up(cache, each, describe)
            .unwrap_or_else(|left| self.vayu_finish(cache, each, left, at_most, body))
    }

    /// Finishes a call of a sync batch function.
    pub fn vayu_finish<'e, B, S, C, F, D>(
        self,
        cache: &Cache<B, S>,
        each: Each<'e, C>,
        LookedUp(batch): LookedUp<'e, C::Element, F>,
        at_most: usize,
        mut body: D,
    ) -> R
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        D: FnMut(C::Owned) -> R,
    {
        let body = |owned| ready(body(owned));
        let engine = cache.engine();
        Self::join_found(batch).unwrap_or_else(|batch| {
            run_blocking(Self::finish::<Blocking, _, _, _, _>(engine, each, batch, at_most, body))
        })
    }

    /// Runs a call of an async batch function. `describe` returns the call of one element.
    pub async fn vayu_call_async<'e, B, S, C, F, T, D>(
        self,
        cache: &Cache<B, S>,
        each: Each<'e, C>,
        at_most: usize,
        describe: impl Fn(&'e C::Element) -> F,
        body: D,
    ) -> R
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        T: Future<Output = R>,
        D: FnMut(C::Owned) -> T,
    {
        match self.vayu_look_up(cache, each, describe) {
            Ok(output) => output,
            Err(left) => self.vayu_finish_async(cache, each, left, at_most, body).await,
        }
    }

    /// Finishes a call of an async batch function.
    pub async fn vayu_finish_async<'e, B, S, C, F, T, D>(
        self,
        cache: &Cache<B, S>,
        each: Each<'e, C>,
        LookedUp(batch): LookedUp<'e, C::Element, F>,
        at_most: usize,
        body: D,
    ) -> R
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        T: Future<Output = R>,
        D: FnMut(C::Owned) -> T,
    {
        let engine = cache.engine();
        match Self::join_found(batch) {
            Ok(output) => output,
            // The future of a function contains those of the calls that it awaits.
            Err(batch) => {
                Box::pin(Self::finish::<Awaiting, _, _, _, _>(engine, each, batch, at_most, body))
                    .await
            }
        }
    }

    /// Returns the output of a call, or the elements again if not all of them were found.
    fn join_found<T, F: FnOutput<Output = V>>(batch: Batch<'_, T, F>) -> Result<R, Batch<'_, T, F>>
    where
        R: BatchOutput<T, Value = V>,
    {
        if !batch.lookups.is_empty() {
            return Err(batch);
        }
        let Batch { elements, positions, outputs: values, .. } = batch;
        Ok(R::join(Outputs { elements, positions, values }))
    }

    /// Computes the elements that were not found, and creates the output of the call.
    async fn finish<M, B, C, F, T>(
        engine: &Engine<B>,
        each: Each<'_, C>,
        batch: Batch<'_, C::Element, F>,
        at_most: usize,
        mut body: impl FnMut(C::Owned) -> T,
    ) -> R
    where
        M: Io,
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        T: Future<Output = R>,
    {
        let count = each.0.elements().len();
        let Batch { elements, positions, mut outputs, functions, lookups } = batch;
        let mut run = Body::<_, H>::new(|indices: Vec<usize>| {
            let selected: Vec<_> = indices.iter().map(|&index| elements[index]).collect();
            let run = body(C::collect(selected.iter().map(|&element| element.clone())));
            async move { run.await.split(&selected) }
        });
        let (values, run) = (&mut outputs, &mut run);
        let computed =
            compute::<M, _, _, _>(engine, &functions, lookups, values, at_most, run, None);
        match computed.await {
            Ok(()) => R::join(Outputs { elements, positions, values: outputs }),
            Err(Unusable::Failed(output)) => output,
            Err(Unusable::Unpaired { output, wanted, .. }) if wanted == count => output,
            Err(Unusable::Unpaired { .. }) => body(C::collect(each.0.elements().cloned())).await,
        }
    }
}

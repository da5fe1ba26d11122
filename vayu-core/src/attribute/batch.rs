//! Batch functions: the collection of the elements, the output, and the call.

mod elements;
mod output;
mod spawn;

use std::fmt;
use std::future::{Future, ready};
use std::marker::PhantomData;

pub use self::elements::{Each, EachIn, Elements, batch_body, batch_body_async, lend};
pub use self::output::{BatchOutput, ElementValue, MapKey, OutputOfEach, OutputType, Outputs};
use crate::backend::Backend;
use crate::cache::Engine;
#[cfg(test)]
use crate::call::PlainOutput;
use crate::call::batch::{self, AllFound, Batch, Body, Found, Repeated, Unusable, compute};
use crate::call::{CachedFn, FnOutput, OutputShape};
use crate::io::{Awaiting, Blocking, Io, run_blocking};

/// One call of a batch function, for the elements of a collection `C`. The output of the function has the shape `H`.
pub struct BatchCall<'e, C: ?Sized, H> {
    elements: &'e C,
    at_most: usize,
    shape: PhantomData<fn() -> H>,
}

/// The value of one element, in an output of the shape `H`.
type ValueIn<H> = <<H as OutputShape>::Output as ElementValue>::Value;

/// The body of a batch function, which runs for some of its elements.
pub trait RunElements<C: Elements + ?Sized, R> {
    /// The future of one run.
    type Run: Future<Output = R>;

    /// Runs the function with these elements.
    fn run(&mut self, elements: C::Owned) -> Self::Run;
}

impl<C: Elements + ?Sized, T: Future, D: FnMut(C::Owned) -> T> RunElements<C, T::Output> for D {
    type Run = T;

    fn run(&mut self, elements: C::Owned) -> T {
        self(elements)
    }
}

/// The elements of a call, looked up as far as nothing had to be waited for.
pub struct LookedUp<'e, T, F: FnOutput>(Batch<'e, T, F>);

impl<C: ?Sized, H> fmt::Debug for BatchCall<'_, C, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchCall").finish_non_exhaustive()
    }
}

impl<T, F: FnOutput> fmt::Debug for LookedUp<'_, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookedUp").finish_non_exhaustive()
    }
}

impl<C: ?Sized, H> Clone for BatchCall<'_, C, H> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: ?Sized, H> Copy for BatchCall<'_, C, H> {}

impl<'e, C: ?Sized, H> BatchCall<'e, C, H> {
    #[inline]
    pub(crate) fn new(elements: &'e C, at_most: usize) -> Self {
        Self { elements, at_most, shape: PhantomData }
    }
}

/// Returns a call of a test, whose errors are not shared.
#[cfg(all(test, not(vayu_loom)))]
pub(crate) fn batch_call<C: ?Sized, R>(
    elements: &C,
    at_most: usize,
) -> BatchCall<'_, C, PlainOutput<R>> {
    BatchCall::new(elements, at_most)
}

/// Reports a `Vec` of values for a collection that is created again in another order.
const fn assert_order<C: Elements + ?Sized, T, R: BatchOutput<T>>() {
    assert!(
        C::IS_ORDERED || !R::IS_BY_ORDER,
        "a `HashSet` has no order by which a `Vec` could be assigned to its elements; return a map"
    );
}

impl<'e, C, H> BatchCall<'e, C, H>
where
    C: Elements + ?Sized,
    H: OutputShape<Output: BatchOutput<C::Element>>,
{
    /// Looks up the call. `describe` returns the call of one element.
    ///
    /// # Errors
    ///
    /// The rest of the call, unless all elements were found.
    pub fn vayu_look_up<B, F>(
        self,
        engine: &Engine<B>,
        describe: impl Fn(&'e C::Element) -> F,
    ) -> Result<H::Output, LookedUp<'e, C::Element, F::Moved>>
    where
        B: Backend,
        F: CachedFn<Output = ValueIn<H>, Stored = B::Stored>,
    {
        const { assert_order::<C, C::Element, H::Output>() };
        let elements = || self.elements.elements();
        let AllFound { repeated, outputs } =
            batch::look_up(engine, elements, C::ARE_DISTINCT, describe).map_err(LookedUp)?;
        let values = Found::All(outputs);
        Ok(match repeated {
            None => {
                let elements = || self.elements.elements().collect();
                H::Output::join(Outputs { elements, positions: None, values })
            }
            Some(Repeated { elements, positions }) => H::Output::join(Outputs {
                elements: || elements,
                positions: Some(positions),
                values,
            }),
        })
    }

    /// Runs the call of a sync function. `describe` returns the call of one element.
    #[inline]
    pub fn vayu_call<B, F>(
        self,
        engine: &Engine<B>,
        describe: impl Fn(&'e C::Element) -> F,
        body: impl FnMut(C::Owned) -> H::Output,
    ) -> H::Output
    where
        B: Backend,
        F: CachedFn<Output = ValueIn<H>, Stored = B::Stored>,
    {
        self.vayu_look_up(engine, describe)
            .unwrap_or_else(|left| self.vayu_finish(engine, left, body))
    }

    /// Finishes the call of a sync function.
    pub fn vayu_finish<B, F>(
        self,
        engine: &Engine<B>,
        LookedUp(batch): LookedUp<'e, C::Element, F>,
        mut body: impl FnMut(C::Owned) -> H::Output,
    ) -> H::Output
    where
        B: Backend,
        F: CachedFn<Output = ValueIn<H>, Stored = B::Stored>,
    {
        let body = |owned| ready(body(owned));
        Self::join_found(batch).unwrap_or_else(|batch| {
            run_blocking(self.finish::<Blocking, B, F, _>(engine, batch, body))
        })
    }

    /// Runs the call of an async function. `describe` returns the call of one element.
    pub async fn vayu_call_async<B, F>(
        self,
        engine: &Engine<B>,
        describe: impl Fn(&'e C::Element) -> F,
        body: impl RunElements<C, H::Output>,
    ) -> H::Output
    where
        B: Backend,
        F: CachedFn<Output = ValueIn<H>, Stored = B::Stored>,
    {
        match self.vayu_look_up(engine, describe) {
            Ok(output) => output,
            Err(left) => self.vayu_finish_async(engine, left, body).await,
        }
    }

    /// Finishes the call of an async function.
    pub async fn vayu_finish_async<B, F>(
        self,
        engine: &Engine<B>,
        LookedUp(batch): LookedUp<'e, C::Element, F>,
        body: impl RunElements<C, H::Output>,
    ) -> H::Output
    where
        B: Backend,
        F: CachedFn<Output = ValueIn<H>, Stored = B::Stored>,
    {
        match Self::join_found(batch) {
            Ok(output) => output,
            // The future of a function contains those of the calls that it awaits.
            Err(batch) => Box::pin(self.finish::<Awaiting, B, F, _>(engine, batch, body)).await,
        }
    }

    /// Returns the output of a call, or the elements again if not all of them were found.
    fn join_found<F>(batch: Batch<'e, C::Element, F>) -> Result<H::Output, Batch<'e, C::Element, F>>
    where
        F: FnOutput<Output = ValueIn<H>>,
    {
        if !batch.lookups.is_empty() {
            return Err(batch);
        }
        let Batch { elements, positions, outputs, .. } = batch;
        Ok(H::Output::join(Outputs {
            elements: || elements,
            positions,
            values: Found::Some(outputs),
        }))
    }

    /// Computes the elements that were not found, and creates the output of the call.
    async fn finish<M, B, F, D>(
        self,
        engine: &Engine<B>,
        batch: Batch<'e, C::Element, F>,
        mut body: D,
    ) -> H::Output
    where
        M: Io,
        B: Backend,
        F: CachedFn<Output = ValueIn<H>, Stored = B::Stored>,
        D: RunElements<C, H::Output>,
    {
        let count = self.elements.elements().len();
        let Batch { elements, positions, mut outputs, functions, lookups } = batch;
        let mut run = Body::<_, H>::new(|indices: &[usize]| {
            let selected: Vec<_> = indices.iter().map(|&index| elements[index]).collect();
            let run = body.run(C::collect(selected.iter().map(|&element| element.clone())));
            async move { run.await.split(&selected) }
        });
        let (values, run, at_most) = (&mut outputs, &mut run, self.at_most);
        let computed =
            compute::<M, _, _, _>(engine, &functions, lookups, values, at_most, run, None);
        match computed.await {
            Ok(()) => {
                let values = Found::Some(outputs);
                H::Output::join(Outputs { elements: || elements, positions, values })
            }
            Err(Unusable::Failed(output)) => output,
            Err(Unusable::Unpaired { output, wanted, .. }) if wanted == count => output,
            Err(Unusable::Unpaired { .. }) => {
                body.run(C::collect(self.elements.elements().cloned())).await
            }
        }
    }
}

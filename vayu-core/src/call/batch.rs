//! One call of a batch function: it runs once for many elements, each of which has an entry of its own.
//!
//! An element is a call of its own, as if a function of one element were called: it has a key, a stamp and options,
//! and is looked up, decoded, stored and counted by the same code ([`Call`]). The elements of a batch share the runs
//! of its function, and each wait:
//!
//! 1. Every element is [looked up](lookup), as far as nothing has to be waited for. What the backend has to block for
//!    is [read](resume) at once.
//! 2. The batch [joins](flights) the flights of the elements that are missing, without waiting for any of them.
//! 3. The function [runs](run) once with the elements that the batch leads. The values are stored, and the flights are
//!    completed.
//! 4. Only then does the batch wait for the flights that other callers lead. If it has to lead one of them in the end,
//!    it takes all others that it can lead without waiting, and runs the function with these.
//!
//! A batch that waits leads no flight (no hold and wait), so batches and calls of single elements that overlap in any
//! way do not deadlock. A function that calls itself for one of its own elements is detected as for other calls, see
//! [`BatchRun`]. Nor does a batch wait for a lease of another process before its own part is done.
//!
//! A batch is not a hedge: its function would run for all elements because one of them takes long.
//!
//! All of this is compiled once for all functions: the [driver](driver) of a batch has the call of each element without its types,
//! and suspends for [steps] that involve these.
//!
//! If a run fails, the callers that wait for one of its elements run their own function, for the error may be that of
//! another element. A batch that waits for all of them would ask for the same: it gets the [error](error).

pub(crate) mod background;
mod distinct;
mod driver;
pub(crate) mod error;
mod flights;
mod found;
mod leases;
mod lookup;
mod resume;
mod run;
mod runner;
mod steps;

use std::future::Future;
use std::marker::PhantomData;

use crate::backend::Backend;
use crate::cache::Engine;
pub(crate) use crate::call::batch::found::Found;
pub(crate) use crate::call::batch::lookup::{AllFound, Batch, Repeated, look_up};
use crate::call::batch::resume::split_missing;
use crate::call::batch::runner::Runner;
use crate::call::batch::steps::{BatchSteps, TypedBatch};
use crate::call::lookup::Lookup;
use crate::call::task::Start;
use crate::call::{CachedFn, OutputShape};
use crate::io::Io;
use crate::panic::drop_quietly;
use crate::shared_error::SharedError;

/// The body of a batch function.
///
/// It takes indices of elements and not the elements. The compiler could otherwise not prove that the future of a call
/// is `Send` where elements have lifetimes.
pub(crate) trait BatchBody {
    /// The value of one element.
    type Value;
    /// The output of the function.
    type Output;
    /// The future of one run. It returns the value of each element, in the order of the indices; `None` for an element that
    /// the function has left out.
    type Run: Future<Output = Result<Vec<Option<Self::Value>>, Unusable<Self::Output>>>;

    /// Runs the function for the elements with these indices.
    fn run(&mut self, indices: &[usize]) -> Self::Run;

    /// Returns the error of an output, if callers can share it.
    fn shared_error(output: &Self::Output) -> Option<SharedError>;

    /// Returns the output for a shared error, if it is of this type.
    fn error_output(error: &SharedError) -> Option<Self::Output>;
}

/// A body made of a closure that returns a future, for outputs of the shape `H`.
pub(crate) struct Body<D, H> {
    run: D,
    shape: PhantomData<fn() -> H>,
}

impl<T, D: FnMut(&[usize]) -> T, H: OutputShape> Body<D, H> {
    pub(crate) fn new(run: D) -> Self {
        Self { run, shape: PhantomData }
    }
}

impl<D, T, V, H> BatchBody for Body<D, H>
where
    D: FnMut(&[usize]) -> T,
    T: Future<Output = Result<Vec<Option<V>>, Unusable<H::Output>>>,
    H: OutputShape,
{
    type Value = V;
    type Output = H::Output;
    type Run = T;

    fn run(&mut self, indices: &[usize]) -> T {
        (self.run)(indices)
    }

    fn shared_error(output: &H::Output) -> Option<SharedError> {
        H::shared_error(output)
    }

    fn error_output(error: &SharedError) -> Option<H::Output> {
        H::error_output(error)
    }
}

/// An output without values of elements.
#[derive(Debug)]
pub enum Unusable<R> {
    /// The function has failed.
    Failed(R),
    /// The output is a `Vec` of `found` values for `wanted` elements.
    Unpaired {
        /// The output.
        output: R,
        /// The number of elements.
        wanted: usize,
        /// The number of values.
        found: usize,
    },
}

/// Adds the outputs of the missing elements to `outputs`, of at most `at_most` elements by one run of the function.
/// Those that the function leaves out stay `None`. `start` is awaited before the function runs for other callers, too.
///
/// # Errors
///
/// The output of a run that has failed.
pub(crate) async fn compute<M, B, F, D>(
    engine: &Engine<B>,
    functions: &[F],
    lookups: Vec<(usize, Lookup<F::Output>)>,
    outputs: &mut [Option<F::Output>],
    at_most: usize,
    body: &mut D,
    start: Option<Start>,
) -> Result<(), Unusable<D::Output>>
where
    M: Io,
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    let (elements, rests, frames) = split_missing(functions, lookups);
    let (mut typed, steps) = (TypedBatch::new(engine, &elements, frames), BatchSteps::new());
    let driver = Runner::new(engine, &steps, at_most).compute::<M>(&elements, rests, start);
    let (computed, unusable) = typed.drive_with::<M, D, _>(body, &steps, driver).await;
    match unusable {
        Some(unusable) if computed.is_err() => return Err(unusable),
        unusable => drop_quietly(unusable),
    }
    for (element, frame) in elements.iter().zip(typed.into_frames()) {
        outputs[element.index] = frame.into_output();
    }
    Ok(())
}

//! One call of a batch function: it runs once for many elements, each of which has an entry of its own.
//!
//! An element is a call of its own, as if a function of one element were called: it has a key, a stamp and options,
//! and is looked up, decoded, stored and counted by the same code ([`Call`]). The elements of a batch share the runs
//! of its function, and each wait:
//!
//! 1. Every element is [looked up](lookup), as far as nothing has to be waited for. What the backend has to block for
//!    is read at once.
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
//! If a run fails, the callers that wait for one of its elements run their own function, for the error may be that of
//! another element. A batch that waits for all of them would ask for the same: it gets the [error](error).

pub(crate) mod background;
mod distinct;
pub(crate) mod error;
mod flights;
mod leases;
mod lookup;
mod run;

use std::collections::VecDeque;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;

use crate::backend::{Backend, LeaseWatch};
use crate::cache::Engine;
use crate::call::batch::error::end_refreshes;
use crate::call::batch::flights::Pending;
pub(crate) use crate::call::batch::lookup::{Batch, look_up};
use crate::call::batch::lookup::{Missed, Resumed, resume};
use crate::call::leading::Leading;
use crate::call::lookup::Lookup;
use crate::call::task::Start;
use crate::call::typed::Frame;
use crate::call::{CachedFn, Call, ComputeReason, FnOutput, OutputShape};
use crate::clock::Timestamp;
use crate::flight::{BatchRun, Deadline, Lead};
use crate::io::Io;
use crate::panic::drop_quietly;
use crate::record::Record;
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
    fn run(&mut self, indices: Vec<usize>) -> Self::Run;

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

impl<D, H: OutputShape> Body<D, H> {
    pub(crate) fn new(run: D) -> Self {
        Self { run, shape: PhantomData }
    }
}

impl<D, T, V, H> BatchBody for Body<D, H>
where
    D: FnMut(Vec<usize>) -> T,
    T: Future<Output = Result<Vec<Option<V>>, Unusable<H::Output>>>,
    H: OutputShape,
{
    type Value = V;
    type Output = H::Output;
    type Run = T;

    fn run(&mut self, indices: Vec<usize>) -> T {
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
    let mut runner = Runner::new(engine, outputs, at_most, body);
    runner.start = start;
    let (mut parts, mut missed) = (Vec::new(), Vec::new());
    for (index, lookup) in resume::<M, B, F>(engine, functions, lookups, runner.outputs).await {
        match lookup {
            Resumed::Compute(call, reason) => missed.push(Missed { index, call, reason }),
            Resumed::Bypass => parts.push(Part { index, role: Role::Bypass }),
        }
    }
    if let Some(output) = Runner::<B, F, D>::cached_failure(&missed) {
        return Err(Unusable::Failed(output));
    }
    runner.join(missed, &mut parts);
    runner.lead::<M>(parts).await?;
    while let Some(first) = runner.pending.pop_front() {
        let parts = runner.wait::<M>(first).await?;
        runner.lead::<M>(parts).await?;
    }
    Ok(())
}

/// The rest of a batch whose elements were not all found.
struct Runner<'a, 'r, B: Backend, F: FnOutput, D> {
    engine: &'a Engine<B>,
    outputs: &'r mut [Option<F::Output>],
    body: &'r mut D,
    at_most: usize,
    /// The time limit of all waits.
    deadline: Deadline,
    /// `true` once the deadline has ended a wait.
    is_over: bool,
    /// The elements that other callers compute.
    pending: VecDeque<Pending<'a, B, F>>,
    /// The elements whose lease another process holds.
    held: Vec<Part<'a, B, F>>,
    /// The watches of these leases, in the same order, where there are any.
    watches: Vec<Option<LeaseWatch>>,
    /// When all of these leases are to be tried, whether or not their watches are ready.
    all_due: Option<Timestamp>,
    /// The moment before the function runs for other callers, too.
    start: Option<Start>,
    /// The elements have old values, which the callers got.
    is_refresh: bool,
}

/// An element that the function is to run for.
struct Part<'a, B: Backend, F: FnOutput> {
    index: usize,
    role: Role<'a, B, F>,
}

/// The part that the run of the function has for other callers of an element.
enum Role<'a, B: Backend, F: FnOutput> {
    /// The batch leads the flight. If `recheck`, a value may have been stored in the meantime.
    Lead { leading: Leading<'a, B, F>, recheck: bool },
    /// The batch must not wait for the flight of another caller.
    Uncoordinated(Call<'a, B, F>),
    /// The element has no key, or the cache is not used.
    Bypass,
}

impl<'a, B: Backend, F: CachedFn<Stored = B::Stored>> Part<'a, B, F> {
    fn lead(
        index: usize,
        call: Call<'a, B, F>,
        lead: Lead<'a, Record<B::Stored>>,
        recheck: bool,
        reason: ComputeReason<F::Output>,
    ) -> Self {
        Self { index, role: Role::Lead { leading: Leading::new(call, lead, reason), recheck } }
    }
}

impl<'a, 'r, B, F, D> Runner<'a, 'r, B, F, D>
where
    B: Backend,
    F: CachedFn<Stored = B::Stored>,
    D: BatchBody<Value = F::Output>,
{
    fn new(
        engine: &'a Engine<B>,
        outputs: &'r mut [Option<F::Output>],
        at_most: usize,
        body: &'r mut D,
    ) -> Self {
        Self {
            engine,
            outputs,
            body,
            at_most: at_most.max(1),
            deadline: Deadline::default(),
            is_over: false,
            pending: VecDeque::new(),
            held: Vec::new(),
            watches: Vec::new(),
            all_due: None,
            start: None,
            is_refresh: false,
        }
    }

    /// Runs the function for these elements, and for those whose lease another process holds, after that process.
    async fn lead<M: Io>(&mut self, parts: Vec<Part<'a, B, F>>) -> Result<(), Unusable<D::Output>> {
        if parts.is_empty() {
            return Ok(());
        }
        if parts.iter().all(|part| matches!(part.role, Role::Bypass)) {
            return self.run::<M>(parts).await;
        }
        let led = parts.iter().filter_map(|part| match &part.role {
            Role::Lead { leading, .. } => Some(leading.flight()),
            Role::Uncoordinated(_) | Role::Bypass => None,
        });
        let run = BatchRun::begin(led);
        let leads = parts.iter().any(|part| matches!(part.role, Role::Lead { .. }));
        if let Some(start) = self.start.take_if(|_| leads) {
            start.await;
        }
        M::lead(run.id(), self.lead_part_of_flights::<M>(parts)).await
    }

    /// Does the work of [`lead`](Self::lead), as part of the flights.
    async fn lead_part_of_flights<M: Io>(
        &mut self,
        mut parts: Vec<Part<'a, B, F>>,
    ) -> Result<(), Unusable<D::Output>> {
        self.acquire_leases::<M>(&mut parts).await;
        loop {
            self.recheck::<M>(&mut parts).await?;
            self.run::<M>(parts).await?;
            if self.held.is_empty() {
                return Ok(());
            }
            parts = self.wait_for_leases::<M>().await?;
        }
    }

    /// Runs the function for these elements, in as many runs as the limit on their number asks for.
    async fn run<M: Io>(
        &mut self,
        mut parts: Vec<Part<'a, B, F>>,
    ) -> Result<(), Unusable<D::Output>> {
        while !parts.is_empty() {
            let rest = parts.split_off(parts.len().min(self.at_most));
            let result = self.run_once::<M>(mem::replace(&mut parts, rest)).await;
            if self.is_refresh {
                // Each run of a refresh counts its failure, and is not the reason for another one to be left out.
                drop_quietly(result);
            } else if result.is_err() {
                end_refreshes(&parts);
                return result;
            }
        }
        Ok(())
    }

    /// Reads the elements again whose value may have been stored in the meantime, and removes those that were found.
    ///
    /// # Errors
    ///
    /// The output of a run that has failed in the meantime, if its error is cached for one of these elements.
    async fn recheck<M: Io>(
        &mut self,
        parts: &mut Vec<Part<'a, B, F>>,
    ) -> Result<(), Unusable<D::Output>> {
        for part in &mut *parts {
            if let Role::Lead { leading, recheck } = &mut part.role {
                *recheck &=
                    !matches!(leading.reason, ComputeReason::Forced) && !leading.lead.is_refresh();
            }
        }
        let calls: Vec<&Call<'_, B, F>> = parts
            .iter()
            .filter_map(|part| match &part.role {
                Role::Lead { leading, recheck: true } => Some(&leading.call),
                _ => None,
            })
            .collect();
        if !calls.is_empty() {
            let mut records = lookup::read_many::<M, B, F>(self.engine, &calls).await.into_iter();
            for part in mem::replace(parts, Vec::with_capacity(parts.len())) {
                let Role::Lead { leading, recheck: true } = part.role else {
                    parts.push(part);
                    continue;
                };
                let record = records.next().flatten();
                let mut frame = Frame::new(leading.call.function);
                if let Some(record) = record
                    && leading.call.serve(record.clone(), &mut frame)
                {
                    self.outputs[part.index] = frame.into_found();
                    run::complete_found::<M, B, F>(leading, record).await;
                } else {
                    parts.push(Part { role: Role::Lead { leading, recheck: false }, ..part });
                }
            }
        }
        match Self::cached_failure_of_led(parts) {
            Some(output) => Err(Unusable::Failed(output)),
            None => Ok(()),
        }
    }
}

//! The steps of a batch that involve the types of its function.
//!
//! The [driver](super::driver) of a batch is compiled once for all functions, as that of a single call is. It suspends for a
//! [step](crate::call::steps) of an element, which is performed with the frame of that, for a run of the function, and for an error of
//! the whole batch.

use std::future::poll_fn;

use tracing::{Instrument, Span};

use crate::backend::Backend;
use crate::cache::Engine;
use crate::call::batch::lookup::SAME_TIME;
use crate::call::batch::{BatchBody, Unusable};
use crate::call::lookup::{Begun, Rest, classify};
use crate::call::steps::{
    Driver, Exchange, ResultOf, Step, StepOf, StepResult, Steps, part_of_flights, within,
};
use crate::call::typed::{Frame, TypedCall, UntypedCall};
use crate::call::{CachedFn, Call, FnOutput, Properties};
use crate::error::Result;
use crate::flight::{Completions, FlightId};
use crate::io::Io;
use crate::key::Key;
use crate::panic::{catch_panic, drop_quietly};
use crate::record::Record;
use crate::shared_error::SharedError;

/// An element that the lookup of its batch did not find.
pub(super) struct Element<'a> {
    /// The index of the element in the whole batch.
    pub(super) index: usize,
    pub(super) properties: Properties<'a>,
    /// `None` if the element bypasses the cache.
    pub(super) key: Option<&'a Key>,
}

impl<'a> Element<'a> {
    pub(super) fn new<F: CachedFn>(index: usize, function: &'a F, key: Option<&'a Key>) -> Self {
        Self { index, properties: Properties::of(function), key }
    }
}

/// A step of a batch.
pub(super) enum BatchStep<V> {
    /// A step of the element at this place.
    Element(usize, StepOf<V>),
    /// Steps of the elements at these places, one after the other. To suspend for each takes longer than most steps.
    Elements(Vec<(usize, StepOf<V>)>),
    /// Decode the records that were read.
    Decode(Vec<ReadElement<V>>),
    Whole(WholeStep),
}

/// The record that was read for the element at a place, if there is one. The completions are those from before.
pub(super) struct ReadElement<V> {
    pub(super) place: usize,
    pub(super) begun: Begun,
    pub(super) before: Completions,
    pub(super) record: Option<Record<V>>,
}

impl<V> ReadElement<V> {
    /// Creates the read of an element, before its record is read.
    pub(super) fn new<B: Backend<Stored = V>>(
        engine: &Engine<B>,
        place: usize,
        key: &Key,
        begun: Begun,
    ) -> Self {
        Self { place, begun, before: engine.flights().completions(key), record: None }
    }
}

/// A step that involves the output of a batch.
pub(super) enum WholeStep {
    Run(Run),
    /// Clone an error to the output of the batch, as part of a flight.
    CloneError(SharedError, Option<FlightId>),
}

/// A run of the function for the elements at these places, as part of a flight if it is for other callers, too.
pub(super) struct Run {
    pub(super) places: Vec<usize>,
    pub(super) flight: Option<FlightId>,
    pub(super) span: Span,
}

/// The result of a [`BatchStep`].
pub(super) enum BatchStepResult<V> {
    Element(ResultOf<V>),
    Elements(Vec<(usize, ResultOf<V>)>),
    /// The places of elements that have no fresh record, and what is left of their calls.
    Decoded(Vec<(usize, Rest)>),
    Ran(Ran),
    /// `true` if the error is of the type of the function.
    Cloned(Result<bool>),
}

/// The end of a run.
pub(super) enum Ran {
    /// `true` for each element that has a value.
    Values(Vec<bool>),
    /// The function has failed, with an error if callers can share it.
    Failed(Result<Option<SharedError>>),
    /// The output is a `Vec` of `found` values for `wanted` elements.
    Unpaired { wanted: usize, found: usize },
}

/// The steps for which the driver of a batch suspends.
pub(super) struct BatchSteps<V>(Exchange<BatchStep<V>, BatchStepResult<V>>);

impl<V> BatchSteps<V> {
    pub(super) fn new() -> Self {
        Self(Exchange::new())
    }

    /// Returns the steps of the element at this place.
    pub(super) fn of(&self, place: usize) -> ElementSteps<'_, V> {
        ElementSteps { steps: self, place }
    }

    /// Performs the steps of the elements at these places. Returns the results in the same order.
    pub(super) async fn perform_all(
        &self,
        steps: Vec<(usize, StepOf<V>)>,
    ) -> Vec<(usize, ResultOf<V>)> {
        if steps.is_empty() {
            return Vec::new();
        }
        match self.0.perform(BatchStep::Elements(steps)).await {
            BatchStepResult::Elements(results) => results,
            _ => unreachable!("the steps are those of elements"),
        }
    }

    /// Decodes the records that were read. Returns the places of elements that have no fresh one, and what is left of their calls.
    pub(super) async fn decode(&self, read: Vec<ReadElement<V>>) -> Vec<(usize, Rest)> {
        match self.0.perform(BatchStep::Decode(read)).await {
            BatchStepResult::Decoded(rests) => rests,
            _ => unreachable!("the step decodes"),
        }
    }

    /// Runs the function.
    pub(super) async fn run(&self, run: Run) -> Ran {
        match self.0.perform(BatchStep::Whole(WholeStep::Run(run))).await {
            BatchStepResult::Ran(ran) => ran,
            _ => unreachable!("the step is a run"),
        }
    }

    /// Clones an error to the output of the batch. Returns whether it is of the type of the function.
    pub(super) async fn clone_error(
        &self,
        error: SharedError,
        flight: Option<FlightId>,
    ) -> Result<bool> {
        match self.0.perform(BatchStep::Whole(WholeStep::CloneError(error, flight))).await {
            BatchStepResult::Cloned(result) => result,
            _ => unreachable!("the step is one of errors"),
        }
    }
}

/// The steps of the element at a place.
pub(super) struct ElementSteps<'s, V> {
    steps: &'s BatchSteps<V>,
    place: usize,
}

impl<B: Backend> Steps<B> for ElementSteps<'_, B::Stored> {
    async fn perform(
        &self,
        call: &UntypedCall<'_, B>,
        flight: Option<FlightId>,
        step: Step<B::Stored>,
    ) -> StepResult<B::Stored> {
        let step = BatchStep::Element(self.place, StepOf::new(call, flight, step));
        match self.steps.0.perform(step).await {
            BatchStepResult::Element(result) => result.of(call),
            _ => unreachable!("the step is one of an element"),
        }
    }
}

/// The elements that the lookup of a batch did not find, with their frames.
pub(super) struct TypedBatch<'a, B: Backend, F: FnOutput> {
    engine: &'a Engine<B>,
    elements: &'a [Element<'a>],
    frames: Vec<Frame<'a, F>>,
}

impl<'a, B: Backend, F: CachedFn<Stored = B::Stored>> TypedBatch<'a, B, F> {
    pub(super) fn new(
        engine: &'a Engine<B>,
        elements: &'a [Element<'a>],
        frames: Vec<Frame<'a, F>>,
    ) -> Self {
        Self { engine, elements, frames }
    }

    /// Returns the frames, in the order of the elements.
    pub(super) fn into_frames(self) -> Vec<Frame<'a, F>> {
        self.frames
    }

    /// Awaits the driver of a batch, and performs the steps of its elements.
    ///
    /// # Errors
    ///
    /// A step of the whole batch, which is to be performed before the driver is awaited again.
    pub(super) async fn drive<M: Io, T>(
        &mut self,
        steps: &BatchSteps<B::Stored>,
        driver: &mut Driver<'_, T>,
    ) -> Result<T, WholeStep> {
        let Self { engine, elements, frames } = self;
        let mut perform = |step| perform((engine, elements), step, M::BLOCKS, frames);
        poll_fn(|context| steps.0.poll(driver, context, &mut perform)).await
    }

    /// Awaits the driver of a batch with this body. Returns the output with its own, if it has no values of elements.
    pub(super) async fn drive_with<M: Io, D: BatchBody<Value = F::Output>, T>(
        &mut self,
        body: &mut D,
        steps: &BatchSteps<B::Stored>,
        mut driver: Driver<'_, T>,
    ) -> (T, Option<Unusable<D::Output>>) {
        let mut unusable = None;
        loop {
            let result = match self.drive::<M, T>(steps, &mut driver).await {
                Ok(output) => return (output, unusable),
                Err(WholeStep::Run(run)) => {
                    let Run { places, flight, span } = run;
                    let indices = places.iter().map(|&place| self.elements[place].index).collect();
                    let values = run_body::<M, D>(body, indices, flight, span).await;
                    BatchStepResult::Ran(match values {
                        Ok(values) => self.set_values(&places, values),
                        Err(output) => {
                            let ran = || ran_without_values::<D>(&output, flight);
                            let ran = within(flight, M::BLOCKS, ran);
                            drop_quietly(unusable.replace(output));
                            ran
                        }
                    })
                }
                Err(WholeStep::CloneError(error, flight)) => {
                    let clone = || catch_panic("clone error", || Ok(D::error_output(&error)));
                    let output = within(flight, M::BLOCKS, clone);
                    BatchStepResult::Cloned(output.map(|output| match output {
                        None => false,
                        Some(output) => {
                            drop_quietly(unusable.replace(Unusable::Failed(output)));
                            true
                        }
                    }))
                }
            };
            steps.0.set_result(result);
        }
    }

    /// Sets the outputs of the elements that the function has run for.
    fn set_values(&mut self, places: &[usize], values: Vec<Option<F::Output>>) -> Ran {
        let set = |(&place, value): (&usize, Option<F::Output>)| {
            let (frame, has_value) = (&mut self.frames[place], value.is_some());
            match value {
                Some(value) => frame.set_returned(value),
                None => frame.set_left_out(),
            }
            has_value
        };
        Ran::Values(places.iter().zip(values).map(set).collect())
    }
}

/// The frames of the elements of a batch.
trait Frames<B: Backend> {
    /// Returns the frame of the element at this place.
    fn of(&mut self, place: usize) -> &mut dyn TypedCall<B>;
}

impl<B: Backend, F: CachedFn<Stored = B::Stored>> Frames<B> for Vec<Frame<'_, F>> {
    fn of(&mut self, place: usize) -> &mut dyn TypedCall<B> {
        &mut self[place]
    }
}

/// Performs a step of a batch with the frames of its elements. The driver blocks, or is polled.
///
/// # Errors
///
/// A step of the whole batch, which is not performed here.
fn perform<B: Backend>(
    (engine, elements): (&Engine<B>, &[Element<'_>]),
    step: BatchStep<B::Stored>,
    blocks: bool,
    frames: &mut dyn Frames<B>,
) -> Result<BatchStepResult<B::Stored>, WholeStep> {
    let call_at = |place: usize| {
        let Element { properties, key, .. } = &elements[place];
        (engine, properties, key.expect("the element has a call"))
    };
    let mut perform =
        |place, step: StepOf<B::Stored>| step.perform(call_at(place), blocks, frames.of(place));
    Ok(match step {
        BatchStep::Whole(step) => return Err(step),
        BatchStep::Element(place, step) => BatchStepResult::Element(perform(place, step)),
        BatchStep::Elements(steps) => {
            let results = steps.into_iter().map(|(place, step)| (place, perform(place, step)));
            BatchStepResult::Elements(results.collect())
        }
        BatchStep::Decode(read) => {
            let (mut rests, mut now) = (Vec::new(), engine.now());
            for (index, read) in read.into_iter().enumerate() {
                if index % SAME_TIME == SAME_TIME - 1 {
                    now = engine.now();
                }
                let ReadElement { place, begun, before, record } = read;
                let (engine, function, key) = call_at(place);
                let call = Call::resumed(engine, function, key, begun);
                let decoded = call.decode_read_at(now, record, frames.of(place));
                if let Err(rest) = classify(&call, decoded, before) {
                    rests.push((place, rest));
                }
            }
            BatchStepResult::Decoded(rests)
        }
    })
}

/// Awaits a run of a body, as part of a flight.
async fn run_body<M: Io, D: BatchBody>(
    body: &mut D,
    indices: Vec<usize>,
    flight: Option<FlightId>,
    span: Span,
) -> Result<Vec<Option<D::Value>>, Unusable<D::Output>> {
    // A sync function runs when its future is created.
    let run = async { body.run(&indices).await }.instrument(span);
    part_of_flights::<M, _>(flight, run).await
}

/// Returns the end of a run for its driver.
fn ran_without_values<D: BatchBody>(output: &Unusable<D::Output>, flight: Option<FlightId>) -> Ran {
    match output {
        // No caller waits for it.
        Unusable::Failed(_) if flight.is_none() => Ran::Failed(Ok(None)),
        Unusable::Failed(output) => {
            Ran::Failed(catch_panic("clone error", || Ok(D::shared_error(output))))
        }
        Unusable::Unpaired { wanted, found, .. } => {
            Ran::Unpaired { wanted: *wanted, found: *found }
        }
    }
}

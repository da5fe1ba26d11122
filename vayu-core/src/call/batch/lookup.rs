//! The lookup of the elements of a batch.

use crate::backend::Backend;
use crate::cache::{CallStamp, Engine};
use crate::call::batch::distinct::Distinct;
use crate::call::batch::steps::{BatchSteps, Element};
use crate::call::lookup::{Lookup, Rest, begin_apart, serve_directly};
use crate::call::steps::{Step, StepOf, StepResult, Steps};
use crate::call::typed::{Frame, UntypedCall};
use crate::call::{CachedFn, Call, ComputeReason, FnOutput, FnProperties, Properties};
use crate::io::Io;
use crate::key::Key;
use crate::record::Record;

/// The number of elements that are looked up at one time: to read the clock takes as long as a part of a lookup.
const SAME_TIME: usize = 32;

/// The number of missing elements for which there is space after the first.
const MISSING_AT_ONCE: usize = 256;

/// The elements of a batch, looked up as far as nothing had to be waited for.
pub(crate) struct Batch<'e, T, F: FnOutput> {
    /// The elements in the order in which they were asked for, each once.
    pub(crate) elements: Vec<&'e T>,
    /// The index in `elements` of each one that was asked for. `None` if none was asked for twice.
    pub(crate) positions: Option<Vec<usize>>,
    /// The output of each element, if it was found.
    pub(crate) outputs: Vec<Option<F::Output>>,
    /// The calls of the elements that were not found.
    pub(crate) functions: Vec<F>,
    /// The index of each of these, and the rest of its call.
    pub(crate) lookups: Vec<(usize, Lookup<F::Output>)>,
}

/// An element that has to be computed, by this caller or by another one.
pub(super) struct Missed<'a, B: Backend> {
    pub(super) place: usize,
    pub(super) call: UntypedCall<'a, B>,
    pub(super) reason: ComputeReason,
}

/// An element that has nothing to read.
pub(super) enum Resumed<'a, B: Backend> {
    /// Run the function without the cache.
    Bypass(usize),
    /// Run the function for all callers of the key, or wait for a caller that does.
    Compute(Missed<'a, B>),
}

/// Looks up elements, as far as nothing has to be waited for. `describe` returns the call of an element.
pub(crate) fn look_up<'e, B: Backend, T, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    elements: Vec<&'e T>,
    are_distinct: bool,
    describe: impl Fn(&'e T) -> F,
) -> Batch<'e, T, F::Moved> {
    let mut distinct = (!are_distinct).then(|| Distinct::new(elements.len()));
    let mut repeated: Option<Repeated<'e, T>> = None;
    let mut outputs = Vec::with_capacity(elements.len());
    let (mut functions, mut lookups) = (Vec::new(), Vec::new());
    let mut now = engine.now_inline();
    for (position, &element) in elements.iter().enumerate() {
        if position % SAME_TIME == SAME_TIME - 1 {
            now = engine.now_inline();
        }
        let (index, mut function) = (outputs.len(), describe(element));
        if let Some(distinct) = &mut distinct
            && let Ok(key) = function.key()
        {
            let is_same = |earlier: usize| are_same(&describe, elements[earlier], element);
            if let Some(earlier) = distinct.add(position, key.hash_code(), is_same) {
                function.clear();
                let first = || Repeated::first(&elements[..position]);
                repeated.get_or_insert_with(first).add_again(earlier);
                continue;
            }
        }
        if let Some(repeated) = &mut repeated {
            repeated.add(element);
        }
        let begun = match serve_directly(engine, &function, || now) {
            Ok(output) => {
                function.clear();
                outputs.push(Some(output));
                continue;
            }
            Err(begun) => begun,
        };
        let function = function.moved();
        let lookup = match begin_apart(engine, &function, begun) {
            Ok(output) => {
                outputs.push(Some(output));
                continue;
            }
            Err(lookup) => lookup,
        };
        outputs.push(None);
        if functions.is_empty() {
            // As a rule, others are missing, too.
            let expected = (elements.len() - position).min(MISSING_AT_ONCE);
            functions.reserve(expected);
            lookups.reserve(expected);
        }
        functions.push(function);
        lookups.push((index, lookup));
    }
    let (elements, positions) = match repeated {
        Some(Repeated { elements, indices }) => (elements, Some(indices)),
        None => (elements, None),
    };
    Batch { elements, positions, outputs, functions, lookups }
}

/// Returns whether two elements have the same key. They are described again: the key of an element that is found stays in
/// registers.
#[cold]
#[inline(never)]
fn are_same<'e, T, F: CachedFn>(describe: &impl Fn(&'e T) -> F, one: &'e T, other: &'e T) -> bool {
    let [one, other] = [one, other].map(|element| describe(element).moved());
    matches!((one.key(), other.key()), (Ok(one), Ok(other)) if one == other)
}

/// The elements of a batch in which one was asked for twice.
struct Repeated<'e, T> {
    /// Each once.
    elements: Vec<&'e T>,
    /// The index in `elements` of each one that was asked for.
    indices: Vec<usize>,
}

impl<'e, T> Repeated<'e, T> {
    /// Creates the elements before the first that was asked for again.
    #[cold]
    fn first(elements: &[&'e T]) -> Self {
        Self { elements: elements.to_vec(), indices: (0..elements.len()).collect() }
    }

    /// Adds an element that was not asked for before.
    fn add(&mut self, element: &'e T) {
        self.indices.push(self.elements.len());
        self.elements.push(element);
    }

    /// Adds the element at an earlier position again.
    fn add_again(&mut self, earlier: usize) {
        self.indices.push(self.indices[earlier]);
    }
}

/// Returns the elements that a lookup did not find, what is left of their calls, and their frames.
pub(super) fn missing<F: CachedFn>(
    functions: &[F],
    lookups: Vec<(usize, Lookup<F::Output>)>,
) -> (Vec<Element<'_>>, Vec<Rest>, Vec<Frame<'_, F>>) {
    let (mut elements, mut rests, mut frames) = (Vec::new(), Vec::new(), Vec::new());
    for (function, (index, Lookup { rest, found })) in functions.iter().zip(lookups) {
        elements.push(Element::new(index, function, function.key().ok()));
        rests.push(rest);
        frames.push(Frame::with_found(function, found));
    }
    (elements, rests, frames)
}

/// Reads the generations and the backend, as far as the lookup could not. Returns the elements that were not found then: none of
/// them has anything to read.
pub(super) async fn resume<'a, M: Io, B: Backend>(
    engine: &'a Engine<B>,
    elements: &'a [Element<'a>],
    rests: Vec<Rest>,
    steps: &BatchSteps<B::Stored>,
) -> Vec<Resumed<'a, B>> {
    let (mut resumed, mut reads) = (Vec::new(), Vec::with_capacity(rests.len()));
    let mut has_failed = false;
    for (place, (element, mut rest)) in elements.iter().zip(rests).enumerate() {
        let Element { properties, key: Some(key), .. } = element else {
            resumed.push(Resumed::Bypass(place));
            continue;
        };
        if let Rest::ReadGenerations = rest {
            rest = match stamped::<M, B>(engine, properties, key, &mut has_failed).await {
                Ok(call) => match steps.of(place).look_up(&call, Step::LookUp).await {
                    Ok(()) => continue,
                    Err(rest) => rest,
                },
                Err(call) => Rest::Compute(call.into_begun(), ComputeReason::Miss(None)),
            };
        }
        match rest {
            Rest::Bypass | Rest::ReadGenerations => resumed.push(Resumed::Bypass(place)),
            Rest::ReadBackend(begun) => {
                let call = Call::resumed(engine, properties, key, begun);
                let before = engine.flights().completions(key);
                reads.push((place, call, before));
            }
            Rest::Compute(begun, reason) => {
                let call = Call::resumed(engine, properties, key, begun);
                resumed.push(Resumed::Compute(Missed { place, call, reason }));
            }
        }
    }
    if reads.is_empty() {
        return resumed;
    }
    let calls: Vec<&UntypedCall<'_, B>> = reads.iter().map(|(_, call, _)| call).collect();
    let records = read_many::<M, B>(engine, &calls).await;
    let decode = |((place, call, before), record): (&(usize, _, _), _)| {
        (*place, StepOf::new(call, None, Step::Decode(record, *before)))
    };
    let decoded = steps.perform_all(reads.iter().zip(records).map(decode).collect()).await;
    for ((place, call, _), result) in reads.into_iter().zip(decoded) {
        match result.of(&call) {
            StepResult::LookedUp(Ok(())) => {}
            StepResult::LookedUp(Err(Rest::Compute(_, reason))) => {
                resumed.push(Resumed::Compute(Missed { place, call, reason }));
            }
            _ => resumed.push(Resumed::Bypass(place)),
        }
    }
    resumed
}

/// Reads the generations of the groups of an element, and begins its call. Once that has failed, no others are read.
///
/// # Errors
///
/// The call without a stamp.
async fn stamped<'a, M: Io, B: Backend>(
    engine: &'a Engine<B>,
    function: &'a Properties<'a>,
    key: &'a Key,
    has_failed: &mut bool,
) -> Result<UntypedCall<'a, B>, UntypedCall<'a, B>> {
    let (prefix, tags) = (key.prefix(), function.tags());
    // Perhaps another element has just read them.
    if let Some(stamp) = engine.known_stamp(engine.flags(), prefix, tags) {
        return Ok(Call::new(engine, function, key, stamp));
    }
    if *has_failed {
        return Err(Call::new(engine, function, key, engine.unknown_stamp()));
    }
    match engine.make_stamp::<M>(prefix, tags).await {
        Ok(CallStamp { stamp, has_timed_out }) => {
            let call = Call::new(engine, function, key, stamp);
            if has_timed_out {
                call.set_timed_out();
            }
            Ok(call)
        }
        Err(error) => {
            *has_failed = true;
            Err(Call::without_stamp(engine, function, key, &error))
        }
    }
}

/// Reads the records of calls.
pub(super) async fn read_many<M: Io, B: Backend>(
    engine: &Engine<B>,
    calls: &[&UntypedCall<'_, B>],
) -> Vec<Option<Record<B::Stored>>> {
    let keys: Vec<&Key> =
        calls.iter().filter(|call| !call.has_timed_out()).map(|call| call.key).collect();
    let mut results = engine.read_many::<M>(&keys).await.into_iter();
    let read = |call: &&UntypedCall<'_, B>| {
        if !call.has_timed_out() {
            let record = call.ok_or_count(results.next().unwrap_or(Ok(None)));
            if !call.has_timed_out() {
                return record.flatten();
            }
        }
        call.read_offline()
    };
    calls.iter().map(read).collect()
}

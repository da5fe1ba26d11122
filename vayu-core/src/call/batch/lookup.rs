//! The lookup of the elements of a batch.

use crate::backend::Backend;
use crate::cache::{CallStamp, Engine};
use crate::call::batch::distinct::Distinct;
use crate::call::lookup::{Lookup, Rest, begin_at, classify, lookup_with_stamp};
use crate::call::typed::Frame;
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
pub(super) struct Missed<'a, B: Backend, F: FnOutput> {
    pub(super) index: usize,
    pub(super) call: Call<'a, B, F>,
    pub(super) reason: ComputeReason<F::Output>,
}

/// The rest of the call of an element, which has nothing to read.
pub(super) enum Resumed<'a, B: Backend, F: FnOutput> {
    /// Run the function without the cache.
    Bypass,
    /// Run the function for all callers of the key, or wait for a caller that does.
    Compute(Call<'a, B, F>, ComputeReason<F::Output>),
}

/// Looks up elements, as far as nothing has to be waited for. `describe` returns the call of an element.
pub(crate) fn look_up<'e, B: Backend, T, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    elements: Vec<&'e T>,
    are_distinct: bool,
    describe: impl Fn(&'e T) -> F,
) -> Batch<'e, T, F> {
    let mut distinct = (!are_distinct).then(|| Distinct::new(elements.len()));
    let mut repeated: Option<Repeated<'e, T>> = None;
    let mut outputs = Vec::with_capacity(elements.len());
    let (mut functions, mut lookups) = (Vec::new(), Vec::new());
    let mut now = engine.now_inline();
    for (position, &element) in elements.iter().enumerate() {
        if position % SAME_TIME == SAME_TIME - 1 {
            now = engine.now_inline();
        }
        let (index, function) = (outputs.len(), describe(element));
        if let Some(distinct) = &mut distinct
            && let Ok(key) = function.key()
        {
            let is_same = |earlier: usize| describe(elements[earlier]).key().ok() == Some(key);
            if let Some(earlier) = distinct.add(position, key, is_same) {
                let first = || Repeated::first(&elements[..position]);
                repeated.get_or_insert_with(first).add_again(earlier);
                continue;
            }
        }
        if let Some(repeated) = &mut repeated {
            repeated.add(element);
        }
        let lookup = match begin_at(engine, &function, || now) {
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

/// Reads the generations and the backend, as far as the lookup could not. Adds what was found to `outputs`, and returns the
/// rest of the calls: none of them has anything to read.
pub(super) async fn resume<'a, M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &'a Engine<B>,
    functions: &'a [F],
    lookups: Vec<(usize, Lookup<F::Output>)>,
    outputs: &mut [Option<F::Output>],
) -> Vec<(usize, Resumed<'a, B, F>)> {
    let (mut rest, mut reads) = (Vec::new(), Vec::with_capacity(lookups.len()));
    let mut has_failed = false;
    for ((index, mut lookup), function) in lookups.into_iter().zip(functions) {
        let Ok(key) = function.key() else {
            rest.push((index, Resumed::Bypass));
            continue;
        };
        if let Rest::ReadGenerations = lookup.rest {
            let stamped = read_generations::<M, B, F>(engine, function, key, &mut has_failed);
            lookup = match stamped.await {
                Ok(output) => {
                    outputs[index] = Some(output);
                    continue;
                }
                Err(lookup) => lookup,
            };
        }
        let Lookup { rest: left, found } = lookup;
        match left {
            Rest::Bypass | Rest::ReadGenerations => rest.push((index, Resumed::Bypass)),
            Rest::ReadBackend(begun) => {
                let call = Call::resumed(engine, function, key, begun);
                let before = call.engine.flights().completions(call.key);
                reads.push((index, call, before));
            }
            Rest::Compute(begun, reason) => {
                let call = Call::resumed(engine, function, key, begun);
                rest.push((index, Resumed::Compute(call, reason.with_found(found))));
            }
        }
    }
    if reads.is_empty() {
        return rest;
    }
    let calls: Vec<&Call<'_, B, F>> = reads.iter().map(|(_, call, _)| call).collect();
    let records = read_many::<M, B, F>(engine, &calls).await;
    for ((index, call, before), record) in reads.into_iter().zip(records) {
        let mut frame = Frame::new(call.function);
        let decoded = call.decode_read(record, &mut frame);
        match classify(&call, decoded, before) {
            Ok(()) => outputs[index] = frame.into_found(),
            Err(Rest::Compute(_, reason)) => {
                let reason = reason.with_found(frame.into_found());
                rest.push((index, Resumed::Compute(call, reason)));
            }
            Err(_) => rest.push((index, Resumed::Bypass)),
        }
    }
    rest
}

/// Reads the generations of the groups of an element. Once that has failed, no others are read.
async fn read_generations<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    function: &F,
    key: &Key,
    has_failed: &mut bool,
) -> Result<F::Output, Lookup<F::Output>> {
    let (prefix, tags) = (key.prefix(), function.tags());
    // Perhaps another element has just read them.
    let known = engine.known_stamp(engine.flags(), prefix, tags);
    let stamp = match known {
        Some(stamp) => Some(CallStamp { stamp, has_timed_out: false }),
        None if *has_failed => None,
        None => match engine.make_stamp::<M>(prefix, tags).await {
            Ok(stamp) => Some(stamp),
            Err(error) => {
                *has_failed = true;
                let call = Call::without_stamp(engine, function, key, &error);
                return Err(missed(call));
            }
        },
    };
    let Some(stamp) = stamp else {
        return Err(missed(Call::new(engine, function, key, engine.unknown_stamp())));
    };
    let (properties, mut frame) = (Properties::of(function), Frame::new(function));
    let call = Call::new(engine, &properties, key, stamp.stamp);
    if stamp.has_timed_out {
        call.set_timed_out();
    }
    match lookup_with_stamp(&call, &mut frame) {
        Ok(()) => Ok(frame.take_found()),
        Err(rest) => Err(Lookup { rest, found: frame.into_found() }),
    }
}

/// Returns the rest of a call whose record cannot be read.
fn missed<B: Backend, F: FnProperties>(call: Call<'_, B, F>) -> Lookup<F::Output> {
    Lookup { rest: Rest::Compute(call.into_begun(), ComputeReason::Miss(None)), found: None }
}

/// Reads the records of calls.
pub(super) async fn read_many<M: Io, B: Backend, F: CachedFn<Stored = B::Stored>>(
    engine: &Engine<B>,
    calls: &[&Call<'_, B, F>],
) -> Vec<Option<Record<B::Stored>>> {
    let keys: Vec<&Key> =
        calls.iter().filter(|call| !call.has_timed_out()).map(|call| call.key).collect();
    let mut results = engine.read_many::<M>(&keys).await.into_iter();
    let read = |call: &&Call<'_, B, F>| {
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

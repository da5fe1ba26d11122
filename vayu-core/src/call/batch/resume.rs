//! What follows the lookup of a batch: the reads of generations and of the backend for the elements that were not found
//! without waiting.

use crate::backend::Backend;
use crate::cache::{CallStamp, Engine};
use crate::call::batch::steps::{BatchSteps, Element, ReadElement};
use crate::call::lookup::{Lookup, Rest};
use crate::call::steps::{Step, StepOf, StepResult};
use crate::call::typed::{Frame, UntypedCall};
use crate::call::{CachedFn, Call, ComputeReason, FnProperties, Properties};
use crate::error::Result;
use crate::io::Io;
use crate::key::Key;
use crate::record::Record;

/// An element that was not found, to be computed by this caller or by another one.
pub(super) struct Missed<'a, B: Backend> {
    pub(super) place: usize,
    pub(super) call: UntypedCall<'a, B>,
    pub(super) reason: ComputeReason,
}

/// The work that is left for an element after its reads.
pub(super) enum Resumed<'a, B: Backend> {
    /// Run the function without the cache.
    Bypass(usize),
    /// Run the function for all callers of the key, or wait for a caller that does.
    Compute(Missed<'a, B>),
}

/// Returns the elements that a lookup did not find, what is left of their calls, and their frames.
pub(super) fn split_missing<F: CachedFn>(
    functions: &[F],
    lookups: Vec<(usize, Lookup<F::Output>)>,
) -> (Vec<Element<'_>>, Vec<Rest>, Vec<Frame<'_, F>>) {
    let count = lookups.len();
    let (mut elements, mut rests) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut frames = Vec::with_capacity(count);
    for (function, (index, Lookup { rest, found })) in functions.iter().zip(lookups) {
        elements.push(Element::new(index, function, function.key().ok()));
        rests.push(rest);
        frames.push(Frame::with_found(function, found));
    }
    (elements, rests, frames)
}

/// Reads the generations and the backend, as far as the lookup could not. Returns the elements that were not found then, which have
/// nothing left to read.
pub(super) async fn resume<'a, M: Io, B: Backend>(
    engine: &'a Engine<B>,
    elements: &'a [Element<'a>],
    rests: Vec<Rest>,
    steps: &BatchSteps<B::Stored>,
) -> Vec<Resumed<'a, B>> {
    let (mut left, mut reads) = (Vec::new(), Vec::with_capacity(rests.len()));
    let (mut stamped, mut has_failed) = (Vec::new(), false);
    for (place, (Element { properties, key, .. }, rest)) in elements.iter().zip(rests).enumerate() {
        match (rest, key) {
            (Rest::ReadGenerations, Some(key)) => {
                match make_stamp::<M, B>(engine, properties, key, &mut has_failed).await {
                    Ok(call) => stamped.push((place, call)),
                    Err(call) => {
                        let reason = ComputeReason::Miss(None);
                        left.push((place, Rest::Compute(call.into_begun(), reason)));
                    }
                }
            }
            (Rest::ReadBackend(begun), Some(key)) => {
                reads.push(ReadElement::new(engine, place, key, begun));
            }
            (rest, _) => left.push((place, rest)),
        }
    }
    if !stamped.is_empty() {
        let look_up = |(place, call): &(usize, _)| (*place, StepOf::new(call, None, Step::LookUp));
        let looked_up = steps.perform_all(stamped.iter().map(look_up).collect()).await;
        for ((_, call), (place, result)) in stamped.into_iter().zip(looked_up) {
            match result.of(&call) {
                StepResult::LookedUp(Ok(())) => {}
                StepResult::LookedUp(Err(Rest::ReadBackend(begun))) => {
                    reads.push(ReadElement::new(engine, place, call.key, begun));
                }
                StepResult::LookedUp(Err(rest)) => left.push((place, rest)),
                _ => unreachable!("the step is one of a lookup"),
            }
        }
    }
    if !reads.is_empty() {
        read_records::<M, B>(engine, elements, &mut reads).await;
        left.extend(steps.decode(reads).await);
    }
    let resumed = |(place, rest)| match (rest, &elements[place]) {
        (Rest::Compute(begun, reason), Element { properties, key: Some(key), .. }) => {
            let call = Call::resumed(engine, properties, key, begun);
            Resumed::Compute(Missed { place, call, reason })
        }
        _ => Resumed::Bypass(place),
    };
    left.into_iter().map(resumed).collect()
}

/// Makes the stamp of an element, and begins its call. Once that has failed, no other generations are read.
///
/// # Errors
///
/// The call without a stamp.
async fn make_stamp<'a, M: Io, B: Backend>(
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

/// Reads the records of elements.
async fn read_records<'a, M: Io, B: Backend>(
    engine: &'a Engine<B>,
    elements: &'a [Element<'a>],
    reads: &mut [ReadElement<B::Stored>],
) {
    let key_of = |place: usize| elements[place].key.expect("the element has a call");
    let keys = reads.iter().map(|read| (key_of(read.place), read.begun.has_timed_out)).collect();
    let results = read_keys::<M, B>(engine, keys).await;
    for (read, result) in reads.iter_mut().zip(results) {
        if let Some(Ok(record)) = result {
            read.record = record;
            continue;
        }
        let properties = &elements[read.place].properties;
        let call = Call::resumed(engine, properties, key_of(read.place), read.begun);
        read.record = record_of(&call, result);
        read.begun = call.into_begun();
    }
}

/// Reads the records of calls again, those of elements that the batch leads.
pub(super) async fn read_again<M: Io, B: Backend>(
    engine: &Engine<B>,
    calls: &[&UntypedCall<'_, B>],
) -> Vec<Option<Record<B::Stored>>> {
    let keys = calls.iter().map(|call| (call.key, call.has_timed_out())).collect();
    let results = read_keys::<M, B>(engine, keys).await;
    calls.iter().zip(results).map(|(call, result)| record_of(call, result)).collect()
}

/// Reads keys, each with whether its call has timed out before. Returns the results in the same order: `None` for a call that has
/// timed out, whose key is not read, or if the backend has returned too few results.
async fn read_keys<M: Io, B: Backend>(
    engine: &Engine<B>,
    keys: Vec<(&Key, bool)>,
) -> impl Iterator<Item = Option<ReadResult<B::Stored>>> {
    let to_read = keys.iter().filter(|(_, has_timed_out)| !has_timed_out);
    let to_read: Vec<&Key> = to_read.map(|(key, _)| *key).collect();
    let mut results = engine.read_many::<M>(&to_read).await.into_iter();
    keys.into_iter()
        .map(move |(_, has_timed_out)| if has_timed_out { None } else { results.next() })
}

/// The result of the read of one key.
type ReadResult<V> = Result<Option<Record<V>>>;

/// Returns the record of a call from the result of its read, which it does not have if it has timed out before, or if the
/// backend has returned too few results.
fn record_of<B: Backend>(
    call: &UntypedCall<'_, B>,
    result: Option<ReadResult<B::Stored>>,
) -> Option<Record<B::Stored>> {
    let record = call.ok_or_count(result.unwrap_or(Ok(None)));
    if call.has_timed_out() { call.read_offline() } else { record.flatten() }
}

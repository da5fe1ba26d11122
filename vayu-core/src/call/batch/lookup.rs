//! The lookup of the elements of a batch.

use crate::backend::Backend;
use crate::cache::{CallStamp, Engine, Flags};
use crate::call::batch::distinct::Distinct;
use crate::call::batch::found::Found;
use crate::call::batch::steps::{BatchSteps, Element, ReadElement};
use crate::call::lookup::{Lookup, Moment, Rest, begin_apart, serve_directly};
use crate::call::steps::{Step, StepOf, StepResult};
use crate::call::typed::{Frame, UntypedCall};
use crate::call::{CachedFn, Call, ComputeReason, FnOutput, FnProperties, Properties};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::generation::Group;
use crate::io::Io;
use crate::key::{Key, Prefix, PrefixSeed};
use crate::record::Record;

/// The number of elements that are looked up or decoded at one time: to read the clock takes as long as a part of a lookup.
pub(super) const SAME_TIME: usize = 32;

/// The number of missing elements for which there is space after the first.
const MISSING_AT_ONCE: usize = 256;

/// The elements of a batch that were all found.
pub(crate) struct AllFound<'e, T, V> {
    /// Those that were asked for, if one that was not found directly was asked for twice.
    pub(crate) repeated: Option<Repeated<'e, T>>,
    /// The output of each element.
    pub(crate) outputs: Vec<V>,
}

/// The elements of a batch, looked up as far as nothing had to be waited for.
pub(crate) struct Batch<'e, T, F: FnOutput> {
    /// The elements in the order in which they were asked for. One that was not found directly is there once.
    pub(crate) elements: Vec<&'e T>,
    /// The index in `elements` of each one that was asked for. `None` if these are the same.
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

/// The moment at which elements are looked up.
struct SameMoment {
    now: Timestamp,
    /// The stamp of calls without tags that have this prefix, once it was read.
    stamp: Option<(PrefixSeed, u64)>,
}

impl SameMoment {
    #[inline(always)]
    fn new<B: Backend>(engine: &Engine<B>) -> Self {
        Self { now: engine.now_inline(), stamp: None }
    }
}

impl<B: Backend> Moment<B> for SameMoment {
    #[inline(always)]
    fn time(&mut self, _: &Engine<B>) -> Timestamp {
        self.now
    }

    #[inline(always)]
    fn stamp(
        &mut self,
        engine: &Engine<B>,
        flags: Flags,
        prefix: &Prefix,
        tags: &[Group],
    ) -> Option<u64> {
        if !tags.is_empty() {
            return engine.known_stamp(flags, prefix, tags);
        }
        let seed = prefix.seed();
        match &self.stamp {
            &Some((of, stamp)) if of == seed => Some(stamp),
            _ => {
                let stamp = engine.known_stamp(flags, prefix, tags)?;
                self.stamp = Some((seed, stamp));
                Some(stamp)
            }
        }
    }
}

/// Looks up elements, as far as nothing has to be waited for. `elements` returns those that were asked for, of which none is there twice
/// if they `are_distinct`, and `describe` returns the call of one.
///
/// # Errors
///
/// The batch, unless all elements were found.
pub(crate) fn look_up<'e, B: Backend, T, F: CachedFn<Stored = B::Stored>, I>(
    engine: &Engine<B>,
    elements: impl Fn() -> I,
    are_distinct: bool,
    describe: impl Fn(&'e T) -> F,
) -> Result<AllFound<'e, T, F::Output>, Batch<'e, T, F::Moved>>
where
    I: ExactSizeIterator<Item = &'e T>,
{
    let mut left = elements();
    let count = left.len();
    let (mut missing, mut repeated) = (None, None::<Repeated<'e, T>>);
    let mut outputs = Found::with_capacity(count);
    let (mut functions, mut lookups) = (Vec::new(), Vec::new());
    for begin in (0..count).step_by(SAME_TIME) {
        let mut moment = SameMoment::new(engine);
        for (position, element) in (begin..).zip(left.by_ref().take(SAME_TIME)) {
            let (index, mut function) = (outputs.len(), describe(element));
            let begun = match serve_directly(engine, &function, &mut moment) {
                Ok(output) => {
                    function.clear();
                    outputs.push(output);
                    if let Some(repeated) = &mut repeated {
                        repeated.add(element);
                    }
                    continue;
                }
                Err(begun) => begun,
            };
            if !are_distinct
                && let Ok(key) = function.key()
                && let missing = missing.get_or_insert_with(|| Distinct::new(count))
                && let Err(alike) = missing.add(position, key.hash_code())
                && let Some(earlier) = missing.add_alike(alike, |earlier| {
                    elements().nth(earlier).is_some_and(|it| are_same(&describe, it, element))
                })
            {
                function.clear();
                let first = || Repeated::first(elements().take(position));
                repeated.get_or_insert_with(first).add_again(earlier);
                continue;
            }
            if let Some(repeated) = &mut repeated {
                repeated.add(element);
            }
            let function = function.moved();
            let lookup = match begin_apart(engine, &function, begun) {
                Ok(output) => {
                    outputs.push(output);
                    continue;
                }
                Err(lookup) => lookup,
            };
            outputs.push_missing();
            if functions.is_empty() {
                // As a rule, others are missing, too.
                let expected = (count - position).min(MISSING_AT_ONCE);
                functions.reserve(expected);
                lookups.reserve(expected);
            }
            functions.push(function);
            lookups.push((index, lookup));
        }
    }
    let outputs = match outputs {
        Found::All(outputs) => return Ok(AllFound { repeated, outputs }),
        Found::Some(outputs) => outputs,
    };
    let (elements, positions) = match repeated {
        Some(Repeated { elements, positions }) => (elements, Some(positions)),
        None => (elements().collect(), None),
    };
    Err(Batch { elements, positions, outputs, functions, lookups })
}

/// Returns whether two elements have the same key. They are described again: the key of an element that is found stays in
/// registers.
#[cold]
#[inline(never)]
fn are_same<'e, T, F: CachedFn>(describe: &impl Fn(&'e T) -> F, one: &'e T, other: &'e T) -> bool {
    let [one, other] = [one, other].map(|element| describe(element).moved());
    matches!((one.key(), other.key()), (Ok(one), Ok(other)) if one == other)
}

/// The elements of a batch in which one that was not found directly was asked for twice.
pub(crate) struct Repeated<'e, T> {
    /// Those that were not found directly are there once.
    pub(crate) elements: Vec<&'e T>,
    /// The index in `elements` of each one that was asked for.
    pub(crate) positions: Vec<usize>,
}

impl<'e, T> Repeated<'e, T> {
    /// Creates the elements before the first that was asked for again.
    #[cold]
    fn first(elements: impl Iterator<Item = &'e T>) -> Self {
        let elements: Vec<_> = elements.collect();
        Self { positions: (0..elements.len()).collect(), elements }
    }

    /// Adds an element that was not asked for before.
    fn add(&mut self, element: &'e T) {
        self.positions.push(self.elements.len());
        self.elements.push(element);
    }

    /// Adds the element at an earlier position again.
    fn add_again(&mut self, earlier: usize) {
        self.positions.push(self.positions[earlier]);
    }
}

/// Returns the elements that a lookup did not find, what is left of their calls, and their frames.
pub(super) fn missing<F: CachedFn>(
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

/// Reads the generations and the backend, as far as the lookup could not. Returns the elements that were not found then: none of
/// them has anything to read.
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
    let to_read = reads.iter().filter(|read| !read.begun.has_timed_out);
    let keys: Vec<&Key> = to_read.map(|read| key_of(read.place)).collect();
    let mut results = engine.read_many::<M>(&keys).await.into_iter();
    for read in reads {
        let result = if read.begun.has_timed_out { None } else { results.next() };
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

/// Reads the records of calls.
pub(super) async fn read_many<M: Io, B: Backend>(
    engine: &Engine<B>,
    calls: &[&UntypedCall<'_, B>],
) -> Vec<Option<Record<B::Stored>>> {
    let keys: Vec<&Key> =
        calls.iter().filter(|call| !call.has_timed_out()).map(|call| call.key).collect();
    let mut results = engine.read_many::<M>(&keys).await.into_iter();
    let record = |call: &&UntypedCall<'_, B>| {
        let result = if call.has_timed_out() { None } else { results.next() };
        record_of(call, result)
    };
    calls.iter().map(record).collect()
}

/// Returns the record of a call from the result of its read, which it does not have if it has timed out before, or if the
/// backend has returned too few results.
fn record_of<B: Backend>(
    call: &UntypedCall<'_, B>,
    result: Option<Result<Option<Record<B::Stored>>>>,
) -> Option<Record<B::Stored>> {
    let record = call.ok_or_count(result.unwrap_or(Ok(None)));
    if call.has_timed_out() { call.read_offline() } else { record.flatten() }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;
    use crate::Cache;
    use crate::io::{Blocking, run_blocking};
    use crate::serializer::{AnyValue, ByReference};
    use crate::testing::MapBackend;

    #[test]
    fn elements_of_one_moment_have_the_stamps_of_their_own_prefixes_and_tags() {
        let cache = Cache::<_, ByReference>::with_backend(MapBackend::<AnyValue>::default());
        cache.invalidate_prefix("one").expect("it is invalidated");
        let (engine, flags) = (cache.engine(), cache.engine().flags());
        let prefixes = ["one", "other"].map(Prefix::from);
        let stamps = prefixes
            .each_ref()
            .map(|prefix| run_blocking(engine.stamp::<Blocking>(prefix, &[])).expect("it is made"));
        assert_ne!(stamps[0], stamps[1]);
        let mut moment = SameMoment::new(engine);
        for _ in 0..2 {
            for (prefix, stamp) in prefixes.iter().zip(stamps) {
                assert_eq!(moment.stamp(engine, flags, prefix, &[]), Some(stamp));
                assert_eq!(moment.stamp(engine, flags, prefix, &[Group::ALL]), None, "not made");
            }
        }
    }
}

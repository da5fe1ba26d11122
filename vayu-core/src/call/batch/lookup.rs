//! The lookup of the elements of a batch, as far as nothing has to be waited for. What follows it is in
//! [`resume`](super::resume).

use crate::backend::Backend;
use crate::cache::{Engine, Flags};
use crate::call::batch::distinct::Distinct;
use crate::call::batch::found::Found;
use crate::call::lookup::{Lookup, Moment, begin_apart, serve_directly};
use crate::call::{CachedFn, FnOutput};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::generation::Group;
use crate::key::{Prefix, PrefixSeed};

/// The number of elements that are looked up or decoded at one time: reading the clock takes a noticeable part of a lookup.
pub(super) const SAME_TIME: usize = 32;

/// The number of missing elements for which space is reserved at the first one.
const MISSING_AT_ONCE: usize = 256;

/// The elements of a batch that were all found.
pub(crate) struct AllFound<'e, T, V> {
    /// The elements that were asked for, if one was asked for twice.
    pub(crate) repeated: Option<Repeated<'e, T>>,
    /// The output of each element.
    pub(crate) outputs: Vec<V>,
}

/// The error of [`look_up`]: the elements of a batch, of which at least one is still to be read or computed.
pub(crate) struct Batch<'e, T, F: FnOutput> {
    /// The elements in the order in which they were asked for, each once.
    pub(crate) elements: Vec<&'e T>,
    /// The index in `elements` of each one that was asked for. `None` if none was asked for twice.
    pub(crate) positions: Option<Vec<usize>>,
    /// The output of each element, if it was found.
    pub(crate) outputs: Vec<Option<F::Output>>,
    /// The calls of the elements that were not found.
    pub(crate) functions: Vec<F>,
    /// The index in `elements` of each of these, and the rest of its call.
    pub(crate) lookups: Vec<(usize, Lookup<F::Output>)>,
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
    fn time(&self) -> Timestamp {
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

/// Looks up elements, as far as nothing has to be waited for.
///
/// `elements` returns those that were asked for. It is called several times, and must return the same elements in the same order
/// each time. If they `are_distinct`, none of them is there twice. `describe` returns the call of an element. It is called again
/// for elements that may be equal, so it must have no effect.
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
    let mut distinct = (!are_distinct).then(|| Distinct::new(count));
    let mut repeated: Option<Repeated<'e, T>> = None;
    let mut outputs = Found::with_capacity(count);
    let (mut functions, mut lookups) = (Vec::new(), Vec::new());
    for begin in (0..count).step_by(SAME_TIME) {
        let mut moment = SameMoment::new(engine);
        for (position, element) in (begin..).zip(left.by_ref().take(SAME_TIME)) {
            let (index, mut function) = (outputs.len(), describe(element));
            if let Some(distinct) = &mut distinct
                && let Ok(key) = function.key()
                && let hash = key.hash_code()
                && !distinct.add(hash)
                && let Some(earlier) = add_or_find(distinct, (position, hash), &elements, &describe)
            {
                function.clear();
                let first = || Repeated::first(elements().take(position));
                repeated.get_or_insert_with(first).add_again(earlier);
                continue;
            }
            if let Some(repeated) = &mut repeated {
                repeated.add(element);
            }
            let begun = match serve_directly(engine, &function, &mut moment) {
                Ok(output) => {
                    function.clear();
                    outputs.push(output);
                    continue;
                }
                Err(begun) => begun,
            };
            let function = function.moved();
            let lookup = match begin_apart(engine, &function, begun) {
                Ok(output) => {
                    outputs.push(output);
                    continue;
                }
                Err(lookup) => lookup,
            };
            outputs.push_missing(count);
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

/// Adds an element that may have been asked for before. Returns the position of an earlier one with the same key instead,
/// if there is one. The elements are described again, so no key is kept to compare with: that of an element that is found
/// stays in registers.
#[cold]
#[inline(never)]
fn add_or_find<'e, T: 'e, F: CachedFn, I: ExactSizeIterator<Item = &'e T>>(
    distinct: &mut Distinct,
    (position, hash): (usize, u64),
    elements: &impl Fn() -> I,
    describe: &impl Fn(&'e T) -> F,
) -> Option<usize> {
    let hashes = || {
        let hash = |(position, element)| {
            let function = describe(element).moved();
            Some((position, function.key().ok()?.hash_code()))
        };
        elements().take(position).enumerate().filter_map(hash)
    };
    let is_same = |one: usize, other: usize| {
        let [one, other] = [one, other].map(|at| elements().nth(at).map(|it| describe(it).moved()));
        let [Some(one), Some(other)] = [&one, &other] else { return false };
        matches!((one.key(), other.key()), (Ok(one), Ok(other)) if one == other)
    };
    distinct.add_or_find((position, hash), hashes, is_same)
}

/// The elements of a batch in which one was asked for twice.
pub(crate) struct Repeated<'e, T> {
    /// Each once.
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

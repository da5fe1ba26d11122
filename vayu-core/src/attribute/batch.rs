//! Batch functions: the collection of the elements, the output, and the call.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::future::{Future, ready};
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::sync::Arc;

#[cfg(feature = "indexmap")]
use indexmap::{IndexMap, IndexSet};

use crate::attribute::candidate::{Candidate, Chosen, Other};
use crate::attribute::output::Probe;
use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::batch::{self, Batch, Body, Unusable, compute};
use crate::call::{CachedFn, OutputShape, PlainOutput};
use crate::io::{Awaiting, Blocking, run_blocking};

/// A collection whose elements have an entry each.
pub trait Elements {
    /// The type of an element.
    type Element: Clone;
    /// The collection that the function is run with.
    type Owned;
    /// `true` if no element is in the collection twice.
    const ARE_DISTINCT: bool;
    /// `true` if collections of the same elements have the same order.
    const IS_ORDERED: bool = true;

    /// Returns the elements, in the order of the collection.
    fn elements(&self) -> impl ExactSizeIterator<Item = &Self::Element>;

    /// Creates the collection of some of the elements.
    fn collect(elements: impl Iterator<Item = Self::Element>) -> Self::Owned;

    /// Borrows the collection.
    fn lend(owned: &Self::Owned) -> &Self;
}

impl<T: Clone> Elements for [T] {
    type Element = T;
    type Owned = Vec<T>;
    const ARE_DISTINCT: bool = false;

    #[inline]
    fn elements(&self) -> impl ExactSizeIterator<Item = &T> {
        self.iter()
    }

    fn collect(elements: impl Iterator<Item = T>) -> Vec<T> {
        elements.collect()
    }

    fn lend(owned: &Vec<T>) -> &[T] {
        owned
    }
}

macro_rules! collections {
    ($(($collection:ty, [$($bounds:tt)*], $are_distinct:literal, $is_ordered:literal),)*) => {$(
        impl<T: Clone, $($bounds)*> Elements for $collection
        where
            Self: FromIterator<T>,
        {
            type Element = T;
            type Owned = Self;
            const ARE_DISTINCT: bool = $are_distinct;
            const IS_ORDERED: bool = $is_ordered;

            #[inline]
            fn elements(&self) -> impl ExactSizeIterator<Item = &T> {
                self.iter()
            }

            fn collect(elements: impl Iterator<Item = T>) -> Self {
                elements.collect()
            }

            fn lend(owned: &Self) -> &Self {
                owned
            }
        }
    )*};
}

collections! {
    (Vec<T>, [], false, true),
    (Box<[T]>, [], false, true),
    (Arc<[T]>, [], false, true),
    (HashSet<T, S>, [S], true, false),
    (BTreeSet<T>, [], true, true),
}

#[cfg(feature = "indexmap")]
collections! {
    (IndexSet<T, S>, [S], true, true),
}

/// A collection that can be the argument `each`. The rest of an expansion uses `Checked`, which is an error that is
/// reported once: see [`Candidate`].
#[diagnostic::on_unimplemented(
    message = "`each` needs a collection, and `{Self}` is not one",
    label = "not a collection of elements that are `Clone`",
    note = "take `&[T]`, `Vec<T>`, `HashSet<T>` or `BTreeSet<T>`, where `T` is `Clone`"
)]
pub trait EachIn<M> {
    /// The collection itself.
    type Checked: ?Sized;

    /// Returns the collection of a call.
    fn each(&self) -> Each<'_, Self::Checked>;
}

#[diagnostic::do_not_recommend]
impl<C: Elements + ?Sized> EachIn<Chosen> for C {
    type Checked = C;

    #[inline]
    fn each(&self) -> Each<'_, C> {
        Each(self)
    }
}

#[diagnostic::do_not_recommend]
impl<C: ?Sized> EachIn<Other> for C
where
    Other: Candidate<C>,
{
    type Checked = C;

    fn each(&self) -> Each<'_, C> {
        Each(self)
    }
}

/// The collection of a call.
#[derive(Debug)]
pub struct Each<'e, C: ?Sized>(&'e C);

impl<C: ?Sized> Clone for Each<'_, C> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: ?Sized> Copy for Each<'_, C> {}

/// Returns the collection of a call of a test.
#[cfg(test)]
pub(crate) fn each<C: ?Sized>(elements: &C) -> Each<'_, C> {
    Each(elements)
}

/// Returns the type of the output of a call of a test, whose errors are not shared.
#[cfg(test)]
pub(crate) fn output_type<R, V>() -> OutputType<R, V> {
    OutputType(PhantomData, PhantomData)
}

impl<'e, C: Elements + ?Sized> Each<'e, C> {
    /// Returns an element of the collection, whose type this infers. A method, so that nothing is reported if the collection
    /// is not one.
    #[inline]
    pub fn vayu_element(self, element: &'e C::Element) -> &'e C::Element {
        element
    }

    /// Returns the type of the output of a function with this collection. A method, so that the type of an element is known
    /// when an implementation is chosen.
    #[inline]
    pub fn vayu_output<R: OutputOfEach<C::Element, M>, M>(self) -> R::Checked {
        R::output_type()
    }
}

/// Returns the body of a batch function, whose type this infers.
#[inline]
pub fn batch_body<C: Elements + ?Sized, R, D: FnMut(C::Owned) -> R>(_: Each<'_, C>, body: D) -> D {
    body
}

/// Returns the body of an async batch function, whose type this infers.
#[inline]
pub fn batch_body_async<C, R, T, D>(_: Each<'_, C>, _: PhantomData<R>, body: D) -> D
where
    C: Elements + ?Sized,
    T: Future<Output = R>,
    D: FnMut(C::Owned) -> T,
{
    body
}

/// Borrows the collection that a function is run with.
#[inline]
pub fn lend<'r, C: Elements + ?Sized>(_: Each<'_, C>, owned: &'r C::Owned) -> &'r C {
    C::lend(owned)
}

/// An output that has a value for each element of type `T`.
pub trait BatchOutput<T>: Sized {
    /// The value of one element.
    type Value;
    /// `true` if the values are assigned to the elements by their order.
    const IS_BY_ORDER: bool = false;

    /// Returns the value of each element, in the same order; `None` for those that have none.
    ///
    /// # Errors
    ///
    /// The output itself, if it has no values of elements.
    fn split(self, elements: &[&T]) -> Result<Vec<Option<Self::Value>>, Unusable<Self>>;

    /// Creates the output of a call from the elements that were asked for, and their values.
    fn join(outputs: Outputs<'_, T, Self::Value>) -> Self;
}

/// The values of the elements of a call.
#[derive(Debug)]
pub struct Outputs<'e, T, V> {
    elements: Vec<&'e T>,
    positions: Option<Vec<usize>>,
    values: Vec<Option<V>>,
}

impl<'e, T, V> Outputs<'e, T, V> {
    /// Returns the elements that have a value, each once.
    fn pairs(self) -> impl Iterator<Item = (&'e T, V)> {
        self.elements.into_iter().zip(self.values).filter_map(|(it, value)| Some((it, value?)))
    }
}

/// The key of a map for an element.
pub trait MapKey<T> {
    /// Returns the key.
    fn of(element: &T) -> Self;
}

impl<T: Clone> MapKey<T> for T {
    #[inline]
    fn of(element: &T) -> T {
        element.clone()
    }
}

impl MapKey<&str> for String {
    fn of(element: &&str) -> Self {
        (*element).to_owned()
    }
}

impl<T, K: MapKey<T> + Eq + Hash, V, S: BuildHasher + Default> BatchOutput<T> for HashMap<K, V, S> {
    type Value = V;

    fn split(mut self, elements: &[&T]) -> Result<Vec<Option<V>>, Unusable<Self>> {
        Ok(elements.iter().map(|element| self.remove(&K::of(element))).collect())
    }

    fn join(outputs: Outputs<'_, T, V>) -> Self {
        let mut map = Self::with_capacity_and_hasher(outputs.elements.len(), S::default());
        map.extend(outputs.pairs().map(|(element, value)| (K::of(element), value)));
        map
    }
}

impl<T, K: MapKey<T> + Ord, V> BatchOutput<T> for BTreeMap<K, V> {
    type Value = V;

    fn split(mut self, elements: &[&T]) -> Result<Vec<Option<V>>, Unusable<Self>> {
        Ok(elements.iter().map(|element| self.remove(&K::of(element))).collect())
    }

    fn join(outputs: Outputs<'_, T, V>) -> Self {
        outputs.pairs().map(|(element, value)| (K::of(element), value)).collect()
    }
}

/// The values of a call are in the order of its elements.
#[cfg(feature = "indexmap")]
impl<T, K: MapKey<T> + Eq + Hash, V, S: BuildHasher + Default> BatchOutput<T>
    for IndexMap<K, V, S>
{
    type Value = V;

    fn split(mut self, elements: &[&T]) -> Result<Vec<Option<V>>, Unusable<Self>> {
        Ok(elements.iter().map(|element| self.swap_remove(&K::of(element))).collect())
    }

    fn join(outputs: Outputs<'_, T, V>) -> Self {
        outputs.pairs().map(|(element, value)| (K::of(element), value)).collect()
    }
}

/// The values are in the order of the elements.
impl<T, V: Clone> BatchOutput<T> for Vec<V> {
    type Value = V;
    const IS_BY_ORDER: bool = true;

    fn split(self, elements: &[&T]) -> Result<Vec<Option<V>>, Unusable<Self>> {
        let (wanted, found) = (elements.len(), self.len());
        if wanted != found {
            return Err(Unusable::Unpaired { output: self, wanted, found });
        }
        Ok(self.into_iter().map(Some).collect())
    }

    fn join(outputs: Outputs<'_, T, V>) -> Self {
        let values = outputs.values;
        match outputs.positions {
            None => values.into_iter().flatten().collect(),
            Some(positions) => {
                positions.into_iter().filter_map(|position| values[position].clone()).collect()
            }
        }
    }
}

impl<T, O: BatchOutput<T>, E> BatchOutput<T> for Result<O, E> {
    type Value = O::Value;
    const IS_BY_ORDER: bool = O::IS_BY_ORDER;

    fn split(self, elements: &[&T]) -> Result<Vec<Option<O::Value>>, Unusable<Self>> {
        let output = self.map_err(|error| Unusable::Failed(Err(error)))?;
        output.split(elements).map_err(|unusable| match unusable {
            Unusable::Failed(output) => Unusable::Failed(Ok(output)),
            Unusable::Unpaired { output, wanted, found } => {
                Unusable::Unpaired { output: Ok(output), wanted, found }
            }
        })
    }

    fn join(outputs: Outputs<'_, T, O::Value>) -> Self {
        Ok(O::join(outputs))
    }
}

/// An output of a batch function. The rest of an expansion uses `Checked`, which is an error that is reported once: see
/// [`Candidate`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the output of a function with `each`",
    label = "has no value for each element",
    note = "return a `HashMap` or a `BTreeMap` from the element to its value, or a `Vec` of values that are `Clone`, in \
            the order of the elements; or a `Result` of one"
)]
pub trait OutputOfEach<T, M> {
    /// The type of the output, an [`OutputType`].
    type Checked;

    /// Returns the type of the output.
    fn output_type() -> Self::Checked;
}

/// The type of an output, that of the value of one element, and the shape of the output.
#[derive(Debug)]
pub struct OutputType<R, V, H = PlainOutput<R>>(
    PhantomData<fn() -> (R, V)>,
    PhantomData<fn() -> H>,
);

impl<R, V> OutputType<R, V> {
    /// Returns a probe for the shape of the value of one element.
    #[inline]
    pub fn vayu_probe<const SHARED: bool>(&self) -> Probe<V, SHARED> {
        Probe::new()
    }

    /// Returns a probe for the shape of the whole output.
    #[inline]
    pub fn vayu_whole_probe<const SHARED: bool>(&self) -> Probe<R, SHARED> {
        Probe::new()
    }

    /// Sets the shape of the whole output.
    #[inline]
    pub fn vayu_shaped<H: OutputShape<Output = R>>(self, _: H) -> OutputType<R, V, H> {
        OutputType(PhantomData, PhantomData)
    }
}

#[diagnostic::do_not_recommend]
impl<T, R: BatchOutput<T>> OutputOfEach<T, Chosen> for R {
    type Checked = OutputType<R, R::Value>;

    #[inline]
    fn output_type() -> Self::Checked {
        OutputType(PhantomData, PhantomData)
    }
}

#[diagnostic::do_not_recommend]
impl<T, R> OutputOfEach<T, Other> for R
where
    Other: Candidate<(T, R)>,
{
    type Checked = OutputType<R, R>;

    fn output_type() -> Self::Checked {
        OutputType(PhantomData, PhantomData)
    }
}

/// Returns the elements with these indices.
fn select<'e, T>(elements: &[&'e T], indices: &[usize]) -> Vec<&'e T> {
    indices.iter().map(|&index| elements[index]).collect()
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
    /// Runs a call of a sync batch function. `describe` returns the call of one element.
    #[inline]
    pub fn vayu_call<'e, B, S, C, F, D>(
        self,
        cache: &Cache<B, S>,
        each: Each<'e, C>,
        at_most: usize,
        describe: impl Fn(&'e C::Element) -> F,
        mut body: D,
    ) -> R
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        D: FnMut(C::Owned) -> R,
    {
        const { assert_order::<C, C::Element, R>() };
        let (engine, asked) = (cache.engine(), each.0.elements());
        let count = asked.len();
        let batch = batch::look_up(engine, asked, C::ARE_DISTINCT, describe);
        let Batch { elements, positions, mut outputs, missing } = batch;
        if !missing.is_empty() {
            let mut run = Body::<_, H>::new(|indices: Vec<usize>| {
                let selected = select(&elements, &indices);
                let output = body(C::collect(selected.iter().map(|&element| element.clone())));
                ready(output.split(&selected))
            });
            let computed =
                compute::<Blocking, _, _, _>(engine, missing, &mut outputs, at_most, &mut run);
            match run_blocking(computed) {
                Ok(()) => {}
                Err(Unusable::Failed(output)) => return output,
                Err(Unusable::Unpaired { output, wanted, .. }) if wanted == count => return output,
                Err(Unusable::Unpaired { .. }) => {
                    return body(C::collect(each.0.elements().cloned()));
                }
            }
        }
        R::join(Outputs { elements, positions, values: outputs })
    }

    /// Runs a call of an async batch function. `describe` returns the call of one element.
    pub async fn vayu_call_async<'e, B, S, C, F, T, D>(
        self,
        cache: &Cache<B, S>,
        each: Each<'e, C>,
        at_most: usize,
        describe: impl Fn(&'e C::Element) -> F,
        mut body: D,
    ) -> R
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        T: Future<Output = R>,
        D: FnMut(C::Owned) -> T,
    {
        const { assert_order::<C, C::Element, R>() };
        let engine = cache.engine();
        let count = each.0.elements().len();
        let batch = batch::look_up(engine, each.0.elements(), C::ARE_DISTINCT, describe);
        let Batch { elements, positions, mut outputs, missing } = batch;
        if !missing.is_empty() {
            let mut run = Body::<_, H>::new(|indices: Vec<usize>| {
                let selected = select(&elements, &indices);
                let run = body(C::collect(selected.iter().map(|&element| element.clone())));
                async move { run.await.split(&selected) }
            });
            // The future of a function contains those of the calls that it awaits.
            let computed = Box::pin(compute::<Awaiting, _, _, _>(
                engine,
                missing,
                &mut outputs,
                at_most,
                &mut run,
            ));
            match computed.await {
                Ok(()) => {}
                Err(Unusable::Failed(output)) => return output,
                Err(Unusable::Unpaired { output, wanted, .. }) if wanted == count => return output,
                Err(Unusable::Unpaired { .. }) => {
                    return body(C::collect(each.0.elements().cloned())).await;
                }
            }
        }
        R::join(Outputs { elements, positions, values: outputs })
    }
}

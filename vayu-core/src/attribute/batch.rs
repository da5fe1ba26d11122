//! Batch functions: the collection of the elements, the output, and the call.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
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
use crate::call::batch::background::{self, BatchRefresh};
use crate::call::batch::{self, Batch, Body, Unusable, compute};
use crate::call::task::{SpawnableCall, spawnable_from};
use crate::call::{CachedFn, FnOutput, OutputShape, PlainOutput};
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
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the output of a function with `each`",
    label = "has no value for each element"
)]
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

/// The elements of a call, looked up as far as nothing had to be waited for.
pub struct LookedUp<'e, T, F: FnOutput>(Batch<'e, T, F>);

impl<T, F: FnOutput> fmt::Debug for LookedUp<'_, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookedUp").finish_non_exhaustive()
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
        body: D,
    ) -> R
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        D: FnMut(C::Owned) -> R,
    {
        const { assert_order::<C, C::Element, R>() };
        let batch = batch::look_up(cache.engine(), each.0.elements(), C::ARE_DISTINCT, describe);
        self.vayu_finish(cache, each, LookedUp(batch), at_most, body)
    }

    /// Finishes a call of a sync batch function.
    pub fn vayu_finish<'e, B, S, C, F, D>(
        self,
        cache: &Cache<B, S>,
        each: Each<'e, C>,
        LookedUp(batch): LookedUp<'e, C::Element, F>,
        at_most: usize,
        mut body: D,
    ) -> R
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        D: FnMut(C::Owned) -> R,
    {
        let (engine, count) = (cache.engine(), each.0.elements().len());
        let Batch { elements, positions, mut outputs, functions, lookups } = batch;
        if !lookups.is_empty() {
            let mut run = Body::<_, H>::new(|indices: Vec<usize>| {
                let selected = select(&elements, &indices);
                let output = body(C::collect(selected.iter().map(|&element| element.clone())));
                ready(output.split(&selected))
            });
            let computed = compute::<Blocking, _, _, _>(
                engine,
                &functions,
                lookups,
                &mut outputs,
                at_most,
                &mut run,
                None,
            );
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
        body: D,
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
        let batch = batch::look_up(cache.engine(), each.0.elements(), C::ARE_DISTINCT, describe);
        self.vayu_finish_async(cache, each, LookedUp(batch), at_most, body).await
    }

    /// Finishes a call of an async batch function.
    pub async fn vayu_finish_async<'e, B, S, C, F, T, D>(
        self,
        cache: &Cache<B, S>,
        each: Each<'e, C>,
        LookedUp(batch): LookedUp<'e, C::Element, F>,
        at_most: usize,
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
        let (engine, count) = (cache.engine(), each.0.elements().len());
        let Batch { elements, positions, mut outputs, functions, lookups } = batch;
        if !lookups.is_empty() {
            let mut run = Body::<_, H>::new(|indices: Vec<usize>| {
                let selected = select(&elements, &indices);
                let run = body(C::collect(selected.iter().map(|&element| element.clone())));
                async move { run.await.split(&selected) }
            });
            // The future of a function contains those of the calls that it awaits.
            let computed = Box::pin(compute::<Awaiting, _, _, _>(
                engine,
                &functions,
                lookups,
                &mut outputs,
                at_most,
                &mut run,
                None,
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

/// Creates the body of runs that own their elements. A macro, since the future of a run has no name, and the compiler has to see
/// that it is `Send`.
macro_rules! owned_body {
    ($collection:ty, $elements:expr, $body:expr) => {{
        let (elements, mut body): (Vec<<$collection as Elements>::Element>, _) = ($elements, $body);
        Body::<_, H>::new(move |indices: Vec<usize>| {
            let selected: Vec<_> =
                indices.into_iter().map(|index| elements[index].clone()).collect();
            let run = body(<$collection>::collect(selected.iter().cloned()));
            async move {
                let output: R = run.await;
                output.split(&selected.iter().collect::<Vec<_>>())
            }
        })
    }};
}

/// The calls of functions with `spawn`.
impl<R, V, H: OutputShape<Output = R>> OutputType<R, V, H> {
    /// Looks up a call. `describe` returns the call of one element, which outlives this one.
    ///
    /// # Errors
    ///
    /// The rest of the call, unless all elements were found.
    pub fn vayu_look_up<'e, B, S, C, F>(
        &self,
        cache: &Cache<B, S>,
        each: Each<'e, C>,
        describe: impl Fn(&'e C::Element) -> F,
    ) -> Result<R, LookedUp<'e, C::Element, F>>
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
    {
        const { assert_order::<C, C::Element, R>() };
        let batch = batch::look_up(cache.engine(), each.0.elements(), C::ARE_DISTINCT, describe);
        if !batch.lookups.is_empty() {
            return Err(LookedUp(batch));
        }
        let Batch { elements, positions, outputs: values, .. } = batch;
        Ok(R::join(Outputs { elements, positions, values }))
    }

    /// Returns the task that refreshes elements.
    pub fn vayu_task_of<B, S, C, F, T, D>(
        &self,
        cache: &Cache<B, S>,
        _: Each<'_, C>,
        refresh: BatchRefresh<C::Element, F>,
        at_most: usize,
        body: D,
    ) -> impl Future<Output = ()> + use<R, V, H, B, S, C, F, T, D>
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        T: Future<Output = R>,
        D: FnMut(C::Owned) -> T,
    {
        let (elements, refresh) = refresh.into_parts();
        let body = owned_body!(C, elements, body);
        background::task(cache.engine().clone(), refresh, at_most, body)
    }

    /// Returns the closure that refreshes elements.
    pub fn vayu_job_of<B, S, C, F, D>(
        &self,
        cache: &Cache<B, S>,
        _: Each<'_, C>,
        refresh: BatchRefresh<C::Element, F>,
        at_most: usize,
        mut body: D,
    ) -> impl FnOnce() + use<R, V, H, B, S, C, F, D>
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        D: FnMut(C::Owned) -> R,
    {
        let (elements, refresh) = refresh.into_parts();
        let body = move |elements| ready(body(elements));
        let body = owned_body!(C, elements, body);
        background::job(cache.engine().clone(), refresh, at_most, body)
    }

    /// Creates the rest of a call whose computation may move to a task, for [`run_spawning`](super::run_spawning). What it
    /// returns is for [`vayu_joined`](Self::vayu_joined), with the elements.
    pub fn vayu_spawnable<'e, B, S, C, F, T, D>(
        &self,
        cache: &Cache<B, S>,
        _: Each<'e, C>,
        LookedUp(batch): LookedUp<'e, C::Element, F>,
        at_most: usize,
        body: D,
    ) -> (Asked<'e, C::Element>, SpawnableCall<impl Computing<R, V> + use<R, V, H, B, S, C, F, T, D>>)
    where
        B: Backend,
        C: Elements + ?Sized,
        F: CachedFn<Output = V, Stored = B::Stored>,
        R: BatchOutput<C::Element, Value = V>,
        T: Future<Output = R>,
        D: FnMut(C::Owned) -> T,
    {
        let Batch { elements, positions, mut outputs, functions, lookups } = batch;
        let owned: Vec<C::Element> = elements.iter().map(|&element| element.clone()).collect();
        let asked = positions.clone();
        let prefix =
            functions.first().and_then(|function| Some(function.key().ok()?.prefix().clone()));
        let (engine, mut body) = (cache.engine().clone(), body);
        let call = spawnable_from(prefix, move |start| async move {
            let count = asked.as_ref().map_or(owned.len(), Vec::len);
            let mut run = owned_body!(C, owned.clone(), |elements| body(elements));
            let computed = compute::<Awaiting, _, _, _>(
                &engine,
                &functions,
                lookups,
                &mut outputs,
                at_most,
                &mut run,
                Some(start),
            );
            match computed.await {
                Ok(()) => return Ok(outputs),
                Err(Unusable::Failed(output)) => return Err(output),
                Err(Unusable::Unpaired { output, wanted, .. }) if wanted == count => {
                    return Err(output);
                }
                Err(Unusable::Unpaired { .. }) => {}
            }
            drop(run);
            let all = match asked {
                None => owned,
                Some(asked) => asked.into_iter().map(|index| owned[index].clone()).collect(),
            };
            Err(body(C::collect(all.into_iter())).await)
        });
        (Asked { elements, positions }, call)
    }

    /// Returns the output of a call from what its computation has returned.
    pub fn vayu_joined<T>(&self, asked: Asked<'_, T>, computed: Result<Vec<Option<V>>, R>) -> R
    where
        R: BatchOutput<T, Value = V>,
    {
        let Asked { elements, positions } = asked;
        match computed {
            Ok(values) => R::join(Outputs { elements, positions, values }),
            Err(output) => output,
        }
    }
}

impl<T: Clone, F: FnOutput> LookedUp<'_, T, F> {
    /// Reads what the lookup could not. Elements past their ttl get the old value, and the refresh of them is returned, as far
    /// as it begins.
    pub fn vayu_serve_stale<B: Backend, S>(
        &mut self,
        cache: &Cache<B, S>,
    ) -> Option<BatchRefresh<T, F>>
    where
        F: CachedFn<Stored = B::Stored>,
    {
        run_blocking(background::serve_stale::<Blocking, B, T, F>(cache.engine(), &mut self.0))
    }

    /// [`vayu_serve_stale`](Self::vayu_serve_stale) for async callers.
    pub async fn vayu_serve_stale_async<B: Backend, S>(
        &mut self,
        cache: &Cache<B, S>,
    ) -> Option<BatchRefresh<T, F>>
    where
        F: CachedFn<Stored = B::Stored>,
    {
        Box::pin(background::serve_stale::<Awaiting, B, T, F>(cache.engine(), &mut self.0)).await
    }
}

/// The elements of a call, each once.
#[derive(Debug)]
pub struct Asked<'e, T> {
    elements: Vec<&'e T>,
    positions: Option<Vec<usize>>,
}

/// The computation of a call. It returns the values of the elements, or else the whole output.
pub trait Computing<R, V>: Future<Output = Result<Vec<Option<V>>, R>> {}

impl<R, V, T: Future<Output = Result<Vec<Option<V>>, R>>> Computing<R, V> for T {}

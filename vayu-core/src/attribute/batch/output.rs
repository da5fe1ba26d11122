//! The output of a batch function: the values of its elements.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;

#[cfg(feature = "indexmap")]
use indexmap::IndexMap;

use crate::attribute::candidate::{Candidate, Chosen, Other};
use crate::attribute::output::Probe;
use crate::call::batch::{Found, Unusable};

/// An output that has values of elements, whose type is that of the output alone. So the signature of a handle does not name the
/// type of the elements, which may have elided lifetimes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the output of a function with `each`",
    label = "has no value for each element"
)]
pub trait ElementValue {
    /// The value of one element.
    type Value;
}

/// An output that has a value for each element of type `T`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not the output of a function with `each`",
    label = "has no value for each element"
)]
pub trait BatchOutput<T>: ElementValue + Sized {
    /// `true` if the values are assigned to the elements by their order.
    const IS_BY_ORDER: bool = false;

    /// Returns the value of each element, in the same order; `None` for those that have none.
    ///
    /// # Errors
    ///
    /// The output itself, if it has no values of elements.
    fn split(self, elements: &[&T]) -> Result<Vec<Option<Self::Value>>, Unusable<Self>>;

    /// Creates the output of a call from the elements that were asked for, and their values.
    fn join<'e>(outputs: Outputs<Self::Value, impl FnOnce() -> Vec<&'e T>>) -> Self
    where
        T: 'e;
}

/// The values of the elements of a call.
#[derive(Debug)]
pub struct Outputs<V, E> {
    /// Returns the elements, each once.
    pub(super) elements: E,
    /// The index of each element that was asked for, if one was asked for twice.
    pub(super) positions: Option<Vec<usize>>,
    pub(super) values: Found<V>,
}

impl<V, E> Outputs<V, E> {
    /// Returns the elements that have a value, each once.
    fn pairs<'e, T>(self) -> impl Iterator<Item = (&'e T, V)>
    where
        T: 'e,
        E: FnOnce() -> Vec<&'e T>,
    {
        let pairs = (self.elements)().into_iter().zip(self.values.into_iter());
        pairs.filter_map(|(it, value)| Some((it, value?)))
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

impl<K, V, S> ElementValue for HashMap<K, V, S> {
    type Value = V;
}

impl<T, K: MapKey<T> + Eq + Hash, V, S: BuildHasher + Default> BatchOutput<T> for HashMap<K, V, S> {
    fn split(mut self, elements: &[&T]) -> Result<Vec<Option<V>>, Unusable<Self>> {
        Ok(elements.iter().map(|element| self.remove(&K::of(element))).collect())
    }

    fn join<'e>(outputs: Outputs<V, impl FnOnce() -> Vec<&'e T>>) -> Self
    where
        T: 'e,
    {
        let mut map = Self::with_capacity_and_hasher(outputs.values.len(), S::default());
        map.extend(outputs.pairs().map(|(element, value)| (K::of(element), value)));
        map
    }
}

impl<K, V> ElementValue for BTreeMap<K, V> {
    type Value = V;
}

impl<T, K: MapKey<T> + Ord, V> BatchOutput<T> for BTreeMap<K, V> {
    fn split(mut self, elements: &[&T]) -> Result<Vec<Option<V>>, Unusable<Self>> {
        Ok(elements.iter().map(|element| self.remove(&K::of(element))).collect())
    }

    fn join<'e>(outputs: Outputs<V, impl FnOnce() -> Vec<&'e T>>) -> Self
    where
        T: 'e,
    {
        outputs.pairs().map(|(element, value)| (K::of(element), value)).collect()
    }
}

#[cfg(feature = "indexmap")]
impl<K, V, S> ElementValue for IndexMap<K, V, S> {
    type Value = V;
}

/// The values of a call are in the order of its elements.
#[cfg(feature = "indexmap")]
impl<T, K: MapKey<T> + Eq + Hash, V, S: BuildHasher + Default> BatchOutput<T>
    for IndexMap<K, V, S>
{
    fn split(mut self, elements: &[&T]) -> Result<Vec<Option<V>>, Unusable<Self>> {
        Ok(elements.iter().map(|element| self.swap_remove(&K::of(element))).collect())
    }

    fn join<'e>(outputs: Outputs<V, impl FnOnce() -> Vec<&'e T>>) -> Self
    where
        T: 'e,
    {
        outputs.pairs().map(|(element, value)| (K::of(element), value)).collect()
    }
}

impl<V> ElementValue for Vec<V> {
    type Value = V;
}

/// The values are in the order of the elements.
impl<T, V: Clone> BatchOutput<T> for Vec<V> {
    const IS_BY_ORDER: bool = true;

    fn split(self, elements: &[&T]) -> Result<Vec<Option<V>>, Unusable<Self>> {
        let (wanted, found) = (elements.len(), self.len());
        if wanted != found {
            return Err(Unusable::Unpaired { output: self, wanted, found });
        }
        Ok(self.into_iter().map(Some).collect())
    }

    fn join<'e>(outputs: Outputs<V, impl FnOnce() -> Vec<&'e T>>) -> Self
    where
        T: 'e,
    {
        match (outputs.positions, outputs.values) {
            (None, Found::All(values)) => values,
            (None, Found::Some(values)) => values.into_iter().flatten().collect(),
            (Some(positions), values) => {
                positions.into_iter().filter_map(|position| values.get(position).cloned()).collect()
            }
        }
    }
}

impl<O: ElementValue, E> ElementValue for Result<O, E> {
    type Value = O::Value;
}

impl<T, O: BatchOutput<T>, E> BatchOutput<T> for Result<O, E> {
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

    fn join<'e>(outputs: Outputs<O::Value, impl FnOnce() -> Vec<&'e T>>) -> Self
    where
        T: 'e,
    {
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

/// The type of an output, and that of the value of one element.
#[derive(Debug)]
pub struct OutputType<R, V>(PhantomData<fn() -> (R, V)>);

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
}

#[diagnostic::do_not_recommend]
impl<T, R: BatchOutput<T>> OutputOfEach<T, Chosen> for R {
    type Checked = OutputType<R, R::Value>;

    #[inline]
    fn output_type() -> Self::Checked {
        OutputType(PhantomData)
    }
}

#[diagnostic::do_not_recommend]
impl<T, R> OutputOfEach<T, Other> for R
where
    Other: Candidate<(T, R)>,
{
    type Checked = OutputType<R, R>;

    fn output_type() -> Self::Checked {
        OutputType(PhantomData)
    }
}

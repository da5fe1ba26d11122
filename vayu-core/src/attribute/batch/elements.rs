//! The argument `each`: the collection of the elements.

use std::collections::{BTreeSet, HashSet};
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

#[cfg(feature = "indexmap")]
use indexmap::IndexSet;

use super::BatchCall;
use super::output::OutputOfEach;
use crate::attribute::candidate::{Candidate, Chosen, Other};

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
pub struct Each<'e, C: ?Sized>(pub(super) &'e C);

impl<C: ?Sized> Clone for Each<'_, C> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<C: ?Sized> Copy for Each<'_, C> {}

impl<'e, C: Elements + ?Sized> Each<'e, C> {
    /// Returns an element of the collection, whose type this infers. A method, so that nothing is reported if the collection
    /// is not one.
    #[inline]
    pub fn vayu_element(self, element: &'e C::Element) -> &'e C::Element {
        element
    }

    /// Returns the call of a function with this collection, whose output has the shape `H`. It is run with `at_most` elements
    /// at a time. A method, so that nothing is reported if the output is not one of a batch function.
    #[inline]
    pub fn vayu_batch<H>(self, _shape: H, at_most: usize) -> BatchCall<'e, C, H> {
        BatchCall::new(self.0, at_most)
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

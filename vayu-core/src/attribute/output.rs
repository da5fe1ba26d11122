//! The shape of an output, found by its type.

use std::future::Future;
use std::marker::PhantomData;

use crate::attribute::candidate::{Candidate, Chosen, Other};
use crate::call::{OutputShape, PlainOutput, ResultOutput, SharedResultOutput};

/// Finds the shape of an output by its type.
///
/// `vayu_shape` on a reference to a probe is, in this order, the inherent method, for a `Result` whose error
/// can be shared; that of [`ResultShape`] or [`FutureShape`]; or that of [`PlainShape`], which takes one
/// more reference. Method resolution does not see lifetimes, so the error of a `SHARED` probe must be
/// `'static` if it has the other properties.
#[derive(Debug)]
pub struct Probe<R, const SHARED: bool>(PhantomData<fn() -> R>);

impl<R, const SHARED: bool> Probe<R, SHARED> {
    /// Creates a probe for outputs of this type.
    #[expect(clippy::new_without_default, reason = "named by expansions only")]
    #[inline]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T, E: Clone + Send + Sync + 'static> Probe<Result<T, E>, true> {
    /// Returns the shape of a `Result` whose error can be shared.
    #[inline]
    pub fn vayu_shape(&self) -> SharedResultOutput<T, E> {
        SharedResultOutput::new()
    }
}

/// The shape of any other `Result`.
pub trait ResultShape<T, E> {
    /// Returns the shape.
    fn vayu_shape(&self) -> ResultOutput<T, E>;
}

impl<T, E, const SHARED: bool> ResultShape<T, E> for Probe<Result<T, E>, SHARED> {
    #[inline]
    fn vayu_shape(&self) -> ResultOutput<T, E> {
        ResultOutput::new()
    }
}

/// The shape of an output that is not a `Result`.
pub trait PlainShape<R> {
    /// Returns the shape.
    fn vayu_shape(&self) -> PlainOutput<R>;
}

impl<R, const SHARED: bool> PlainShape<R> for &Probe<R, SHARED> {
    #[inline]
    fn vayu_shape(&self) -> PlainOutput<R> {
        PlainOutput::new()
    }
}

/// A shape that a cached function can have: any but that of a future that is not `Clone`.
///
/// The rest of an expansion uses `Checked`, which is an error that is reported once for a future: see
/// [`Candidate`].
#[diagnostic::on_unimplemented(
    message = "this function returns a future, which cannot be cached",
    label = "a future",
    note = "write `async fn` and the type that the future returns",
    note = "a sync function may return a future that is `Clone`, which is cached as it is"
)]
pub trait KnownShape<M> {
    /// The shape itself.
    type Checked;

    /// Returns the shape.
    fn known(self) -> Self::Checked;
}

#[diagnostic::do_not_recommend]
impl<H: OutputShape> KnownShape<Chosen> for H {
    type Checked = H;

    #[inline]
    fn known(self) -> H {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<H> KnownShape<Other> for H
where
    Other: Candidate<H>,
{
    type Checked = H;

    fn known(self) -> H {
        self
    }
}

/// A future of which each caller can have a clone is a value like any other.
#[diagnostic::do_not_recommend]
impl<R: Clone> KnownShape<Shareable> for FutureOutput<R> {
    type Checked = PlainOutput<R>;

    #[inline]
    fn known(self) -> PlainOutput<R> {
        PlainOutput::new()
    }
}

/// The implementation for futures that are `Clone`.
#[derive(Debug)]
pub struct Shareable;

/// The shape of a future, which is not an [`OutputShape`].
#[derive(Debug)]
pub struct FutureOutput<R>(PhantomData<fn() -> R>);

/// The shape of a future. It has precedence over [`PlainShape`].
pub trait FutureShape<R> {
    /// Returns the shape.
    fn vayu_shape(&self) -> FutureOutput<R>;
}

impl<R: Future, const SHARED: bool> FutureShape<R> for Probe<R, SHARED> {
    #[inline]
    fn vayu_shape(&self) -> FutureOutput<R> {
        FutureOutput(PhantomData)
    }
}

//! The shape of an output, found by its type.

use std::marker::PhantomData;

use crate::call::{PlainOutput, ResultOutput};

/// Finds the shape of an output by its type.
///
/// `vayu_shape` on a probe for a `Result` is the inherent method; on any other it is that of
/// [`PlainShape`].
#[derive(Debug)]
pub struct Probe<R>(PhantomData<fn() -> R>);

impl<R> Probe<R> {
    /// Creates a probe for outputs of this type.
    #[expect(clippy::new_without_default, reason = "named by expansions only")]
    #[inline]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T, E> Probe<Result<T, E>> {
    /// Returns the shape of a `Result`.
    #[inline]
    pub fn vayu_shape(&self) -> ResultOutput<T, E> {
        ResultOutput::new()
    }
}

/// The shape of an output that is not a `Result`.
pub trait PlainShape<R> {
    /// Returns the shape.
    fn vayu_shape(&self) -> PlainOutput<R>;
}

impl<R> PlainShape<R> for Probe<R> {
    #[inline]
    fn vayu_shape(&self) -> PlainOutput<R> {
        PlainOutput::new()
    }
}

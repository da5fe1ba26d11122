//! The text of an error that is `Display`, for observers.

use std::fmt::Display;

use crate::call::{DisplayText, OutputShape, ResultOutput, SharedResultOutput};

/// Finds out whether the error of a shape is `Display`.
///
/// `vayu_shape` on a reference to a probe is the method of [`ShownError`], or else that of [`HiddenError`], which takes one
/// more reference.
#[derive(Debug)]
pub struct ErrorProbe<H>(pub H);

/// A shape whose error is `Display`.
pub trait ShownError<H> {
    /// The shape that shows it.
    type Shown: OutputShape;

    /// Returns a shape that shows it.
    fn vayu_shape(&self) -> Self::Shown;
}

impl<T, E: Display> ShownError<ResultOutput<T, E>> for ErrorProbe<ResultOutput<T, E>> {
    type Shown = ResultOutput<T, E, DisplayText>;

    #[inline]
    fn vayu_shape(&self) -> Self::Shown {
        ResultOutput::displayed()
    }
}

impl<T, E> ShownError<SharedResultOutput<T, E>> for ErrorProbe<SharedResultOutput<T, E>>
where
    E: Display + Clone + Send + Sync + 'static,
{
    type Shown = SharedResultOutput<T, E, DisplayText>;

    #[inline]
    fn vayu_shape(&self) -> Self::Shown {
        SharedResultOutput::displayed()
    }
}

/// Any other shape.
pub trait HiddenError<H> {
    /// Returns the shape.
    fn vayu_shape(&self) -> H;
}

impl<H: Copy> HiddenError<H> for &ErrorProbe<H> {
    #[inline]
    fn vayu_shape(&self) -> H {
        self.0
    }
}

//! The text of an error that is `Display`, for observers.

use std::fmt::Display;

use crate::call::{OutputShape, ResultOutput, SharedResultOutput};
use crate::error::Error;
use crate::shared_error::SharedError;

/// Finds out whether the error of a shape is `Display`.
///
/// `vayu_shape` on a reference to a probe is the method of [`ShownError`], or else that of [`HiddenError`], which takes one
/// more reference.
#[derive(Debug)]
pub struct ErrorProbe<H>(pub H);

/// A shape whose error is `Display`.
pub trait ShownError<H> {
    /// Returns a shape that shows it.
    fn vayu_shape(&self) -> WithErrorText<H>;
}

impl<H: DisplayedError> ShownError<H> for ErrorProbe<H> {
    #[inline]
    fn vayu_shape(&self) -> WithErrorText<H> {
        WithErrorText(self.0)
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

/// A shape whose error has a text.
pub trait DisplayedError: OutputShape {
    /// Returns the text of the error of an output.
    fn text(output: &Self::Output) -> Option<String>;
}

impl<T, E: Display> DisplayedError for ResultOutput<T, E> {
    fn text(output: &Result<T, E>) -> Option<String> {
        output.as_ref().err().map(E::to_string)
    }
}

impl<T, E: Display + Clone + Send + Sync + 'static> DisplayedError for SharedResultOutput<T, E> {
    fn text(output: &Result<T, E>) -> Option<String> {
        output.as_ref().err().map(E::to_string)
    }
}

/// A shape that shows its error.
#[derive(Debug, Clone, Copy)]
pub struct WithErrorText<H>(H);

impl<H: DisplayedError> OutputShape for WithErrorText<H> {
    type Output = H::Output;
    type Value = H::Value;

    #[inline]
    fn value(output: &H::Output) -> Option<&H::Value> {
        H::value(output)
    }

    #[inline]
    fn output(value: H::Value) -> H::Output {
        H::output(value)
    }

    #[inline]
    fn unsupported() -> Option<Error> {
        H::unsupported()
    }

    #[inline]
    fn shares_errors() -> bool {
        H::shares_errors()
    }

    #[inline]
    fn shared_error(output: &H::Output) -> Option<SharedError> {
        H::shared_error(output)
    }

    #[inline]
    fn error_output(error: &SharedError) -> Option<H::Output> {
        H::error_output(error)
    }

    fn error_text(output: &H::Output) -> Option<String> {
        H::text(output)
    }
}

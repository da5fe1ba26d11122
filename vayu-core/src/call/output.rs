//! The shapes of the outputs of functions.

use std::any::type_name;
use std::fmt::Display;
use std::marker::PhantomData;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::shared_error::SharedError;

/// The shape of an output: a value, or a `Result` whose `Ok` holds the value.
pub trait OutputShape: Copy {
    /// The type that the function returns.
    type Output;
    /// The part of an output that is cached.
    type Value;

    /// Returns the part of an output that can be cached, if it has one.
    fn value(output: &Self::Output) -> Option<&Self::Value>;

    /// Returns the output for a cached value.
    fn output(value: Self::Value) -> Self::Output;

    /// Returns an error if no output of this type can be cached.
    #[inline]
    fn unsupported() -> Option<Error> {
        None
    }

    /// Returns whether callers can share errors of this type.
    #[inline]
    fn shares_errors() -> bool {
        false
    }

    /// Returns the error of an output, if callers can share it.
    #[inline]
    fn shared_error(output: &Self::Output) -> Option<SharedError> {
        let _ = output;
        None
    }

    /// Returns the output for a shared error, if it is of this type.
    #[inline]
    fn error_output(error: &SharedError) -> Option<Self::Output> {
        let _ = error;
        None
    }

    /// Returns the text of the error of an output, if the shape knows that it has one.
    #[inline]
    fn error_text(output: &Self::Output) -> Option<String> {
        let _ = output;
        None
    }
}

/// An output that is the value, unless its type turns out to be a `Result`.
#[derive(Debug)]
pub struct PlainOutput<T>(PhantomData<fn() -> T>);

/// An output that is a `Result`, whose `Ok` holds the value. `X` is the text of its error.
#[derive(Debug)]
pub struct ResultOutput<T, E, X = NoText>(PhantomData<fn() -> Result<T, E>>, PhantomData<X>);

/// An output that is a `Result`, whose `Ok` holds the value, and whose error callers can share. `X` is the
/// text of its error.
#[derive(Debug)]
pub struct SharedResultOutput<T, E, X = NoText>(PhantomData<fn() -> Result<T, E>>, PhantomData<X>);

/// The text of errors of type `E`, for observers.
pub trait ErrorText<E> {
    /// Returns the text of an error, if it is known that it has one.
    fn text(error: &E) -> Option<String>;
}

/// An error of which it is not known that it has a text.
#[derive(Debug)]
pub struct NoText;

impl<E> ErrorText<E> for NoText {
    #[inline]
    fn text(_: &E) -> Option<String> {
        None
    }
}

/// An error whose text is that of `Display`.
#[derive(Debug)]
pub struct DisplayText;

impl<E: Display> ErrorText<E> for DisplayText {
    fn text(error: &E) -> Option<String> {
        Some(error.to_string())
    }
}

/// An output that is shared as it is, a `Result` with its error too.
#[derive(Debug)]
pub struct WholeOutput<T>(PhantomData<fn() -> T>);

impl<T> PlainOutput<T> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T, E> ResultOutput<T, E> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(PhantomData, PhantomData)
    }
}

impl<T, E> ResultOutput<T, E, DisplayText> {
    #[inline]
    pub(crate) fn displayed() -> Self {
        Self(PhantomData, PhantomData)
    }
}

impl<T, E> SharedResultOutput<T, E> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(PhantomData, PhantomData)
    }
}

impl<T, E> SharedResultOutput<T, E, DisplayText> {
    #[inline]
    pub(crate) fn displayed() -> Self {
        Self(PhantomData, PhantomData)
    }
}

impl<T> WholeOutput<T> {
    #[inline]
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for PlainOutput<T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for PlainOutput<T> {}

impl<T> Clone for WholeOutput<T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for WholeOutput<T> {}

impl<T, E, X> Clone for ResultOutput<T, E, X> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, E, X> Copy for ResultOutput<T, E, X> {}

impl<T, E, X> Clone for SharedResultOutput<T, E, X> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, E, X> Copy for SharedResultOutput<T, E, X> {}

impl<T> OutputShape for PlainOutput<T> {
    type Output = T;
    type Value = T;

    #[inline]
    fn value(output: &T) -> Option<&T> {
        Some(output)
    }

    #[inline]
    fn output(value: T) -> T {
        value
    }

    /// Returns an error for a `Result`. A function that returns a type parameter may be instantiated with
    /// one. The attribute cannot detect that, and an `Err` cannot be distinguished from an `Ok` here.
    #[inline]
    fn unsupported() -> Option<Error> {
        type_name::<T>().starts_with("core::result::Result<").then(|| {
            Error::new(
                ErrorKind::Configuration,
                "a `Result` in the place of a type parameter cannot be cached; \
                 write `Result` in the return type",
            )
        })
    }
}

impl<T> OutputShape for WholeOutput<T> {
    type Output = T;
    type Value = T;

    #[inline]
    fn value(output: &T) -> Option<&T> {
        Some(output)
    }

    #[inline]
    fn output(value: T) -> T {
        value
    }
}

impl<T, E, X: ErrorText<E>> OutputShape for ResultOutput<T, E, X> {
    type Output = Result<T, E>;
    type Value = T;

    #[inline]
    fn value(output: &Result<T, E>) -> Option<&T> {
        output.as_ref().ok()
    }

    #[inline]
    fn output(value: T) -> Result<T, E> {
        Ok(value)
    }

    #[inline]
    fn error_text(output: &Result<T, E>) -> Option<String> {
        output.as_ref().err().and_then(X::text)
    }
}

impl<T, E, X> OutputShape for SharedResultOutput<T, E, X>
where
    E: Clone + Send + Sync + 'static,
    X: ErrorText<E>,
{
    type Output = Result<T, E>;
    type Value = T;

    #[inline]
    fn value(output: &Result<T, E>) -> Option<&T> {
        output.as_ref().ok()
    }

    #[inline]
    fn output(value: T) -> Result<T, E> {
        Ok(value)
    }

    #[inline]
    fn shares_errors() -> bool {
        true
    }

    fn shared_error(output: &Result<T, E>) -> Option<SharedError> {
        output.as_ref().err().map(SharedError::new)
    }

    fn error_output(error: &SharedError) -> Option<Result<T, E>> {
        error.to_error().map(Err)
    }

    #[inline]
    fn error_text(output: &Result<T, E>) -> Option<String> {
        output.as_ref().err().and_then(X::text)
    }
}

/// A cached output with its times: the result of a lookup that runs nothing.
#[derive(Debug, Clone, Copy)]
pub struct CachedOutput<R> {
    pub(crate) output: R,
    pub(crate) age: Duration,
    pub(crate) ttl_left: Duration,
}

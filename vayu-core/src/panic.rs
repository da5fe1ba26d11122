//! Isolation of code of users: panics become errors.
//!
//! Backends, serializers, predicates and destructors of values are code of users. Each such call runs
//! inside [`catch_panic`] or [`CatchPanic`], and each such value is dropped by [`drop_quietly`],
//! with no lock held. Backends in the memory of the process are the exception: their operations do not panic. State that the code was changing is not used after a panic, so the engine never
//! reads it partially changed.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::error::{Error, ErrorKind, Result};

/// Runs `code` and turns a panic into an error.
///
/// # Errors
///
/// Those of `code`; [`ErrorKind::Panic`] if it panics.
#[cfg_attr(not(debug_assertions), inline(always))]
pub fn catch_panic<T>(operation: &'static str, code: impl FnOnce() -> Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(code)) {
        Ok(result) => result,
        Err(payload) => Err(panicked(operation, payload)),
    }
}

/// The future of an async method of a backend.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// The future of an async method of a backend for several keys.
pub type BatchFuture<'a, T> = Pin<Box<dyn Future<Output = Vec<Result<T>>> + Send + 'a>>;

/// A future whose panics are errors of kind [`ErrorKind::Panic`].
pub(crate) struct CatchPanic<'a, T> {
    operation: &'static str,
    future: BoxFuture<'a, T>,
}

impl<'a, T> CatchPanic<'a, T> {
    /// Wraps the future that `make` returns. A panic of `make` is an error, too.
    pub(crate) fn new(
        operation: &'static str,
        make: impl FnOnce() -> BoxFuture<'a, T>,
    ) -> Result<Self> {
        let future = catch_panic(operation, || Ok(make()))?;
        Ok(Self { operation, future })
    }
}

impl<T> Future for CatchPanic<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let this = &mut *self;
        match catch_unwind(AssertUnwindSafe(|| this.future.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(payload) => Poll::Ready(Err(panicked(this.operation, payload))),
        }
    }
}

/// Drops a value and ignores a panic of its destructor.
pub fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        drop(panicked("drop", payload));
    }
}

/// Drops a value in place and ignores a panic of its destructor.
#[inline(never)]
pub(crate) fn clear_quietly<T>(place: &mut Option<T>) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| *place = None)) {
        drop(panicked("drop", payload));
    }
}

/// A value whose drop does not panic.
#[derive(Debug, Clone)]
pub struct QuietDrop<T>(Option<T>);

impl<T> From<T> for QuietDrop<T> {
    fn from(value: T) -> Self {
        Self(Some(value))
    }
}

impl<T> QuietDrop<T> {
    /// Returns the value. It is always there.
    pub fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> Drop for QuietDrop<T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            drop_quietly(value);
        }
    }
}

#[cold]
fn panicked(operation: &'static str, payload: Box<dyn Any + Send>) -> Error {
    let message = match payload.downcast_ref::<&str>() {
        Some(text) => (*text).to_owned(),
        None => payload.downcast_ref::<String>().cloned().unwrap_or_default(),
    };
    // Dropping the payload may panic too.
    drop(catch_unwind(AssertUnwindSafe(|| drop(payload))));
    Error::new(ErrorKind::Panic, operation).with_source(Panicked(message))
}

#[derive(Debug)]
struct Panicked(String);

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

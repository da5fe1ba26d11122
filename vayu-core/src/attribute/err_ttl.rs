//! The ttl of errors: `err_ttl = ..`.

use std::marker::PhantomData;
use std::time::Duration;

use crate::attribute::candidate::{Candidate, Chosen, Other};
use crate::call::batch::error::BatchError;
use crate::call::ttl::forward_retention;
use crate::call::{OutputShape, Retention, SharedResultOutput};
use crate::shared_error::SharedError;

/// The shape of an output whose error can be cached.
///
/// The rest of an expansion uses `Checked`, which is an error that is reported once: see [`Candidate`].
#[diagnostic::on_unimplemented(
    message = "the errors of this function cannot be cached",
    label = "not a `Result` whose error is `Clone + Send + Sync + 'static`",
    note = "`err_ttl` is for a function that returns a `Result`, whose error is `Clone + Send + Sync + 'static`; \
            wrap another error in an `Arc`, or remove `err_ttl`"
)]
pub trait CachesErrors<M> {
    /// The shape itself.
    type Checked;

    /// Returns the shape.
    fn checked(self) -> Self::Checked;
}

#[diagnostic::do_not_recommend]
impl<H: ErrorShape> CachesErrors<Chosen> for H {
    type Checked = H;

    #[inline]
    fn checked(self) -> H {
        self
    }
}

#[diagnostic::do_not_recommend]
impl<H> CachesErrors<Other> for H
where
    Other: Candidate<H>,
{
    type Checked = H;

    fn checked(self) -> H {
        self
    }
}

/// The type of the errors of a function.
pub trait ErrorShape: OutputShape {
    /// The type of the errors.
    type Error: 'static;
}

impl<T, E: Clone + Send + Sync + 'static> ErrorShape for SharedResultOutput<T, E> {
    type Error = E;
}

/// A ttl of values, with one of errors of type `E`.
#[derive(Debug, Clone, Copy)]
pub struct ErrTtl<L, F, E> {
    ttl: L,
    error_ttl: F,
    error: PhantomData<fn(&E)>,
}

/// Adds a ttl of errors to one of values.
#[inline]
pub fn err_ttl<H: ErrorShape, L, F: Fn(&H::Error) -> Duration>(
    _shape: H,
    ttl: L,
    error_ttl: F,
) -> ErrTtl<L, F, H::Error> {
    ErrTtl { ttl, error_ttl, error: PhantomData }
}

/// Adds a ttl of errors to one of the values of elements. `shape` is that of the whole output of a batch function.
#[inline]
pub fn err_ttl_of_batch<H: ErrorShape, L, F: Fn(&H::Error) -> Duration>(
    _shape: H,
    ttl: L,
    error_ttl: F,
) -> ErrTtl<L, impl Fn(&BatchError) -> Duration, BatchError> {
    let error_ttl = move |error: &BatchError| error.get().map_or(Duration::ZERO, &error_ttl);
    ErrTtl { ttl, error_ttl, error: PhantomData }
}

impl<T, L, F, E> Retention<T> for ErrTtl<L, F, E>
where
    L: Retention<T>,
    F: Fn(&E) -> Duration,
    E: 'static,
{
    type Idle = L::Idle;

    forward_retention!(self => self.ttl; fixed_ttl ttl should_cache idle);

    #[inline]
    fn caches_errors(&self) -> bool {
        true
    }

    fn error_ttl(&self, error: &SharedError) -> Duration {
        error.get().map_or(Duration::ZERO, &self.error_ttl)
    }
}

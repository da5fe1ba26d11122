//! The functions that the attribute takes as `cache_if`.

use crate::attribute::candidate::{Candidate, Chosen, Other};
use crate::call::{CacheIf, OutputShape};

/// A function from the cached value to `bool`.
///
/// For functions with a name: a closure would not learn the type of its parameter from this trait.
#[diagnostic::on_unimplemented(
    message = "`cache_if` takes a predicate on the cached value, a `{T}`",
    label = "not a function from `&{T}` to `bool`",
    note = "of a `Result` only the value in `Ok` is cached, so `cache_if = Result::is_ok` is the default"
)]
pub trait Predicate<T, M>: Sized {
    /// The predicate itself.
    type Checked;

    /// Adds the predicate to a ttl.
    fn add_to<H: OutputShape<Value = T>, L>(
        shape: H,
        predicate: Self,
        ttl: L,
    ) -> CacheIf<L, Self::Checked>;
}

#[diagnostic::do_not_recommend]
impl<T, F: Fn(&T) -> bool> Predicate<T, Chosen> for F {
    type Checked = F;

    #[inline]
    fn add_to<H: OutputShape<Value = T>, L>(_: H, predicate: F, ttl: L) -> CacheIf<L, F> {
        CacheIf { ttl, predicate }
    }
}

#[diagnostic::do_not_recommend]
impl<T, F> Predicate<T, Other> for F
where
    Other: Candidate<F>,
{
    type Checked = F;

    fn add_to<H: OutputShape<Value = T>, L>(_: H, predicate: F, ttl: L) -> CacheIf<L, F> {
        CacheIf { ttl, predicate }
    }
}

//! The expressions that the attribute takes as `cache`.

use std::rc::Rc;
use std::sync::{Arc, LazyLock};

use crate::backend::Backend;
use crate::cache::Cache;

/// A [`Cache`], or a reference or smart pointer to one: what the attribute takes as `cache`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a cache",
    label = "expected a cache",
    note = "`cache` takes an expression that gives a `MemoryCache` or another `Cache<B, S>`, or a \
            reference, `Arc` or `LazyLock` of one; for a cache in a field it is `cache = self.field`; for one that is \
            optional, take `MemoryCache::off_by_choice()` in place of `None`"
)]
pub trait AsCache {
    /// The backend of the cache.
    type Backend: Backend;
    /// The serializer of the cache.
    type Serializer;

    /// Returns the cache.
    fn as_cache(&self) -> &Cache<Self::Backend, Self::Serializer>;
}

#[diagnostic::do_not_recommend]
impl<B: Backend, S> AsCache for Cache<B, S> {
    type Backend = B;
    type Serializer = S;

    #[inline]
    fn as_cache(&self) -> &Cache<B, S> {
        self
    }
}

macro_rules! pointer_is_as_cache {
    ($($pointer:ty),*) => {$(
        #[diagnostic::do_not_recommend]
        impl<C: AsCache + ?Sized> AsCache for $pointer {
            type Backend = C::Backend;
            type Serializer = C::Serializer;

            #[inline]
            fn as_cache(&self) -> &Cache<C::Backend, C::Serializer> {
                (**self).as_cache()
            }
        }
    )*};
}

pointer_is_as_cache!(&C, Box<C>, Rc<C>, Arc<C>);

#[diagnostic::do_not_recommend]
impl<C: AsCache, F: FnOnce() -> C> AsCache for LazyLock<C, F> {
    type Backend = C::Backend;
    type Serializer = C::Serializer;

    #[inline]
    fn as_cache(&self) -> &Cache<C::Backend, C::Serializer> {
        (**self).as_cache()
    }
}

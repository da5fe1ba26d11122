//! The check that a serializer can store the value of a function in a cache.
//!
//! There is one trait for each place of a mistake. The rest of an expansion uses `Checked`, which is an error
//! that is reported once if the trait is not implemented: see [`Candidate`].

use crate::attribute::candidate::{Candidate, Chosen, Other};
use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::{OutputShape, OwnedSerializer};
use crate::serializer::Serializer;

macro_rules! checks {
    ($(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub trait $name<B: Backend, T, M>: Sized {
            /// The serializer itself.
            type Checked;

            /// Returns the serializer of a call.
            fn borrowed<'a, S, H: OutputShape<Value = T>>(
                cache: &Cache<B, S>,
                shape: H,
                serializer: &'a Self,
            ) -> &'a Self::Checked;

            /// Returns the serializer of a call that outlives the owner from which it could be borrowed.
            fn owned<S, H: OutputShape<Value = T>>(
                cache: &Cache<B, S>,
                shape: H,
                serializer: Self,
            ) -> OwnedSerializer<Self::Checked>;
        }

        #[diagnostic::do_not_recommend]
        impl<B: Backend, T, Z: Serializer<T, Stored = B::Stored>> $name<B, T, Chosen> for Z {
            type Checked = Z;

            #[inline]
            fn borrowed<'a, S, H: OutputShape<Value = T>>(_: &Cache<B, S>, _: H, serializer: &'a Z) -> &'a Z {
                serializer
            }

            #[inline]
            fn owned<S, H: OutputShape<Value = T>>(_: &Cache<B, S>, _: H, serializer: Z) -> OwnedSerializer<Z> {
                OwnedSerializer(serializer)
            }
        }

        #[diagnostic::do_not_recommend]
        impl<B: Backend, T, Z> $name<B, T, Other> for Z
        where
            Other: Candidate<Z>,
        {
            type Checked = Z;

            fn borrowed<'a, S, H: OutputShape<Value = T>>(_: &Cache<B, S>, _: H, serializer: &'a Z) -> &'a Z {
                serializer
            }

            fn owned<S, H: OutputShape<Value = T>>(_: &Cache<B, S>, _: H, serializer: Z) -> OwnedSerializer<Z> {
                OwnedSerializer(serializer)
            }
        }
    };
}

checks! {
    /// The serializer of a cache, which can store values of type `T` in it.
    #[diagnostic::on_unimplemented(
        message = "a value of type `{T}` cannot be cached here",
        label = "not a value that this cache can store",
        note = "a cached value must be `Clone + Send + Sync + 'static`: return an `Arc` of a type that is not `Clone`",
        note = "in files and in Redis it must be `serde::Serialize + serde::de::DeserializeOwned`, in tiers both"
    )]
    StorableIn
}

checks! {
    /// The serializer of a function, which can store values of type `T` in a cache.
    #[diagnostic::on_unimplemented(
        message = "`{Self}` cannot be the serializer of values of type `{T}` in this cache",
        label = "not a serializer for this cache and this value",
        note = "caches in memory store values as they are, with `ByReference`; remove `serializer`, or name a cache of \
                bytes with `cache = ..`",
        note = "in files and in Redis a value must be `serde::Serialize + serde::de::DeserializeOwned`"
    )]
    StorableBy
}

checks! {
    /// The serializer of callers that share results of type `T`, which are not stored.
    #[diagnostic::on_unimplemented(
        message = "a result of type `{T}` cannot be shared",
        label = "not a result that callers can share",
        note = "a result that callers share must be `Clone + Send + Sync + 'static`, its error too"
    )]
    ShareableBy
}

//! Forwarding of a backend to the one that it wraps.

use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::Backend;
use crate::key::Key;
use crate::record::Record;

/// Writes the named methods of an `impl Backend` that call those of the backend that is wrapped.
///
/// The first argument is a closure from `&self` to the inner backend. Write the impl under
/// `#[deny(clippy::missing_trait_methods)]`: a method that is neither written nor named is then an
/// error, so a wrapper does not lose one to its default.
///
/// `read_optimistic` stands for `read_optimistic_with` as well. `capabilities` passes on the optional parts as they are. A
/// wrapper that changes an operation changes it in the parts as well, or leaves them out, so that the cache calls the operation
/// of the wrapper: for `write` these are [`Batches`](crate::Batches), [`EntryTimes`](crate::EntryTimes) and
/// [`Offline`](crate::Offline); for `read`, `Batches`, `Offline`, and the methods `read_now`, `read_with` and `read_optimistic`;
/// for `delete`, [`Clear`](crate::Clear). A wrapper whose own code may block or panic does not forward `is_in_process`.
///
/// # Examples
///
/// ```
/// # mod vayu { pub use vayu_core::*; pub mod backend { pub use vayu_core::*; pub use async_trait::async_trait; } }
/// use vayu::backend::{Backend, Capabilities, Record, async_trait, forward_backend};
/// use vayu::{Key, Result};
///
/// /// A backend that does not delete.
/// struct AppendOnly<B>(B);
///
/// #[async_trait]
/// #[deny(clippy::missing_trait_methods)]
/// impl<B: Backend> Backend for AppendOnly<B> {
///     type Stored = B::Stored;
///
///     fn delete(&self, _key: &Key) -> Result<bool> {
///         Ok(false)
///     }
///
///     async fn delete_async(&self, _key: &Key) -> Result<bool> {
///         Ok(false)
///     }
///
///     fn capabilities(&self) -> Capabilities<'_, B::Stored> {
///         Capabilities { clear: None, ..self.0.capabilities() }
///     }
///
///     forward_backend! { |this| this.0 =>
///         read write read_async write_async read_now read_with read_optimistic
///         is_in_process description clock
///     }
/// }
/// ```
#[macro_export]
macro_rules! forward_backend {
    (|$this:ident| $inner:expr => $($method:ident)*) => {
        $($crate::__forward_backend! { @$method $this, $inner })*
    };
}

/// The methods that [`forward_backend!`] writes.
#[doc(hidden)]
#[macro_export]
macro_rules! __forward_backend {
    (@read $this:ident, $inner:expr) => {
        fn read(
            &self,
            key: &$crate::Key,
        ) -> $crate::Result<::core::option::Option<$crate::Record<Self::Stored>>> {
            let $this = self;
            $inner.read(key)
        }
    };
    (@write $this:ident, $inner:expr) => {
        fn write(
            &self,
            key: &$crate::Key,
            record: $crate::Record<Self::Stored>,
        ) -> $crate::Result<()> {
            let $this = self;
            $inner.write(key, record)
        }
    };
    (@delete $this:ident, $inner:expr) => {
        fn delete(&self, key: &$crate::Key) -> $crate::Result<bool> {
            let $this = self;
            $inner.delete(key)
        }
    };
    (@read_async $this:ident, $inner:expr) => {
        fn read_async<'a, 'k, 'f>(
            &'a self,
            key: &'k $crate::Key,
        ) -> $crate::__internal::BackendFuture<
            'f,
            ::core::option::Option<$crate::Record<Self::Stored>>,
        >
        where
            'a: 'f,
            'k: 'f,
            Self: 'f,
        {
            let $this = self;
            $inner.read_async(key)
        }
    };
    (@write_async $this:ident, $inner:expr) => {
        fn write_async<'a, 'k, 'f>(
            &'a self,
            key: &'k $crate::Key,
            record: $crate::Record<Self::Stored>,
        ) -> $crate::__internal::BackendFuture<'f, ()>
        where
            'a: 'f,
            'k: 'f,
            Self: 'f,
        {
            let $this = self;
            $inner.write_async(key, record)
        }
    };
    (@delete_async $this:ident, $inner:expr) => {
        fn delete_async<'a, 'k, 'f>(
            &'a self,
            key: &'k $crate::Key,
        ) -> $crate::__internal::BackendFuture<'f, bool>
        where
            'a: 'f,
            'k: 'f,
            Self: 'f,
        {
            let $this = self;
            $inner.delete_async(key)
        }
    };
    (@read_now $this:ident, $inner:expr) => {
        #[inline]
        fn read_now(
            &self,
            key: &$crate::Key,
            class: $crate::ValueClass,
            visit: &mut dyn ::core::ops::FnMut($crate::Record<&Self::Stored>),
        ) -> ::core::option::Option<$crate::Result<()>> {
            let $this = self;
            $inner.read_now(key, class, visit)
        }
    };
    (@read_with $this:ident, $inner:expr) => {
        #[inline]
        fn read_with<R>(
            &self,
            key: &$crate::Key,
            read: impl ::core::ops::FnOnce($crate::Record<&Self::Stored>) -> R,
        ) -> ::core::option::Option<R> {
            let $this = self;
            $inner.read_with(key, read)
        }
    };
    (@read_optimistic $this:ident, $inner:expr) => {
        #[inline]
        fn read_optimistic(
            &self,
            key: &$crate::Key,
        ) -> ::core::option::Option<$crate::Record<$crate::InlineValue>> {
            let $this = self;
            $inner.read_optimistic(key)
        }

        #[inline]
        fn read_optimistic_with<R>(
            &self,
            key: &$crate::Key,
            kind: ::core::option::Option<u64>,
            read: impl ::core::ops::FnOnce($crate::Record<$crate::InlineValue>) -> R,
        ) -> ::core::option::Option<R> {
            $crate::__internal::read_of_kind(self.read_optimistic(key), kind, read)
        }
    };
    (@is_in_process $this:ident, $inner:expr) => {
        #[inline]
        fn is_in_process(&self) -> bool {
            let $this = self;
            $inner.is_in_process()
        }
    };
    (@capabilities $this:ident, $inner:expr) => {
        #[inline]
        fn capabilities(&self) -> $crate::Capabilities<'_, Self::Stored> {
            let $this = self;
            $inner.capabilities()
        }
    };
    (@description $this:ident, $inner:expr) => {
        fn description(&self) -> ::std::string::String {
            let $this = self;
            $inner.description()
        }
    };
    (@clock $this:ident, $inner:expr) => {
        fn clock(&self) -> ::std::sync::Arc<dyn $crate::Clock> {
            let $this = self;
            $inner.clock()
        }
    };
}

macro_rules! pointer_is_backend {
    ($($pointer:ident)*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<B: Backend + ?Sized> Backend for $pointer<B> {
            type Stored = B::Stored;

            /// Returns `None`: the backend may be a trait object.
            #[inline]
            fn read_with<R>(&self, _: &Key, _: impl FnOnce(Record<&B::Stored>) -> R) -> Option<R> {
                None
            }

            forward_backend! { |this| (**this) =>
                read write delete read_async write_async delete_async
                read_now read_optimistic is_in_process capabilities description clock
            }
        }
    )*};
}

pointer_is_backend!(Arc Box);

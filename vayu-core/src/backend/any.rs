//! A backend that is chosen at run time.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::backend::Backend;
use crate::forward_backend;
use crate::key::Key;
use crate::record::Record;

/// A backend that is chosen at run time: one type for all backends that store `V`.
///
/// It is a type of its own around `Arc<dyn Backend>`, which is a backend too. With a cache of the trait object itself
/// the compiler cannot prove that the future of a cached call is `Send` ("implementation of `Send` is not general
/// enough"), so that it can be neither spawned nor awaited in a handler.
///
/// # Examples
///
/// ```
/// # mod vayu { pub use vayu_core::*; pub mod backend { pub use vayu_core::*; } }
/// use vayu::backend::{AnyBackend, AnyValue, ByReference};
/// use vayu::testing::{FaultyBackend, MapBackend};
/// use vayu::{Cache, Key};
///
/// let backend = MapBackend::<AnyValue>::default();
/// let backend = match std::env::var("FAULTS") {
///     Ok(_) => AnyBackend::new(FaultyBackend::new(backend)),
///     Err(_) => AnyBackend::new(backend),
/// };
/// let cache: Cache<AnyBackend<AnyValue>, ByReference> = Cache::with_backend(backend);
/// assert_eq!(cache.get::<u64>(&Key::from_text("n", "1")).unwrap(), None);
/// ```
pub struct AnyBackend<V>(Arc<dyn Backend<Stored = V>>);

impl<V> AnyBackend<V> {
    /// Wraps a backend.
    pub fn new(backend: impl Backend<Stored = V>) -> Self {
        Self(Arc::new(backend))
    }
}

impl<V> Clone for AnyBackend<V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<V> fmt::Debug for AnyBackend<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyBackend").finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Clone + Send + Sync + 'static> Backend for AnyBackend<V> {
    type Stored = V;

    /// Returns `None`: the backend is a trait object.
    #[inline]
    fn read_with<R>(&self, _: &Key, _: impl FnOnce(Record<&V>) -> R) -> Option<R> {
        None
    }

    forward_backend! { |this| (*this.0) =>
        read write delete read_async write_async delete_async
        read_now read_optimistic is_in_process capabilities description clock
    }
}

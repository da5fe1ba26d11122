//! The cache as a value.

mod declarations;
mod engine;
mod entries;
mod generations;
mod invalidate;
mod off;
mod pause;
mod refresh_backoff;
mod telemetry;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::declarations::Declaration;
use self::engine::Inner;
pub(crate) use self::engine::{Engine, lease_poll_backoff, release_lease};
pub(crate) use self::generations::Made;
pub use self::off::OffBackend;
pub use self::pause::{PauseAllGuard, PauseGuard, pause_all};
use crate::backend::{Backend, OpenBackend, Usage};
use crate::error::Result;
use crate::stats::Stats;

/// A cache: the engine over a backend and a serializer.
///
/// A `Cache` is a handle. Clones of it are the same cache, and cost as much as cloning an
/// [`Arc`]. It is what the attribute is given as `cache`, and it works without the attribute too;
/// every method that asks the backend is there for sync callers and, with `_async`, for async
/// ones.
///
/// # Behavior
///
/// Of the callers that want one key at once, one computes and the others wait for its value,
/// whether they are sync or async. No caller waits longer than [`with_max_wait`] says.
///
/// [`with_max_wait`]: Self::with_max_wait
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
/// use std::time::Duration;
/// use vayu_core::testing::MapBackend;
/// use vayu_core::{Cache, Key, MessagePack};
///
/// let cache: Cache<MapBackend, MessagePack> = Cache::new();
/// let key = Key::from_text("squares", "12");
/// let minute = Duration::from_secs(60);
/// assert_eq!(cache.get_or_insert_with(&key, minute, || 144), 144);
/// assert_eq!(cache.get::<i32>(&key).unwrap(), Some(144));
/// assert!(cache.remove(&key).unwrap());
/// # }
/// ```
pub struct Cache<B: Backend, S> {
    pub(crate) engine: Engine<B>,
    pub(crate) serializer: S,
}

impl<B: Backend, S: Default> Cache<B, S> {
    /// A cache over a new backend with its default options.
    pub fn new() -> Self
    where
        B: Default,
    {
        Self::with_backend(B::default())
    }

    /// A cache over this backend.
    pub fn with_backend(backend: B) -> Self {
        Self::over(Arc::new(Inner::new(backend)))
    }

    fn over(shared: Arc<Inner<B>>) -> Self {
        Self { engine: Engine::new(shared), serializer: S::default() }
    }
}

impl<B: OpenBackend, S: Default> Cache<B, S> {
    /// Opens the cache at a location, such as a path or a URL, with the default options of its backend.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) when the backend cannot work there.
    pub fn open(location: impl Into<B::Location>) -> Result<Self> {
        Ok(Self::with_backend(B::open(location.into())?))
    }
}

impl<B: Backend, S> Cache<B, S> {
    /// The same cache, seen through another serializer.
    #[must_use]
    pub fn with_serializer<Z>(self, serializer: Z) -> Cache<B, Z> {
        Cache { engine: self.engine, serializer }
    }

    /// Returns the same cache with a limit for the waits of a call: for another caller's computation, for
    /// that of another process, and for one that takes their place. After that time in total the caller
    /// computes.
    ///
    /// The default is 30 seconds, with hedges: after 3 seconds one waiting caller computes in parallel,
    /// and the first value is for all callers. Where such a hedge takes long itself, the function is
    /// slow, and the next ones follow after 8 times what it took. With a limit that is set here nothing
    /// is hedged.
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.engine.set_max_wait(max_wait);
        self
    }

    /// The backend.
    #[inline]
    pub fn backend(&self) -> &B {
        self.engine.backend()
    }

    /// The serializer.
    #[inline]
    pub fn serializer(&self) -> &S {
        &self.serializer
    }

    /// What this cache has done since it was made.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Lets every call compute, and neither read nor store, until the answer is dropped. There is
    /// nothing to [`get`](Self::get) meanwhile, and what is [`set`](Self::set) is not kept. Calls
    /// that began before still store.
    ///
    /// Several pauses may overlap; the cache goes on when the last one has ended.
    pub fn pause(&self) -> PauseGuard<B> {
        PauseGuard::begin(&self.engine)
    }

    /// Returns the part of the cache that does not depend on its serializer.
    #[inline]
    pub(crate) fn engine(&self) -> &Engine<B> {
        &self.engine
    }
}

impl<B: Backend, S: Clone> Clone for Cache<B, S> {
    fn clone(&self) -> Self {
        Self { engine: self.engine.clone(), serializer: self.serializer.clone() }
    }
}

/// A panic of what is computed leaves nothing half-done in the cache.
impl<B: Backend, S: UnwindSafe> UnwindSafe for Cache<B, S> {}
impl<B: Backend, S: RefUnwindSafe> RefUnwindSafe for Cache<B, S> {}

impl<B: Backend + Default, S: Default> Default for Cache<B, S> {
    fn default() -> Self {
        Self::new()
    }
}

/// The counters of this process alone: to know how full the backend is may take work.
impl<B: Backend, S: fmt::Debug> fmt::Debug for Cache<B, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stats { hits, misses, coalesced, inserts, errors, .. } =
            self.engine.counters().snapshot(0, Usage::default());
        f.debug_struct("Cache")
            .field("serializer", &self.serializer)
            .field("max_wait", &self.engine.max_wait())
            .field("hits", &hits)
            .field("misses", &misses)
            .field("coalesced", &coalesced)
            .field("inserts", &inserts)
            .field("errors", &errors)
            .finish_non_exhaustive()
    }
}

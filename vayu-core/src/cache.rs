//! The type [`Cache`]: a handle on an engine and a serializer.

mod clears;
mod declarations;
mod engine;
mod entries;
mod error_cache;
mod flags;
mod generations;
mod invalidate;
mod leases;
mod off;
mod pause;
mod pending;
mod refresh_backoff;
mod telemetry;
mod update;

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, Weak};
use std::time::Duration;

pub(crate) use self::declarations::Declaration;
pub use self::engine::Engine;
use self::engine::Inner;
pub(crate) use self::error_cache::CachedError;
pub(crate) use self::flags::Flags;
pub(crate) use self::generations::{CallStamp, InvalidatedGroup};
pub(crate) use self::invalidate::{everything, named, prefix_of};
pub(crate) use self::leases::{poll_backoff, release_lease};
pub use self::off::OffBackend;
pub use self::pause::PauseGuard;
pub(crate) use self::refresh_backoff::BACKOFF;
use crate::backend::{Backend, OpenBackend, Usage};
use crate::error::Result;
use crate::registry::Listed;
use crate::stats::Stats;

/// A cache: the engine over a backend and a serializer.
///
/// A `Cache` is a handle. Clones of it are the same cache, and cost as much as cloning an [`Arc`]. The
/// attribute takes one as `cache`, and it can be used without the attribute. Every method that accesses
/// the backend exists for sync callers and, with the suffix `_async`, for async callers.
///
/// # Behavior
///
/// Concurrent callers of a key share one computation (single flight): one computes, and the others wait
/// for its value, whether they are sync or async. No caller waits longer than the limit of
/// [`with_max_wait`].
///
/// [`with_max_wait`]: Self::with_max_wait
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
/// # use vayu_core as vayu;
/// use std::time::Duration;
/// use vayu::testing::MapBackend;
/// use vayu::{Cache, Key, MessagePack};
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
    /// Creates a cache over a new backend with its default options.
    pub fn new() -> Self
    where
        B: Default,
    {
        Self::with_backend(B::default())
    }

    /// Creates a cache over this backend.
    pub fn with_backend(backend: B) -> Self {
        Self::over(Arc::new(Inner::new(backend)))
    }

    fn over(shared: Arc<Inner<B>>) -> Self {
        let listed: Weak<Inner<B>> = Arc::downgrade(&shared);
        shared.registration.list(listed as Weak<dyn Listed>);
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
    /// Returns the same cache with another serializer.
    #[must_use]
    pub fn with_serializer<Z>(self, serializer: Z) -> Cache<B, Z> {
        Cache { engine: self.engine, serializer }
    }

    /// Returns the same cache with a limit for the total time that a call waits: for the computation of
    /// another caller or process, and for one that replaces it. After that the caller computes.
    ///
    /// The default is 30 seconds, with hedged requests: after 3 seconds one waiting caller computes in
    /// parallel, and all callers get the first value. If such a hedge takes long itself, the function is
    /// slow, and further ones follow after 8 times its duration. A limit that is set here disables
    /// hedges.
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.engine.set_max_wait(max_wait);
        self
    }

    /// Sets the limit on refreshes that run in the background at the same time, of all handles of the cache: those that
    /// `spawn` and `stale` begin. The default is 256. Past it, a call returns the value past its ttl, and the refresh is left
    /// to a later call, which is logged as a warning.
    ///
    /// A run counts until it ends, but one that hangs for the time for which callers wait for others, 30 seconds or
    /// [`with_max_wait`](Self::with_max_wait) and no less than 5 seconds, does not count after that, as long as no more
    /// runs hang than the limit. With zero, no refresh runs in the background: a value past its ttl is
    /// returned to the end of its `stale`.
    pub fn set_max_background_refreshes(&self, max: usize) {
        self.engine.refreshes().set_max(max);
    }

    /// Returns the same cache with a name for [`caches`](crate::caches): that of all its handles. A later name replaces
    /// it.
    #[must_use]
    pub fn with_name(self, name: impl Into<Arc<str>>) -> Self {
        self.engine.shared.registration.set_name(name.into());
        self
    }

    /// Returns the backend.
    #[inline]
    pub fn backend(&self) -> &B {
        self.engine.backend()
    }

    /// Returns the serializer.
    #[inline]
    pub fn serializer(&self) -> &S {
        &self.serializer
    }

    /// Returns the statistics of this cache since it was created.
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Pauses the cache until the returned guard is dropped: calls run their function, nothing is read or
    /// stored. [`get`](Self::get) returns `None`, and [`set`](Self::set) stores nothing. Calls that began
    /// before still store.
    ///
    /// Several pauses may overlap; the cache resumes when the last one has ended.
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

/// A panic of a computation leaves no inconsistent state in the cache.
impl<B: Backend, S: UnwindSafe> UnwindSafe for Cache<B, S> {}
impl<B: Backend, S: RefUnwindSafe> RefUnwindSafe for Cache<B, S> {}

impl<B: Backend + Default, S: Default> Default for Cache<B, S> {
    fn default() -> Self {
        Self::new()
    }
}

/// The counters of this process only: the usage of the backend may be expensive to compute.
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

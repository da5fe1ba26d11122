//! The optional parts of a backend whose entries several processes share.

use std::fmt;

use crate::backend::Leases;
use crate::error::Result;
use crate::generation::{Generations, Group};
use crate::invalidation::InvalidationFeed;
use crate::key::Key;
use crate::record::Record;

/// The parts that a backend offers to the processes that share its entries: [`Backend::sharing`].
///
/// # Examples
///
/// ```
/// # mod vayu { pub mod backend { pub use vayu_core::*; pub use bytes::Bytes; } }
/// use vayu::backend::{Bytes, Generations, Sharing};
///
/// fn sharing(generations: &dyn Generations) -> Sharing<'_, Bytes> {
///     Sharing::none().with_generations(generations)
/// }
/// ```
///
/// [`Backend::sharing`]: crate::Backend::sharing
#[non_exhaustive]
pub struct Sharing<'a, V> {
    /// The generations of groups, by which many entries are invalidated at once.
    ///
    /// Without them the cache keeps its own where the entries are in the memory of this process
    /// ([`Backend::is_in_process`]), for as long as the cache lives; elsewhere the methods that
    /// invalidate a group return an error of the kind
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). A backend whose entries outlive the
    /// process, or which several caches or processes share, stores them next to the entries and safe
    /// from eviction, and [`Backend::clear`] must not reset them.
    ///
    /// [`Backend::is_in_process`]: crate::Backend::is_in_process
    /// [`Backend::clear`]: crate::Backend::clear
    pub generations: Option<&'a dyn Generations>,
    /// Notifications of entries that other processes change. Without them, copies in memory are
    /// served until they expire.
    pub invalidation_feed: Option<&'a dyn InvalidationFeed>,
    /// The right to compute a key for all processes. Without it each process computes for itself.
    pub leases: Option<&'a dyn Leases>,
    /// The part that works while the rest does not respond, such as memory in front of a server.
    ///
    /// After an operation of a call has failed with [`ErrorKind::Timeout`](crate::ErrorKind::Timeout),
    /// the rest of that call uses this part, so that it does not wait again. Without it the call goes
    /// on without the backend.
    pub offline: Option<&'a dyn Offline<Stored = V>>,
}

impl<'a, V> Sharing<'a, V> {
    /// Returns the sharing of a backend that has none of the parts.
    #[inline]
    pub const fn none() -> Self {
        Self { generations: None, invalidation_feed: None, leases: None, offline: None }
    }

    /// Adds generations.
    #[inline]
    #[must_use]
    pub fn with_generations(mut self, generations: &'a dyn Generations) -> Self {
        self.generations = Some(generations);
        self
    }

    /// Adds an invalidation feed.
    #[inline]
    #[must_use]
    pub fn with_invalidation_feed(mut self, feed: &'a dyn InvalidationFeed) -> Self {
        self.invalidation_feed = Some(feed);
        self
    }

    /// Adds leases.
    #[inline]
    #[must_use]
    pub fn with_leases(mut self, leases: &'a dyn Leases) -> Self {
        self.leases = Some(leases);
        self
    }

    /// Adds a part that works offline.
    #[inline]
    #[must_use]
    pub fn with_offline(mut self, offline: &'a dyn Offline<Stored = V>) -> Self {
        self.offline = Some(offline);
        self
    }
}

impl<V> Clone for Sharing<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Sharing<'_, V> {}

impl<V> fmt::Debug for Sharing<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing")
            .field("generations", &self.generations.is_some())
            .field("invalidation_feed", &self.invalidation_feed.is_some())
            .field("leases", &self.leases.is_some())
            .field("offline", &self.offline.is_some())
            .finish()
    }
}

/// The part of a backend that works without waiting for a server ([`Sharing::offline`]).
pub trait Offline: Send + Sync {
    /// The stored form of the backend.
    type Stored;

    /// Returns the record of a key, as far as it is available here.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::read`](crate::Backend::read).
    fn read(&self, key: &Key) -> Result<Option<Record<Self::Stored>>>;

    /// Stores a record here alone.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::write`](crate::Backend::write).
    fn write(&self, key: &Key, record: Record<Self::Stored>) -> Result<()>;

    /// Returns the generation that replaces one that cannot be read, where none of the group is
    /// cached. It must be a number that no other process has, and another one after each
    /// [`bump`](Generations::bump) that succeeds and whenever generations can be read again. After one that fails, the cache
    /// makes another number of it.
    ///
    /// # Errors
    ///
    /// When there is none.
    fn generation(&self, group: Group) -> Result<u64>;
}

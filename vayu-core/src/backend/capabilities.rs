//! The optional parts of a backend.

use std::fmt;

use crate::backend::Leases;
use crate::backend::parts::{Batches, Clear, EntryTimes, Offline, ReportEnds, ReportUsage};
use crate::generation::Generations;
use crate::invalidation::InvalidationFeed;

/// The optional parts of a backend: [`Backend::capabilities`].
///
/// Each part is optional by itself, and has a trait of its own. A backend starts from [`none`](Self::none) and adds those
/// that it has. [`BackendExt`](crate::BackendExt) has the operations of the parts for callers, with what replaces each of
/// them where it is absent.
///
/// A wrapper passes on the parts of the backend that it wraps, or wraps them. It names every field, without `..`: a part
/// that is added later is then a compile error in the wrapper, instead of a part that it loses or does not wrap.
///
/// # Examples
///
/// ```
/// # mod vayu { pub mod backend { pub use vayu_core::*; pub use bytes::Bytes; } }
/// use vayu::backend::{Bytes, Capabilities, Generations};
///
/// fn capabilities(generations: &dyn Generations) -> Capabilities<'_, Bytes> {
///     Capabilities::none().with_generations(generations)
/// }
/// ```
///
/// [`Backend::capabilities`]: crate::Backend::capabilities
pub struct Capabilities<'a, V> {
    /// The generations of groups, by which many entries are invalidated at once.
    ///
    /// Without them the cache keeps its own where the entries are in the memory of this process
    /// ([`Backend::is_in_process`]), for as long as the cache lives; elsewhere the methods that
    /// invalidate a group return an error of the kind
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported). A backend whose entries outlive the
    /// process, or which several caches or processes share, stores them next to the entries and safe
    /// from eviction, and [`Clear::clear`] must not reset them.
    ///
    /// [`Backend::is_in_process`]: crate::Backend::is_in_process
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
    /// Reads and writes of several keys at once. Without them a batch is done one key after the other.
    pub batches: Option<&'a dyn Batches<Stored = V>>,
    /// Writes of the times of an entry alone. Without them the whole record is written, and no use extends the life of
    /// an entry.
    pub times: Option<&'a dyn EntryTimes<Stored = V>>,
    /// The removal of all entries. Without it, clearing returns an error of the kind
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported).
    pub clear: Option<&'a dyn Clear>,
    /// Reports of how much is stored. Without them it is unknown.
    pub usage: Option<&'a dyn ReportUsage>,
    /// Reports of the entries that leave the backend. Without them observers receive none.
    pub ends: Option<&'a dyn ReportEnds>,
}

impl<'a, V> Capabilities<'a, V> {
    /// Returns the capabilities of a backend that has none of the parts.
    #[inline]
    pub const fn none() -> Self {
        Self {
            generations: None,
            invalidation_feed: None,
            leases: None,
            offline: None,
            batches: None,
            times: None,
            clear: None,
            usage: None,
            ends: None,
        }
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

    /// Adds batches.
    #[inline]
    #[must_use]
    pub fn with_batches(mut self, batches: &'a dyn Batches<Stored = V>) -> Self {
        self.batches = Some(batches);
        self
    }

    /// Adds writes of times.
    #[inline]
    #[must_use]
    pub fn with_times(mut self, times: &'a dyn EntryTimes<Stored = V>) -> Self {
        self.times = Some(times);
        self
    }

    /// Adds the removal of all entries.
    #[inline]
    #[must_use]
    pub fn with_clear(mut self, clear: &'a dyn Clear) -> Self {
        self.clear = Some(clear);
        self
    }

    /// Adds reports of how much is stored.
    #[inline]
    #[must_use]
    pub fn with_usage(mut self, usage: &'a dyn ReportUsage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Adds reports of the entries that leave the backend.
    #[inline]
    #[must_use]
    pub fn with_ends(mut self, ends: &'a dyn ReportEnds) -> Self {
        self.ends = Some(ends);
        self
    }
}

impl<V> Clone for Capabilities<'_, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Capabilities<'_, V> {}

impl<V> fmt::Debug for Capabilities<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Capabilities")
            .field("generations", &self.generations.is_some())
            .field("invalidation_feed", &self.invalidation_feed.is_some())
            .field("leases", &self.leases.is_some())
            .field("offline", &self.offline.is_some())
            .field("batches", &self.batches.is_some())
            .field("times", &self.times.is_some())
            .field("clear", &self.clear.is_some())
            .field("usage", &self.usage.is_some())
            .field("ends", &self.ends.is_some())
            .finish()
    }
}

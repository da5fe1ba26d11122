//! Invalidation of in-memory copies of entries that other processes change.

use std::sync::Weak;

/// A change of a backend by another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalidation {
    /// The keys whose [digest](crate::Key::digest) begins with these two bytes: one of them was
    /// deleted or replaced.
    KeySlot([u8; 2]),
    /// The [generation](crate::Generations) of a group.
    Generations,
    /// Anything: the changes are unknown.
    All,
}

/// A listener for changes of other processes.
pub trait InvalidationListener: Send + Sync + 'static {
    /// Removes the copies of changed entries.
    fn on_invalidation(&self, change: Invalidation);
}

/// Notifies in-memory tiers about entries that other processes have changed: see [`Capabilities::invalidation_feed`](crate::Capabilities::invalidation_feed).
pub trait InvalidationFeed: Send + Sync {
    /// Notifies this listener of all changes from now on, for as long as it lives. If some may have been
    /// missed, because a connection was lost for instance, it receives [`Invalidation::All`].
    fn subscribe(&self, listener: Weak<dyn InvalidationListener>);

    /// Returns whether changes are noticed at present. While they are not, copies are served until they
    /// expire. The default returns `true`.
    #[inline]
    fn is_connected(&self) -> bool {
        true
    }

    /// Checks for changes from time to time, where they are not pushed. Every call of a cache begins with
    /// this, before generations and copies are read. Listeners are notified before it returns. The
    /// default does nothing.
    #[inline]
    fn poll(&self) {}
}

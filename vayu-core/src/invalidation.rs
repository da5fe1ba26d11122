//! What memory in front of a shared backend learns of other processes.

use std::sync::Weak;

/// What others have changed in a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Invalidation {
    /// The keys whose [digest](crate::Key::digest) begins with these two bytes: one of them was
    /// deleted or replaced.
    KeySlot([u8; 2]),
    /// The [generation](crate::Generations) of a group.
    Generations,
    /// Anything: nobody knows what.
    All,
}

/// Who is told of changes.
pub trait InvalidationListener: Send + Sync + 'static {
    /// What was remembered of this is to be asked for again.
    fn on_invalidation(&self, change: Invalidation);
}

/// How a backend that processes share tells of what they change, so that copies of its entries in
/// memory can be given up: see [`Sharing::invalidation_feed`](crate::Sharing::invalidation_feed).
pub trait InvalidationFeed: Send + Sync {
    /// Tells this watcher of all changes from now on, for as long as it lives. Whatever may have
    /// been missed, because a connection was broken for instance, is told as
    /// [`Invalidation::All`].
    fn subscribe(&self, watcher: Weak<dyn InvalidationListener>);

    /// Whether changes are heard of at present. While they are not, copies are believed until they
    /// expire, and nothing else is. The default answers that they are.
    #[inline]
    fn is_connected(&self) -> bool {
        true
    }

    /// Looks for changes, now and then, where nobody brings them. Every call of a cache begins with
    /// this, before generations are taken and copies are read. The watchers are told of what is found
    /// before it returns. The default does nothing.
    #[inline]
    fn poll(&self) {}
}

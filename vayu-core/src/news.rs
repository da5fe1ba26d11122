//! What memory in front of a shared backend learns of other processes.

use std::sync::Weak;

/// What others have changed in a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The keys whose [digest](crate::Key::digest) begins with these two bytes: one of them was
    /// deleted or replaced.
    Keys([u8; 2]),
    /// The [generation](crate::Generations) of a group.
    Groups,
    /// Anything: nobody knows what.
    Everything,
}

/// Who is told of changes.
pub trait Watcher: Send + Sync + 'static {
    /// What was remembered of this is to be asked for again.
    fn changed(&self, change: Change);
}

/// How a backend that processes share tells of what they change, so that copies of its entries in
/// memory can be given up: see [`Backend::news`](crate::Backend::news).
pub trait News: Send + Sync {
    /// Tells this watcher of all changes from now on, for as long as it lives. Whatever may have
    /// been missed, because a connection was broken for instance, is told as
    /// [`Change::Everything`].
    fn watch(&self, watcher: Weak<dyn Watcher>);

    /// Whether changes are heard of at present. While they are not, copies are believed until they
    /// expire, and nothing else is. The default answers that they are.
    #[inline]
    fn is_current(&self) -> bool {
        true
    }

    /// Looks for changes, now and then, where nobody brings them. Every call of a cache begins with
    /// this, before generations are taken and copies are read. The watchers are told of what is found
    /// before it returns. The default does nothing.
    #[inline]
    fn look(&self) {}
}

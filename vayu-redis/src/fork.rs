//! Detection of a fork: a child process has the memory of its parent, and none of its threads.

use forkguard::Guard;

/// The process in which this value was made.
///
/// Threads, connections and what is known through them belong to one process. A child that was
/// forked compares, which costs one load of a number, and starts its own.
#[derive(Debug, Clone)]
pub(crate) struct Process(Option<Guard>);

impl Process {
    /// Returns the running process.
    pub(crate) fn current() -> Self {
        Self(Guard::try_new().ok())
    }

    /// Returns whether this is still the process in which the value was made. Where forks cannot be
    /// detected, it never is.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.0.clone().is_some_and(|mut guard| !guard.detected_fork())
    }
}

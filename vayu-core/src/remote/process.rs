//! Fork detection: a child process has the memory of its parent, but none of its threads.

use forkguard::Guard;

/// The process in which this value was created.
///
/// Threads and connections belong to one process. A forked child detects at the cost of one load
/// that they are not its own, and starts new ones.
#[derive(Debug, Clone)]
pub struct Process(Option<Guard>);

impl Process {
    /// Returns the running process.
    pub fn current() -> Self {
        Self(Guard::try_new().ok())
    }

    /// Returns whether this is the running process. Where forks cannot be detected, it never is.
    #[inline]
    pub fn is_current(&self) -> bool {
        self.0.clone().is_some_and(|mut guard| !guard.detected_fork())
    }
}

//! State behind locks, in a process and in its children.
//!
//! A fork copies the memory and one thread. A lock that another thread held at that moment is held
//! in the child forever, and what it protects may be partially changed. The state that such a lock
//! protects is therefore replaced in the child, when the lock is found to be held: before that, the
//! operating system is not called.

use std::sync::{Mutex, MutexGuard, OnceLock, TryLockError};

use crate::platform::process_id;
use crate::sync::IgnorePoison;

/// The id of a process, to detect a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId(u32);

impl ProcessId {
    /// Returns the id of the running process.
    #[inline]
    pub fn current() -> Self {
        Self(process_id())
    }

    /// Returns the id.
    pub(crate) fn get(self) -> u32 {
        self.0
    }

    /// Returns the id of another process.
    #[cfg(test)]
    pub(crate) fn of_parent() -> Self {
        Self(process_id() ^ 1)
    }

    /// Returns whether this is the running process. It is not in a child that was forked since.
    #[inline]
    pub fn is_current(self) -> bool {
        self == Self::current()
    }
}

/// A value that a child process replaces by one of its own where it cannot use that of its parent.
#[derive(Debug)]
pub struct PerProcess<T> {
    value: T,
    process: ProcessId,
    child: OnceLock<Box<Self>>,
}

impl<T> PerProcess<T> {
    /// Creates a value of the running process.
    pub fn new(value: T) -> Self {
        Self { value, process: ProcessId::current(), child: OnceLock::new() }
    }

    /// Returns the value that was made last: that of this process, or of the parent that it still
    /// shares it with.
    #[inline]
    pub fn get(&self) -> &T {
        &self.last().value
    }

    /// Replaces the value if it is that of a parent process, and returns whether it was. It calls the
    /// operating system: for when a lock is held, and for rare operations.
    #[cold]
    pub fn replace_after_fork(&self, make: impl FnOnce() -> T) -> bool {
        let last = self.last();
        if last.process.is_current() {
            return false;
        }
        last.child.get_or_init(|| Box::new(Self::new(make())));
        true
    }

    #[inline]
    fn last(&self) -> &Self {
        let mut last = self;
        while let Some(child) = last.child.get() {
            last = child;
        }
        last
    }

    #[cfg(test)]
    pub(crate) fn of_parent(value: T) -> Self {
        Self { process: ProcessId::of_parent(), ..Self::new(value) }
    }
}

impl<T: Default> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> PerProcess<Mutex<T>> {
    /// Locks the value. If a thread of a parent process holds the lock, the value is replaced first.
    pub(crate) fn lock(&self, make: impl FnOnce() -> T) -> MutexGuard<'_, T> {
        match self.get().try_lock() {
            Ok(value) => return value,
            Err(TryLockError::Poisoned(value)) => return value.into_inner(),
            Err(TryLockError::WouldBlock) => {
                self.replace_after_fork(|| Mutex::new(make()));
            }
        }
        self.get().lock().ignore_poison()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_of_a_parent_is_used_until_it_is_replaced_once() {
        let value = PerProcess::of_parent(1);
        assert_eq!(*value.get(), 1);
        assert!(value.replace_after_fork(|| 2));
        assert_eq!(*value.get(), 2);
        assert!(!value.replace_after_fork(|| 3), "it is of this process");
        assert_eq!(*value.get(), 2);
    }
}

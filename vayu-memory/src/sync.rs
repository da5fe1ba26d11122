//! The primitives of the table, which a model checker replaces.

use std::sync::TryLockError;

#[cfg(vayu_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(vayu_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
#[cfg(not(vayu_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(vayu_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Returns the guard of a lock, or `None` if it is held. A panic of its last holder is ignored: what a lock
/// of the table protects is consistent whenever code of users runs.
#[inline]
pub(crate) fn unless_held<T>(result: Result<T, TryLockError<T>>) -> Option<T> {
    match result {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Stores a value that other threads change by read-modify-write operations.
///
/// Each of those directly follows the store whose value it has read. Loom orders two stores only if one
/// thread has seen both, so a reader could see them in either order: there this is one, too.
#[inline(always)]
pub(crate) fn store(atomic: &AtomicU64, value: u64, order: Ordering) {
    if cfg!(vayu_loom) {
        atomic.swap(value, order);
    } else {
        atomic.store(value, order);
    }
}

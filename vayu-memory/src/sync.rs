//! The primitives of the table, which a model checker replaces.

#[cfg(vayu_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(vayu_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(vayu_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(vayu_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Locks a mutex, or returns `None` if it is held. A panic of its last holder is ignored: what it
/// protects is consistent whenever code of users runs.
#[inline]
pub(crate) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    use std::sync::TryLockError;
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// Locks a mutex, whatever its last holder did.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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

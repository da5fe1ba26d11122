//! Synchronization primitives, replaced by those of a model checker under loom and shuttle.

#[cfg(not(any(vayu_loom, vayu_shuttle)))]
mod std_primitives {
    pub(crate) use std::sync::atomic::{AtomicU64, fence};
    pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
    pub(crate) use std::thread_local;

    pub(crate) use event_listener::Event;

    /// Wakes all listeners.
    pub(crate) fn notify_all(event: &Event) {
        event.notify(usize::MAX);
    }

    /// Lets another thread run. After some attempts also one with a lower priority.
    pub(crate) fn back_off(attempts: u32) {
        if attempts < 64 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }
}

#[cfg(not(any(vayu_loom, vayu_shuttle)))]
pub(crate) use self::std_primitives::{
    AtomicU64, Condvar, Event, Mutex, MutexGuard, OnceLock, back_off, fence, notify_all,
    thread_local,
};

#[cfg(vayu_loom)]
pub(crate) use loom::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, fence},
    },
    thread_local,
};
#[cfg(all(vayu_shuttle, not(vayu_loom)))]
pub(crate) use shuttle::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, fence},
    },
    thread_local,
};

#[cfg(any(vayu_loom, vayu_shuttle))]
mod model;
#[cfg(any(vayu_loom, vayu_shuttle))]
pub(crate) use self::model::{Event, OnceLock, back_off, notify_all};

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::platform::HAS_THREADS;

/// The result of locking, with poisoning ignored.
///
/// No code of users runs while a lock of this workspace is held, so a panic leaves nothing
/// partially changed.
pub trait IgnorePoison {
    /// The guard of the lock.
    type Guard;

    /// Returns the guard, whether or not the lock is poisoned.
    fn ignore_poison(self) -> Self::Guard;
}

impl<G> IgnorePoison for Result<G, PoisonError<G>> {
    type Guard = G;

    #[inline]
    fn ignore_poison(self) -> G {
        self.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Locks a mutex, poisoned or not.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().ignore_poison()
}

/// Runs a future on this thread, which sleeps while the future waits. Without other threads it polls it until it is ready.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let signal = Arc::new(Signal { raised: Mutex::new(false), changed: Condvar::new() });
    let waker = Waker::from(Arc::clone(&signal));
    let mut context = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending if HAS_THREADS => signal.wait(),
            Poll::Pending => {}
        }
    }
}

/// The signal that a sleeping thread waits for.
struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn wait(&self) {
        let mut raised = lock(&self.raised);
        while !*raised {
            raised = self.changed.wait(raised).ignore_poison();
        }
        *raised = false;
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        *lock(&self.raised) = true;
        self.changed.notify_one();
    }
}

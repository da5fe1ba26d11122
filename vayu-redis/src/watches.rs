//! Callers that wait for leases of other processes, and are notified when those are released.
//!
//! A process that finds a lease held leaves its [`WaiterId`] in the value of the lease. The script that releases the
//! lease publishes a message on the channel of each process that it finds there, or one message for all processes if
//! there are many. A process receives them over the connection for invalidations.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use vayu_core::__internal::catch_panic;
use vayu_core::__internal::remote::random_bytes;
use vayu_core::wire::WireKey;

use crate::error::Failure;
use crate::sync::lock;

/// The part of the digest of a key by which a message refers to its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LeaseId([u8; Self::LENGTH]);

impl LeaseId {
    pub(crate) const LENGTH: usize = 8;

    pub(crate) fn new(key: &WireKey) -> Self {
        let mut id = [0; Self::LENGTH];
        id.copy_from_slice(&key.digest()[..Self::LENGTH]);
        Self(id)
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

/// The name of a process as long as its connection for messages lives, in eight hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaiterId([u8; Self::LENGTH]);

impl WaiterId {
    pub(crate) const LENGTH: usize = 8;

    pub(crate) fn random() -> Result<Self, Failure> {
        let mut digits = [0; Self::LENGTH];
        let _ = const_hex::encode_to_slice(random_bytes::<4>()?, &mut digits);
        Ok(Self(digits))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }

    /// Returns the id as a number, which is not zero.
    pub(crate) fn number(self) -> u64 {
        u64::from_le_bytes(self.0)
    }

    pub(crate) fn from_number(number: u64) -> Option<Self> {
        (number != 0).then(|| Self(number.to_le_bytes()))
    }
}

/// The callers of this process that wait for leases.
#[derive(Default)]
pub(crate) struct Watches {
    waiting: Mutex<HashMap<LeaseId, Vec<Waiting>>>,
    next: AtomicU64,
}

struct Waiting {
    number: u64,
    released: oneshot::Sender<()>,
}

impl Waiting {
    /// Notifies the caller. A panic of its waker must not end the task that receives the messages of all.
    fn notify(self) {
        let _ = catch_panic("notify of a released lease", || Ok(self.released.send(())));
    }
}

impl Watches {
    /// Adds a caller that is notified of each message from now on.
    pub(crate) fn watch(self: &Arc<Self>, lease: LeaseId) -> Watch {
        let (sender, released) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting { number, released: sender };
        lock(&self.waiting).entry(lease).or_default().push(waiting);
        Watch { released, watches: Arc::clone(self), lease, number }
    }

    /// Notifies the callers that wait for this lease.
    pub(crate) fn notify(&self, lease: LeaseId) {
        // A waker is not run under the lock.
        let waiting = lock(&self.waiting).remove(&lease);
        waiting.into_iter().flatten().for_each(Waiting::notify);
    }

    /// Notifies all callers.
    pub(crate) fn notify_all(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_values().flatten().for_each(Waiting::notify);
    }

    /// Removes the callers of the parent of this process, which do not exist here and must not be woken.
    pub(crate) fn forget_all(&self) {
        std::mem::forget(std::mem::take(&mut *lock(&self.waiting)));
    }

    fn remove(&self, lease: LeaseId, number: u64) {
        let mut waiting = lock(&self.waiting);
        if let Some(callers) = waiting.get_mut(&lease) {
            callers.retain(|caller| caller.number != number);
            if callers.is_empty() {
                waiting.remove(&lease);
            }
        }
    }
}

/// A future that is ready when the caller is notified. A caller that drops it is no longer waiting.
pub(crate) struct Watch {
    released: oneshot::Receiver<()>,
    watches: Arc<Watches>,
    lease: LeaseId,
    number: u64,
}

impl Future for Watch {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.released).poll(context).map(drop)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watches.remove(self.lease, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn is_ready(watch: &mut Watch) -> bool {
        Pin::new(watch).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn callers_of_a_lease_are_notified_once_and_dropped_ones_are_removed() {
        let watches = Arc::new(Watches::default());
        let [one, other] = [[1; 8], [2; 8]].map(LeaseId::from_bytes);
        let mut waiting = [one, one, other].map(|lease| watches.watch(lease));
        watches.notify(one);
        assert_eq!(waiting.each_mut().map(is_ready), [true, true, false]);
        let later = watches.watch(one);
        drop(later);
        assert_eq!(lock(&watches.waiting).len(), 1, "the other lease");
        watches.notify_all();
        assert!(is_ready(&mut waiting[2]));
        drop(waiting);
        assert!(lock(&watches.waiting).is_empty());
    }

    #[test]
    fn panic_of_a_waker_does_not_affect_the_other_callers() {
        struct Panics;
        impl std::task::Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("planned");
            }
        }
        let watches = Arc::new(Watches::default());
        let one = LeaseId::from_bytes([1; 8]);
        let notifies: [fn(&Watches, LeaseId); 2] =
            [|watches, lease| watches.notify(lease), |watches, _| watches.notify_all()];
        for notify in notifies {
            let mut waiting = [one, one].map(|lease| watches.watch(lease));
            let waker = Waker::from(Arc::new(Panics));
            assert!(Pin::new(&mut waiting[0]).poll(&mut Context::from_waker(&waker)).is_pending());
            notify(&watches, one);
            assert!(is_ready(&mut waiting[1]));
        }
    }

    #[test]
    fn id_of_a_process_is_a_part_of_a_channel_name() {
        let id = WaiterId::random().unwrap();
        assert!(id.as_bytes().iter().all(u8::is_ascii_hexdigit));
    }
}

//! The leases of a cache: attempts to acquire them, and the pauses between the attempts.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use crate::backend::{Backend, LONGEST_PAUSE, Lease, LeaseGuard, LeaseWatch, Leases};
use crate::cache::Engine;
use crate::flight::Deadline;
use crate::io::{Io, Operation};
use crate::key::Key;

/// The first pause between two attempts to acquire a lease.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The first and the longest pause of a caller that is notified when the lease is released.
const WATCHED_PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(1)];

impl<B: Backend> Engine<B> {
    /// Tries to acquire the lease of a key, if the backend has leases. A caller that `waits` for it is notified of its
    /// release where the backend can do that.
    pub(crate) fn try_acquire_lease<'a, M: Io>(
        &'a self,
        key: &'a Key,
        waits: bool,
    ) -> Operation<'a, Lease> {
        let Some(leases) = self.backend().capabilities().leases else {
            return Operation::done(Ok(Lease::NotRequired));
        };
        let operation = "acquire lease";
        if waits {
            Operation::perform::<M>(
                operation,
                || leases.try_acquire_or_watch(key),
                || leases.try_acquire_or_watch_async(key),
            )
        } else {
            Operation::perform::<M>(
                operation,
                || leases.try_acquire(key),
                || leases.try_acquire_async(key),
            )
        }
    }

    /// Returns the pauses between attempts to acquire a lease.
    pub(crate) fn lease_pauses(&self) -> LeasePauses {
        let leases = self.backend().capabilities().leases;
        let [first, longest] = WATCHED_PAUSES;
        LeasePauses {
            polled: poll_backoff(leases.map_or(LONGEST_PAUSE, Leases::longest_pause)),
            watched: Backoff { next: first, longest },
        }
    }

    /// Waits before the next attempt to acquire a lease, until one of the watches is ready or this pause is over. Returns
    /// whether the call may wait longer. Watches that are ready are removed.
    pub(crate) async fn pause_for<M: Io>(
        &self,
        pause: Duration,
        watches: &mut [Option<LeaseWatch>],
        deadline: &mut Deadline,
    ) -> bool {
        if !M::MAY_WAIT {
            return false;
        }
        let mut pause = self.sleep(pause);
        let either = poll_fn(|context| {
            if LeaseWatch::poll_any(watches, context).is_ready() {
                return Poll::Ready(());
            }
            pause.as_mut().poll(context)
        });
        M::wait(self.begin(deadline).limit(either)).await
    }
}

/// Releases a lease.
pub(crate) fn release_lease<M: Io>(lease: LeaseGuard) -> Operation<'static, ()> {
    if M::BLOCKS {
        Operation::blocking("release lease", || lease.release())
    } else {
        Operation::awaiting("release lease", || Box::pin(lease.release_async()))
    }
}

/// The pauses of a call that waits for leases.
pub(crate) struct LeasePauses {
    polled: Backoff,
    watched: Backoff,
}

impl LeasePauses {
    /// Returns the next pause of a caller that is notified of a release, or that is not.
    pub(crate) fn next(&mut self, is_watched: bool) -> Duration {
        if is_watched { self.watched.pause() } else { self.polled.pause() }
    }
}

/// Pauses that double up to the longest one, an exponential backoff.
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Returns the next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = pause.saturating_mul(2).min(self.longest);
        pause
    }
}

/// Returns the pauses of a caller that polls.
pub(crate) fn poll_backoff(longest: Duration) -> Backoff {
    Backoff { next: FIRST_PAUSE, longest }
}

//! The end of all waits of one call.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::clock::Sleep;

/// The instant at which a call stops waiting for others.
///
/// A call has one, which every wait of it is handed: for a flight, for a lease, and for the flights
/// and leases after those. Its time runs from the first wait. It can be polled again once it is over.
#[derive(Default)]
pub(crate) enum Deadline {
    #[default]
    Unset,
    At(Sleep),
    Over,
}

impl Deadline {
    /// Sets the deadline, unless it was set by an earlier wait.
    pub(crate) fn begin(&mut self, sleep: impl FnOnce() -> Sleep) -> &mut Self {
        if let Self::Unset = self {
            *self = Self::At(sleep());
        }
        self
    }

    /// Awaits a future until the deadline. Returns whether the future was ready.
    pub(crate) async fn limit<F: Future<Output = ()> + Unpin>(&mut self, first: F) -> bool {
        Limited { first, deadline: self }.await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Unset => Poll::Pending,
            Self::Over => Poll::Ready(()),
            Self::At(sleep) => sleep.as_mut().poll(context).map(|()| *self = Self::Over),
        }
    }
}

struct Limited<'a, F> {
    first: F,
    deadline: &'a mut Deadline,
}

impl<F: Future<Output = ()> + Unpin> Future for Limited<'_, F> {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        if Pin::new(&mut self.first).poll(context).is_ready() {
            return Poll::Ready(true);
        }
        self.deadline.poll(context).map(|()| false)
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use std::future::pending;
    use std::task::Waker;
    use std::time::Duration;

    use super::*;
    use crate::clock::Clock;
    use crate::sync::block_on;
    use crate::testing::ManualClock;

    #[test]
    fn time_runs_from_the_first_wait_and_is_not_given_again() {
        let clock = ManualClock::new();
        let minute = Duration::from_secs(60);
        let mut deadline = Deadline::default();
        clock.advance(minute);
        assert!(deadline.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        deadline.begin(|| clock.sleep(minute));
        clock.advance(minute / 2);
        deadline.begin(|| clock.sleep(minute));
        assert!(deadline.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        clock.advance(minute / 2);
        for _ in 0..3 {
            assert!(!block_on(deadline.limit(Box::pin(pending()))));
        }
    }

    #[test]
    fn sleep_that_is_over_is_not_polled_again() {
        let mut deadline = Deadline::default();
        // This future panics when it is.
        deadline.begin(|| Box::pin(async {}));
        for _ in 0..3 {
            assert!(!block_on(deadline.limit(Box::pin(pending()))));
        }
    }
}

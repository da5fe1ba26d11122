//! The time limit of all waits of one call.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::clock::{Clock, Sleep};

/// The instant at which a call stops waiting for others.
///
/// A call passes one deadline to each of its waits, for flights and for leases. The time runs from the
/// first wait. The deadline can be polled again after it is over.
#[derive(Default)]
pub(crate) struct Deadline {
    /// `None` before [`begin`](Self::begin): then it is never over.
    clock: Option<Arc<dyn Clock>>,
    sleep: Option<Sleep>,
    /// The time that remains after the sleep.
    left: Duration,
}

/// The end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The future was ready.
    Ready,
    /// The part of the time that the wait was limited to is over.
    Part,
    /// The deadline is over.
    TimedOut,
}

impl Deadline {
    /// Sets the deadline, unless it was set by an earlier wait.
    pub(crate) fn begin(&mut self, clock: &Arc<dyn Clock>, max_wait: Duration) -> &mut Self {
        if self.clock.is_none() {
            self.clock = Some(Arc::clone(clock));
            self.left = max_wait;
        }
        self
    }

    /// Awaits a future until the deadline. Returns whether the future was ready.
    pub(crate) async fn limit<F: Future<Output = ()> + Unpin>(&mut self, mut first: F) -> bool {
        loop {
            match self.limit_part(&mut first, Duration::MAX).await {
                Waited::Ready => return true,
                Waited::Part => {}
                Waited::TimedOut => return false,
            }
        }
    }

    /// Awaits a future for `part` of the time at most. A part that an earlier wait has begun
    /// ends first.
    pub(crate) async fn limit_part<F>(&mut self, first: F, part: Duration) -> Waited
    where
        F: Future<Output = ()> + Unpin,
    {
        if let (Some(clock), None) = (&self.clock, &self.sleep)
            && !self.left.is_zero()
        {
            let part = part.min(self.left);
            self.left -= part;
            self.sleep = Some(clock.sleep(part));
        }
        Limited { first, deadline: self }.await
    }

    /// Returns whether a part of the time is running.
    pub(crate) fn is_running(&self) -> bool {
        self.sleep.is_some()
    }

    /// Polls the end of the running part of the time.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Waited> {
        match &mut self.sleep {
            Some(sleep) => {
                if sleep.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.sleep = None;
            }
            None if self.clock.is_none() => return Poll::Pending,
            None => {}
        }
        Poll::Ready(if self.left.is_zero() { Waited::TimedOut } else { Waited::Part })
    }
}

/// The future of [`Deadline::limit_part`].
struct Limited<'a, F> {
    first: F,
    deadline: &'a mut Deadline,
}

impl<F: Future<Output = ()> + Unpin> Future for Limited<'_, F> {
    type Output = Waited;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Waited> {
        if Pin::new(&mut self.first).poll(context).is_ready() {
            return Poll::Ready(Waited::Ready);
        }
        self.deadline.poll(context)
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use std::future::{pending, ready};

    use super::*;
    use crate::Timestamp;
    use crate::sync::block_on;
    use crate::testing::ManualClock;

    const MINUTE: Duration = Duration::from_secs(60);

    fn poll(wait: &mut (impl Future<Output = Waited> + Unpin)) -> Poll<Waited> {
        Pin::new(wait).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn time_runs_from_the_first_wait_and_is_not_extended_by_later_ones() {
        let manual = ManualClock::new();
        let clock: Arc<dyn Clock> = Arc::new(manual.clone());
        let mut deadline = Deadline::default();
        deadline.begin(&clock, MINUTE);
        manual.advance(MINUTE);
        let never = || Box::pin(pending());
        assert!(block_on(deadline.limit(ready(()))));
        assert!(poll(&mut Box::pin(deadline.limit_part(never(), MINUTE))).is_pending());
        manual.advance(MINUTE / 2);
        deadline.begin(&clock, MINUTE);
        assert!(poll(&mut Box::pin(deadline.limit_part(never(), MINUTE))).is_pending());
        manual.advance(MINUTE / 2);
        for _ in 0..3 {
            assert!(!block_on(deadline.limit(never())));
        }
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let manual = ManualClock::new();
        let clock: Arc<dyn Clock> = Arc::new(manual.clone());
        let mut deadline = Deadline::default();
        let never = || Box::pin(pending());
        deadline.begin(&clock, MINUTE);
        for (part, left) in [(MINUTE / 4, 45), (MINUTE / 2, 15)] {
            assert!(poll(&mut Box::pin(deadline.limit_part(never(), part))).is_pending());
            manual.advance(part);
            let ended = poll(&mut Box::pin(deadline.limit_part(never(), MINUTE)));
            assert_eq!((ended, deadline.left.as_secs()), (Poll::Ready(Waited::Part), left));
        }
        assert!(poll(&mut Box::pin(deadline.limit_part(never(), Duration::MAX))).is_pending());
        manual.advance(MINUTE / 4);
        assert_eq!(block_on(deadline.limit_part(never(), MINUTE)), Waited::TimedOut);
    }

    #[test]
    fn sleep_that_is_over_is_not_polled_again() {
        /// A clock whose sleeps are over at once, and panic when they are polled again.
        #[derive(Debug)]
        struct Over;
        impl Clock for Over {
            fn now(&self) -> Timestamp {
                Timestamp::from_micros(0)
            }
            fn sleep(&self, _: Duration) -> Sleep {
                Box::pin(async {})
            }
        }
        let clock: Arc<dyn Clock> = Arc::new(Over);
        let mut deadline = Deadline::default();
        deadline.begin(&clock, MINUTE);
        for _ in 0..3 {
            assert!(!block_on(deadline.limit(Box::pin(pending()))));
        }
    }
}

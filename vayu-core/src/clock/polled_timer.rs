//! A timer for systems without threads: its task is woken again and again until the deadline.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::platform::Instant;

/// A future that is ready at a deadline, and wakes its task until then.
#[derive(Debug)]
pub(super) struct PolledTimer {
    /// `None` if the deadline is never reached.
    deadline: Option<Instant>,
}

impl PolledTimer {
    pub(super) fn new(time: Duration) -> Self {
        Self { deadline: Instant::now().checked_add(time) }
    }
}

impl Future for PolledTimer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => return Poll::Ready(()),
            Some(_) => context.waker().wake_by_ref(),
            None => {}
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::sync::block_on;
    use crate::testing::watchdog;

    #[test]
    fn polled_timer_fires_at_its_deadline_and_not_before() {
        watchdog(Duration::from_secs(60), || {
            for time in [Duration::ZERO, Duration::from_millis(3)] {
                let began = Instant::now();
                block_on(pin!(PolledTimer::new(time)));
                assert!(began.elapsed() >= time);
            }
        });
    }
}

//! A clock that is moved by hand.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::{Clock, Sleep, Timestamp};
use crate::sync::IgnorePoison;

/// A clock that stands still until it is moved. Clones are the same clock.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// # mod vayu { pub use vayu_core::*; pub mod time { pub use vayu_core::*; } }
/// use vayu::testing::ManualClock;
/// use vayu::time::Clock;
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().saturating_since(before), Duration::from_secs(60));
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    now: Timestamp,
    sleepers: Vec<(Timestamp, Waker)>,
}

impl ManualClock {
    /// Creates a clock that shows a time in September 2001.
    pub fn new() -> Self {
        let now = Timestamp::from_micros(1_000_000_000_000_000);
        Self(Arc::new(Mutex::new(State { now, sleepers: Vec::new() })))
    }

    /// Moves the clock forward.
    pub fn advance(&self, time: Duration) {
        let now = self.now().saturating_add(time);
        self.set(now);
    }

    /// Moves the clock to an instant, forward or back.
    pub fn set(&self, now: Timestamp) {
        let mut state = self.state();
        state.now = now;
        let sleepers = std::mem::take(&mut state.sleepers);
        drop(state);
        // Sleepers that are not due register again when they are polled.
        for (_, waker) in sleepers {
            waker.wake();
        }
    }

    /// Returns the number of sleeps on this clock that are pending.
    pub fn sleepers(&self) -> usize {
        self.state().sleepers.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().ignore_poison()
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state().now
    }

    fn sleep(&self, time: Duration) -> Sleep {
        Box::pin(ManualSleep { clock: self.clone(), until: self.now().saturating_add(time) })
    }
}

struct ManualSleep {
    clock: ManualClock,
    until: Timestamp,
}

impl Future for ManualSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.state();
        if state.now >= self.until {
            return Poll::Ready(());
        }
        let waker = context.waker();
        let is_known =
            |(until, known): &(Timestamp, Waker)| *until == self.until && known.will_wake(waker);
        if !state.sleepers.iter().any(is_known) {
            state.sleepers.push((self.until, waker.clone()));
        }
        Poll::Pending
    }
}

impl Drop for ManualSleep {
    fn drop(&mut self) {
        let mut state = self.clock.state();
        if let Some(index) = state.sleepers.iter().position(|(until, _)| *until == self.until) {
            state.sleepers.swap_remove(index);
        }
    }
}

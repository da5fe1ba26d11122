//! Circuit breaker: while a server fails, requests fail at once instead of waiting for it.
//!
//! Closed, it counts failures in a row. At the threshold it opens for a cooldown. Then it lets one
//! probe pass, whose outcome closes it or opens it again, for twice as long.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use vayu_core::{Clock, Timestamp};

use crate::random;
use crate::sync::lock;

/// The circuit breaker of one server.
#[derive(Debug)]
pub(crate) struct Breaker {
    threshold: u32,
    cooldown: Duration,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Timestamp, cooldowns: u32 },
    Probing { cooldowns: u32 },
}

/// Longest cooldown, in multiples of the first one.
const MAX_COOLDOWN_FACTOR: u32 = 32;

/// Permission to send one request. Its holder reports the outcome; dropping it means that the
/// request was cancelled.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
}

impl Breaker {
    pub(crate) fn new(threshold: u32, cooldown: Duration, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State::Closed { failures: 0 });
        Self { threshold: threshold.max(1), cooldown, clock, state }
    }

    /// Returns a permit, or `None` while the breaker is open.
    pub(crate) fn permit(&self) -> Option<Permit<'_>> {
        let mut state = self.state();
        let is_probe = match *state {
            State::Closed { .. } => false,
            State::Probing { .. } => return None,
            State::Open { until, cooldowns } => {
                if self.clock.now().is_within_before(until, self.cooldown * MAX_COOLDOWN_FACTOR) {
                    return None;
                }
                *state = State::Probing { cooldowns };
                true
            }
        };
        Some(Permit { breaker: self, is_probe })
    }

    fn succeeded(&self) {
        let mut state = self.state();
        match &*state {
            // The request was sent before the breaker opened.
            State::Closed { failures: 0 } | State::Open { .. } => {}
            _ => *state = State::Closed { failures: 0 },
        }
    }

    fn failed(&self, is_probe: bool) {
        let mut state = self.state();
        let cooldowns = match &mut *state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures < self.threshold {
                    return;
                }
                0
            }
            State::Probing { cooldowns } if is_probe => *cooldowns,
            _ => return,
        };
        *state = self.open(cooldowns);
    }

    /// Returns the open state. The cooldown is jittered, so that processes do not probe
    /// simultaneously.
    fn open(&self, cooldowns: u32) -> State {
        let longest = self.cooldown * (1 << cooldowns.min(MAX_COOLDOWN_FACTOR.ilog2()));
        let cooldown = random::jittered(longest);
        State::Open { until: self.clock.now().saturating_add(cooldown), cooldowns: cooldowns + 1 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A permit that does not borrow its breaker.
#[derive(Debug)]
#[must_use]
pub(crate) struct DetachedPermit {
    is_probe: bool,
}

impl DetachedPermit {
    /// Returns the permit.
    pub(crate) fn attach(self, breaker: &Breaker) -> Permit<'_> {
        Permit { breaker, is_probe: self.is_probe }
    }
}

impl Permit<'_> {
    /// Returns whether the outcome decides if the breaker closes.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Detaches the permit, so that another task can hold it.
    pub(crate) fn detach(self) -> DetachedPermit {
        let is_probe = self.is_probe;
        std::mem::forget(self);
        DetachedPermit { is_probe }
    }

    /// Returns whether the breaker has opened since this was given.
    pub(crate) fn is_revoked(&self) -> bool {
        !self.is_probe && !matches!(*self.breaker.state(), State::Closed { .. })
    }

    pub(crate) fn succeeded(self) {
        self.breaker.succeeded();
        std::mem::forget(self);
    }

    pub(crate) fn failed(self) {
        self.breaker.failed(self.is_probe);
        std::mem::forget(self);
    }
}

impl Drop for Permit<'_> {
    /// Counts a cancelled probe as failed, so that another one follows.
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.failed(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use vayu_core::testing::ManualClock;

    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(1);

    fn breaker() -> (ManualClock, Breaker) {
        let clock = ManualClock::new();
        (clock.clone(), Breaker::new(3, COOLDOWN, Arc::new(clock)))
    }

    fn fail(breaker: &Breaker) {
        breaker.permit().expect("a permit").failed();
    }

    #[test]
    fn third_failure_in_a_row_opens_the_breaker() {
        let (_clock, breaker) = breaker();
        fail(&breaker);
        fail(&breaker);
        breaker.permit().unwrap().succeeded();
        fail(&breaker);
        fail(&breaker);
        fail(&breaker);
        assert!(breaker.permit().is_none());
    }

    #[test]
    fn one_probe_after_the_cooldown_decides() {
        let (clock, breaker) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        clock.advance(Duration::from_millis(499));
        assert!(breaker.permit().is_none(), "no cooldown is shorter than half");
        clock.advance(Duration::from_millis(501));
        let probe = breaker.permit().expect("the cooldown is over");
        assert!(breaker.permit().is_none(), "one probe at a time");
        probe.succeeded();
        assert!(breaker.permit().is_some() && breaker.permit().is_some());
    }

    #[test]
    fn cooldowns_double_up_to_a_limit() {
        let (clock, breaker) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        for n in 1..20_u32 {
            clock.advance(COOLDOWN * MAX_COOLDOWN_FACTOR);
            fail(&breaker);
            let State::Open { until, .. } = *breaker.state() else { panic!("it is open") };
            let cooldown = until.saturating_since(clock.now());
            let max_cooldown = COOLDOWN * (1 << n.min(5));
            assert!(cooldown >= max_cooldown / 2 && cooldown <= max_cooldown, "{n}: {cooldown:?}");
        }
    }

    #[test]
    fn cancelled_probe_counts_as_failed() {
        let (clock, breaker) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        clock.advance(COOLDOWN);
        drop(breaker.permit().expect("the cooldown is over"));
        assert!(breaker.permit().is_none());
        clock.advance(2 * COOLDOWN);
        assert!(breaker.permit().is_some());
    }

    #[test]
    fn late_success_of_an_earlier_call_does_not_close_the_breaker() {
        let (_clock, breaker) = breaker();
        let early = breaker.permit().unwrap();
        (0..3).for_each(|_| fail(&breaker));
        early.succeeded();
        assert!(breaker.permit().is_none());
    }

    #[test]
    fn clock_set_back_does_not_extend_the_cooldown() {
        let (clock, breaker) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        clock.set(Timestamp::from_micros(0));
        assert!(breaker.permit().is_some());
    }
}

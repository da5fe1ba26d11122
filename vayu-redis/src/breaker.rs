//! Leaving a server alone that does not answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vayu_core::{Clock, Timestamp};

use crate::random;

/// Counts failures in a row. After some of them nobody may ask for a while; then one caller may,
/// and what it hears decides.
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

/// A rest grows to at most this many times the first one.
const MAX_COOLDOWN_FACTOR: u32 = 32;

/// Leave to ask the server. Whoever has it says what came of it, or has been cancelled.
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

    /// Leave to ask, or nothing while the server is left alone.
    pub(crate) fn permit(&self) -> Option<Permit<'_>> {
        let mut state = self.state();
        let is_probe = match *state {
            State::Closed { .. } => false,
            State::Probing { .. } => return None,
            State::Open { until, cooldowns } => {
                let now = self.clock.now();
                // A clock that was set back must not make the rest longer.
                let in_cooldown = now < until && until.saturating_since(now) <= self.max_cooldown();
                if in_cooldown {
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
            // What began before the server was left alone says nothing about it now.
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

    /// At rest for about this long, so that many processes do not come back at one moment.
    fn open(&self, cooldowns: u32) -> State {
        let max_cooldown = self.cooldown * (1 << cooldowns.min(MAX_COOLDOWN_FACTOR.ilog2()));
        let cooldown = random::jittered(max_cooldown);
        State::Open { until: self.clock.now().saturating_add(cooldown), cooldowns: cooldowns + 1 }
    }

    fn max_cooldown(&self) -> Duration {
        self.cooldown * MAX_COOLDOWN_FACTOR
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permit of a probe, without the borrow of its breaker.
#[derive(Debug)]
#[must_use]
pub(crate) struct DetachedPermit {
    is_probe: bool,
}

impl DetachedPermit {
    pub(crate) fn attach(self, breaker: &Breaker) -> Permit<'_> {
        Permit { breaker, is_probe: self.is_probe }
    }
}

impl Permit<'_> {
    /// Whether what comes of this attempt decides if the server is asked again.
    pub(crate) fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Takes the permit to another task.
    pub(crate) fn detach(self) -> DetachedPermit {
        let is_probe = self.is_probe;
        std::mem::forget(self);
        DetachedPermit { is_probe }
    }

    /// Whether the server is left alone since this was given.
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
    /// The caller was cancelled. Of a probe nobody will hear any more.
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

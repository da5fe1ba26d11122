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
    rest: Duration,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed { failures: u32 },
    Open { until: Timestamp, rests: u32 },
    Probing { rests: u32 },
}

/// A rest grows to at most this many times the first one.
const LONGEST: u32 = 32;

/// Leave to ask the server. Whoever has it says what came of it, or has been cancelled.
#[derive(Debug)]
#[must_use]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
}

impl Breaker {
    pub(crate) fn new(threshold: u32, rest: Duration, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State::Closed { failures: 0 });
        Self { threshold: threshold.max(1), rest, clock, state }
    }

    /// Leave to ask, or nothing while the server is left alone.
    pub(crate) fn permit(&self) -> Option<Permit<'_>> {
        let mut state = self.state();
        let is_probe = match *state {
            State::Closed { .. } => false,
            State::Probing { .. } => return None,
            State::Open { until, rests } => {
                let now = self.clock.now();
                // A clock that was set back must not make the rest longer.
                let is_resting = now < until && until.saturating_since(now) <= self.longest();
                if is_resting {
                    return None;
                }
                *state = State::Probing { rests };
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
        let rests = match &mut *state {
            State::Closed { failures } => {
                *failures += 1;
                if *failures < self.threshold {
                    return;
                }
                0
            }
            State::Probing { rests } if is_probe => *rests,
            _ => return,
        };
        *state = self.open(rests);
    }

    /// At rest for about this long, so that many processes do not come back at one moment.
    fn open(&self, rests: u32) -> State {
        let longest = self.rest * (1 << rests.min(LONGEST.ilog2()));
        let rest = random::part_of(longest);
        State::Open { until: self.clock.now().saturating_add(rest), rests: rests + 1 }
    }

    fn longest(&self) -> Duration {
        self.rest * LONGEST
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The permit of a probe, without the borrow of its breaker.
#[derive(Debug)]
#[must_use]
pub(crate) struct Detached {
    is_probe: bool,
}

impl Detached {
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
    pub(crate) fn detach(self) -> Detached {
        let is_probe = self.is_probe;
        std::mem::forget(self);
        Detached { is_probe }
    }

    /// Whether the server is left alone since this was given.
    pub(crate) fn is_outdated(&self) -> bool {
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

    const REST: Duration = Duration::from_secs(1);

    fn breaker() -> (ManualClock, Breaker) {
        let clock = ManualClock::new();
        (clock.clone(), Breaker::new(3, REST, Arc::new(clock)))
    }

    fn fail(breaker: &Breaker) {
        breaker.permit().expect("leave to ask").failed();
    }

    #[test]
    fn third_failure_in_a_row_gives_a_rest() {
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
    fn one_caller_asks_after_the_rest_and_decides() {
        let (clock, breaker) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        clock.advance(Duration::from_millis(499));
        assert!(breaker.permit().is_none(), "no rest is shorter than half");
        clock.advance(Duration::from_millis(501));
        let probe = breaker.permit().expect("the rest is over");
        assert!(breaker.permit().is_none(), "one is enough");
        probe.succeeded();
        assert!(breaker.permit().is_some() && breaker.permit().is_some());
    }

    #[test]
    fn rests_grow_and_have_a_limit() {
        let (clock, breaker) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        for n in 1..20_u32 {
            clock.advance(REST * LONGEST);
            fail(&breaker);
            let State::Open { until, .. } = *breaker.state() else { panic!("it is open") };
            let rest = until.saturating_since(clock.now());
            let longest = REST * (1 << n.min(5));
            assert!(rest >= longest / 2 && rest <= longest, "{n}: {rest:?}");
        }
    }

    #[test]
    fn cancelled_probe_is_a_failed_one() {
        let (clock, breaker) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        clock.advance(REST);
        drop(breaker.permit().expect("the rest is over"));
        assert!(breaker.permit().is_none());
        clock.advance(2 * REST);
        assert!(breaker.permit().is_some());
    }

    #[test]
    fn late_success_of_an_early_caller_does_not_end_the_rest() {
        let (_clock, breaker) = breaker();
        let early = breaker.permit().unwrap();
        (0..3).for_each(|_| fail(&breaker));
        early.succeeded();
        assert!(breaker.permit().is_none());
    }

    #[test]
    fn clock_that_is_set_back_does_not_make_a_rest_longer() {
        let (clock, breaker) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        clock.set(Timestamp::from_micros(0));
        assert!(breaker.permit().is_some());
    }
}

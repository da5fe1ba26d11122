//! Circuit breaker: while a server fails, requests fail at once instead of waiting for it.
//!
//! Closed, it counts failures in a row. At the threshold it opens for a cooldown. Then it lets one
//! probe pass, whose outcome closes it or opens it again, for twice as long. It keeps the failure that
//! has opened it, as the cause of the requests that fail in the meantime.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use super::random::jittered;
use crate::clock::{Clock, Timestamp};
use crate::outage::display_time;
use crate::sync::IgnorePoison;

/// The circuit breaker of one server, whose failures are of the type `F`.
#[derive(Debug)]
pub struct Breaker<F> {
    threshold: u32,
    cooldown: Duration,
    clock: Arc<dyn Clock>,
    state: Mutex<State<F>>,
}

#[derive(Debug)]
enum State<F> {
    Closed { failures: u32 },
    Open { until: Timestamp, cooldowns: u32, cause: Arc<F> },
    Probing { cooldowns: u32, cause: Arc<F> },
}

/// The failure of a request that was not sent, since the circuit breaker is open.
#[derive(Debug)]
pub struct CircuitOpen<F> {
    /// The rest of the cooldown, zero while a probe is under way.
    left: Duration,
    /// The failure that has opened it.
    cause: Arc<F>,
}

impl<F> fmt::Display for CircuitOpen<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "circuit breaker open{}", shown_time(self.left))
    }
}

impl<F: Error + 'static> Error for CircuitOpen<F> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

impl<F> CircuitOpen<F> {
    fn during(left: Duration, cause: &Arc<F>) -> Self {
        Self { left, cause: Arc::clone(cause) }
    }

    fn probing(cause: &Arc<F>) -> Self {
        Self::during(Duration::ZERO, cause)
    }
}

impl<F: std::error::Error> Clone for CircuitOpen<F> {
    fn clone(&self) -> Self {
        Self::during(self.left, &self.cause)
    }
}

fn shown_time(left: Duration) -> String {
    if left.is_zero() { String::new() } else { format!(" for {}", display_time(left)) }
}

/// The effect of a failure on a circuit breaker.
#[derive(Debug, PartialEq, Eq)]
pub enum Failed {
    /// The number of failures in a row is below the threshold.
    Counted {
        /// The number of failures in a row.
        in_a_row: u32,
    },
    /// The breaker has opened, or has opened again, for this long.
    Opened {
        /// The time for which no request is sent.
        cooldown: Duration,
    },
    /// The breaker was open: the request was sent before.
    Ignored,
}

/// Longest cooldown, in multiples of the first one.
const MAX_COOLDOWN_FACTOR: u32 = 32;

/// Permission to send one request. Its holder reports the outcome; dropping it means that the
/// request was cancelled.
#[derive(Debug)]
#[must_use]
pub struct Permit<'a, F: Clone + std::error::Error + 'static> {
    breaker: &'a Breaker<F>,
    is_probe: bool,
}

impl<F: Clone + std::error::Error> Breaker<F> {
    /// Creates a breaker that opens after `threshold` failures in a row, for about `cooldown`.
    pub fn new(threshold: u32, cooldown: Duration, clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State::Closed { failures: 0 });
        Self { threshold: threshold.max(1), cooldown, clock, state }
    }

    /// Returns a permit, or an error while the breaker is open.
    ///
    /// # Errors
    ///
    /// While it is open, and while a probe is under way.
    pub fn permit(&self) -> Result<Permit<'_, F>, CircuitOpen<F>> {
        let mut state = self.state();
        let is_probe = match &*state {
            State::Closed { .. } => false,
            State::Probing { cause, .. } => return Err(CircuitOpen::probing(cause)),
            State::Open { until, cooldowns, cause } => {
                let now = self.clock.now();
                if now.is_within_before(*until, self.cooldown * MAX_COOLDOWN_FACTOR) {
                    return Err(CircuitOpen::during(until.saturating_since(now), cause));
                }
                *state = State::Probing { cooldowns: *cooldowns, cause: Arc::clone(cause) };
                true
            }
        };
        Ok(Permit { breaker: self, is_probe })
    }

    /// Returns whether this has ended failures: the server works.
    fn succeeded(&self) -> bool {
        let mut state = self.state();
        match &*state {
            // The request was sent before the breaker opened.
            State::Open { .. } => return false,
            State::Closed { failures: 0 } => {}
            _ => *state = State::Closed { failures: 0 },
        }
        true
    }

    /// Counts a failure. Without a `cause`, a probe was cancelled.
    fn failed(&self, is_probe: bool, cause: Option<&F>) -> Failed {
        let mut state = self.state();
        let (cooldowns, cause) = match (&mut *state, cause) {
            (State::Closed { failures }, Some(cause)) => {
                *failures += 1;
                if *failures < self.threshold {
                    return Failed::Counted { in_a_row: *failures };
                }
                (0, Arc::new(cause.clone()))
            }
            (State::Probing { cooldowns, cause: known }, cause) if is_probe => (
                *cooldowns,
                cause.map_or_else(|| Arc::clone(known), |cause| Arc::new(cause.clone())),
            ),
            _ => return Failed::Ignored,
        };
        let cooldown = self.next_cooldown(cooldowns);
        let until = self.clock.now().saturating_add(cooldown);
        *state = State::Open { until, cooldowns: cooldowns + 1, cause };
        Failed::Opened { cooldown }
    }

    /// Returns the next cooldown. It is jittered, so that processes do not probe simultaneously.
    fn next_cooldown(&self, cooldowns: u32) -> Duration {
        let longest = self.cooldown * (1 << cooldowns.min(MAX_COOLDOWN_FACTOR.ilog2()));
        jittered(longest)
    }

    fn state(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().ignore_poison()
    }
}

/// A permit that does not borrow its breaker.
#[derive(Debug)]
#[must_use]
pub struct DetachedPermit {
    is_probe: bool,
}

impl DetachedPermit {
    /// Returns the permit.
    pub fn attach<F: Clone + std::error::Error>(self, breaker: &Breaker<F>) -> Permit<'_, F> {
        Permit { breaker, is_probe: self.is_probe }
    }
}

impl<F: Clone + std::error::Error> Permit<'_, F> {
    /// Returns whether the outcome decides if the breaker closes.
    pub fn is_probe(&self) -> bool {
        self.is_probe
    }

    /// Detaches the permit, so that another task can hold it.
    pub fn detach(self) -> DetachedPermit {
        let is_probe = self.is_probe;
        std::mem::forget(self);
        DetachedPermit { is_probe }
    }

    /// Returns an error if the breaker has opened since this was given.
    ///
    /// # Errors
    ///
    /// Those of [`Breaker::permit`].
    pub fn check(&self) -> Result<(), CircuitOpen<F>> {
        match &*self.breaker.state() {
            _ if self.is_probe => Ok(()),
            State::Closed { .. } => Ok(()),
            State::Open { until, cause, .. } => {
                let left = until.saturating_since(self.breaker.clock.now());
                Err(CircuitOpen::during(left, cause))
            }
            State::Probing { cause, .. } => Err(CircuitOpen::probing(cause)),
        }
    }

    /// Reports a success. Returns whether the breaker is closed.
    pub fn succeeded(self) -> bool {
        let is_closed = self.breaker.succeeded();
        std::mem::forget(self);
        is_closed
    }

    /// Reports a failure.
    pub fn failed(self, cause: &F) -> Failed {
        let failed = self.breaker.failed(self.is_probe, Some(cause));
        std::mem::forget(self);
        failed
    }
}

impl<F: Clone + std::error::Error> Drop for Permit<'_, F> {
    /// Counts a cancelled probe as failed, so that another one follows.
    fn drop(&mut self) {
        if self.is_probe {
            self.breaker.failed(true, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::with_causes;
    use crate::testing::ManualClock;

    #[derive(Debug, Clone)]
    struct Failure;

    impl fmt::Display for Failure {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("no reply")
        }
    }

    impl Error for Failure {}

    const COOLDOWN: Duration = Duration::from_secs(1);

    fn breaker() -> (ManualClock, Breaker<Failure>) {
        let clock = ManualClock::new();
        (clock.clone(), Breaker::new(3, COOLDOWN, Arc::new(clock)))
    }

    fn fail(breaker: &Breaker<Failure>) {
        breaker.permit().expect("a permit").failed(&Failure);
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
        assert!(breaker.permit().is_err());
    }

    #[test]
    fn one_probe_after_the_cooldown_decides() {
        let (clock, breaker) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        clock.advance(Duration::from_millis(499));
        assert!(breaker.permit().is_err(), "no cooldown is shorter than half");
        clock.advance(Duration::from_millis(501));
        let probe = breaker.permit().expect("the cooldown is over");
        assert!(breaker.permit().is_err(), "one probe at a time");
        probe.succeeded();
        assert!(breaker.permit().is_ok() && breaker.permit().is_ok());
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
        assert!(breaker.permit().is_err());
        clock.advance(2 * COOLDOWN);
        assert!(breaker.permit().is_ok());
    }

    #[test]
    fn late_success_of_an_earlier_call_does_not_close_the_breaker() {
        let (_clock, breaker) = breaker();
        let early = breaker.permit().unwrap();
        (0..3).for_each(|_| fail(&breaker));
        early.succeeded();
        assert!(breaker.permit().is_err());
    }

    #[test]
    fn open_breaker_says_for_how_long_and_why() {
        let (clock, breaker) = breaker();
        let outcome = || breaker.permit().expect("a permit").failed(&Failure);
        assert_eq!(outcome(), Failed::Counted { in_a_row: 1 });
        assert_eq!(outcome(), Failed::Counted { in_a_row: 2 });
        let Failed::Opened { cooldown } = outcome() else { panic!("it opens") };
        let open = breaker.permit().expect_err("it is open");
        assert_eq!(
            open.to_string(),
            format!("circuit breaker open for {}", display_time(cooldown))
        );
        let cause = std::error::Error::source(&open).expect("a cause").to_string();
        assert_eq!(cause, "no reply");
        clock.advance(COOLDOWN);
        let _probe = breaker.permit().expect("a probe");
        let open = breaker.permit().expect_err("one probe at a time");
        assert_eq!(with_causes(&open), "circuit breaker open: no reply");
    }

    #[test]
    fn clock_set_back_does_not_extend_the_cooldown() {
        let (clock, breaker) = breaker();
        (0..3).for_each(|_| fail(&breaker));
        clock.set(Timestamp::from_micros(0));
        assert!(breaker.permit().is_ok());
    }
}

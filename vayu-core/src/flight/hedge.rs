//! Hedged computations: one caller of a flight that takes long computes the value in parallel.
//!
//! A leader may never end: its function waits for work that waits for this flight, or for a source that
//! does not respond. After a while one waiting caller computes in parallel (a hedged request), and all
//! callers get the first value. The next hedge of the flight follows after twice that time, so the
//! number of computations grows with the logarithm of the time.
//!
//! A hedge also measures its function: where it takes long itself, the function is slow, and its
//! computations are hedged later from then on. The compute times of leaders are no measure, since they
//! include the time in which a leader waited for itself.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::bounded_map::BoundedMap;
use crate::flight::table::HedgeEnd;
use crate::flight::{Flight, Flights, Outcome};
use crate::key::{Key, Prefix};

/// The time after which a computation is hedged, unless the function is known to take longer.
const HEDGE_AFTER: Duration = Duration::from_secs(3);

/// A computation is hedged after this many times the compute time of the last hedge of its function.
const HEDGE_FACTOR: u32 = 8;

/// The hedges of one flight.
///
/// The low byte of the state is the number of hedges of the leader. The other bytes change with the leader.
#[derive(Debug, Default)]
pub(crate) struct Hedges {
    state: AtomicU32,
    /// The number of hedges in progress. It changes under the lock of the table.
    running: AtomicU32,
}

impl Hedges {
    const COUNT: u32 = 0xff;
    /// A value instead of a count: the leader is not to be hedged.
    const NONE: u32 = u32::MAX;

    /// Returns the state, to be passed to [`begin`](Self::begin).
    pub(crate) fn get(&self) -> u32 {
        self.state.load(Ordering::Relaxed)
    }

    /// Returns the time until the next hedge.
    pub(super) fn next_after(hedges: u32, first_after: Duration) -> Duration {
        first_after.saturating_mul(1 << (hedges & Self::COUNT).min(16))
    }

    /// Counts a hedge. Returns `false` if there was another hedge or leader since the state was
    /// `hedges`, or if hedges are not allowed.
    pub(super) fn begin(&self, hedges: u32) -> bool {
        let (order, next) = (Ordering::Relaxed, hedges.wrapping_add(1));
        hedges != Self::NONE && self.state.compare_exchange(hedges, next, order, order).is_ok()
    }

    /// Resets the count for the next leader. Only under the lock of the table.
    pub(super) fn change_leader(&self) {
        self.state.store((self.get() | Self::COUNT).wrapping_add(1), Ordering::Relaxed);
    }

    /// Prevents hedges of the leader, or allows them again.
    pub(super) fn allow(&self, is_allowed: bool) {
        self.state.store(if is_allowed { 0 } else { Self::NONE }, Ordering::Relaxed);
    }
}

impl Hedges {
    /// Returns the number of hedges in progress. Only under the lock of the table.
    pub(super) fn running(&self) -> u32 {
        self.running.load(Ordering::Relaxed)
    }

    /// Counts a hedge that starts. Only under the lock of the table.
    pub(super) fn start(&self) {
        self.running.store(self.running() + 1, Ordering::Relaxed);
    }

    /// Counts a hedge that ends. Only under the lock of the table.
    pub(super) fn end(&self) {
        self.running.store(self.running() - 1, Ordering::Relaxed);
    }
}

/// A hedge in progress.
///
/// Dropped without an error, as after a panic, it ends the flight as abandoned if its leader has failed and
/// no other hedge is running.
#[derive(Debug)]
pub(crate) struct HedgeGuard<'a, R> {
    flights: &'a Flights<R>,
    key: &'a Key,
    flight: Arc<Flight<R>>,
    is_over: bool,
}

impl<'a, R> HedgeGuard<'a, R> {
    pub(super) fn new(flights: &'a Flights<R>, key: &'a Key, flight: Arc<Flight<R>>) -> Self {
        Self { flights, key, flight, is_over: false }
    }

    /// Returns the flight.
    pub(crate) fn flight(&self) -> &Arc<Flight<R>> {
        &self.flight
    }

    /// Ends the hedge without a value. `outcome` makes the outcome for the waiting callers, if the leader
    /// has failed and no other hedge is running.
    pub(crate) fn fail(mut self, outcome: impl FnOnce() -> Outcome<R>) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: impl FnOnce() -> Outcome<R>) {
        self.is_over = true;
        let outcome = match self.flights.end_hedge(self.key, &self.flight) {
            HedgeEnd::NotLast => return,
            HedgeEnd::Last => outcome(),
            HedgeEnd::Deserted => Outcome::Abandoned,
        };
        self.flight.complete(Arc::new(outcome));
    }
}

impl<R> Drop for HedgeGuard<'_, R> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(|| Outcome::Abandoned);
        }
    }
}

/// The compute time of the last hedge of each slow function.
///
/// Neither readers nor writers wait for the lock: they lose no more than an estimate, and in a child
/// process the lock may be held by a thread of its parent.
#[derive(Debug)]
pub(crate) struct HedgeTimes(Mutex<BoundedMap<Prefix, Duration>>);

impl Default for HedgeTimes {
    fn default() -> Self {
        Self(Mutex::new(BoundedMap::new(Self::CAPACITY)))
    }
}

impl HedgeTimes {
    /// The number of functions whose times are kept.
    const CAPACITY: usize = if cfg!(miri) { 16 } else { 1024 };

    /// Returns the time after which a computation of a function is hedged.
    pub(crate) fn hedge_after(&self, function: &Prefix) -> Duration {
        let times = self.0.try_lock();
        let time = times.ok().and_then(|times| times.get(function).copied()).unwrap_or_default();
        time.saturating_mul(HEDGE_FACTOR).max(HEDGE_AFTER)
    }

    /// Replaces the time of a function.
    pub(crate) fn record(&self, function: &Prefix, time: Duration) {
        let Ok(mut times) = self.0.try_lock() else { return };
        if time <= HEDGE_AFTER / HEDGE_FACTOR {
            times.remove(function);
        } else {
            times.insert(function.clone(), time);
        }
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;
    use crate::Key;

    #[test]
    fn next_leader_has_hedges_of_its_own() {
        let (hedges, second) = (Hedges::default(), Duration::from_secs(1));
        let next = || Hedges::next_after(hedges.get(), second).as_secs();
        let first = hedges.get();
        assert!(hedges.begin(first) && !hedges.begin(first) && hedges.begin(hedges.get()));
        assert_eq!(next(), 4);
        hedges.change_leader();
        assert_eq!(next(), 1);
        assert!(!hedges.begin(first), "it was counted for another leader");
        hedges.allow(false);
        assert!(!hedges.begin(hedges.get()));
        hedges.change_leader();
        assert!(hedges.begin(hedges.get()));
    }

    #[test]
    fn last_times_of_a_bounded_number_of_functions_are_kept() {
        let times = HedgeTimes::default();
        let function = |n: usize| Key::from_text(format!("function {n}"), "k").prefix().clone();
        let after = |n| times.hedge_after(&function(n)).as_secs();
        for (seconds, expected) in [(2, 16), (3, 24), (1, 8), (0, 3)] {
            times.record(&function(0), Duration::from_secs(seconds));
            assert_eq!(after(0), expected);
        }
        for n in 0..=HedgeTimes::CAPACITY {
            times.record(&function(n), Duration::from_secs(1));
        }
        assert_eq!((after(0), after(HedgeTimes::CAPACITY)), (3, 8), "the map was full");
    }
}

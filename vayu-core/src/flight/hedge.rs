//! Hedged computations: one caller of a flight that takes long computes, too.
//!
//! A leader may never end: its body waits for work that waits for this flight, or for a source that does
//! not respond. After a while one waiting caller computes in parallel, and the first value is for all. The
//! next hedge of the flight follows after twice that time, so a slow function is computed a logarithmic
//! number of times.
//!
//! A hedge also measures its function: where it takes long itself, the function is slow, and its
//! computations are hedged later from then on. The compute times of leaders say less, since they hold
//! the time of a leader that waited for itself.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::key::Prefix;

/// The time after which a computation is hedged, unless the function is known to take longer.
const HEDGE_AFTER: Duration = Duration::from_secs(3);

/// A computation is hedged after this many times the compute time of the last hedge of its function.
const HEDGE_FACTOR: u32 = 8;

/// The hedges of one flight.
///
/// The low byte is the number of hedges of the leader. The other bytes change with the leader.
#[derive(Debug, Default)]
pub(crate) struct Hedges(AtomicU32);

impl Hedges {
    const COUNT: u32 = 0xff;
    /// In the place of a count: the leader is not to be hedged.
    const NONE: u32 = u32::MAX;

    pub(crate) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the time until the next hedge.
    pub(super) fn next_after(hedges: u32, first_after: Duration) -> Duration {
        first_after.saturating_mul(1 << (hedges & Self::COUNT).min(16))
    }

    /// Counts a hedge. Returns `false` if there was another hedge or leader since there were
    /// `hedges`, or if there is to be none.
    pub(super) fn begin(&self, hedges: u32) -> bool {
        let (order, next) = (Ordering::Relaxed, hedges.wrapping_add(1));
        hedges != Self::NONE && self.0.compare_exchange(hedges, next, order, order).is_ok()
    }

    /// Begins to count for the next leader. Only under the lock of the table.
    pub(super) fn change_leader(&self) {
        self.0.store((self.get() | Self::COUNT).wrapping_add(1), Ordering::Relaxed);
    }

    /// Prevents hedges of the leader, or allows them again.
    pub(super) fn allow(&self, is_allowed: bool) {
        self.0.store(if is_allowed { 0 } else { Self::NONE }, Ordering::Relaxed);
    }
}

/// The time that the last hedge of each slow function took.
///
/// Neither a reader nor a writer waits for the lock: what is missed is an estimate, and a child
/// process may have inherited the lock from a thread that it does not have.
#[derive(Debug, Default)]
pub(crate) struct HedgeTimes(Mutex<HashMap<Prefix, Duration>>);

impl HedgeTimes {
    /// Functions that are kept track of. Past that all are removed.
    const CAPACITY: usize = 1024;

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
            return;
        }
        if times.len() == Self::CAPACITY && !times.contains_key(function) {
            times.clear();
        }
        times.insert(function.clone(), time);
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
    fn last_time_of_a_bounded_number_of_functions_counts() {
        let times = HedgeTimes::default();
        let function = |n: usize| Key::from_text(format!("function {n}"), "k").prefix().clone();
        let after = || times.hedge_after(&function(0)).as_secs();
        for (seconds, expected) in [(2, 16), (3, 24), (1, 8), (0, 3)] {
            times.record(&function(0), Duration::from_secs(seconds));
            assert_eq!(after(), expected);
        }
        for n in 0..=HedgeTimes::CAPACITY {
            times.record(&function(n), Duration::from_secs(1));
        }
        assert!(times.0.lock().expect("no panic").len() <= HedgeTimes::CAPACITY);
    }
}

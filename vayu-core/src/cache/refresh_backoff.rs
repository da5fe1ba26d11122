//! Backoff of refreshes that were attempted recently.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::bounded_map::BoundedMap;
use crate::clock::Timestamp;
use crate::key::{BuildKeyHasher, Key};
use crate::per_process::PerProcess;

/// The keys whose last refresh has not succeeded, with the time at which it began or failed. Such a key
/// is not refreshed again for [`BACKOFF`], so that not every call reaches a source that is down or hangs.
#[derive(Debug)]
pub(crate) struct RefreshBackoff(PerProcess<Mutex<Attempts>>);

type Attempts = BoundedMap<Key, Timestamp, BuildKeyHasher>;

/// The minimum time between two attempts to refresh a key.
pub(crate) const BACKOFF: Duration = Duration::from_secs(5);

/// The maximum number of keys. Past that, the one with the oldest attempt is removed: its backoff passes first.
const MAX_KEYS: usize = if cfg!(miri) { 16 } else { 4096 };

impl Default for RefreshBackoff {
    fn default() -> Self {
        Self(PerProcess::new(Mutex::new(attempts())))
    }
}

fn attempts() -> Attempts {
    BoundedMap::new(MAX_KEYS)
}

impl RefreshBackoff {
    /// Begins a refresh, unless the key is in backoff. Returns whether it was begun.
    pub(crate) fn begin(&self, key: &Key, now: Timestamp) -> bool {
        let mut keys = self.keys();
        if keys.get(key).is_some_and(|&tried| is_in_backoff(tried, now)) {
            return false;
        }
        keys.insert(key.clone(), now);
        true
    }

    /// Records that a refresh has failed, or was begun in the place of one that hangs.
    pub(crate) fn record_attempt(&self, key: &Key, now: Timestamp) {
        self.keys().insert(key.clone(), now);
    }

    /// Removes a key, whose refresh has succeeded.
    pub(crate) fn remove(&self, key: &Key) {
        self.keys().remove(key);
    }

    fn keys(&self) -> MutexGuard<'_, Attempts> {
        self.0.lock(attempts)
    }
}

/// Returns whether a key is in backoff: not if the clock was set back to before the attempt.
fn is_in_backoff(tried: Timestamp, now: Timestamp) -> bool {
    now.is_within(tried, BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn key_is_in_backoff_for_a_while_after_an_attempt() {
        let backoff = RefreshBackoff::default();
        let (key, other) = (Key::from_text("p", "k"), Key::from_text("p", "other"));
        assert!(backoff.begin(&key, at(0)));
        assert!(!backoff.begin(&key, at(4)) && backoff.begin(&other, at(4)));
        assert!(backoff.begin(&key, at(5)));
        backoff.record_attempt(&key, at(8));
        assert!(!backoff.begin(&key, at(12)));
        assert!(backoff.begin(&key, at(-1)), "the clock was set back");
        backoff.remove(&key);
        assert!(backoff.begin(&key, at(-1)));
    }

    #[test]
    fn number_of_keys_is_bounded_and_those_of_the_last_attempts_are_in_backoff() {
        let backoff = RefreshBackoff::default();
        let key = |n: usize| Key::from_text("p", n.to_string());
        for n in 0..3 * MAX_KEYS {
            backoff.record_attempt(&key(n), at(0));
            assert!(backoff.keys().len() <= MAX_KEYS);
        }
        assert!((2 * MAX_KEYS..3 * MAX_KEYS).all(|n| !backoff.begin(&key(n), at(0))));
        backoff.record_attempt(&key(2 * MAX_KEYS), at(1));
        assert!(backoff.begin(&key(0), at(1)), "it takes the place of the next oldest");
        assert!(!backoff.begin(&key(2 * MAX_KEYS), at(1)));
        assert!(backoff.begin(&key(2 * MAX_KEYS + 1), at(1)));
    }
}

//! Backoff of refreshes that were attempted recently.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::key::{BuildKeyHasher, Key};
use crate::sync::IgnorePoison;

/// The keys whose last refresh has not succeeded, with the time at which it began or failed. Such a key
/// is not refreshed again for [`PAUSE`], so that not every call reaches a source that is down or hangs.
#[derive(Debug, Default)]
pub(crate) struct Setbacks(Mutex<Tried>);

type Tried = HashMap<Key, Timestamp, BuildKeyHasher>;

/// The minimum time between two attempts to refresh a key.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);

/// The maximum number of keys. Past that, those whose backoff has passed are removed, or else all.
const REMEMBERED: usize = 4096;

impl Setbacks {
    /// Begins a refresh, unless the key is in backoff. Returns whether it was begun.
    pub(crate) fn begin(&self, key: &Key, now: Timestamp) -> bool {
        let mut keys = self.keys();
        if keys.get(key).is_some_and(|&tried| is_resting(tried, now)) {
            return false;
        }
        note(&mut keys, key, now);
        true
    }

    /// Records that a refresh has failed.
    pub(crate) fn note(&self, key: &Key, now: Timestamp) {
        note(&mut self.keys(), key, now);
    }
    /// Removes a key, whose refresh has succeeded.
    pub(crate) fn forget(&self, key: &Key) {
        self.keys().remove(key);
    }

    fn keys(&self) -> MutexGuard<'_, Tried> {
        self.0.lock().ignore_poison()
    }
}

fn note(keys: &mut Tried, key: &Key, now: Timestamp) {
    if keys.len() >= REMEMBERED {
        keys.retain(|_, tried| is_resting(*tried, now));
        if keys.len() >= REMEMBERED {
            keys.clear();
        }
    }
    keys.insert(key.clone(), now);
}

/// Returns whether a key is in backoff: not if the clock was set back to before the attempt.
fn is_resting(tried: Timestamp, now: Timestamp) -> bool {
    now.is_within(tried, PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn key_rests_after_an_attempt_for_a_while() {
        let setbacks = Setbacks::default();
        let (key, other) = (Key::from_text("p", "k"), Key::from_text("p", "other"));
        assert!(setbacks.begin(&key, at(0)));
        assert!(!setbacks.begin(&key, at(4)) && setbacks.begin(&other, at(4)));
        assert!(setbacks.begin(&key, at(5)));
        setbacks.note(&key, at(8));
        assert!(!setbacks.begin(&key, at(12)));
        assert!(setbacks.begin(&key, at(-1)), "the clock was set back");
        setbacks.forget(&key);
        assert!(setbacks.begin(&key, at(-1)));
    }

    #[test]
    fn memory_for_failures_is_bounded() {
        let setbacks = Setbacks::default();
        for n in 0..3 * REMEMBERED {
            setbacks.note(&Key::from_text("p", n.to_string()), at(0));
            assert!(setbacks.keys().len() <= REMEMBERED);
        }
    }
}

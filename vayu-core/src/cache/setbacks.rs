//! Which functions have failed lately.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::key::{Key, KeyHasher};

/// The keys whose last refresh failed, and when. After a failure a key is left alone for a while,
/// so that a source that is down is not asked by every call.
#[derive(Debug, Default)]
pub(crate) struct Setbacks(Mutex<HashMap<Key, Timestamp, KeyHasher>>);

/// How long a key is left alone.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);

/// How many keys are remembered. Past that, those that were left alone for long enough are
/// forgotten, or else all.
const REMEMBERED: usize = 4096;

impl Setbacks {
    /// Whether the key is to be left alone.
    pub(crate) fn is_resting(&self, key: &Key, now: Timestamp) -> bool {
        self.keys().get(key).is_some_and(|&failed| is_resting(failed, now))
    }

    /// A refresh has failed.
    pub(crate) fn note(&self, key: &Key, now: Timestamp) {
        let mut keys = self.keys();
        if keys.len() >= REMEMBERED {
            keys.retain(|_, failed| is_resting(*failed, now));
            if keys.len() >= REMEMBERED {
                keys.clear();
            }
        }
        keys.insert(key.clone(), now);
    }

    /// A refresh has succeeded.
    pub(crate) fn forget(&self, key: &Key) {
        self.keys().remove(key);
    }

    fn keys(&self) -> MutexGuard<'_, HashMap<Key, Timestamp, KeyHasher>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Not where the clock was set back to before the failure.
fn is_resting(failed: Timestamp, now: Timestamp) -> bool {
    now >= failed && now.saturating_since(failed) < PAUSE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn key_rests_after_a_failure_for_a_while() {
        let setbacks = Setbacks::default();
        let (key, other) = (Key::from_text("p", "k"), Key::from_text("p", "other"));
        assert!(!setbacks.is_resting(&key, at(0)));
        setbacks.note(&key, at(0));
        assert!(setbacks.is_resting(&key, at(4)) && !setbacks.is_resting(&other, at(4)));
        assert!(!setbacks.is_resting(&key, at(5)));
        assert!(!setbacks.is_resting(&key, at(-1)), "the clock was set back");
        setbacks.note(&key, at(10));
        setbacks.forget(&key);
        assert!(!setbacks.is_resting(&key, at(10)));
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

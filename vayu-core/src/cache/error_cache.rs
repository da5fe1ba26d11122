//! Negative caching: errors of functions with `err_ttl`, by key.
//!
//! The errors are in a bounded table of this process, beside the backend, so that an error takes the place of
//! no value, is in no file and on no server, and needs no serializer. A lookup reads the table only after the
//! backend had no value to serve. An error is stored by a leader whose flight is in the table of flights, before
//! the flight is completed, as a value is, and removed by all that removes or stores a value. What invalidates
//! groups changes the stamp, which is compared.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::bounded_map::BoundedMap;
use crate::clock::Timestamp;
use crate::freshness::is_fresh;
use crate::key::{BuildKeyHasher, Key};
use crate::panic::drop_quietly;
use crate::per_process::PerProcess;
use crate::shared_error::SharedError;

/// The maximum number of errors of one cache.
const MAX_ERRORS: usize = if cfg!(miri) { 16 } else { 4096 };

/// The cached errors of one cache.
#[derive(Debug)]
pub(crate) struct ErrorCache {
    errors: PerProcess<Mutex<Errors>>,
    /// `true` once an error was stored. Until then, nothing is locked.
    is_used: AtomicBool,
}

#[derive(Debug)]
struct Errors {
    by_key: BoundedMap<Key, CachedError, BuildKeyHasher>,
    /// None of them expires before this.
    first_expiry: Timestamp,
}

/// A cached error.
#[derive(Debug, Clone)]
pub(crate) struct CachedError {
    pub(crate) error: SharedError,
    /// The stamp of the call that returned it.
    pub(crate) stamp: u64,
    pub(crate) created: Timestamp,
    pub(crate) expires: Timestamp,
    pub(crate) compute_time: Duration,
}

impl Default for ErrorCache {
    fn default() -> Self {
        Self { errors: PerProcess::new(Mutex::default()), is_used: AtomicBool::new(false) }
    }
}

impl ErrorCache {
    /// Returns the error of a key, if it is from a call with this stamp and has not expired.
    #[cold]
    pub(crate) fn get(&self, key: &Key, stamp: u64, now: Timestamp) -> Option<CachedError> {
        if !self.is_used() {
            return None;
        }
        let errors = self.lock();
        let error = errors.by_key.get(key)?;
        (error.stamp == stamp && error.is_alive(now)).then(|| error.clone())
    }

    /// Stores the error of a key. If the table is full, the errors that have expired are removed, or else the oldest one.
    #[cold]
    pub(crate) fn insert(&self, key: &Key, error: CachedError, now: Timestamp) {
        self.is_used.store(true, Ordering::SeqCst);
        let mut errors = self.lock();
        let expired = errors.remove_expired_if_full(now);
        errors.first_expiry = errors.first_expiry.min(error.expires);
        let replaced = errors.by_key.insert(key.clone(), error);
        drop(errors);
        drop_quietly((expired, replaced));
    }

    /// Removes the error of a key.
    #[inline]
    pub(crate) fn remove(&self, key: &Key) {
        if self.is_used() {
            self.remove_cold(key);
        }
    }

    #[cold]
    #[inline(never)]
    fn remove_cold(&self, key: &Key) {
        let removed = self.lock().by_key.remove(key);
        drop_quietly(removed);
    }

    /// Removes all errors.
    pub(crate) fn clear(&self) {
        if self.is_used() {
            let removed = mem::take(&mut *self.lock());
            drop_quietly(removed);
        }
    }

    #[inline]
    fn is_used(&self) -> bool {
        self.is_used.load(Ordering::Relaxed)
    }

    /// Locks the errors. If a thread of a parent process holds the lock, those of the child start empty.
    fn lock(&self) -> MutexGuard<'_, Errors> {
        self.errors.lock(Errors::default)
    }
}

impl Default for Errors {
    fn default() -> Self {
        Self { by_key: BoundedMap::new(MAX_ERRORS), first_expiry: Timestamp::NEVER }
    }
}

impl Errors {
    /// Removes the errors that have expired, if the table is full. It is searched only if there may be one.
    fn remove_expired_if_full(&mut self, now: Timestamp) -> Vec<CachedError> {
        if !self.by_key.is_full() || now < self.first_expiry {
            return Vec::new();
        }
        let expired = self.by_key.extract(|error| error.is_alive(now));
        let first = self.by_key.values().map(|error| error.expires).min();
        self.first_expiry = first.unwrap_or(Timestamp::NEVER);
        expired
    }
}

impl CachedError {
    fn is_alive(&self, now: Timestamp) -> bool {
        is_fresh(self.created, self.expires, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn key(text: &str) -> Key {
        Key::from_text("p", text)
    }

    fn error(number: i64, stamp: u64, [created, expires]: [i64; 2]) -> CachedError {
        let error = SharedError::new(&number);
        let (created, expires) = (at(created), at(expires));
        CachedError { error, stamp, created, expires, compute_time: Duration::ZERO }
    }

    fn get(errors: &ErrorCache, text: &str, stamp: u64, now: i64) -> Option<i64> {
        errors.get(&key(text), stamp, at(now))?.error.to_error()
    }

    #[test]
    fn error_is_returned_for_its_key_and_stamp_until_it_expires() {
        let errors = ErrorCache::default();
        assert_eq!(get(&errors, "k", 1, 10), None);
        errors.insert(&key("k"), error(7, 1, [10, 12]), at(10));
        assert_eq!(get(&errors, "k", 1, 10), Some(7));
        assert_eq!((get(&errors, "other", 1, 10), get(&errors, "k", 2, 10)), (None, None));
        assert_eq!((get(&errors, "k", 1, 11), get(&errors, "k", 1, 12)), (Some(7), None));
        assert_eq!(get(&errors, "k", 1, 10 - 301), None, "the clock was set back");
        errors.insert(&key("k"), error(8, 1, [12, 14]), at(12));
        assert_eq!(get(&errors, "k", 1, 12), Some(8));
        errors.remove(&key("other"));
        assert_eq!(get(&errors, "k", 1, 12), Some(8));
        errors.remove(&key("k"));
        assert_eq!(get(&errors, "k", 1, 12), None);
        errors.insert(&key("k"), error(9, 1, [12, 14]), at(12));
        errors.clear();
        assert_eq!(get(&errors, "k", 1, 12), None);
    }

    #[test]
    fn number_of_errors_is_bounded_and_expired_ones_go_first() {
        let errors = ErrorCache::default();
        let len = || errors.lock().by_key.len();
        errors.insert(&key("lives"), error(1, 0, [0, 100]), at(0));
        for n in 1..MAX_ERRORS {
            errors.insert(&key(&n.to_string()), error(2, 0, [0, 10]), at(0));
        }
        assert_eq!(len(), MAX_ERRORS);
        errors.insert(&key("1"), error(3, 0, [0, 10]), at(0));
        assert_eq!(len(), MAX_ERRORS, "it replaces another");
        errors.insert(&key("new"), error(4, 0, [10, 20]), at(10));
        assert_eq!(len(), 2);
        assert_eq!((get(&errors, "lives", 0, 10), get(&errors, "new", 0, 10)), (Some(1), Some(4)));
        for n in 0..2 * MAX_ERRORS {
            errors.insert(&key(&n.to_string()), error(5, 0, [0, 100]), at(10));
            assert!(len() <= MAX_ERRORS);
        }
    }

    #[test]
    fn full_table_has_the_last_errors() {
        let errors = ErrorCache::default();
        let (first, end) = (MAX_ERRORS + 7, 2 * MAX_ERRORS + 7);
        for n in 0..end {
            // Half of them expire later than those after them.
            let expires = if n % 2 == 0 { 200 } else { 100 };
            errors.insert(&key(&n.to_string()), error(1, 0, [0, expires]), at(0));
        }
        let is_cached = |n: usize, now| get(&errors, &n.to_string(), 0, now).is_some();
        assert!((0..end).all(|n| is_cached(n, 0) == (n >= first)));
        // Again those that have expired go first, which none had before.
        errors.insert(&key("new"), error(2, 0, [100, 200]), at(100));
        assert_eq!(errors.lock().by_key.len(), MAX_ERRORS / 2 + 1);
        assert!((first..end).all(|n| is_cached(n, 100) == (n % 2 == 0)));
    }

    #[test]
    fn destructor_of_an_error_runs_without_the_lock() {
        #[derive(Clone)]
        struct Reenters(std::sync::Weak<ErrorCache>);
        impl Drop for Reenters {
            fn drop(&mut self) {
                if let Some(errors) = self.0.upgrade() {
                    errors.remove(&key("other"));
                }
            }
        }
        let errors = std::sync::Arc::new(ErrorCache::default());
        let insert = || {
            let error = SharedError::new(&Reenters(std::sync::Arc::downgrade(&errors)));
            let (created, expires, stamp) = (at(0), at(10), 0);
            let compute_time = Duration::ZERO;
            let error = CachedError { error, stamp, created, expires, compute_time };
            errors.insert(&key("k"), error, at(0));
        };
        insert();
        insert();
        errors.remove(&key("k"));
        insert();
        errors.clear();
    }
}

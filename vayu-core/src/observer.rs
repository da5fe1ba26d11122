//! Observers of caches.

mod per_function;

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

pub use self::per_function::{FunctionStats, PerFunctionStats};
use crate::error::{Error, Result};
use crate::outcome::CallOutcome;
use crate::panic::catch_panic;

/// Receives an event for every call, insertion and error of a cache:
/// [`Cache::observe`](crate::Cache::observe).
///
/// The methods are called during calls, by many threads at once, and should be quick. A panic is
/// counted and does not affect the call. Events contain no arguments, keys or values.
pub trait Observer: Send + Sync + 'static {
    /// Notifies the observer that a call returns.
    fn on_call(&self, call: &CallEvent<'_>) {
        let _ = call;
    }

    /// Notifies the observer that a value of a function was stored.
    fn on_insert(&self, function: &str) {
        let _ = function;
    }

    /// Notifies the observer of an error of the cache. The call of the function goes on without the cache.
    fn on_error(&self, function: &str, error: &Error) {
        let _ = (function, error);
    }

    /// Notifies the observer that the function ran to replace a value past its ttl, and failed.
    fn on_refresh_error(&self, function: &str) {
        let _ = function;
    }
}

/// A call, as reported to an [`Observer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallEvent<'a> {
    /// The path of the function, or the string that is its prefix.
    pub function: &'a str,
    /// The source of the value.
    pub outcome: CallOutcome,
    /// The age of the value, if it was cached.
    pub age: Option<Duration>,
    /// The time for which the value, or the error of an error hit, is still fresh: zero past the ttl. `None` for
    /// an output that is not a stored value.
    pub ttl_left: Option<Duration>,
    /// The time that the function took to compute the value, by the clock of the cache: in this call,
    /// or earlier, which is then the time that was saved. Zero if unknown.
    pub compute_time: Duration,
}

/// The times of a call, for its [`CallEvent`].
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CallTimes {
    pub(crate) age: Option<Duration>,
    pub(crate) ttl_left: Option<Duration>,
    pub(crate) compute_time: Duration,
}

impl CallTimes {
    /// Creates the times of an output that was computed and not stored.
    pub(crate) fn computed(compute_time: Duration) -> Self {
        Self { age: None, ttl_left: None, compute_time }
    }
}

/// The observers of a cache: a linked list that only grows, so that it is read without a lock.
#[derive(Default)]
pub(crate) struct Observers(OnceLock<Box<Node>>);

struct Node {
    observer: Box<dyn Observer>,
    next: Observers,
}

impl Observers {
    pub(crate) fn add(&self, observer: impl Observer) {
        let mut node = Box::new(Node { observer: Box::new(observer), next: Self::default() });
        let mut place = self;
        while let Err(back) = place.0.set(node) {
            node = back;
            place = &place.0.get().expect("the cell was set before").next;
        }
    }

    /// Calls all observers. Returns the error of the first panic.
    pub(crate) fn notify(&self, event: impl Fn(&dyn Observer)) -> Result<()> {
        let mut result = Ok(());
        let mut place = self;
        while let Some(node) = place.0.get() {
            let one = catch_panic("observe", || {
                event(&*node.observer);
                Ok(())
            });
            result = result.and(one);
            place = &node.next;
        }
        result
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers").finish_non_exhaustive()
    }
}

//! Observers of caches.

mod end;
mod per_function;

use std::time::Duration;

pub use self::end::{EndCause, EndListener, EndListeners};
pub use self::per_function::{EndCounts, FunctionStats, PerFunctionStats};
use crate::append_list::AppendList;
use crate::error::{Error, Result};
use crate::outcome::CallOutcome;
use crate::panic::catch_panic;

/// Receives an event for every call, insertion, end of an entry and error of a cache:
/// [`Cache::observe`](crate::Cache::observe).
///
/// The methods are called during calls, by many threads at once, and should be quick. A panic is
/// counted and does not affect the call. Events contain no arguments, keys or values. What the text of an error of a function
/// contains, the function says.
pub trait Observer: Send + Sync + 'static {
    /// Notifies the observer that a call returns.
    fn on_call(&self, call: &CallEvent<'_>) {
        let _ = call;
    }

    /// Notifies the observer that a value of a function was stored.
    fn on_insert(&self, function: &str) {
        let _ = function;
    }

    /// Notifies the observer that an entry of a function has left the cache.
    ///
    /// Each entry is reported once, when it leaves the store: an entry that has expired or was invalidated is not
    /// served any more, but may be there for a while. Reported are entries in memory, and those in a directory that
    /// this process removes or replaces; `function` is empty if an entry does not say whose it is, for its key was too
    /// long. Of tiers it is the backing tier whose entries are reported. Servers, such as Redis, expire and evict
    /// entries themselves, which is not reported.
    fn on_end(&self, function: &str, cause: EndCause) {
        let _ = (function, cause);
    }

    /// Notifies the observer of an error of the cache. The call of the function goes on without the cache.
    fn on_error(&self, function: &str, error: &Error) {
        let _ = (function, error);
    }

    /// Notifies the observer that the function ran to replace a value past its ttl, and failed.
    ///
    /// `error` is the text of its error, where that is `Display`. It is `None` after a panic, for a value that is not to be
    /// stored, and for a batch.
    fn on_refresh_error(&self, function: &str, error: Option<&str>) {
        let _ = (function, error);
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

/// The observers of a cache.
#[derive(Debug, Default)]
pub(crate) struct Observers(AppendList<Box<dyn Observer>>);

impl Observers {
    pub(crate) fn add(&self, observer: impl Observer) {
        self.0.push(Box::new(observer));
    }

    /// Calls all observers. Returns the error of the first panic.
    pub(crate) fn notify(&self, event: impl Fn(&dyn Observer)) -> Result<()> {
        let mut result = Ok(());
        for observer in self.0.iter() {
            let one = catch_panic("observe", || {
                event(&**observer);
                Ok(())
            });
            result = result.and(one);
        }
        result
    }
}

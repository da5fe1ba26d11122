//! The ends of entries.

use std::fmt;
use std::sync::Arc;

use crate::append_list::AppendList;
use crate::panic::catch_panic;
use crate::record::Record;

/// The cause for which an entry has left a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum EndCause {
    /// The cache was full, or the entry is larger than all of it.
    Evicted,
    /// It was past its ttl, and past the time for which it is served stale.
    Expired,
    /// A newer value of the same call was stored.
    Replaced,
    /// It was removed, or a value was stored after its group was invalidated or the version of its function changed.
    Invalidated,
}

impl EndCause {
    /// Returns the cause for an entry in whose place a record is stored.
    pub fn of_replaced<V, W>(old: &Record<V>, new: &Record<W>) -> Self {
        if old.stale_until() <= new.created() {
            Self::Expired
        } else if old.schema() != new.schema() {
            Self::Invalidated
        } else {
            Self::Replaced
        }
    }

    /// Returns the name of the cause, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::Invalidated => "invalidated",
        }
    }
}

impl fmt::Display for EndCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A function that a backend calls for each entry that leaves it:
/// [`ReportEnds::report_ends`](crate::ReportEnds::report_ends).
#[derive(Clone)]
pub struct EndListener(Arc<Listen>);

type Listen = dyn Fn(&str, EndCause) + Send + Sync;

impl EndListener {
    /// Creates a listener from a function, which gets the path of a function, or the string that is its prefix, and
    /// the cause.
    pub fn new(listen: impl Fn(&str, EndCause) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listen))
    }
}

impl fmt::Debug for EndListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndListener").finish_non_exhaustive()
    }
}

/// The listeners of a backend: those of the caches that it belongs to.
#[derive(Debug, Default)]
pub struct EndListeners(AppendList<EndListener>);

impl EndListeners {
    /// Creates a list without listeners.
    pub const fn new() -> Self {
        Self(AppendList::new())
    }

    /// Adds a listener. It is never removed.
    pub fn add(&self, listener: EndListener) {
        self.0.push(listener);
    }

    /// Returns whether there are no listeners, so that nothing is to be reported.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls all listeners. The caller must hold no lock. A listener that panics loses this report, and no other
    /// listener does.
    pub fn report(&self, function: &str, cause: EndCause) {
        for listener in self.0.iter() {
            let called = catch_panic("report the end of an entry", || {
                (listener.0)(function, cause);
                Ok(())
            });
            if let Err(error) = called {
                tracing::warn!(target: "vayu", function, %error, "listener of ends has panicked");
            }
        }
    }

    /// Reports several entries, as [`report`](Self::report) does.
    pub fn report_all(&self, ended: impl IntoIterator<Item = (impl AsRef<str>, EndCause)>) {
        for (function, cause) in ended {
            self.report(function.as_ref(), cause);
        }
    }
}

//! Who is told what a cache does.

mod per_function;

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

pub use self::per_function::{FunctionStats, PerFunctionStats};
use crate::error::{Error, Result};
use crate::panic::catch_panic;

/// Is told what a cache does: [`Cache::observe`](crate::Cache::observe).
///
/// The methods are called in the middle of calls, by many threads at once, and should be quick. A
/// panic of one costs its call nothing. None is told arguments, keys or values.
pub trait Observer: Send + Sync + 'static {
    /// A call was answered.
    fn on_call(&self, call: &CallEvent<'_>) {
        let _ = call;
    }

    /// A value of a function was stored.
    fn on_insert(&self, function: &str) {
        let _ = function;
    }

    /// A fault was survived: the call of the function went on without the cache.
    fn on_error(&self, function: &str, error: &Error) {
        let _ = (function, error);
    }

    /// The function ran to replace a value past its ttl, and failed.
    fn on_refresh_error(&self, function: &str) {
        let _ = function;
    }
}

/// What an [`Observer`] is told of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallEvent<'a> {
    /// The path of the function, or the text that is its prefix.
    pub function: &'a str,
    /// How the call was answered.
    pub outcome: CallOutcome,
    /// How old the value was, where it was remembered.
    pub age: Option<Duration>,
    /// How long the function ran for the value, by the clock of the cache: in this call, or when
    /// the value was computed, which is then the time that was saved. Zero where nobody knows.
    pub compute_time: Duration,
}

/// How a call was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CallOutcome {
    /// From the cache.
    Hit,
    /// By running the function.
    Miss,
    /// By the run of another caller.
    Coalesced,
    /// With a value past its ttl.
    Stale,
    /// By running the function in the place of a value past its ttl, or because that was asked for.
    Refresh,
}

impl CallOutcome {
    /// The name in lower case, as it is logged.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Coalesced => "coalesced",
            Self::Stale => "stale",
            Self::Refresh => "refresh",
        }
    }
}

/// The observers of a cache: a list that only grows, so that it is read without a lock.
#[derive(Default)]
pub(crate) struct Observers(OnceLock<Box<Node>>);

struct Node {
    observer: Box<dyn Observer>,
    next: Observers,
}

impl Observers {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    pub(crate) fn add(&self, observer: impl Observer) {
        let mut node = Box::new(Node { observer: Box::new(observer), next: Self::default() });
        let mut place = self;
        while let Err(back) = place.0.set(node) {
            node = back;
            place = &place.0.get().expect("it is set, so the new one was refused").next;
        }
    }

    /// Tells all of them. The answer is the first panic.
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

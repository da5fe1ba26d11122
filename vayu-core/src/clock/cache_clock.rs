//! The clock of a cache.

use std::any::Any;
use std::sync::Arc;

use super::{Clock, MonotonicClock, SystemClock, Timestamp};

/// The clock of a backend. The usual clocks are read without a call through a pointer.
#[derive(Debug, Clone)]
pub(crate) struct CacheClock {
    kind: Kind,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Monotonic,
    System,
    Other,
}

impl Kind {
    fn of(clock: &dyn Clock) -> Self {
        let any: &dyn Any = clock;
        if any.is::<MonotonicClock>() {
            Self::Monotonic
        } else if any.is::<SystemClock>() {
            Self::System
        } else if let Some(inner) = any.downcast_ref::<Arc<dyn Clock>>() {
            Self::of(&**inner)
        } else {
            Self::Other
        }
    }
}

impl CacheClock {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { kind: Kind::of(&*clock), clock }
    }

    /// Returns the current time. Inlined into the lookup of a call; elsewhere see [`now`](Self::now).
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn now_inline(&self) -> Timestamp {
        match self.kind {
            Kind::Monotonic => MonotonicClock.now(),
            Kind::System => SystemClock.now(),
            Kind::Other => self.clock.now(),
        }
    }

    /// Returns the current time.
    #[inline(never)]
    pub(crate) fn now(&self) -> Timestamp {
        self.now_inline()
    }

    pub(crate) fn as_dyn(&self) -> &Arc<dyn Clock> {
        &self.clock
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;
    use crate::testing::ManualClock;

    #[test]
    fn usual_clocks_are_found_behind_references_and_others_are_read_as_they_are() {
        let kind = |clock: Arc<dyn Clock>| CacheClock::new(clock).kind;
        assert_eq!(kind(Arc::new(MonotonicClock)), Kind::Monotonic);
        assert_eq!(kind(Arc::new(SystemClock)), Kind::System);
        let clock: Arc<dyn Clock> = Arc::new(MonotonicClock);
        assert_eq!(kind(Arc::new(clock)), Kind::Monotonic);
        let manual = ManualClock::new();
        let clock = CacheClock::new(Arc::new(manual.clone()));
        assert_eq!((clock.kind, clock.now()), (Kind::Other, manual.now()));
    }
}

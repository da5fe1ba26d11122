//! The reason for which a call runs its function.

use std::sync::Arc;
use std::time::Duration;

use crate::call::kept::Kept;
use crate::call::patience::AwaitedRun;
use crate::clock::Timestamp;
use crate::flight::Completions;
use crate::observer::CallTimes;

/// A value past its ttl, which is in the frame of the call.
#[derive(Debug)]
pub(crate) struct StaleValue {
    pub(super) age: Duration,
    pub(super) compute_time: Duration,
    /// The first instant at which it may not be served.
    pub(super) end: Timestamp,
    /// Its record, if the function asks for it.
    pub(super) kept: Option<Kept>,
}

impl StaleValue {
    /// Returns its times.
    pub(super) fn times(&self) -> CallTimes {
        let (age, ttl_left) = (Some(self.age), Some(Duration::ZERO));
        CallTimes { age, ttl_left, compute_time: self.compute_time }
    }
}

/// The reason for which a caller runs the function, or waits for a caller that does.
#[derive(Debug)]
pub(crate) enum ComputeReason {
    /// There is no value. It holds the completions from before the backend was read, if it was.
    Miss(Option<Completions>),
    /// There is a value past its ttl.
    Expired(Box<StaleValue>),
    /// The caller forces a refresh, whatever is stored.
    Forced,
    /// A caller was served a value past its ttl. No caller waits for this run.
    Background,
    /// A caller waits for this run, with a value past its ttl.
    Awaited(Arc<AwaitedRun>),
}

impl ComputeReason {
    /// Returns whether the run waits while another process holds the lease of the key. The others give up.
    pub(crate) fn waits_for_lease(&self) -> bool {
        !matches!(self, Self::Expired(_) | Self::Background)
    }

    /// Returns the name of the reason in logs.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Miss(_) => "miss",
            Self::Expired(_) => "expired",
            Self::Forced => "forced",
            Self::Background | Self::Awaited(_) => "background",
        }
    }
}

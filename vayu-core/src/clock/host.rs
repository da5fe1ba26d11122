//! The time on `wasm32-unknown-unknown`, where the standard library has none: that of a clock of the program (feature
//! `host-clock`), or else that of JavaScript (feature `js`).

use std::ops::Add;
#[cfg(feature = "host-clock")]
use std::sync::OnceLock;
use std::time::Duration;

#[cfg(feature = "host-clock")]
use super::Clock;
use super::{Sleep, Timestamp, sleep_in_real_time};

#[cfg(feature = "host-clock")]
static CLOCK: OnceLock<Box<dyn Clock>> = OnceLock::new();

/// Sets the clock of the program. Returns `false`, and changes nothing, if there is one.
#[cfg(feature = "host-clock")]
pub(super) fn set_clock(clock: impl Clock) -> bool {
    let is_set = CLOCK.set(Box::new(clock)).is_ok();
    if is_set {
        crate::pause_all::end_pause_without_clock();
    }
    is_set
}

/// Returns the time of the clock of the program, or else that of JavaScript.
fn now(js: impl FnOnce() -> Timestamp) -> Timestamp {
    #[cfg(feature = "host-clock")]
    if let Some(clock) = CLOCK.get() {
        return clock.now();
    }
    js()
}

pub(super) fn system_now() -> Timestamp {
    now(|| {
        #[cfg(feature = "js")]
        {
            use web_time::SystemTime;
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            Timestamp::default().saturating_add(time.unwrap_or_default())
        }
        #[cfg(not(feature = "js"))]
        Timestamp::default()
    })
}

pub(super) fn monotonic_now() -> Timestamp {
    now(|| {
        #[cfg(feature = "js")]
        {
            use std::sync::LazyLock;
            use web_time::Instant;
            static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
            Timestamp::default().saturating_add(ORIGIN.elapsed())
        }
        #[cfg(not(feature = "js"))]
        Timestamp::default()
    })
}

pub(super) fn sleep(time: Duration) -> Sleep {
    #[cfg(feature = "host-clock")]
    if let Some(clock) = CLOCK.get() {
        return clock.sleep(time);
    }
    sleep_in_real_time(time)
}

/// A reading of the monotonic clock, with the interface of that of the standard library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Timestamp);

impl Instant {
    /// Returns the current time.
    pub fn now() -> Self {
        Self(monotonic_now())
    }

    /// Returns the time since this instant.
    pub fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }

    /// Returns the time from `earlier` to this instant, zero if `earlier` is later.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_since(earlier.0)
    }

    /// Returns the instant after `time`, or `None` on overflow.
    pub fn checked_add(self, time: Duration) -> Option<Self> {
        let sum = self.0.saturating_add(time);
        (sum != Timestamp::NEVER).then_some(Self(sum))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

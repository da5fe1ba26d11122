//! Outages of what a cache depends on, for log lines when one begins and when it is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::sync::IgnorePoison;

/// The outage of a server, a directory or a connection, if there is one.
///
/// Each outage is to be logged once when it begins and once when it is over. One that begins within
/// a minute of the last that was logged is not logged unless it lasts until then, so something that
/// fails and recovers in turn is logged once a minute.
#[derive(Debug)]
pub struct Outage {
    clock: Arc<dyn Clock>,
    /// `true` during an outage. Each success checks it.
    is_out: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    since: Option<Timestamp>,
    /// `true` if this outage was logged.
    is_logged: bool,
    last_logged: Option<Timestamp>,
}

/// Shortest time between two outages that are logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

impl Outage {
    /// Returns the state before any outage.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, is_out: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Records a failure, which begins an outage or is part of one. Returns whether to log it.
    #[cold]
    pub fn failed(&self) -> bool {
        let now = self.clock.now();
        let mut state = self.state.lock().ignore_poison();
        state.since.get_or_insert(now);
        self.is_out.store(true, Ordering::Relaxed);
        let is_recent = state.last_logged.is_some_and(|last| now.is_within(last, LOG_INTERVAL));
        if state.is_logged || is_recent {
            return false;
        }
        state.is_logged = true;
        state.last_logged = Some(now);
        true
    }

    /// Records a success. Returns how long the outage lasted, if one is over that was logged.
    #[inline]
    pub fn succeeded(&self) -> Option<Duration> {
        if self.is_out.load(Ordering::Relaxed) { self.end() } else { None }
    }

    #[cold]
    fn end(&self) -> Option<Duration> {
        let mut state = self.state.lock().ignore_poison();
        let since = state.since.take()?;
        self.is_out.store(false, Ordering::Relaxed);
        let was_logged = std::mem::take(&mut state.is_logged);
        was_logged.then(|| self.clock.now().saturating_since(since))
    }
}

/// Formats a duration for a log line, in one unit: `250 ms`, `1.2 s`, `12 s`, `15 min`, `3 h`.
pub fn display_time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 1.0 {
        format!("{} ms", time.as_millis())
    } else if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.0} h", seconds / 3600.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ManualClock;

    #[test]
    fn outage_is_logged_when_it_begins_and_when_it_is_over() {
        let clock = ManualClock::new();
        let outage = Outage::new(Arc::new(clock.clone()));
        assert_eq!(outage.succeeded(), None);
        assert!(outage.failed());
        for _ in 0..10 {
            clock.advance(LOG_INTERVAL);
            assert!(!outage.failed(), "it is the same outage");
        }
        assert_eq!(outage.succeeded(), Some(10 * LOG_INTERVAL));
        assert_eq!(outage.succeeded(), None);
    }

    #[test]
    fn outage_soon_after_another_is_logged_if_it_lasts() {
        let clock = ManualClock::new();
        let outage = Outage::new(Arc::new(clock.clone()));
        let second = Duration::from_secs(1);
        assert!(outage.failed());
        for _ in 0..20 {
            clock.advance(second);
            outage.succeeded();
            clock.advance(second);
            assert!(!outage.failed(), "it fails and recovers in turn");
        }
        assert_eq!(outage.succeeded(), None, "its beginning was not logged");
        clock.advance(second);
        assert!(!outage.failed());
        clock.advance(LOG_INTERVAL);
        assert!(outage.failed());
        assert_eq!(outage.succeeded(), Some(LOG_INTERVAL));
    }

    #[test]
    fn time_is_shown_in_one_unit() {
        for (milliseconds, shown) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_200, "1.2 s"),
            (9_960, "10 s"),
            (119_000, "119 s"),
            (120_000, "2 min"),
            (900_000, "15 min"),
            (10_800_000, "3 h"),
        ] {
            assert_eq!(display_time(Duration::from_millis(milliseconds)), shown);
        }
    }

    #[test]
    fn clock_that_is_set_back_does_not_silence_an_outage() {
        let clock = ManualClock::new();
        let outage = Outage::new(Arc::new(clock.clone()));
        assert!(outage.failed());
        outage.succeeded();
        clock.set(Timestamp::from_micros(0));
        assert!(outage.failed());
        assert_eq!(outage.succeeded(), Some(Duration::ZERO));
    }
}

//! Deadlines of operations and periods of the clock.

use std::io;
use std::time::{Duration, Instant};

use vayu_core::Timestamp;

/// Returns the time that is left until a deadline.
///
/// # Errors
///
/// [`TimedOut`](io::ErrorKind::TimedOut) if none is left.
pub(crate) fn time_until(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// Returns whether a period of at most `length` that ends at `end` is still running. A clock that
/// was set back does not extend it.
pub(crate) fn is_within(now: Timestamp, end: Timestamp, length: Duration) -> bool {
    now < end && end.saturating_since(now) <= length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_set_back_does_not_extend_a_period() {
        let length = Duration::from_secs(1);
        let start = Timestamp::from_micros(5_000_000);
        let end = start.saturating_add(length);
        for (now, expected) in
            [(4_999_999, false), (5_000_000, true), (5_999_999, true), (6_000_000, false)]
        {
            assert_eq!(is_within(Timestamp::from_micros(now), end, length), expected, "{now}");
        }
    }
}

//! Deadlines of operations.

use std::io;
use std::time::{Duration, Instant};

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

//! A time limit for tests.

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

/// Runs a test on a thread of its own and panics when it takes longer than `limit`.
///
/// The limit ends a test that hangs. It is not a measure of speed: set it to ten times what the
/// slowest machine needs.
///
/// # Panics
///
/// When the test panics, or when it takes too long. Its thread then goes on.
pub fn watchdog<T: Send + 'static>(
    limit: Duration,
    test: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = channel();
    let name = thread::current().name().unwrap_or("watched test").to_owned();
    let thread = thread::Builder::new()
        .name(name)
        .spawn(move || {
            // This fails if the time limit was exceeded.
            let _ = done.send(test());
        })
        .expect("a thread for the test");
    match result.recv_timeout(limit) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("still running after {limit:?}"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Ok(()) => unreachable!("a test that ends without a panic has sent its value"),
            Err(payload) => resume_unwind(payload),
        },
    }
}

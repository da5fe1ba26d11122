//! The option `--quick`: all steps of all parts with few repetitions and few keys.
//!
//! It shows that the benchmarks run. Its numbers mean nothing, and are not written to `docs/benchmarks`.

use std::sync::atomic::{AtomicBool, Ordering};

static IS_ON: AtomicBool = AtomicBool::new(false);

pub(crate) fn turn_on() {
    IS_ON.store(true, Ordering::Relaxed);
}

pub(crate) fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Returns `full`, or `quick` if the option is on.
pub(crate) fn or<T>(full: T, quick: T) -> T {
    if is_on() { quick } else { full }
}

//! Clocks and timestamps, for backends and tests with a clock of their own.

#[cfg(feature = "host-clock")]
pub use vayu_core::set_host_clock;
pub use vayu_core::{Clock, MonotonicClock, Sleep, SystemClock, Timestamp};

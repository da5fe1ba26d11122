//! Clocks and timestamps, for backends and tests with a clock of their own.

pub use vayu_core::{Clock, MonotonicClock, Sleep, SystemClock, Timestamp};

//! Test utilities: a clock that is moved by hand, backends to test with, and the conformance kit for
//! backends ([`backend_tests!`](crate::backend_tests)). The page `testing.md` of the guide describes
//! how to test code that caches.

mod clock;
mod faulty;
mod map;
#[doc(hidden)]
pub mod suite;
mod watchdog;

pub use self::clock::ManualClock;
pub use self::faulty::{Fault, FaultyBackend};
pub use self::map::MapBackend;
pub use self::watchdog::watchdog;

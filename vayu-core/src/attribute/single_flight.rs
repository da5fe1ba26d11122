//! The flights of functions whose results are not stored.

use std::sync::LazyLock;
use std::time::Duration;

use crate::backend::NoStorage;
use crate::cache::Cache;
use crate::call::{OutputShape, WholeOutput};
use crate::serializer::{AnyValue, ByReference};

/// A cache that stores nothing. Its callers share running computations, and wait for them without a
/// limit: a computation is never run a second time because it takes long.
pub type SingleFlightCache = Cache<NoStorage<AnyValue>, ByReference>;

/// Returns the cache of all functions of the attribute `single_flight`.
pub fn single_flights() -> &'static SingleFlightCache {
    static FLIGHTS: LazyLock<SingleFlightCache> = LazyLock::new(|| {
        Cache::with_backend(NoStorage::new("single flight")).with_max_wait(Duration::MAX)
    });
    &FLIGHTS
}

/// Returns the shape of an output that is shared as it is.
#[inline]
pub fn whole<H: OutputShape>(_shape: H) -> WholeOutput<H::Output> {
    WholeOutput::new()
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn function_is_not_hedged_and_callers_wait_without_a_limit() {
        let engine = single_flights().engine();
        assert_eq!(engine.max_wait(), Duration::MAX);
        assert_eq!(engine.hedge_after(&Key::from_text("p", "k")), Duration::MAX);
    }
}

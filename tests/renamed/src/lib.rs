//! A crate in which vayu has another name, and no other dependency.

use memory::cached;

/// The sum of two numbers, and how often it was computed.
#[cached(ttl = "1h", crate = memory)]
pub fn sum(one: u64, two: u64) -> u64 {
    one + two
}

/// The same in async code, with all that names something in the expansion.
#[cached(
    crate = memory,
    ttl = |sum: &u64| std::time::Duration::from_secs(1 + *sum),
    cache = memory::mem_cache(),
    prefix = "renamed",
    include(1_u8),
    cache_if = |sum: &u64| *sum > 0,
    serializer = memory::ByReference,
    version = 2,
    log = false
)]
pub async fn sum_async(one: u64, two: u64) -> u64 {
    one + two
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, since the counts are those of the cache of the whole process.
    #[test]
    fn functions_are_cached_under_the_other_name() {
        let counts = || {
            let stats = memory::mem_cache().stats();
            (stats.hits, stats.misses)
        };
        assert_eq!((sum(1, 2), sum(1, 2)), (3, 3));
        assert_eq!(counts(), (1, 1));
        for _ in 0..2 {
            let mut call = std::pin::pin!(sum_async(1, 2));
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            assert_eq!(call.as_mut().poll(&mut context), std::task::Poll::Ready(3));
        }
        assert_eq!(counts(), (2, 2));
    }
}

//! A crate of edition 2021 in which vayu has another name, and no other dependency.

use memory::cached;

/// Returns the sum of two numbers, and how often it was computed.
#[cached(ttl = "1h", crate = memory)]
pub fn sum(one: u64, two: u64) -> u64 {
    one + two
}

/// An async version, with every argument of the attribute that generates a path.
#[cached(
    crate = memory,
    ttl = |sum: &u64| std::time::Duration::from_secs(1 + *sum),
    cache = memory::mem_cache(),
    prefix = "renamed",
    include(1_u8),
    cache_if = |sum: &u64| *sum > 0,
    serializer = memory::backend::ByReference,
    version = 2,
    log = false
)]
pub async fn sum_async(one: u64, two: u64) -> u64 {
    one + two
}

/// A product.
#[derive(Debug)]
pub struct Item(pub u64);

impl Item {
    /// Returns the price for a customer; its entry borrows both.
    #[cached(crate = memory, ttl = 60, include(self.0), handle = price_entry)]
    pub async fn price(&self, customer: &str) -> u64 {
        self.0 * customer.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    /// A single test, since the statistics are those of the process-wide cache.
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

        let (item, customer) = (Item(3), String::from("ann"));
        let mut call = std::pin::pin!(item.price_entry(&customer).refresh_async());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert_eq!(call.as_mut().poll(&mut context), std::task::Poll::Ready(9));
        assert_eq!(item.price_entry(&customer).peek().unwrap(), Some(9));
    }
}

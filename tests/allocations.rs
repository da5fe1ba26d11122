//! What a hit costs in allocations: nothing.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use allocation_counter::measure;
use vayu::mem_cached;

#[mem_cached(ttl = "1h")]
fn number(n: u64) -> u64 {
    n * n
}

#[mem_cached(ttl = "1h")]
fn text_and_number(text: &str, n: u64) -> u64 {
    n + text.len() as u64
}

#[mem_cached(ttl = "1h")]
async fn number_async(n: u64) -> u64 {
    n * n
}

#[mem_cached(ttl = "1h")]
fn generic<T: serde::Serialize + Copy + Into<u64>>(n: T) -> u64 {
    n.into()
}

/// Polls once: a hit is ready at once.
fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a hit does not wait"),
    }
}

#[test]
fn hit_allocates_nothing() {
    number(7);
    text_and_number("sixteen bytes !!", 7);
    ready(number_async(7));
    generic(7_u32);
    let counted = measure(|| {
        for _ in 0..100 {
            assert_eq!(number(7), 49);
            assert_eq!(text_and_number("sixteen bytes !!", 7), 23);
            assert_eq!(ready(number_async(7)), 49);
            assert_eq!(generic(7_u32), 7);
        }
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn allocations_are_counted() {
    assert_eq!(measure(|| drop(std::hint::black_box(Box::new(7)))).count_total, 1);
}

//! Counters that are counted up by many calls.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts without threads fighting over a cache line. Each of the first few threads has a line to
/// itself, which nobody else writes to, so that it need not be locked; all others share one.
#[derive(Debug)]
pub(super) struct StripedCounters(Box<[Stripe; STRIPES]>);

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Hit,
    Miss,
    Insert,
}

const EVENTS: usize = 3;

const STRIPES: usize = 33;
const SHARED: usize = STRIPES - 1;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe([AtomicU64; EVENTS]);

impl Default for StripedCounters {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| Stripe::default())))
    }
}

impl StripedCounters {
    #[inline]
    pub(super) fn add(&self, event: Event) {
        let index = current_stripe();
        let count = &self.0[index].0[event as usize];
        if index == SHARED {
            count.fetch_add(1, Ordering::Relaxed);
        } else {
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn sum(&self, event: Event) -> u64 {
        self.0.iter().map(|stripe| stripe.0[event as usize].load(Ordering::Relaxed)).sum()
    }
}

const UNASSIGNED: usize = usize::MAX;

std::thread_local! {
    static STRIPE: Cell<usize> = const { Cell::new(UNASSIGNED) };
    static OWNER: StripeOwner = StripeOwner::acquire();
}

#[inline]
fn current_stripe() -> usize {
    let stripe = STRIPE.get();
    if stripe == UNASSIGNED { assign_stripe() } else { stripe }
}

#[cold]
fn assign_stripe() -> usize {
    // A thread that is about to end has none.
    let stripe = OWNER.try_with(|own| own.0).unwrap_or(SHARED);
    STRIPE.set(stripe);
    stripe
}

/// The lines that no thread has, as bits.
static FREE: Mutex<u32> = Mutex::new(u32::MAX);

/// The right of a thread to a line, given back at its end.
struct StripeOwner(usize);

impl StripeOwner {
    fn acquire() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let stripe = free.trailing_zeros() as usize;
        *free &= free.wrapping_sub(1);
        Self(stripe.min(SHARED))
    }
}

impl Drop for StripeOwner {
    fn drop(&mut self) {
        // What is counted while the thread ends is counted in the shared line.
        STRIPE.set(SHARED);
        if self.0 != SHARED {
            *FREE.lock().unwrap_or_else(PoisonError::into_inner) |= 1 << self.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn nothing_is_lost_with_few_or_many_threads_that_come_and_go() {
        const TIMES: u64 = if cfg!(miri) { 10 } else { 10_000 };
        let counters = StripedCounters::default();
        for threads in [1, 40, 3] {
            let start = Barrier::new(threads);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        start.wait();
                        for _ in 0..TIMES {
                            counters.add(Event::Hit);
                            counters.add(Event::Insert);
                            counters.add(Event::Insert);
                        }
                        start.wait();
                    });
                }
            });
        }
        assert_eq!(counters.sum(Event::Hit), 44 * TIMES);
        assert_eq!(counters.sum(Event::Miss), 0);
        assert_eq!(counters.sum(Event::Insert), 88 * TIMES);
    }
}

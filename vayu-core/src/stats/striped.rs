//! Striped counters for events on the hot path.
//!
//! A counter that all threads increment is a cache line that all processors contend for. So there are
//! [`STRIPES`] sets of counters on cache lines of their own, as in a `LongAdder`. Each of the first threads
//! owns a stripe until it ends and increments it by a plain load and store; all further threads share
//! the last stripe and increment it atomically. The value of a counter is the sum over all stripes.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::outcome::CallOutcome;
use crate::sync::IgnorePoison;

/// Counters of events, one set for each stripe.
#[derive(Debug)]
pub(super) struct StripedCounters(Box<[Stripe; STRIPES]>);

/// An event that is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Call(CallOutcome),
    FailedRefresh,
    Insert,
}

const EVENTS: usize = 7;

impl Event {
    #[inline]
    const fn index(self) -> usize {
        match self {
            Self::Call(outcome) => outcome as usize,
            Self::FailedRefresh => 5,
            Self::Insert => 6,
        }
    }
}

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
        let count = &self.0[index].0[event.index()];
        if index == SHARED {
            count.fetch_add(1, Ordering::Relaxed);
        } else {
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn sum(&self, event: Event) -> u64 {
        self.0.iter().map(|stripe| stripe.0[event.index()].load(Ordering::Relaxed)).sum()
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
    // A thread that is ending owns none.
    let stripe = OWNER.try_with(|own| own.0).unwrap_or(SHARED);
    STRIPE.set(stripe);
    stripe
}

/// The stripes without an owner, as bits.
static FREE: Mutex<u32> = Mutex::new(u32::MAX);

/// The ownership of a stripe by a thread, released when the thread ends.
struct StripeOwner(usize);

impl StripeOwner {
    fn acquire() -> Self {
        let mut free = FREE.lock().ignore_poison();
        let stripe = free.trailing_zeros() as usize;
        *free &= free.wrapping_sub(1);
        Self(stripe.min(SHARED))
    }
}

impl Drop for StripeOwner {
    fn drop(&mut self) {
        // Events while the thread ends are counted in the shared stripe.
        STRIPE.set(SHARED);
        if self.0 != SHARED {
            *FREE.lock().ignore_poison() |= 1 << self.0;
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
                            counters.add(Event::Call(CallOutcome::Hit));
                            counters.add(Event::Insert);
                            counters.add(Event::Insert);
                        }
                        start.wait();
                    });
                }
            });
        }
        assert_eq!(counters.sum(Event::Call(CallOutcome::Hit)), 44 * TIMES);
        assert_eq!(counters.sum(Event::Call(CallOutcome::Miss)), 0);
        assert_eq!(counters.sum(Event::Insert), 88 * TIMES);
    }
}

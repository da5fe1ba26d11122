//! Striped counters for events on the hot path.
//!
//! A counter that all threads increment is a cache line that all processors contend for. So there are
//! several sets of counters, each on cache lines of its own (a stripe), as in a `LongAdder`. The value
//! of a counter is the sum over all stripes.
//!
//! A thread has an id until it ends, the lowest that is free. Threads with low ids own a stripe, and
//! increment it by a plain load and store. All others are distributed by their ids over stripes that
//! they share, and increment them atomically. There are more stripes of both kinds than processors
//! (up to [`IDS`]), so that threads that run at the same time seldom contend for one.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use crate::outcome::CallOutcome;

/// Counters of events, one set for each stripe.
#[derive(Debug)]
pub(super) struct StripedCounters {
    /// The stripe of the thread with the same id.
    owned: Box<[Stripe]>,
    shared: Box<[Stripe]>,
}

/// An event that is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Call(CallOutcome),
    FailedRefresh,
    Insert,
}

const EVENTS: usize = 8;

impl Event {
    #[inline]
    const fn index(self) -> usize {
        match self {
            Self::Call(outcome) => outcome as usize,
            Self::FailedRefresh => 6,
            Self::Insert => 7,
        }
    }
}

const MIN_OWNED: usize = 32;
const MIN_SHARED: usize = 16;
const MAX_SHARED: usize = 256;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Stripe([AtomicU64; EVENTS]);

impl Default for StripedCounters {
    fn default() -> Self {
        Self::for_processors(processors())
    }
}

impl StripedCounters {
    fn for_processors(processors: usize) -> Self {
        let stripes = |count| (0..count).map(|_| Stripe::default()).collect();
        Self {
            owned: stripes(processors.clamp(MIN_OWNED, IDS)),
            shared: stripes(processors.clamp(MIN_SHARED, MAX_SHARED)),
        }
    }

    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(super) fn add(&self, event: Event) {
        match self.owned.get(THREAD_ID.get()) {
            Some(stripe) => stripe.add_as_owner(event),
            None => self.add_cold(event),
        }
    }

    /// Adds an event of a thread that owns no stripe, or has no id yet.
    #[cold]
    fn add_cold(&self, event: Event) {
        let id = thread_id();
        match self.owned.get(id) {
            Some(stripe) => stripe.add_as_owner(event),
            None => self.shared[id % self.shared.len()].add(event),
        }
    }

    pub(super) fn sum(&self, event: Event) -> u64 {
        let stripes = self.owned.iter().chain(&self.shared);
        stripes.map(|stripe| stripe.0[event.index()].load(Ordering::Relaxed)).sum()
    }
}

impl Stripe {
    /// Adds an event, in the only thread that writes to this stripe.
    #[inline]
    fn add_as_owner(&self, event: Event) {
        let count = &self.0[event.index()];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn add(&self, event: Event) {
        self.0[event.index()].fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the number of processors that the process may use. Finding it reads files, so it is done
/// once.
fn processors() -> usize {
    static PROCESSORS: AtomicUsize = AtomicUsize::new(0);
    match PROCESSORS.load(Ordering::Relaxed) {
        0 => {
            let found = thread::available_parallelism().map_or(1, usize::from);
            PROCESSORS.store(found, Ordering::Relaxed);
            found
        }
        known => known,
    }
}

/// The number of ids that one thread has at a time. No stripe of a larger id is owned.
const IDS: usize = 512;

const NO_ID: usize = usize::MAX;

std::thread_local! {
    static THREAD_ID: Cell<usize> = const { Cell::new(NO_ID) };
    static OWNED_ID: OwnedId = OwnedId::acquire();
}

fn thread_id() -> usize {
    if THREAD_ID.get() == NO_ID {
        // A thread that is ending owns none.
        THREAD_ID.set(OWNED_ID.try_with(|owned| owned.0).unwrap_or(IDS));
    }
    THREAD_ID.get()
}

/// The ids without an owner, as bits.
static FREE: [AtomicU64; IDS / 64] = [const { AtomicU64::new(u64::MAX) }; IDS / 64];

/// The ownership of an id by a thread, released when the thread ends.
struct OwnedId(usize);

impl OwnedId {
    fn acquire() -> Self {
        static FURTHER: AtomicUsize = AtomicUsize::new(0);
        for (index, word) in FREE.iter().enumerate() {
            let lowest = |free: u64| (free != 0).then(|| free & (free - 1));
            // The previous owner of an id has written to its stripes before it released it.
            if let Ok(free) = word.fetch_update(Ordering::Acquire, Ordering::Relaxed, lowest) {
                return Self(index * 64 + free.trailing_zeros() as usize);
            }
        }
        Self(IDS + FURTHER.fetch_add(1, Ordering::Relaxed) % IDS)
    }
}

impl Drop for OwnedId {
    fn drop(&mut self) {
        if let Some(word) = FREE.get(self.0 / 64) {
            // Events while the thread ends are counted in a shared stripe.
            THREAD_ID.set(IDS + self.0);
            word.fetch_or(1 << (self.0 % 64), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Barrier, Mutex};

    use super::*;
    use crate::sync::IgnorePoison;

    #[test]
    fn nothing_is_lost_with_few_or_many_threads_that_come_and_go() {
        const TIMES: u64 = if cfg!(miri) { 10 } else { 1000 };
        const MANY: usize = if cfg!(miri) { 40 } else { IDS + 100 };
        let counters = StripedCounters::for_processors(2);
        for threads in [1, MANY, 3] {
            at_once(threads, || {
                for _ in 0..TIMES {
                    counters.add(Event::Call(CallOutcome::Hit));
                    counters.add(Event::Insert);
                    counters.add(Event::Insert);
                }
            });
        }
        let all = (MANY as u64 + 4) * TIMES;
        assert_eq!(counters.sum(Event::Call(CallOutcome::Hit)), all);
        assert_eq!(counters.sum(Event::Call(CallOutcome::Miss)), 0);
        assert_eq!(counters.sum(Event::Insert), 2 * all);
    }

    #[test]
    fn threads_share_no_stripe_if_each_has_a_processor() {
        let counters = StripedCounters::for_processors(128);
        let threads = threads_by_stripe(&counters, 128);
        assert_eq!(threads.len(), 128, "{threads:?}");
    }

    #[test]
    fn more_threads_than_processors_are_distributed_over_all_shared_stripes() {
        let counters = StripedCounters::for_processors(2);
        let threads = threads_by_stripe(&counters, 128);
        let most = threads.values().max();
        assert!(most <= Some(&8), "{threads:?}");
    }

    /// Runs `work` on threads that are all alive before it begins and until it ends.
    fn at_once(threads: usize, work: impl Fn() + Sync) {
        // The tests of this module run one after another, so that each has free ids.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().ignore_poison();
        let start = Barrier::new(threads);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    start.wait();
                    work();
                    start.wait();
                });
            }
        });
    }

    /// Returns the number of threads that increment each stripe.
    fn threads_by_stripe(counters: &StripedCounters, threads: usize) -> BTreeMap<usize, usize> {
        let found = Mutex::new(BTreeMap::new());
        at_once(threads, || {
            let (id, owned) = (thread_id(), counters.owned.len());
            let stripe = if id < owned { id } else { owned + id % counters.shared.len() };
            *found.lock().ignore_poison().entry(stripe).or_default() += 1;
        });
        found.into_inner().ignore_poison()
    }
}

//! Counters that are counted up by many calls.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts without threads fighting over a cache line. Each of the first few threads has a line to
/// itself, which nobody else writes to, so that it need not be locked; all others share one.
#[derive(Debug)]
pub(super) struct Often(Box<[Line; LINES]>);

/// What is counted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Counted {
    Hit,
    Miss,
    Store,
}

const COUNTED: usize = 3;

const LINES: usize = 33;
const SHARED: usize = LINES - 1;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; COUNTED]);

impl Default for Often {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| Line::default())))
    }
}

impl Often {
    #[inline]
    pub(super) fn add(&self, counted: Counted) {
        let index = line_of_this_thread();
        let count = &self.0[index].0[counted as usize];
        if index == SHARED {
            count.fetch_add(1, Ordering::Relaxed);
        } else {
            count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn sum(&self, counted: Counted) -> u64 {
        self.0.iter().map(|line| line.0[counted as usize].load(Ordering::Relaxed)).sum()
    }
}

const UNKNOWN: usize = usize::MAX;

std::thread_local! {
    static LINE: Cell<usize> = const { Cell::new(UNKNOWN) };
    static OWN: Own = Own::take();
}

#[inline]
fn line_of_this_thread() -> usize {
    let line = LINE.get();
    if line == UNKNOWN { find_line() } else { line }
}

#[cold]
fn find_line() -> usize {
    // A thread that is about to end has none.
    let line = OWN.try_with(|own| own.0).unwrap_or(SHARED);
    LINE.set(line);
    line
}

/// The lines that no thread has, as bits.
static FREE: Mutex<u32> = Mutex::new(u32::MAX);

/// The right of a thread to a line, given back at its end.
struct Own(usize);

impl Own {
    fn take() -> Self {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let line = free.trailing_zeros() as usize;
        *free &= free.wrapping_sub(1);
        Self(line.min(SHARED))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // What is counted while the thread ends is counted in the shared line.
        LINE.set(SHARED);
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
        let counters = Often::default();
        for threads in [1, 40, 3] {
            let start = Barrier::new(threads);
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        start.wait();
                        for _ in 0..TIMES {
                            counters.add(Counted::Hit);
                            counters.add(Counted::Store);
                            counters.add(Counted::Store);
                        }
                        start.wait();
                    });
                }
            });
        }
        assert_eq!(counters.sum(Counted::Hit), 44 * TIMES);
        assert_eq!(counters.sum(Counted::Miss), 0);
        assert_eq!(counters.sum(Counted::Store), 88 * TIMES);
    }
}

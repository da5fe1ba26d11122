//! A cache of stamps that were made recently.

use std::sync::atomic::{AtomicU64, Ordering};

/// A direct-mapped table of stamps without locks, each under a number that stands for all that it was
/// made of. A hit finds the stamp of its function here and need not make it again.
#[derive(Debug)]
pub(super) struct Memo(Box<[Place; PLACES]>);

const PLACES: usize = 256;

/// A slot: the stamp, and the number XOR the stamp. A reader that loads the halves of two different
/// writes computes a number other than the one that it looks up.
#[derive(Debug, Default)]
struct Place {
    mixed: AtomicU64,
    stamp: AtomicU64,
}

impl Default for Memo {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| Place::default())))
    }
}

impl Memo {
    #[inline]
    pub(super) fn recall(&self, number: u64) -> Option<u64> {
        let place = self.place(number);
        let mixed = place.mixed.load(Ordering::Relaxed);
        let stamp = place.stamp.load(Ordering::Relaxed);
        (mixed ^ stamp == number).then_some(stamp)
    }

    pub(super) fn keep(&self, number: u64, stamp: u64) {
        let place = self.place(number);
        place.mixed.store(number ^ stamp, Ordering::Relaxed);
        place.stamp.store(stamp, Ordering::Relaxed);
    }

    #[inline]
    fn place(&self, number: u64) -> &Place {
        &self.0[usize::try_from(number % PLACES as u64).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_is_found_under_its_number_alone() {
        let memo = Memo::default();
        let (number, same_place) = (77, 77 + PLACES as u64);
        memo.keep(number, 5);
        assert_eq!(memo.recall(number), Some(5));
        assert_eq!(memo.recall(same_place), None);
        memo.keep(same_place, 0);
        assert_eq!((memo.recall(number), memo.recall(same_place)), (None, Some(0)));
    }

    #[test]
    fn threads_never_find_the_stamp_of_another_number() {
        let memo = Memo::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in
                        (1..if cfg!(miri) { 50 } else { 50_000 }).map(|n: u64| n * PLACES as u64)
                    {
                        memo.keep(number, number.wrapping_mul(31));
                        if let Some(stamp) = memo.recall(number) {
                            assert_eq!(stamp, number.wrapping_mul(31));
                        }
                    }
                });
            }
        });
    }
}

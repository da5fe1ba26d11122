//! A cache of stamps that were made recently.

use std::sync::atomic::{AtomicU64, Ordering};

/// A direct-mapped table of stamps without locks, keyed by the [number](super::StampKey) of what each
/// was made of. A hit finds the stamp of its function here and need not make it again.
#[derive(Debug)]
pub(super) struct StampCache(Box<[Slot; SLOTS]>);

const SLOTS: usize = 256;

/// A slot: the stamp, and the number XOR the stamp. A reader that loads the halves of two different
/// writes computes a number other than the one that it looks up.
#[derive(Debug, Default)]
struct Slot {
    mixed: AtomicU64,
    stamp: AtomicU64,
}

impl Default for StampCache {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| Slot::default())))
    }
}

impl StampCache {
    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<u64> {
        let slot = self.slot(number);
        let mixed = slot.mixed.load(Ordering::Relaxed);
        let stamp = slot.stamp.load(Ordering::Relaxed);
        (mixed ^ stamp == number).then_some(stamp)
    }

    pub(super) fn insert(&self, number: u64, stamp: u64) {
        let slot = self.slot(number);
        slot.mixed.store(number ^ stamp, Ordering::Relaxed);
        slot.stamp.store(stamp, Ordering::Relaxed);
    }

    #[inline]
    fn slot(&self, number: u64) -> &Slot {
        &self.0[usize::try_from(number % SLOTS as u64).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_is_found_under_its_number_alone() {
        let cache = StampCache::default();
        let (number, same_slot) = (77, 77 + SLOTS as u64);
        cache.insert(number, 5);
        assert_eq!(cache.get(number), Some(5));
        assert_eq!(cache.get(same_slot), None);
        cache.insert(same_slot, 0);
        assert_eq!((cache.get(number), cache.get(same_slot)), (None, Some(0)));
    }

    #[test]
    fn threads_never_find_the_stamp_of_another_number() {
        let cache = StampCache::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in
                        (1..if cfg!(miri) { 50 } else { 50_000 }).map(|n: u64| n * SLOTS as u64)
                    {
                        cache.insert(number, number.wrapping_mul(31));
                        if let Some(stamp) = cache.get(number) {
                            assert_eq!(stamp, number.wrapping_mul(31));
                        }
                    }
                });
            }
        });
    }
}

//! A cache of stamps that were made recently.

use std::array;
use std::sync::atomic::Ordering;

use crate::sync::{AtomicU64, fence};

/// A direct-mapped table of stamps, keyed by the [number](super::call_stamp::StampKey) of what each was made of. A hit
/// finds the stamp of its function here, without a lock, and need not make it again.
#[derive(Debug)]
pub(super) struct StampCache(Box<[Slot; SLOTS]>);

const SLOTS: usize = if cfg!(vayu_loom) { 1 } else { 256 };

/// A slot: a stamp and its number, under a seqlock.
#[derive(Debug)]
struct Slot {
    /// Odd while the slot is being written. Each write adds two.
    version: AtomicU64,
    number: AtomicU64,
    stamp: AtomicU64,
}

impl Default for StampCache {
    fn default() -> Self {
        Self(Box::new(array::from_fn(|_| Slot::new())))
    }
}

impl StampCache {
    #[inline]
    pub(super) fn get(&self, number: u64) -> Option<u64> {
        self.slot(number).get(number)
    }

    /// Inserts a stamp, unless another thread writes its slot at the moment.
    pub(super) fn insert(&self, number: u64, stamp: u64) {
        self.slot(number).set(number, stamp);
    }

    #[inline]
    fn slot(&self, number: u64) -> &Slot {
        &self.0[usize::try_from(number % SLOTS as u64).unwrap_or(0)]
    }
}

impl Slot {
    fn new() -> Self {
        let [version, number, stamp] = [0, 0, 0].map(AtomicU64::new);
        Self { version, number, stamp }
    }

    #[inline]
    fn get(&self, number: u64) -> Option<u64> {
        let version = self.version.load(Ordering::Acquire);
        // In the version zero, the slot has no stamp.
        if self.number.load(Ordering::Relaxed) != number
            || !version.is_multiple_of(2)
            || version == 0
        {
            return None;
        }
        let stamp = self.stamp.load(Ordering::Relaxed);
        // A reader that has loaded a half of a later write sees that the version has changed.
        fence(Ordering::Acquire);
        (self.version.load(Ordering::Relaxed) == version).then_some(stamp)
    }

    fn set(&self, number: u64, stamp: u64) {
        let version = self.version.load(Ordering::Relaxed);
        // In a child process, the thread that writes may not exist: the slot is then not used.
        if !version.is_multiple_of(2)
            || self
                .version
                .compare_exchange(version, version + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        fence(Ordering::Release);
        self.number.store(number, Ordering::Relaxed);
        self.stamp.store(stamp, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }
}

#[cfg(all(test, vayu_loom))]
mod loom_tests {
    use std::sync::Arc;

    use loom::thread;

    use super::*;

    /// Two writers of one slot, and a reader: the halves that it returns are of one write.
    #[test]
    fn reader_never_finds_the_stamp_of_another_number() {
        loom::model(|| {
            let cache = Arc::new(StampCache::default());
            let writers = [1, 2].map(|number| {
                let cache = Arc::clone(&cache);
                thread::spawn(move || cache.insert(number, number * 10))
            });
            for number in [1, 2] {
                assert!(cache.get(number).is_none_or(|stamp| stamp == number * 10));
            }
            for writer in writers {
                writer.join().expect("it does not panic");
            }
        });
    }

    /// A slot that has a stamp already is written again.
    #[test]
    fn reader_of_a_replaced_stamp_finds_it_or_nothing() {
        loom::model(|| {
            let cache = Arc::new(StampCache::default());
            cache.insert(1, 10);
            let writer = {
                let cache = Arc::clone(&cache);
                thread::spawn(move || cache.insert(2, 20))
            };
            assert!(matches!(cache.get(1), None | Some(10)));
            assert!(matches!(cache.get(2), None | Some(20)));
            writer.join().expect("it does not panic");
            assert_eq!((cache.get(1), cache.get(2)), (None, Some(20)));
        });
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn stamp_is_found_under_its_number_alone() {
        let cache = StampCache::default();
        assert_eq!(cache.get(0), None);
        let (number, same_slot) = (77, 77 + SLOTS as u64);
        cache.insert(number, 5);
        assert_eq!(cache.get(number), Some(5));
        assert_eq!(cache.get(same_slot), None);
        cache.insert(same_slot, 0);
        assert_eq!((cache.get(number), cache.get(same_slot)), (None, Some(0)));
    }

    /// With numbers and stamps whose XOR is often that of another pair.
    #[test]
    fn threads_never_find_the_stamp_of_another_number() {
        let cache = StampCache::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..if cfg!(miri) { 50 } else { 50_000 } {
                        let number = (1 + round % 7) * SLOTS as u64;
                        cache.insert(number, number * 2);
                        if let Some(stamp) = cache.get(number) {
                            assert_eq!(stamp, number * 2);
                        }
                    }
                });
            }
        });
    }
}

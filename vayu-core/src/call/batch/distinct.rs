//! The elements of a batch that were asked for twice.

use crate::key::Key;

/// A hash table of the indices of elements, by their keys.
pub(super) struct Distinct {
    /// Each an index plus one, or zero if it is unused.
    slots: Vec<u32>,
    /// The hash of the key of each element.
    hashes: Vec<u64>,
}

impl Distinct {
    /// Creates a table for a number of elements.
    pub(super) fn new(elements: usize) -> Self {
        // At least a third of the slots stay unused.
        let slots = vec![0; (elements + elements / 2 + 1).next_power_of_two()];
        Self { slots, hashes: Vec::with_capacity(elements) }
    }

    /// Adds the next element. Returns the index of an earlier one with the same key instead, if there is one:
    /// `is_same` compares the keys of two elements that have the same hash.
    #[inline]
    pub(super) fn add(
        &mut self,
        key: Option<&Key>,
        is_same: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let Some(key) = key else {
            self.hashes.push(0);
            return None;
        };
        let (hash, mask) = (key.hash_code(), self.slots.len() - 1);
        let index = u32::try_from(self.hashes.len()).unwrap_or(u32::MAX).saturating_add(1);
        #[expect(clippy::cast_possible_truncation, reason = "the low bits select the slot")]
        let mut place = hash as usize & mask;
        loop {
            let slot = &mut self.slots[place];
            if *slot == 0 {
                *slot = index;
                self.hashes.push(hash);
                return None;
            }
            let earlier = *slot as usize - 1;
            if self.hashes[earlier] == hash && is_same(earlier) {
                return Some(earlier);
            }
            place = (place + 1) & mask;
        }
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn element_is_found_under_its_key_only() {
        let keys: Vec<Key> = (0..100).map(|n| Key::new("p", &(n % 40,)).expect("a key")).collect();
        let mut distinct = Distinct::new(keys.len());
        let mut kept: Vec<&Key> = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            let earlier = distinct.add(Some(key), |index| kept[index] == key);
            assert_eq!(earlier, (n >= 40).then_some(n % 40));
            if earlier.is_none() {
                kept.push(key);
            }
        }
    }

    #[test]
    fn keys_with_the_same_hash_are_compared() {
        let key = Key::from_text("p", "k");
        let mut distinct = Distinct::new(2);
        assert_eq!(distinct.add(Some(&key), |_| true), None);
        assert_eq!(distinct.add(Some(&key), |_| false), None);
        assert_eq!(distinct.add(None, |_| true), None);
    }
}

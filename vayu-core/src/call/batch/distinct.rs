//! The elements of a batch that were asked for twice.

use crate::key::Key;

/// A hash table of the positions of elements in a batch, by their keys.
pub(super) struct Distinct {
    /// In each the upper half of a hash, and a position plus one; zero if it is unused.
    slots: Vec<u64>,
}

const HASH: u64 = !POSITION;
const POSITION: u64 = u32::MAX as u64;

impl Distinct {
    /// Creates a table for a number of elements.
    pub(super) fn new(elements: usize) -> Self {
        // At least a third of the slots stay unused.
        Self { slots: vec![0; (elements + elements / 2 + 1).next_power_of_two()] }
    }

    /// Adds the element at a position. Returns the position of an earlier one with the same key instead, if there is
    /// one: `is_same` compares the key with that of an element whose hash may be the same.
    #[inline]
    pub(super) fn add(
        &mut self,
        position: usize,
        key: &Key,
        is_same: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (hash, mask) = (key.hash_code(), self.slots.len() - 1);
        let new = hash & HASH | (position as u64 + 1) & POSITION;
        #[expect(clippy::cast_possible_truncation, reason = "the low bits select the slot")]
        let mut place = hash as usize & mask;
        loop {
            let slot = self.slots[place];
            if slot == 0 {
                self.slots[place] = new;
                return None;
            }
            let earlier = (slot & POSITION) as usize - 1;
            if (slot ^ new) & HASH == 0 && is_same(earlier) {
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
        for (n, key) in keys.iter().enumerate() {
            let earlier = distinct.add(n, key, |earlier| keys[earlier] == *key);
            assert_eq!(earlier, (n >= 40).then_some(n % 40));
        }
    }

    #[test]
    fn keys_with_the_same_hash_are_compared() {
        let key = Key::from_text("p", "k");
        let mut distinct = Distinct::new(2);
        assert_eq!(distinct.add(0, &key, |_| true), None);
        assert_eq!(distinct.add(1, &key, |_| false), None);
        assert_eq!(distinct.add(2, &key, |earlier| earlier == 1), Some(1));
    }
}

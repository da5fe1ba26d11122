//! The elements of a batch that were asked for twice.

/// A hash table of the positions of elements in a batch, by their keys.
pub(super) struct Distinct {
    /// In each a position plus one, and above it as many bits of a hash as there is space for; zero if it is unused. Half as much
    /// memory as a word for each is written sooner.
    slots: Vec<u32>,
    /// The number of bits of a position plus one.
    position_bits: u32,
}

impl Distinct {
    /// Creates a table for a number of elements, which is less than 2^31.
    pub(super) fn new(elements: usize) -> Self {
        // At least a third of the slots stay unused.
        let slots = vec![0; (elements + elements / 2 + 1).next_power_of_two()];
        Self { slots, position_bits: usize::BITS - elements.leading_zeros() }
    }

    /// Adds the element at a position, by the hash of its key. Returns the position of an earlier one with the same key instead, if there is
    /// one: `is_same` compares the key with that of an element whose hash may be the same.
    #[inline]
    pub(super) fn add(
        &mut self,
        position: usize,
        hash: u64,
        is_same: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mask = self.slots.len() - 1;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "bits of a hash, and a position that has few bits"
        )]
        let new = ((hash >> 32) as u32) << self.position_bits | (position as u32 + 1);
        #[expect(clippy::cast_possible_truncation, reason = "the low bits select the slot")]
        let mut place = hash as usize & mask;
        loop {
            let slot = self.slots[place];
            if slot == 0 {
                self.slots[place] = new;
                return None;
            }
            if (slot ^ new) >> self.position_bits == 0 {
                let earlier = (slot & ((1 << self.position_bits) - 1)) as usize - 1;
                if is_same(earlier) {
                    return Some(earlier);
                }
            }
            place = (place + 1) & mask;
        }
    }
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;
    use crate::key::Key;

    #[test]
    fn element_is_found_under_its_key_only() {
        let keys: Vec<Key> = (0..100).map(|n| Key::new("p", &(n % 40,)).expect("a key")).collect();
        let mut distinct = Distinct::new(keys.len());
        for (n, key) in keys.iter().enumerate() {
            let earlier = distinct.add(n, key.hash_code(), |earlier| keys[earlier] == *key);
            assert_eq!(earlier, (n >= 40).then_some(n % 40));
        }
    }

    #[test]
    fn keys_with_the_same_hash_are_compared() {
        let key = Key::from_text("p", "k").hash_code();
        let mut distinct = Distinct::new(2);
        assert_eq!(distinct.add(0, key, |_| true), None);
        assert_eq!(distinct.add(1, key, |_| false), None);
        assert_eq!(distinct.add(2, key, |earlier| earlier == 1), Some(1));
    }
}

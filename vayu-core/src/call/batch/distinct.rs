//! The elements of a batch that were asked for twice. One that is found directly is looked up twice, which takes less time
//! than a table of all elements.

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
        // At least half of the slots stay unused: a processor predicts most slots as such, and a wrong prediction takes longer than
        // all else here.
        let slots = vec![0; (2 * elements + 1).next_power_of_two()];
        Self { slots, position_bits: usize::BITS - elements.leading_zeros() }
    }

    /// Adds the element at a position, by the hash of its key.
    ///
    /// # Errors
    ///
    /// An earlier one has perhaps the same key. The element is not added.
    #[inline]
    pub(super) fn add(&mut self, position: usize, hash: u64) -> Result<(), Alike> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "bits of a hash, and a position that has few bits"
        )]
        let new = ((hash >> 32) as u32) << self.position_bits | (position as u32 + 1);
        #[expect(clippy::cast_possible_truncation, reason = "the low bits select the slot")]
        self.add_from(hash as usize, new)
    }

    /// Adds an element from this place on.
    #[inline(always)]
    fn add_from(&mut self, place: usize, new: u32) -> Result<(), Alike> {
        let mask = self.slots.len() - 1;
        let mut place = place & mask;
        loop {
            let slot = self.slots[place];
            if slot == 0 {
                self.slots[place] = new;
                return Ok(());
            }
            if (slot ^ new) >> self.position_bits == 0 {
                return Err(Alike { place, new });
            }
            place = (place + 1) & mask;
        }
    }

    /// Adds an element whose key is perhaps that of an earlier one. Returns the position of an earlier one with the same key instead,
    /// if there is one: `is_same` compares the key with that of the element at a position.
    #[cold]
    pub(super) fn add_alike(
        &mut self,
        mut alike: Alike,
        is_same: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        loop {
            let Alike { place, new } = alike;
            let earlier = (self.slots[place] & ((1 << self.position_bits) - 1)) as usize - 1;
            if is_same(earlier) {
                return Some(earlier);
            }
            alike = self.add_from(place + 1, new).err()?;
        }
    }
}

/// The place of an element whose key is perhaps that of another one, and what would be in the slot of that one.
pub(super) struct Alike {
    place: usize,
    new: u32,
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;
    use crate::key::Key;

    fn add(
        distinct: &mut Distinct,
        position: usize,
        hash: u64,
        is_same: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let alike = distinct.add(position, hash).err()?;
        distinct.add_alike(alike, is_same)
    }

    #[test]
    fn element_is_found_under_its_key_only() {
        let keys: Vec<Key> = (0..100).map(|n| Key::new("p", &(n % 40,)).expect("a key")).collect();
        let mut distinct = Distinct::new(keys.len());
        for (n, key) in keys.iter().enumerate() {
            let earlier = add(&mut distinct, n, key.hash_code(), |earlier| keys[earlier] == *key);
            assert_eq!(earlier, (n >= 40).then_some(n % 40));
        }
    }

    #[test]
    fn keys_with_the_same_hash_are_compared() {
        let key = Key::from_text("p", "k").hash_code();
        let mut distinct = Distinct::new(2);
        assert_eq!(add(&mut distinct, 0, key, |_| true), None);
        assert_eq!(add(&mut distinct, 1, key, |_| false), None);
        assert_eq!(add(&mut distinct, 2, key, |earlier| earlier == 1), Some(1));
    }
}

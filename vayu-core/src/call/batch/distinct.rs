//! The elements of a batch that were asked for twice.
//!
//! Most batches have none. As long as that is so, a [filter](Filter) of 16 bits of each hash is enough, which stays in the
//! cache of the processor for longer than a table of positions. The first element that it may contain already makes
//! the [table](Positions), of all elements before it.

/// The elements of a batch before the present one, by their keys.
pub(super) struct Distinct {
    elements: usize,
    filter: Filter,
    positions: Option<Positions>,
}

impl Distinct {
    /// Creates a table for a number of elements, which is less than 2^31.
    pub(super) fn new(elements: usize) -> Self {
        Self { elements, filter: Filter::new(elements), positions: None }
    }

    /// Adds the next element, by the hash of its key. Returns `false` if it may have been asked for before: it is then to
    /// be added by [`add_or_find`](Self::add_or_find).
    #[inline]
    pub(super) fn add(&mut self, hash: u64) -> bool {
        self.positions.is_none() && self.filter.add(hash)
    }

    /// Adds the element at a position, by the hash of its key. Returns the position of an earlier one with the same key
    /// instead, if there is one. `hashes` returns the hash of each element before it that has a key, and its position,
    /// and `is_same` compares the keys of the elements at two positions.
    #[cold]
    pub(super) fn add_or_find<I: Iterator<Item = (usize, u64)>>(
        &mut self,
        (position, hash): (usize, u64),
        hashes: impl FnOnce() -> I,
        is_same: impl Fn(usize, usize) -> bool,
    ) -> Option<usize> {
        let positions = self.positions.get_or_insert_with(|| {
            let mut positions = Positions::new(self.elements);
            for (position, hash) in hashes() {
                positions.add(position, hash, |earlier| is_same(earlier, position));
            }
            positions
        });
        positions.add(position, hash, |earlier| is_same(earlier, position))
    }
}

/// A set of hashes that may find one which is not in it.
struct Filter {
    /// In each 15 bits of a hash and a one; zero if it is unused.
    slots: Vec<u16>,
}

impl Filter {
    fn new(elements: usize) -> Self {
        Self { slots: vec![0; slots(elements)] }
    }

    /// Adds a hash. Returns `false` if it may be there already.
    #[inline]
    fn add(&mut self, hash: u64) -> bool {
        let new = (hash >> 48) as u16 | 1;
        let mask = self.slots.len() - 1;
        let mut place = low_bits(hash) & mask;
        loop {
            match self.slots[place] {
                0 => {
                    self.slots[place] = new;
                    return true;
                }
                slot if slot == new => return false,
                _ => place = (place + 1) & mask,
            }
        }
    }
}

/// A hash table of the positions of elements in a batch, by their keys.
struct Positions {
    /// In each a position plus one, and above it as many bits of a hash as there is space for; zero if it is unused.
    slots: Vec<u32>,
    /// The number of bits of a position plus one.
    position_bits: u32,
}

impl Positions {
    fn new(elements: usize) -> Self {
        let position_bits = usize::BITS - elements.leading_zeros();
        Self { slots: vec![0; slots(elements)], position_bits }
    }

    /// Adds an element. Returns the position of an earlier one with the same key instead, if there is one: `is_same`
    /// compares the key with that of the element at a position.
    fn add(
        &mut self,
        position: usize,
        hash: u64,
        is_same: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "bits of a hash, and a position that has few bits"
        )]
        let new = ((hash >> 32) as u32) << self.position_bits | (position as u32 + 1);
        let mask = self.slots.len() - 1;
        let mut place = low_bits(hash) & mask;
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

/// Returns the number of slots for a number of elements: at least half of them stay unused. A processor predicts most
/// slots as such, and a wrong prediction takes longer than all else here.
fn slots(elements: usize) -> usize {
    (2 * elements + 1).next_power_of_two()
}

/// Returns the bits that select the first slot of a hash.
#[inline(always)]
fn low_bits(hash: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "the low bits select the slot")]
    let bits = hash as usize;
    bits
}

#[cfg(all(test, not(any(vayu_loom, vayu_shuttle))))]
mod tests {
    use super::*;
    use crate::key::Key;

    /// Adds elements with these keys and hashes. Returns the position of the earlier element of each that has one.
    fn add_all<K: PartialEq>(elements: &[(K, u64)]) -> Vec<Option<usize>> {
        let mut distinct = Distinct::new(elements.len());
        let add = |(position, &(_, hash)): (usize, &(K, u64))| {
            if distinct.add(hash) {
                return None;
            }
            let hashes = || (0..position).map(|earlier| (earlier, elements[earlier].1));
            let is_same = |one: usize, other: usize| elements[one].0 == elements[other].0;
            distinct.add_or_find((position, hash), hashes, is_same)
        };
        elements.iter().enumerate().map(add).collect()
    }

    #[test]
    fn element_is_found_under_its_key_only() {
        let keys = (0..100).map(|n| Key::new("p", &(n % 40,)).expect("a key"));
        let elements: Vec<_> = keys.map(|key| (key.clone(), key.hash_code())).collect();
        for (n, earlier) in add_all(&elements).into_iter().enumerate() {
            assert_eq!(earlier, (n >= 40).then_some(n % 40));
        }
    }

    #[test]
    fn keys_with_the_same_hash_are_compared() {
        assert_eq!(
            add_all(&[("a", 7), ("b", 7), ("c", 8), ("b", 7), ("c", 8), ("a", 7)]),
            [None, None, None, Some(1), Some(2), Some(0)]
        );
    }

    #[test]
    fn keys_with_the_same_bits_in_the_filter_are_compared() {
        // The filter takes the low bits and the high ones of a hash.
        let hashes = [0, 1 << 20, 1 << 40, 1 << 47, 1 << 20];
        let elements: Vec<_> = hashes.iter().map(|hash| (hash, *hash)).collect();
        assert_eq!(add_all(&elements), [None, None, None, None, Some(1)]);
    }
}

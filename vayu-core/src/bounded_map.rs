//! A map that never holds more than a fixed number of entries.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, Hash};

/// A hash map that is emptied before an insertion that would exceed its capacity.
///
/// For data that can be derived again: emptying a map costs less than keeping track of the order in
/// which entries were used.
#[derive(Debug)]
pub struct BoundedMap<K, V, S = RandomState> {
    map: HashMap<K, V, S>,
    capacity: usize,
}

impl<K, V, S> BoundedMap<K, V, S> {
    /// Creates an empty map for up to `capacity` entries, with a hasher.
    pub const fn with_hasher(capacity: usize, hasher: S) -> Self {
        Self { map: HashMap::with_hasher(hasher), capacity }
    }

    /// Returns the number of entries.
    #[expect(clippy::len_without_is_empty, reason = "only tests read it")]
    pub fn len(&self) -> usize {
        self.map.len()
    }
}

impl<K: Hash + Eq, V, S: BuildHasher + Default> BoundedMap<K, V, S> {
    /// Creates an empty map for up to `capacity` entries.
    pub fn new(capacity: usize) -> Self {
        Self::with_hasher(capacity, S::default())
    }

    /// Returns the value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.map.get(key)
    }

    /// Returns the value of a key, inserting the default for a new one, and whether the map was emptied
    /// for that.
    pub fn get_or_insert_default(&mut self, key: K) -> (&mut V, bool)
    where
        V: Default,
    {
        let is_emptied = self.make_room(&key);
        let value = match self.map.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(V::default()),
        };
        (value, is_emptied)
    }

    /// Inserts a value, replacing the previous one of the key.
    pub fn insert(&mut self, key: K, value: V) {
        self.make_room(&key);
        self.map.insert(key, value);
    }

    /// Removes a key.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
    {
        self.map.remove(key);
    }

    /// Removes the entries that `keep` rejects, if the map is full.
    pub fn retain_if_full(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        if self.map.len() >= self.capacity {
            self.map.retain(|key, value| keep(key, value));
        }
    }

    fn make_room(&mut self, key: &K) -> bool {
        let is_full = self.map.len() >= self.capacity && !self.map.contains_key(key);
        if is_full {
            self.map.clear();
        }
        is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_map_is_emptied_for_a_new_key_and_not_for_a_known_one() {
        let mut map = BoundedMap::<_, _>::new(2);
        map.insert(1, 'a');
        map.insert(2, 'b');
        map.insert(2, 'c');
        assert_eq!((map.get(&1), map.get(&2)), (Some(&'a'), Some(&'c')));
        assert!(!map.get_or_insert_default(1).1);
        assert_eq!(map.get_or_insert_default(3), (&mut '\0', true));
        assert_eq!((map.get(&1), map.get(&2)), (None, None));
    }

    #[test]
    fn entries_are_filtered_only_when_the_map_is_full() {
        let mut map = BoundedMap::<_, _>::new(2);
        map.insert(1, ());
        map.retain_if_full(|_, ()| false);
        assert!(map.get(&1).is_some());
        map.insert(2, ());
        map.retain_if_full(|&key, ()| key == 2);
        map.insert(3, ());
        assert_eq!((map.get(&1), map.get(&2), map.get(&3)), (None, Some(&()), Some(&())));
    }
}

//! A map that never holds more than a fixed number of entries.

use std::borrow::Borrow;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash};

/// A hash map from which the oldest entry is removed before an insertion that would exceed its capacity.
///
/// An entry is as old as the last insertion of its key. Insertions and removals take constant time on average: the keys are in
/// a queue, and those that were removed or inserted again stay in it until they are half of it.
#[derive(Debug)]
pub(crate) struct BoundedMap<K, V, S = RandomState> {
    map: HashMap<K, Numbered<V>, S>,
    /// The insertions, the oldest first: their numbers and keys. Those of entries that are not in the map any more are outdated.
    order: VecDeque<(u64, K)>,
    /// The number of insertions.
    insertions: u64,
    capacity: usize,
}

#[derive(Debug)]
struct Numbered<V> {
    value: V,
    insertion: u64,
}

/// The number of outdated insertions that an otherwise empty queue may have.
const MAX_OUTDATED: usize = 16;

impl<K, V, S> BoundedMap<K, V, S> {
    /// Creates an empty map for up to `capacity` entries, with a hasher.
    pub(crate) const fn with_hasher(capacity: usize, hasher: S) -> Self {
        Self { map: HashMap::with_hasher(hasher), order: VecDeque::new(), insertions: 0, capacity }
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Returns whether the next insertion of a new key removes an entry.
    pub(crate) fn is_full(&self) -> bool {
        self.map.len() >= self.capacity
    }

    /// Returns all values, in any order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.map.values().map(|numbered| &numbered.value)
    }
}

impl<K: Hash + Eq + Clone, V, S: BuildHasher> BoundedMap<K, V, S> {
    /// Creates an empty map for up to `capacity` entries.
    pub(crate) fn new(capacity: usize) -> Self
    where
        S: Default,
    {
        Self::with_hasher(capacity, S::default())
    }

    /// Returns the value of a key.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.map.get(key).map(|numbered| &numbered.value)
    }

    /// Returns the value of a key, inserting the default for a new one, and whether another entry was removed for that.
    pub(crate) fn get_or_insert_default(&mut self, key: &K) -> (&mut V, bool)
    where
        V: Default,
    {
        let is_new = !self.map.contains_key(key);
        let is_removed = is_new && self.insert(key.clone(), V::default()).is_some();
        let numbered = self.map.get_mut(key).expect("it was there, or was inserted");
        (&mut numbered.value, is_removed)
    }

    /// Inserts a value. Returns the one that it takes the place of: that of the key, or else, if the map is full, that of the
    /// oldest entry.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let is_known = self.is_full() && self.map.contains_key(&key);
        let oldest = if is_known { None } else { self.remove_oldest_if_full() };
        let insertion = self.insertions;
        self.insertions += 1;
        self.order.push_back((insertion, key.clone()));
        let replaced = self.map.insert(key, Numbered { value, insertion });
        self.limit_outdated();
        replaced.map(|numbered| numbered.value).or(oldest)
    }

    /// Removes a key, and returns its value.
    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = self.map.remove(key)?;
        self.limit_outdated();
        Some(removed.value)
    }

    /// Removes the entries whose value is rejected by `keep`, and returns their values.
    pub(crate) fn extract(&mut self, keep: impl Fn(&V) -> bool) -> Vec<V> {
        let extracted = self.map.extract_if(|_, numbered| !keep(&numbered.value));
        let extracted = extracted.map(|(_, numbered)| numbered.value).collect();
        self.limit_outdated();
        extracted
    }

    fn remove_oldest_if_full(&mut self) -> Option<V> {
        while self.is_full() {
            let (insertion, key) = self.order.pop_front()?;
            if is_current(&self.map, insertion, &key) {
                return self.map.remove(&key).map(|numbered| numbered.value);
            }
        }
        None
    }

    /// Removes the outdated insertions from the queue if there are more of them than entries.
    fn limit_outdated(&mut self) {
        if self.order.len() > 2 * self.map.len() + MAX_OUTDATED {
            self.order.retain(|(insertion, key)| is_current(&self.map, *insertion, key));
        }
    }
}

/// Returns whether a key is in the map by this insertion.
fn is_current<K: Hash + Eq, V, S: BuildHasher>(
    map: &HashMap<K, Numbered<V>, S>,
    insertion: u64,
    key: &K,
) -> bool {
    map.get(key).is_some_and(|numbered| numbered.insertion == insertion)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn oldest_entry_is_removed_for_a_new_key_and_none_for_a_known_one() {
        let mut map = BoundedMap::<_, _>::new(2);
        assert_eq!((map.insert(1, 'a'), map.insert(2, 'b'), map.is_full()), (None, None, true));
        assert_eq!(map.insert(1, 'c'), Some('a'));
        assert!(!map.get_or_insert_default(&2).1);
        assert_eq!(map.insert(3, 'd'), Some('b'), "1 was inserted again after 2");
        assert_eq!((map.get(&1), map.get(&2), map.get(&3)), (Some(&'c'), None, Some(&'d')));
        assert_eq!(map.get_or_insert_default(&4), (&mut '\0', true));
        assert_eq!((map.get(&1), map.get(&3)), (None, Some(&'d')));
        assert_eq!((map.remove(&3), map.remove(&3)), (Some('d'), None));
        assert_eq!(map.insert(5, 'e'), None);
        assert_eq!(map.insert(6, 'f'), Some('\0'), "3 is not there any more");
    }

    #[test]
    fn queue_is_at_most_twice_as_long_as_the_map() {
        let mut map = BoundedMap::<_, _>::new(100);
        let is_bounded = |map: &BoundedMap<_, _>| map.order.len() <= 2 * map.len() + MAX_OUTDATED;
        for n in 0..1000 {
            map.insert(n % 50, n);
            assert!(is_bounded(&map), "the same keys were inserted again");
        }
        map.extract(|value| *value % 25 == 0);
        assert!(map.len() == 2 && is_bounded(&map), "most were extracted");
        for n in 0..1000 {
            map.insert(100, n);
            map.remove(&100);
            assert!(is_bounded(&map), "a key was removed");
        }
        assert_eq!((map.get(&0), map.get(&25)), (Some(&950), Some(&975)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8),
        InsertDefault(u8),
        Remove(u8),
        ExtractOdd,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => (0..8_u8).prop_map(Step::Insert),
            4 => (0..8_u8).prop_map(Step::InsertDefault),
            4 => (0..8_u8).prop_map(Step::Remove),
            1 => Just(Step::ExtractOdd),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn map_holds_the_keys_that_were_inserted_last(steps in steps()) {
            let (mut map, mut model) = (BoundedMap::<u8, usize>::new(4), Vec::<(u8, usize)>::new());
            for (n, step) in steps.into_iter().enumerate() {
                let find = |model: &[(u8, usize)], key| model.iter().position(|it| it.0 == key);
                match step {
                    Step::Insert(key) => {
                        let full = (model.len() == 4).then_some(0);
                        let removed = find(&model, key).or(full).map(|at| model.remove(at).1);
                        model.push((key, n));
                        prop_assert_eq!(map.insert(key, n), removed);
                    }
                    Step::InsertDefault(key) => {
                        let found = find(&model, key);
                        let is_removed = found.is_none() && model.len() == 4;
                        if is_removed {
                            model.remove(0);
                        }
                        let value = found.map_or(0, |at| model[at].1);
                        if found.is_none() {
                            model.push((key, 0));
                        }
                        prop_assert_eq!(map.get_or_insert_default(&key), (&mut { value }, is_removed));
                    }
                    Step::Remove(key) => {
                        let removed = find(&model, key).map(|at| model.remove(at).1);
                        prop_assert_eq!(map.remove(&key), removed);
                    }
                    Step::ExtractOdd => {
                        let mut extracted = map.extract(|value| value % 2 == 0);
                        let odd = model.extract_if(.., |it| it.1 % 2 == 1).map(|it| it.1);
                        let mut odd: Vec<_> = odd.collect();
                        odd.sort_unstable();
                        extracted.sort_unstable();
                        prop_assert_eq!(extracted, odd);
                    }
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert!(map.order.len() <= 2 * model.len() + MAX_OUTDATED);
                for (key, value) in &model {
                    prop_assert_eq!(map.get(key), Some(value));
                }
            }
        }
    }
}

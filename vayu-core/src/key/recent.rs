//! Results that each thread keeps for the keys that it used last.

use std::cell::RefCell;
use std::thread::LocalKey;

use super::{BuildKeyHasher, Key};
use crate::bounded_map::BoundedMap;

/// The results of a computation for the keys that a thread used last.
#[derive(Debug)]
pub struct RecentKeys<T>(RefCell<BoundedMap<Key, T, BuildKeyHasher>>);

impl<T: Clone> RecentKeys<T> {
    /// The number of keys that are kept: those that were inserted last.
    pub const CAPACITY: usize = 256;

    /// A key with more bytes than this is not kept: it would use more memory than its time is worth.
    pub const MAX_KEY_LENGTH: usize = 1024;

    /// Creates an empty map.
    #[allow(clippy::new_without_default, reason = "it initializes constants")]
    pub const fn new() -> Self {
        Self(RefCell::new(BoundedMap::with_hasher(Self::CAPACITY, BuildKeyHasher)))
    }

    /// Returns the result for a key: the one that is kept, or else a new one.
    pub fn of(kept: &'static LocalKey<Self>, key: &Key, compute: impl Fn(&Key) -> T) -> T {
        // They are gone while the local data of the thread are dropped.
        kept.try_with(|Self(kept)| Self::kept(&mut kept.borrow_mut(), key, &compute))
            .unwrap_or_else(|_| compute(key))
    }

    fn kept(
        kept: &mut BoundedMap<Key, T, BuildKeyHasher>,
        key: &Key,
        compute: impl Fn(&Key) -> T,
    ) -> T {
        if let Some(result) = kept.get(key) {
            return result.clone();
        }
        let result = compute(key);
        if key.prefix().as_str().len() + key.encoded_arguments().len() <= Self::MAX_KEY_LENGTH {
            kept.insert(key.clone(), result.clone());
        }
        result
    }

    /// Returns the number of keys.
    #[expect(clippy::len_without_is_empty, reason = "only tests read it")]
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

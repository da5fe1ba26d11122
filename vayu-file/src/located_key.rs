//! Keys with the digest and the path of their entry.
//!
//! A located key takes a tenth of the time of a hit to create, most of it for SHA-256, so each thread
//! caches those of the last keys.

use std::cell::Cell;
use std::rc::Rc;

use vayu_core::__internal::RecentKeys;
use vayu_core::Key;
use vayu_core::wire::WireKey;

use crate::layout::EntryPath;

/// A key in the form of the entry, and the path of its entry.
#[derive(Debug)]
pub(crate) struct LocatedKey {
    wire: WireKey,
    path: EntryPath,
    last_length: Cell<u64>,
}

thread_local! {
    static CACHE: RecentKeys<Rc<LocatedKey>> = const { RecentKeys::new() };
}

impl LocatedKey {
    /// Returns the located key of a key, from the cache of this thread if possible.
    pub(crate) fn of(key: &Key) -> Rc<Self> {
        RecentKeys::of(&CACHE, key, Self::new)
    }

    fn new(key: &Key) -> Rc<Self> {
        let wire = WireKey::new(key);
        let path = EntryPath::of(&wire);
        Rc::new(Self { wire, path, last_length: Cell::new(0) })
    }

    pub(crate) fn wire(&self) -> &WireKey {
        &self.wire
    }

    pub(crate) fn path(&self) -> &EntryPath {
        &self.path
    }

    /// Returns the length in bytes of the entry that this thread read last. It is a hint: the next
    /// entry may have another length, and may be in another directory.
    pub(crate) fn last_length(&self) -> u64 {
        self.last_length.get()
    }

    pub(crate) fn set_last_length(&self, length: u64) {
        self.last_length.set(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_CACHED: usize = RecentKeys::<Rc<LocatedKey>>::CAPACITY;
    const MAX_KEY_LENGTH: usize = RecentKeys::<Rc<LocatedKey>>::MAX_KEY_LENGTH;

    #[test]
    fn cached_key_is_that_of_its_key_alone() {
        // More keys than are cached.
        let keys: Vec<_> = (0..4 * MAX_CACHED)
            .map(|n| Key::from_text("p", n.to_string()))
            .chain((0..4).map(|n| Key::new("p", &n).expect("a key")))
            .collect();
        for key in keys.iter().chain(keys.iter().rev()) {
            let (created, found) = (LocatedKey::new(key), LocatedKey::of(key));
            assert_eq!(found.path(), created.path());
            assert_eq!(found.wire().digest(), &key.digest());
            assert!(CACHE.with(RecentKeys::len) <= MAX_CACHED);
        }
    }

    #[test]
    fn recently_located_key_is_cached() {
        let key = Key::from_text("p", "k");
        assert!(Rc::ptr_eq(&LocatedKey::of(&key), &LocatedKey::of(&key.clone())));
    }

    #[test]
    fn long_key_is_not_cached() {
        for key in [
            Key::from_text("p", "k".repeat(MAX_KEY_LENGTH)),
            Key::from_text("p".repeat(MAX_KEY_LENGTH), "k"),
        ] {
            assert_eq!(Rc::strong_count(&LocatedKey::of(&key)), 1);
        }
    }
}

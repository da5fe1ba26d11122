//! What files know a key by.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use vayu_core::wire::WireKey;
use vayu_core::{BuildKeyHasher, Key};

use crate::layout::Place;

/// A key as its entry has it, and where that entry is.
#[derive(Debug)]
pub(crate) struct Address {
    key: WireKey,
    place: Place,
    last_length: Cell<u64>,
}

/// How many addresses a thread remembers. When there are more it forgets them all: those that are
/// asked for often are soon there again.
const REMEMBERED: usize = 256;

/// The address of a key with more bytes than this is not remembered: it would take more memory
/// than its time is worth.
const LONGEST_KEY: usize = 1024;

type Memory = HashMap<Key, Rc<Address>, BuildKeyHasher>;

thread_local! {
    static MEMORY: RefCell<Memory> =
        const { RefCell::new(HashMap::with_hasher(BuildKeyHasher)) };
}

impl Address {
    /// The address of a key. To make it takes a tenth of the time of a hit, most of it for a
    /// digest, so a thread remembers those of its last keys.
    pub(crate) fn of(key: &Key) -> Rc<Self> {
        // At the end of a thread its memory may be gone.
        MEMORY
            .try_with(|memory| Self::remembered(&mut memory.borrow_mut(), key))
            .unwrap_or_else(|_| Self::new(key))
    }

    fn remembered(memory: &mut Memory, key: &Key) -> Rc<Self> {
        if let Some(address) = memory.get(key) {
            return Rc::clone(address);
        }
        let address = Self::new(key);
        if key.prefix().as_str().len() + key.encoded_arguments().len() <= LONGEST_KEY {
            if memory.len() == REMEMBERED {
                memory.clear();
            }
            memory.insert(key.clone(), Rc::clone(&address));
        }
        address
    }

    fn new(key: &Key) -> Rc<Self> {
        let key = WireKey::new(key);
        let place = Place::of(&key);
        Rc::new(Self { key, place, last_length: Cell::new(0) })
    }

    pub(crate) fn key(&self) -> &WireKey {
        &self.key
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// How long the entry was that this thread has read last, in bytes. The next may have any other
    /// length, and may be of another directory.
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

    #[test]
    fn remembered_address_is_that_of_its_key_alone() {
        // More than are remembered.
        let keys: Vec<_> = (0..4 * REMEMBERED)
            .map(|n| Key::from_text("p", n.to_string()))
            .chain((0..4).map(|n| Key::new("p", &n).expect("a key")))
            .collect();
        for key in keys.iter().chain(keys.iter().rev()) {
            let (made, found) = (Address::new(key), Address::of(key));
            assert_eq!(found.place(), made.place());
            assert_eq!(found.key().digest(), &key.digest());
            assert!(MEMORY.with_borrow(HashMap::len) <= REMEMBERED);
        }
    }

    #[test]
    fn address_that_was_just_asked_for_is_remembered() {
        let key = Key::from_text("p", "k");
        assert!(Rc::ptr_eq(&Address::of(&key), &Address::of(&key.clone())));
    }

    #[test]
    fn address_of_a_long_key_is_not_remembered() {
        for key in [
            Key::from_text("p", "k".repeat(LONGEST_KEY)),
            Key::from_text("p".repeat(LONGEST_KEY), "k"),
        ] {
            assert_eq!(Rc::strong_count(&Address::of(&key)), 1);
        }
    }
}

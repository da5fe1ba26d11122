//! Striped version numbers that validate copies in memory.
//!
//! Keys are divided into 65,536 slots by the first two bytes of their digest, and each slot has a
//! version number. A copy stores the version of its slot from before it was read. It is current while
//! the slot still has that version. So a change invalidates the copies of its slot by incrementing one
//! number, without finding them, and a copy of a value that was read before the change is outdated even
//! if it is stored after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The version number of each slot. A clone is the same numbers.
#[derive(Debug, Clone)]
pub(crate) struct SlotVersions(Arc<[AtomicU32; SLOTS]>);

const SLOTS: usize = 1 << 16;

/// A slot and its version at some time, packed into a word so that a copy of it can be read without a
/// lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SlotVersion(u64);

/// The copies of a record in memory, by their version.
#[derive(Debug)]
pub(crate) struct Copies {
    versions: SlotVersions,
    version: SlotVersion,
}

impl Copies {
    pub(crate) fn new(versions: SlotVersions, version: SlotVersion) -> Self {
        Self { versions, version }
    }

    /// Invalidates the copies, with those of their slot.
    pub(crate) fn invalidate(&self) {
        self.versions.bump_if_current(self.version);
    }
}

/// A change of a key in the backing tier that is in progress. Its start invalidates older copies. Its
/// end, or dropping it, invalidates copies of what was read in the meantime, which may be older than the
/// change.
#[derive(Debug)]
pub(crate) struct KeyChange<'a> {
    versions: &'a SlotVersions,
    version: SlotVersion,
    is_finished: bool,
}

impl KeyChange<'_> {
    /// Ends the change. Returns the version for a copy of the new value, or `None` if another change of
    /// the slot, which may be newer, has begun since.
    pub(crate) fn finish(mut self) -> Option<SlotVersion> {
        self.is_finished = true;
        let new = self.versions.bump_if_current(self.version);
        if new.is_none() {
            self.invalidate();
        }
        new
    }

    fn invalidate(&self) {
        let (slot, _) = self.version.parts();
        self.versions.bump(slot.to_le_bytes());
    }
}

impl Drop for KeyChange<'_> {
    fn drop(&mut self) {
        if !self.is_finished {
            self.invalidate();
        }
    }
}

impl SlotVersion {
    fn new(slot: u16, number: u32) -> Self {
        Self(u64::from(number) << 16 | u64::from(slot))
    }

    #[inline]
    pub(crate) fn to_word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the word consists of these parts")]
    fn parts(self) -> (u16, u32) {
        (self.0 as u16, (self.0 >> 16) as u32)
    }
}

impl SlotVersions {
    pub(crate) fn new() -> Self {
        let numbers: Arc<[AtomicU32]> = (0..SLOTS).map(|_| AtomicU32::new(0)).collect();
        Self(numbers.try_into().expect("the number of slots"))
    }

    /// Returns the present version of a slot.
    pub(crate) fn current(&self, slot: [u8; 2]) -> SlotVersion {
        let slot = u16::from_le_bytes(slot);
        SlotVersion::new(slot, self.number(slot).load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn is_current(&self, version: SlotVersion) -> bool {
        let (slot, number) = version.parts();
        self.number(slot).load(Ordering::Acquire) == number
    }

    /// Invalidates the copies of a slot. Returns its new version.
    pub(crate) fn bump(&self, slot: [u8; 2]) -> SlotVersion {
        let slot = u16::from_le_bytes(slot);
        let before = self.number(slot).fetch_add(1, Ordering::AcqRel);
        SlotVersion::new(slot, before.wrapping_add(1))
    }

    /// Invalidates the copies of a slot if it has this version. Returns its new version.
    fn bump_if_current(&self, version: SlotVersion) -> Option<SlotVersion> {
        let (slot, number) = version.parts();
        let next = number.wrapping_add(1);
        self.number(slot)
            .compare_exchange(number, next, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
            .then(|| SlotVersion::new(slot, next))
    }

    /// Begins a change of a key of this slot.
    pub(crate) fn begin_change(&self, slot: [u8; 2]) -> KeyChange<'_> {
        KeyChange { versions: self, version: self.bump(slot), is_finished: false }
    }

    /// Invalidates all copies.
    pub(crate) fn bump_all(&self) {
        for number in &*self.0 {
            number.fetch_add(1, Ordering::AcqRel);
        }
    }

    #[inline]
    fn number(&self, slot: u16) -> &AtomicU32 {
        &self.0[usize::from(slot)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_invalidates_copies_from_its_start_to_its_end() {
        let (versions, slot) = (SlotVersions::new(), [1, 2]);
        let before = versions.current(slot);
        let change = versions.begin_change(slot);
        let during = versions.current(slot);
        assert!(!versions.is_current(before));
        let new = change.finish().expect("nothing else has changed");
        assert!(!versions.is_current(during) && versions.is_current(new));
        let change = versions.begin_change(slot);
        let newer = versions.bump(slot);
        assert_eq!(change.finish(), None, "the written value may be older");
        assert!(!versions.is_current(newer), "it may have been read before the end");
        let change = versions.begin_change(slot);
        let during = versions.current(slot);
        drop(change);
        assert!(!versions.is_current(during));
    }

    #[test]
    fn copies_are_invalidated_once_and_without_newer_ones() {
        let (versions, slot) = (SlotVersions::new(), [1, 2]);
        let old = versions.current(slot);
        let copies = Copies::new(versions.clone(), old);
        copies.invalidate();
        let new = versions.current(slot);
        assert!(!versions.is_current(old));
        copies.invalidate();
        assert!(versions.is_current(new));
    }

    #[test]
    fn change_invalidates_older_copies_and_no_other_slot() {
        let versions = SlotVersions::new();
        let (slot, other) = ([1, 2], [2, 1]);
        let (old, untouched) = (versions.current(slot), versions.current(other));
        let new = versions.bump(slot);
        assert!(!versions.is_current(old) && versions.is_current(new));
        assert!(versions.is_current(untouched));
        assert_eq!(versions.current(slot), new);
        versions.bump_all();
        assert!(!versions.is_current(new) && !versions.is_current(untouched));
    }
}

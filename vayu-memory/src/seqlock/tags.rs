//! The tags of a set: which keys are in its ways, and which were referenced.

use crate::sync::{AtomicU64, Ordering};

/// The number of ways of a set. The loom model has two, so that it is finite.
pub(super) const WAYS: usize = if cfg!(vayu_loom) { 2 } else { 4 };

/// A part of the hash of a key. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u64);

/// The tags of one set, packed into a word: most absent keys are rejected without reading a slot. Each
/// has 16 bits. The lowest two are not of the hash: they say whether the entry was referenced recently,
/// once and twice.
#[derive(Debug)]
pub(super) struct Tags(AtomicU64);

const BITS: usize = 16;
const REF_1: u64 = 1;
const REF_2: u64 = 2;
const REFERENCED: u64 = REF_1 | REF_2;
const ALL: u64 = (1 << BITS) - 1;

/// The lowest bit of each tag, and the highest.
const LOWEST: u64 = u64::MAX / ALL;
const HIGHEST: u64 = LOWEST << (BITS - 1);

impl Tag {
    #[inline(always)]
    pub(super) fn of(hash: u64) -> Self {
        let part = hash & ALL & !REFERENCED;
        Self(if part == 0 { REFERENCED + 1 } else { part })
    }
}

/// Returns the way that a key with this hash uses if it can.
#[inline(always)]
pub(super) fn home_way(hash: u64) -> usize {
    (hash >> BITS) as usize % WAYS
}

impl Tags {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns whether a way has this tag.
    #[inline(always)]
    pub(super) fn has_tag(&self, way: usize, tag: Tag) -> bool {
        tag_at(self.load(), way) & !REFERENCED == tag.0
    }

    /// Returns the ways with this tag.
    #[inline(always)]
    pub(super) fn matching_ways(&self, tag: Tag) -> impl Iterator<Item = usize> + use<> {
        let differ = (self.load() & !(LOWEST * REFERENCED)) ^ (LOWEST * tag.0);
        // The highest bit of each that is not zero: a carry does not leave its tag.
        let others = ((differ & !HIGHEST) + !HIGHEST) | differ;
        let mut found = !others & HIGHEST;
        std::iter::from_fn(move || {
            let way = found.trailing_zeros() as usize / BITS;
            found &= found.wrapping_sub(1);
            (way < WAYS).then_some(way)
        })
    }

    /// Returns whether a way was never used.
    pub(super) fn is_unused(&self, way: usize) -> bool {
        tag_at(self.load(), way) == 0
    }

    /// Sets the tag of a way, referenced once. Only for the thread that is writing the slot.
    pub(super) fn set(&self, way: usize, tag: Tag) {
        let set = |tags| Some(tags & !(ALL << (way * BITS)) | (tag.0 | REF_1) << (way * BITS));
        // The closure never returns `None`.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set);
    }

    /// Returns whether the entry of a way was referenced twice recently.
    #[inline(always)]
    pub(super) fn is_referenced(&self, way: usize) -> bool {
        tag_at(self.load(), way) & REFERENCED == REFERENCED
    }

    /// Marks the entry of a way as referenced, once more.
    ///
    /// Bits are set and cleared one by one: the way may have a new key in the meantime, whose tag must
    /// not change.
    #[cold]
    pub(super) fn mark_referenced(&self, way: usize) {
        let is_first = tag_at(self.load(), way) & REF_1 == 0;
        let bit = if is_first { REF_1 } else { REF_2 };
        self.0.fetch_or(bit << (way * BITS), Ordering::Relaxed);
    }

    /// Clears one reference of a way, and returns whether there was one.
    pub(super) fn clear_reference(&self, way: usize) -> bool {
        let referenced = tag_at(self.load(), way) & REFERENCED;
        if referenced != 0 {
            let bit = if referenced & REF_2 != 0 { REF_2 } else { REF_1 };
            self.0.fetch_and(!(bit << (way * BITS)), Ordering::Relaxed);
        }
        referenced != 0
    }

    /// Clears the references of a way, and returns whether there were any.
    pub(super) fn clear_references(&self, way: usize) -> bool {
        tag_at(self.load(), way) & REFERENCED != 0 && {
            let before = self.0.fetch_and(!(REFERENCED << (way * BITS)), Ordering::Relaxed);
            tag_at(before, way) & REFERENCED != 0
        }
    }
}

#[inline(always)]
fn tag_at(tags: u64, way: usize) -> u64 {
    tags >> (way * BITS) & ALL
}

#[cfg(all(test, not(vayu_loom)))]
mod tests {
    use super::*;

    #[test]
    fn matching_ways_are_those_with_the_tag() {
        let hashes = [0, 1, 3, 4, 8, 0x7ffc, 0x8000, 0x8004, 0xfffc, 0xffff, u64::MAX];
        for one in hashes {
            for other in hashes {
                for mask in 0..1 << WAYS {
                    let tags = Tags::new();
                    let is_one = |way: &usize| mask >> way & 1 == 1;
                    for way in 0..WAYS {
                        tags.set(way, Tag::of(if is_one(&way) { one } else { other }));
                        (0..way).for_each(|_| tags.mark_referenced(way));
                    }
                    for (hash, is_there) in [(one, true), (other, false)] {
                        let same = Tag::of(one) == Tag::of(other);
                        let expected: Vec<_> =
                            (0..WAYS).filter(|at| same || is_one(at) == is_there).collect();
                        assert_eq!(tags.matching_ways(Tag::of(hash)).collect::<Vec<_>>(), expected);
                        let at = (0..WAYS).filter(|&at| tags.has_tag(at, Tag::of(hash)));
                        assert_eq!(at.collect::<Vec<_>>(), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn unused_ways_match_no_tag() {
        let tags = Tags::new();
        for hash in [0, 3, 4, u64::MAX] {
            assert_eq!(tags.matching_ways(Tag::of(hash)).count(), 0);
        }
        tags.set(1, Tag::of(0));
        assert_eq!([0, 1, 2, 3].map(|way| tags.is_unused(way)), [true, false, true, true]);
    }

    #[test]
    fn references_are_those_of_one_way() {
        let tags = Tags::new();
        (0..WAYS).for_each(|way| tags.set(way, Tag::of(u64::MAX)));
        assert!(!tags.is_referenced(2), "once does not count");
        tags.mark_referenced(2);
        assert_eq!([0, 1, 2, 3].map(|way| tags.is_referenced(way)), [false, false, true, false]);
        assert!(tags.clear_reference(2) && !tags.is_referenced(2));
        assert!(tags.clear_references(2) && !tags.clear_references(2) && !tags.clear_reference(2));
        assert_eq!(tags.matching_ways(Tag::of(u64::MAX)).count(), WAYS, "the tags stay");
    }
}

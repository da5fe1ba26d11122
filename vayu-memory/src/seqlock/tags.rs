//! Who sits where in a row of seats.

use crate::sync::{AtomicU64, Ordering};

/// How many seats are side by side. A model of them has two, so that it has an end.
pub(super) const SIDE_BY_SIDE: usize = if cfg!(vayu_loom) { 2 } else { 4 };

/// A part of the hash of a key: what its seat is known by. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u64);

/// The tags of a row of seats in one word, those of many rows in a cache line: they say at once who
/// sits nowhere. Each has 16 bits, and its lowest two are not of the hash: whether who sits there was
/// asked for once lately, and whether it was again.
#[derive(Debug)]
pub(super) struct Tags(AtomicU64);

const BITS: usize = 16;
const ONCE: u64 = 1;
const TWICE: u64 = 2;
const TOUCHED: u64 = ONCE | TWICE;
const ALL: u64 = (1 << BITS) - 1;

/// The lowest bit of each tag, and the highest.
const LOWEST: u64 = u64::MAX / ALL;
const HIGHEST: u64 = LOWEST << (BITS - 1);

impl Tag {
    #[inline(always)]
    pub(super) fn of(hash: u64) -> Self {
        let part = hash & ALL & !TOUCHED;
        Self(if part == 0 { TOUCHED + 1 } else { part })
    }
}

/// The place in its row where a key with this hash sits if it can.
#[inline(always)]
pub(super) fn favourite(hash: u64) -> usize {
    (hash >> BITS) as usize % SIDE_BY_SIDE
}

impl Tags {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline(always)]
    fn load(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether a place has this tag.
    #[inline(always)]
    pub(super) fn is_at(&self, place: usize, tag: Tag) -> bool {
        at(self.load(), place) & !TOUCHED == tag.0
    }

    /// The places with this tag.
    #[inline(always)]
    pub(super) fn places(&self, tag: Tag) -> impl Iterator<Item = usize> + use<> {
        let differ = (self.load() & !(LOWEST * TOUCHED)) ^ (LOWEST * tag.0);
        // The highest bit of each that is not zero: a carry does not leave its tag.
        let others = ((differ & !HIGHEST) + !HIGHEST) | differ;
        let mut found = !others & HIGHEST;
        std::iter::from_fn(move || {
            let place = found.trailing_zeros() as usize / BITS;
            found &= found.wrapping_sub(1);
            (place < SIDE_BY_SIDE).then_some(place)
        })
    }

    /// Whether nobody has ever sat at a place.
    pub(super) fn is_new(&self, place: usize) -> bool {
        at(self.load(), place) == 0
    }

    /// Only for whoever has made the seat busy, and was asked for the key.
    pub(super) fn set(&self, place: usize, tag: Tag) {
        let set = |tags| Some(tags & !(ALL << (place * BITS)) | (tag.0 | ONCE) << (place * BITS));
        // It never refuses.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, set);
    }

    /// Whether somebody has asked for who sits at a place, as often as that counts.
    #[inline(always)]
    pub(super) fn is_touched(&self, place: usize) -> bool {
        at(self.load(), place) & TOUCHED == TOUCHED
    }

    /// Bits are set and cleared one by one: another key may have come here meanwhile, whose tag must
    /// stay.
    #[cold]
    pub(super) fn touch(&self, place: usize) {
        let is_first = at(self.load(), place) & ONCE == 0;
        let bit = if is_first { ONCE } else { TWICE };
        self.0.fetch_or(bit << (place * BITS), Ordering::Relaxed);
    }

    /// Takes one touch back, if there was one.
    pub(super) fn forget_touch(&self, place: usize) -> bool {
        let touched = at(self.load(), place) & TOUCHED;
        if touched != 0 {
            let bit = if touched & TWICE != 0 { TWICE } else { ONCE };
            self.0.fetch_and(!(bit << (place * BITS)), Ordering::Relaxed);
        }
        touched != 0
    }

    /// Takes all touches back, if there were any.
    pub(super) fn forget_touches(&self, place: usize) -> bool {
        at(self.load(), place) & TOUCHED != 0 && {
            let before = self.0.fetch_and(!(TOUCHED << (place * BITS)), Ordering::Relaxed);
            at(before, place) & TOUCHED != 0
        }
    }
}

#[inline(always)]
fn at(tags: u64, place: usize) -> u64 {
    tags >> (place * BITS) & ALL
}

#[cfg(all(test, not(vayu_loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_with_the_tag_and_no_others() {
        let hashes = [0, 1, 3, 4, 8, 0x7ffc, 0x8000, 0x8004, 0xfffc, 0xffff, u64::MAX];
        for one in hashes {
            for other in hashes {
                for mask in 0..1 << SIDE_BY_SIDE {
                    let tags = Tags::new();
                    let is_one = |place: &usize| mask >> place & 1 == 1;
                    for place in 0..SIDE_BY_SIDE {
                        tags.set(place, Tag::of(if is_one(&place) { one } else { other }));
                        (0..place).for_each(|_| tags.touch(place));
                    }
                    for (hash, is_there) in [(one, true), (other, false)] {
                        let same = Tag::of(one) == Tag::of(other);
                        let expected: Vec<_> =
                            (0..SIDE_BY_SIDE).filter(|at| same || is_one(at) == is_there).collect();
                        assert_eq!(tags.places(Tag::of(hash)).collect::<Vec<_>>(), expected);
                        let at = (0..SIDE_BY_SIDE).filter(|&at| tags.is_at(at, Tag::of(hash)));
                        assert_eq!(at.collect::<Vec<_>>(), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn nobody_sits_on_new_seats() {
        let tags = Tags::new();
        for hash in [0, 3, 4, u64::MAX] {
            assert_eq!(tags.places(Tag::of(hash)).count(), 0);
        }
        tags.set(1, Tag::of(0));
        assert_eq!([0, 1, 2, 3].map(|place| tags.is_new(place)), [true, false, true, true]);
    }

    #[test]
    fn touches_are_those_of_one_place() {
        let tags = Tags::new();
        (0..SIDE_BY_SIDE).for_each(|place| tags.set(place, Tag::of(u64::MAX)));
        assert!(!tags.is_touched(2), "once does not count");
        tags.touch(2);
        assert_eq!([0, 1, 2, 3].map(|place| tags.is_touched(place)), [false, false, true, false]);
        assert!(tags.forget_touch(2) && !tags.is_touched(2));
        assert!(tags.forget_touches(2) && !tags.forget_touches(2) && !tags.forget_touch(2));
        assert_eq!(tags.places(Tag::of(u64::MAX)).count(), SIDE_BY_SIDE, "the tags stay");
    }
}

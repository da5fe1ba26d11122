//! Which copies in memory are still believed.

use std::sync::atomic::{AtomicU32, Ordering};

/// A number for each of the first two bytes that the digest of a key can have. A copy is believed
/// while the number is the one from before it was made: so a change of a key is noticed without
/// finding the copy, and a copy of what was read before a change is not believed even if it comes
/// after it.
#[derive(Debug)]
pub(crate) struct Revisions(Box<[AtomicU32]>);

/// The revision of a key at some moment: a number, and the place where it stands. It is kept as a word,
/// since a copy of it is read as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revision(u64);

/// A change of a key below that is under way. The copies of before are outdated, so that none is left if
/// its caller goes away; and what is read below until it has ended may be from before it, and is outdated
/// at the end.
#[derive(Debug)]
pub(crate) struct KeyChange<'a> {
    revisions: &'a Revisions,
    revision: Revision,
    is_over: bool,
}

impl KeyChange<'_> {
    /// Ends the change. Returns the revision of a copy of the new value, unless something else has
    /// changed since the beginning, which may be newer.
    pub(crate) fn end(mut self) -> Option<Revision> {
        self.is_over = true;
        let new = self.revisions.advance_from(self.revision);
        if new.is_none() {
            self.outdate();
        }
        new
    }

    fn outdate(&self) {
        let (place, _) = self.revision.parts();
        self.revisions.advance(place.to_le_bytes());
    }
}

impl Drop for KeyChange<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.outdate();
        }
    }
}

impl Revision {
    fn new(place: u16, number: u32) -> Self {
        Self(u64::from(number) << 16 | u64::from(place))
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
    #[expect(clippy::cast_possible_truncation, reason = "these are the bits that are meant")]
    fn parts(self) -> (u16, u32) {
        (self.0 as u16, (self.0 >> 16) as u32)
    }
}

impl Revisions {
    pub(crate) fn new() -> Self {
        Self((0..=u16::MAX).map(|_| AtomicU32::new(0)).collect())
    }

    /// The revision of the keys whose digest begins so.
    pub(crate) fn current(&self, start: [u8; 2]) -> Revision {
        let place = u16::from_le_bytes(start);
        Revision::new(place, self.place(place).load(Ordering::Acquire))
    }

    #[inline]
    pub(crate) fn is_current(&self, revision: Revision) -> bool {
        let (place, number) = revision.parts();
        self.place(place).load(Ordering::Acquire) == number
    }

    /// Outdates the copies of these keys, and answers their new revision.
    pub(crate) fn advance(&self, start: [u8; 2]) -> Revision {
        let place = u16::from_le_bytes(start);
        let before = self.place(place).fetch_add(1, Ordering::AcqRel);
        Revision::new(place, before.wrapping_add(1))
    }

    /// Outdates the copies of the keys of this revision, and returns their new one, unless they were
    /// outdated since.
    pub(crate) fn advance_from(&self, revision: Revision) -> Option<Revision> {
        let (place, number) = revision.parts();
        let next = number.wrapping_add(1);
        self.place(place)
            .compare_exchange(number, next, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
            .then(|| Revision::new(place, next))
    }

    /// Begins a change of these keys: outdates their copies now, and once more when it has ended.
    pub(crate) fn begin(&self, start: [u8; 2]) -> KeyChange<'_> {
        KeyChange { revisions: self, revision: self.advance(start), is_over: false }
    }

    /// Outdates all copies.
    pub(crate) fn advance_all(&self) {
        for place in &self.0 {
            place.fetch_add(1, Ordering::AcqRel);
        }
    }

    #[inline]
    fn place(&self, place: u16) -> &AtomicU32 {
        &self.0[usize::from(place)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_invalidates_copies_from_its_start_to_its_end() {
        let (revisions, key) = (Revisions::new(), [1, 2]);
        let before = revisions.current(key);
        let change = revisions.begin(key);
        let during = revisions.current(key);
        assert!(!revisions.is_current(before));
        let new = change.end().expect("nothing else has changed");
        assert!(!revisions.is_current(during) && revisions.is_current(new));
        let change = revisions.begin(key);
        let newer = revisions.advance(key);
        assert_eq!(change.end(), None, "what was written may be older");
        assert!(!revisions.is_current(newer), "and it may have been read before the end");
        let change = revisions.begin(key);
        let during = revisions.current(key);
        drop(change);
        assert!(!revisions.is_current(during));
    }

    #[test]
    fn change_invalidates_older_copies_and_no_other_slot() {
        let revisions = Revisions::new();
        let (key, other) = ([1, 2], [2, 1]);
        let (old, untouched) = (revisions.current(key), revisions.current(other));
        let new = revisions.advance(key);
        assert!(!revisions.is_current(old) && revisions.is_current(new));
        assert!(revisions.is_current(untouched));
        assert_eq!(revisions.current(key), new);
        revisions.advance_all();
        assert!(!revisions.is_current(new) && !revisions.is_current(untouched));
    }
}

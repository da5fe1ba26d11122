//! Seats, and who may sit where.

use std::sync::OnceLock;

use crate::seqlock::slot::{Payload, Slot};
use crate::seqlock::tags::{Tag, Tags, WAYS, home_way};

/// Seats for entries of so many words. A key may sit anywhere in one row of them.
#[derive(Debug)]
pub(super) struct Table<const WORDS: usize> {
    /// There are none before somebody is expected.
    sets: OnceLock<Sets<WORDS>>,
    /// How many rows there will be.
    count: usize,
    /// The process that makes them.
    process: u32,
}

#[derive(Debug)]
struct Sets<const WORDS: usize> {
    slots: Box<[[Slot<WORDS>; WAYS]]>,
    tags: Box<[Tags]>,
}

/// A row of seats, and who sits there or is about to.
#[derive(Debug, Clone, Copy)]
struct Set<'a, const WORDS: usize> {
    slots: &'a [Slot<WORDS>; WAYS],
    tags: &'a Tags,
}

impl<const WORDS: usize> Table<WORDS> {
    /// So many seats, in whole rows, of which there is at least one.
    pub(super) fn new(slots: usize) -> Self {
        let count = (slots / WAYS).max(1);
        Self { sets: OnceLock::new(), count, process: std::process::id() }
    }

    /// The entry of a key with this hash that begins with these words. Of the first reads after a
    /// while, `on_referenced` is told.
    #[inline(always)]
    pub(super) fn get<const KEY_WORDS: usize>(
        &self,
        hash: u64,
        key: [u64; KEY_WORDS],
        on_referenced: impl FnOnce(),
    ) -> Option<Payload<WORDS>> {
        let set = self.set(hash)?;
        let (way, entry) = set.find(hash, key)?;
        if !set.tags.is_referenced(way) {
            set.tags.mark_referenced(way);
            on_referenced();
        }
        Some(entry)
    }

    /// Whether there is a seat for keys with this hash on which nobody has ever sat, or which such a key
    /// had to leave.
    pub(super) fn has_unused_way(&self, hash: u64) -> bool {
        self.set(hash).is_some_and(|set| set.unused_way(hash).is_some())
    }

    /// There will be seats from here on.
    #[inline]
    pub(super) fn ensure_allocated(&self) {
        if self.sets.get().is_none() {
            self.allocate();
        }
    }

    /// A child process makes none: a thread of the parent, which does not exist there, may have begun.
    #[cold]
    fn allocate(&self) {
        if self.process == std::process::id() {
            self.sets.get_or_init(|| Sets {
                slots: (0..self.count).map(|_| std::array::from_fn(|_| Slot::new())).collect(),
                tags: (0..self.count).map(|_| Tags::new()).collect(),
            });
        }
    }

    /// Offers a key with this hash a seat of its row, if one is free. See [`Slot::try_fill`].
    #[cold]
    pub(super) fn try_fill(&self, hash: u64, find: impl Fn() -> Option<Payload<WORDS>>) {
        let Some(set) = self.set(hash) else { return };
        let way = set.unused_way(hash).or_else(|| set.victim_way(hash));
        if let Some((way, slot)) = way.and_then(|at| Some((at, set.slots.get(at)?))) {
            slot.try_fill(|| {
                // Whoever changes the entry after it was found here finds it by this.
                set.tags.set(way, Tag::of(hash));
                find()
            });
        }
    }

    /// Takes their seats away from keys with this hash.
    #[inline]
    pub(super) fn invalidate(&self, hash: u64) {
        let Some(set) = self.set(hash) else { return };
        for way in set.tags.matching_ways(Tag::of(hash)) {
            set.slots.get(way).into_iter().for_each(Slot::invalidate);
        }
    }

    /// Takes all seats away.
    pub(super) fn clear(&self) {
        let sets = self.sets.get().map(|sets| &sets.slots[..]);
        sets.unwrap_or_default().as_flattened().iter().for_each(Slot::invalidate);
    }

    /// Whether somebody has asked for a key with this hash since this was last asked.
    pub(super) fn take_referenced(&self, hash: u64) -> bool {
        self.set(hash).is_some_and(|set| {
            let on_referenced = |way| set.tags.clear_references(way);
            set.tags.matching_ways(Tag::of(hash)).filter(|&way| on_referenced(way)).count() > 0
        })
    }

    /// Whether there is nobody here.
    #[inline]
    pub(super) fn is_unallocated(&self) -> bool {
        self.sets.get().is_none()
    }

    /// The row of keys with this hash. The map takes its places by other bits.
    #[inline(always)]
    fn set(&self, hash: u64) -> Option<Set<'_, WORDS>> {
        let sets = self.sets.get()?;
        // The upper half of the hash as a part of one: so large a part of the rows comes before.
        let index = ((hash >> 32) * self.count as u64) >> 32;
        let index = usize::try_from(index).ok()?;
        Some(Set { slots: sets.slots.get(index)?, tags: sets.tags.get(index)? })
    }
}

impl<const WORDS: usize> Set<'_, WORDS> {
    /// The entry that begins with these words, and where it sits.
    #[inline(always)]
    fn find<const KEY_WORDS: usize>(
        self,
        hash: u64,
        key: [u64; KEY_WORDS],
    ) -> Option<(usize, Payload<WORDS>)> {
        // A processor guesses that it is there, and need not wait for the tag to know where to read.
        let first = home_way(hash);
        if self.tags.has_tag(first, Tag::of(hash))
            && let Some(entry) = self.read(first, key)
        {
            return Some((first, entry));
        }
        self.find_in_other_ways(hash, key)
    }

    /// [`find`](Self::find) out of the way of those who sit where they want to.
    #[inline(never)]
    fn find_in_other_ways<const KEY_WORDS: usize>(
        self,
        hash: u64,
        key: [u64; KEY_WORDS],
    ) -> Option<(usize, Payload<WORDS>)> {
        let mut ways = self.tags.matching_ways(Tag::of(hash));
        ways.find_map(|way| Some((way, self.read(way, key)?)))
    }

    #[inline(always)]
    fn read<const KEY_WORDS: usize>(
        self,
        way: usize,
        key: [u64; KEY_WORDS],
    ) -> Option<Payload<WORDS>> {
        self.slots.get(way)?.read(key)
    }

    /// A place which a key with this hash had to leave, or, if it sits nowhere, where nobody has ever
    /// sat: any other is not worth a look at the seat itself.
    fn unused_way(self, hash: u64) -> Option<usize> {
        let mut own = self.tags.matching_ways(Tag::of(hash)).peekable();
        if own.peek().is_none() {
            return probe_order(hash).find(|&way| self.tags.is_unused(way));
        }
        own.find(|&way| self.slots.get(way).is_some_and(Slot::is_empty))
    }

    /// A place of which nobody has asked for who sits there for a while.
    fn victim_way(self, hash: u64) -> Option<usize> {
        probe_order(hash).find(|&way| !self.tags.clear_reference(way))
    }
}

/// The places of a row, as a key with this hash takes them.
fn probe_order(hash: u64) -> impl Iterator<Item = usize> {
    (0..WAYS).map(move |n| home_way(hash) ^ n)
}

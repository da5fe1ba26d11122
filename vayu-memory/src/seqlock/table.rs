//! A set-associative table of slots.

use std::sync::OnceLock;

use vayu_core::__internal::ProcessId;

use crate::seqlock::slot::{Payload, Slot};
use crate::seqlock::tags::{Tag, Tags, WAYS, home_way};

/// A table of slots of `WORDS` words. The hash of a key selects a set, and the key may be in any way
/// of that set.
#[derive(Debug)]
pub(super) struct Table<const WORDS: usize> {
    /// Allocated when the first entry that may get a slot is written.
    sets: OnceLock<Sets<WORDS>>,
    /// The number of sets.
    count: usize,
    /// The process that allocates them.
    process: ProcessId,
}

#[derive(Debug)]
struct Sets<const WORDS: usize> {
    slots: Box<[[Slot<WORDS>; WAYS]]>,
    tags: Box<[Tags]>,
}

/// The slots of one set, and the tags of their keys.
#[derive(Debug, Clone, Copy)]
struct Set<'a, const WORDS: usize> {
    slots: &'a [Slot<WORDS>; WAYS],
    tags: &'a Tags,
}

impl<const WORDS: usize> Table<WORDS> {
    /// Creates a table of `slots` slots, rounded down to whole sets, and at least one set.
    pub(super) fn new(slots: usize) -> Self {
        let count = (slots / WAYS).max(1);
        Self { sets: OnceLock::new(), count, process: ProcessId::current() }
    }

    /// Returns the payload of the key with this hash and these words. Calls `on_referenced` for the first
    /// reads after a while.
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

    /// Returns whether the set of this hash has a way that was never used, or whose entry, of a key with
    /// this hash, was invalidated.
    pub(super) fn has_unused_way(&self, hash: u64) -> bool {
        self.set(hash).is_some_and(|set| set.unused_way(hash).is_some())
    }

    /// Allocates the slots, if they are not.
    #[inline]
    pub(super) fn ensure_allocated(&self) {
        if self.sets.get().is_none() {
            self.allocate();
        }
    }

    /// Not in a child process: a thread of the parent, which does not exist there, may have begun.
    #[cold]
    fn allocate(&self) {
        if self.process.is_current() {
            self.sets.get_or_init(|| Sets {
                slots: (0..self.count).map(|_| std::array::from_fn(|_| Slot::new())).collect(),
                tags: (0..self.count).map(|_| Tags::new()).collect(),
            });
        }
    }

    /// Fills a way of the set of this hash, if one is unused or may be replaced. See
    /// [`Slot::try_fill`].
    #[cold]
    pub(super) fn try_fill(&self, hash: u64, find: impl Fn() -> Option<Payload<WORDS>>) {
        let Some(set) = self.set(hash) else { return };
        let way = set.unused_way(hash).or_else(|| set.victim_way(hash));
        if let Some((way, slot)) = way.and_then(|at| Some((at, set.slots.get(at)?))) {
            slot.try_fill(|| {
                // A thread that changes the entry after `find` finds the slot by its tag.
                set.tags.set(way, Tag::of(hash));
                find()
            });
        }
    }

    /// Invalidates the slots of keys with this hash.
    #[inline]
    pub(super) fn invalidate(&self, hash: u64) {
        let Some(set) = self.set(hash) else { return };
        for way in set.tags.matching_ways(Tag::of(hash)) {
            set.slots.get(way).into_iter().for_each(Slot::invalidate);
        }
    }

    /// Invalidates all slots.
    pub(super) fn clear(&self) {
        let sets = self.sets.get().map(|sets| &sets.slots[..]);
        sets.unwrap_or_default().as_flattened().iter().for_each(Slot::invalidate);
    }

    /// Returns whether a key with this hash was referenced since the last call, and clears that.
    pub(super) fn take_referenced(&self, hash: u64) -> bool {
        self.set(hash).is_some_and(|set| {
            // All ways with the tag are cleared, so no shortcut.
            let ways = set.tags.matching_ways(Tag::of(hash));
            ways.filter(|&way| set.tags.clear_references(way)).count() > 0
        })
    }

    /// Returns whether no slots are allocated.
    #[inline]
    pub(super) fn is_unallocated(&self) -> bool {
        self.sets.get().is_none()
    }

    /// Returns the set of keys with this hash. The map selects its shards by other bits.
    #[inline(always)]
    fn set(&self, hash: u64) -> Option<Set<'_, WORDS>> {
        let sets = self.sets.get()?;
        // The upper half of the hash as a fraction, scaled to the number of sets.
        let index = ((hash >> 32) * self.count as u64) >> 32;
        let index = usize::try_from(index).ok()?;
        Some(Set { slots: sets.slots.get(index)?, tags: sets.tags.get(index)? })
    }
}

impl<const WORDS: usize> Set<'_, WORDS> {
    /// Returns the way and the payload of the key with these words.
    #[inline(always)]
    fn find<const KEY_WORDS: usize>(
        self,
        hash: u64,
        key: [u64; KEY_WORDS],
    ) -> Option<(usize, Payload<WORDS>)> {
        // The processor predicts this way, and loads the slot without waiting for the tag.
        let first = home_way(hash);
        if self.tags.has_tag(first, Tag::of(hash))
            && let Some(entry) = self.read(first, key)
        {
            return Some((first, entry));
        }
        self.find_in_other_ways(hash, key)
    }

    /// Finds a key that is not in its home way.
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

    /// Returns the way of a key with this hash that was invalidated, or, if no way has its tag, one that
    /// was never used. Slots of other keys are not read for that.
    fn unused_way(self, hash: u64) -> Option<usize> {
        let mut own = self.tags.matching_ways(Tag::of(hash)).peekable();
        if own.peek().is_none() {
            return probe_order(hash).find(|&way| self.tags.is_unused(way));
        }
        own.find(|&way| self.slots.get(way).is_some_and(Slot::is_empty))
    }

    /// Returns a way whose entry was not referenced recently, and clears a reference of those before it.
    fn victim_way(self, hash: u64) -> Option<usize> {
        probe_order(hash).find(|&way| !self.tags.clear_reference(way))
    }
}

/// Returns the ways of a set in the order in which a key with this hash uses them.
fn probe_order(hash: u64) -> impl Iterator<Item = usize> {
    (0..WAYS).map(move |n| home_way(hash) ^ n)
}

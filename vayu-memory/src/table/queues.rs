//! Eviction: which entry of a shard goes when another one comes.
//!
//! A new entry begins in a short queue, the *probation*, of one entry in eighty. At its end it moves to
//! the *main* queue if it was referenced in the meantime, and is evicted otherwise. In the main queue an
//! entry that was referenced begins again (clock replacement): up to four times, as it has four reference
//! bits. The hashes of entries that did not pass their probation are kept (*ghosts*): an entry that comes
//! again soon goes to the main queue at once. So entries that are used once, as in a scan, displace no
//! others (as in S3-FIFO and 2Q).
//!
//! The queues are doubly linked lists through the slots, so that an entry is removed from the middle in
//! constant time. All of this is under the lock of a shard.

use crate::sync::Ordering;
use crate::table::chunks::{Chunks, Links, NONE, Number, Place};
use crate::table::index::HashPart;

/// The queues of a shard.
#[derive(Debug)]
pub(super) struct Queues {
    probation: Queue,
    main: Queue,
    /// Slots without an entry, linked by `after`.
    free: Number,
    /// Allocated at the first eviction, when the shard is full.
    ghosts: Box<[u32]>,
}

/// Slots in the order in which they are looked at.
#[derive(Debug)]
struct Queue {
    /// The two ends, if there are any slots.
    first: Number,
    last: Number,
    length: usize,
}

/// A slot on its way into a queue or out of one.
#[derive(Debug)]
pub(super) struct Queued<'a, V> {
    pub(super) number: Number,
    pub(super) place: Place<'a, V>,
    pub(super) links: &'a Links,
}

impl<'a, V> Queued<'a, V> {
    #[inline(always)]
    pub(super) fn new(number: Number, place: Place<'a, V>) -> Self {
        Self { number, place, links: place.links() }
    }
}

impl<V> Clone for Queued<'_, V> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<V> Copy for Queued<'_, V> {}

/// The lengths of the queues of a full shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    main: usize,
    probation: usize,
}

impl Room {
    /// Returns the lengths in a shard that has at most this number of entries at present.
    #[inline(always)]
    pub(super) fn of(entries: usize) -> Self {
        let probation = (entries / PROBATION).max(1);
        Self { main: entries.saturating_sub(probation), probation }
    }
}

/// One in this many entries is in probation.
const PROBATION: usize = 80;
/// The ghosts, in per cent of the entries.
const GHOSTS: usize = 50;

/// The most entries that an eviction looks at, before it evicts one that was referenced.
const MAX_LOOKS: u32 = 100;

const IN_MAIN: u32 = 1;

impl Queues {
    /// Creates the queues of a shard.
    pub(super) fn new() -> Self {
        Self { probation: Queue::new(), main: Queue::new(), free: NONE, ghosts: Box::default() }
    }

    pub(super) fn length(&self) -> usize {
        self.probation.length + self.main.length
    }

    /// Adds the slot of a new entry.
    #[inline(always)]
    pub(super) fn push<V>(
        &mut self,
        chunks: &Chunks<V>,
        new: Queued<'_, V>,
        hash: HashPart,
        room: Room,
    ) {
        let is_main = self.main.length < room.main || self.take_ghost(hash);
        new.links.hash.store(hash.to_bits() | u32::from(is_main), Ordering::Relaxed);
        let queue = if is_main { &mut self.main } else { &mut self.probation };
        queue.push(chunks, new.number, new.links);
    }

    /// Removes the slot of an entry.
    pub(super) fn remove<V>(&mut self, chunks: &Chunks<V>, number: Number, links: &Links) {
        let is_main = links.hash.load(Ordering::Relaxed) & IN_MAIN != 0;
        let queue = if is_main { &mut self.main } else { &mut self.probation };
        queue.remove(chunks, number, links);
    }

    /// Removes the slot of the entry to evict, other than `kept`, and returns it. `None` if there are no
    /// entries.
    #[inline(always)]
    pub(super) fn pop<'a, V>(
        &mut self,
        chunks: &'a Chunks<V>,
        room: Room,
        kept: Option<Number>,
    ) -> Option<Queued<'a, V>> {
        // Readers may set the references of all entries again and again.
        let mut looks = 0;
        loop {
            let is_probation = self.probation.length >= room.probation || self.main.length == 0;
            let queue = if is_probation { &mut self.probation } else { &mut self.main };
            let number = queue.first()?;
            let queued = Queued::new(number, chunks.place(number)?);
            let links = queued.links;
            queue.remove_first(links);
            looks += 1;
            let is_over = looks > MAX_LOOKS;
            if kept != Some(number)
                && (!queued.place.slot().clear_references(is_probation) || is_over)
            {
                if is_probation {
                    self.keep_ghost(hash_of(links));
                }
                return Some(queued);
            }
            links.hash.store(hash_of(links).to_bits() | IN_MAIN, Ordering::Relaxed);
            self.main.push(chunks, number, links);
        }
    }

    /// Keeps a slot that has no entry.
    pub(super) fn free(&mut self, number: Number, links: &Links) {
        links.after.store(self.free, Ordering::Relaxed);
        self.free = number;
    }

    /// Returns a slot that has no entry.
    pub(super) fn take_free<V>(&mut self, chunks: &Chunks<V>) -> Option<Number> {
        let number = self.free;
        (number != NONE).then(|| {
            self.free = chunks.links(number).after.load(Ordering::Relaxed);
            number
        })
    }

    /// Calls `visit` with each slot that has an entry.
    pub(super) fn visit<V>(&self, chunks: &Chunks<V>, mut visit: impl FnMut(Number, &Links)) {
        for queue in [&self.probation, &self.main] {
            let mut number = queue.first;
            for _ in 0..queue.length {
                let links = chunks.links(number);
                visit(number, links);
                number = links.after.load(Ordering::Relaxed);
            }
        }
    }

    /// Returns the place of a hash among the ghosts.
    fn ghost(&mut self, hash: HashPart) -> Option<&mut u32> {
        // By other bits than the shard: those of one shard are alike.
        let at = HashPart::from_bits(hash.to_bits().rotate_left(16)).scaled(self.ghosts.len());
        self.ghosts.get_mut(at)
    }

    #[inline(always)]
    fn keep_ghost(&mut self, hash: HashPart) {
        if self.ghosts.is_empty() {
            self.make_ghosts();
        }
        if let Some(ghost) = self.ghost(hash) {
            *ghost = hash.to_bits() | 1;
        }
    }

    #[cold]
    fn make_ghosts(&mut self) {
        self.ghosts = vec![0; GHOSTS * self.length() / 100 + 1].into();
    }

    #[inline(always)]
    fn take_ghost(&mut self, hash: HashPart) -> bool {
        self.ghost(hash).is_some_and(|ghost| {
            let is_it = *ghost == hash.to_bits() | 1;
            if is_it {
                *ghost = 0;
            }
            is_it
        })
    }
}

/// Returns the hash of an entry.
#[inline(always)]
pub(super) fn hash_of(links: &Links) -> HashPart {
    HashPart::from_bits(links.hash.load(Ordering::Relaxed))
}

impl Queue {
    fn new() -> Self {
        Self { first: NONE, last: NONE, length: 0 }
    }

    #[inline(always)]
    fn first(&self) -> Option<Number> {
        (self.length > 0).then_some(self.first)
    }

    #[inline(always)]
    fn push<V>(&mut self, chunks: &Chunks<V>, number: Number, links: &Links) {
        if self.length == 0 {
            self.first = number;
        } else {
            links.before.store(self.last, Ordering::Relaxed);
            chunks.links(self.last).after.store(number, Ordering::Relaxed);
        }
        self.last = number;
        self.length += 1;
    }

    #[inline(always)]
    fn remove_first(&mut self, links: &Links) {
        self.first = links.after.load(Ordering::Relaxed);
        self.length -= 1;
    }

    fn remove<V>(&mut self, chunks: &Chunks<V>, number: Number, links: &Links) {
        let [before, after] =
            [&links.before, &links.after].map(|link| link.load(Ordering::Relaxed));
        if number == self.first {
            self.first = after;
        } else {
            chunks.links(before).after.store(after, Ordering::Relaxed);
        }
        if number == self.last {
            self.last = before;
        } else {
            chunks.links(after).before.store(before, Ordering::Relaxed);
        }
        self.length -= 1;
    }
}

//! Eviction: which entry of a shard goes when another one comes.
//!
//! A new entry begins in a short queue, the *probation*, of one entry in fifty. At its end it moves to
//! the *main* queue if it was referenced in the meantime, and is evicted otherwise. In the main queue an
//! entry that was referenced begins again (clock replacement): up to twice, as it has two reference bits.
//! The hashes of entries that did not pass their probation are kept (*ghosts*): an entry that comes again
//! soon goes to the main queue at once. So entries that are used once, as in a scan, displace no others
//! (as in S3-FIFO and 2Q).
//!
//! The queues are doubly linked lists through the slots, so that an entry is removed from the middle in
//! constant time. All of this is under the lock of a shard.

use crate::sync::Ordering;
use crate::table::chunks::{Chunks, Links, NONE, Number};
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
    first: Number,
    last: Number,
    length: usize,
}

/// One in this many entries is in probation.
const PROBATION: usize = 50;
/// The ghosts, in per cent of the entries.
const GHOSTS: usize = 40;

/// The most times that an eviction looks at each entry.
const MAX_ROUNDS: usize = 3;

const IN_MAIN: u32 = 1;

impl Queues {
    /// Creates the queues of a shard.
    pub(super) fn new() -> Self {
        Self { probation: Queue::new(), main: Queue::new(), free: NONE, ghosts: Box::default() }
    }

    pub(super) fn length(&self) -> usize {
        self.probation.length + self.main.length
    }

    /// Adds the slot of a new entry. `entries` is the most of the shard at present.
    pub(super) fn push<V>(
        &mut self,
        chunks: &Chunks<V>,
        number: Number,
        hash: HashPart,
        entries: usize,
    ) {
        let links = chunks.links(number);
        let is_main = self.main.length + probation(entries) < entries || self.take_ghost(hash);
        links.hash.store(hash.to_bits() | u32::from(is_main), Ordering::Relaxed);
        let queue = if is_main { &mut self.main } else { &mut self.probation };
        queue.push(chunks, number);
    }

    /// Removes the slot of an entry.
    pub(super) fn remove<V>(&mut self, chunks: &Chunks<V>, number: Number) {
        let is_main = chunks.links(number).hash.load(Ordering::Relaxed) & IN_MAIN != 0;
        let queue = if is_main { &mut self.main } else { &mut self.probation };
        queue.remove(chunks, number);
    }

    /// Removes the slot of the entry to evict, other than `kept`, and returns it. `entries` is the most of
    /// the shard at present. `None` if there are no entries.
    pub(super) fn pop<V>(
        &mut self,
        chunks: &Chunks<V>,
        entries: usize,
        kept: Option<Number>,
    ) -> Option<Number> {
        // Readers may set the references of all entries again and again.
        let mut turns_left = MAX_ROUNDS * self.length();
        loop {
            let is_probation = self.probation.length >= probation(entries) || self.main.length == 0;
            let queue = if is_probation { &mut self.probation } else { &mut self.main };
            let number = queue.first;
            if number == NONE {
                return None;
            }
            queue.remove(chunks, number);
            let slot = chunks.slot(number)?;
            let links = chunks.links(number);
            let is_over = turns_left == 0;
            turns_left = turns_left.saturating_sub(1);
            if kept != Some(number) && (!slot.clear_references(is_probation) || is_over) {
                if is_probation {
                    self.keep_ghost(hash_of(links));
                }
                return Some(number);
            }
            links.hash.store(hash_of(links).to_bits() | IN_MAIN, Ordering::Relaxed);
            self.main.push(chunks, number);
        }
    }

    /// Keeps a slot that has no entry.
    pub(super) fn free<V>(&mut self, chunks: &Chunks<V>, number: Number) {
        chunks.links(number).after.store(self.free, Ordering::Relaxed);
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
    pub(super) fn visit<V>(&self, chunks: &Chunks<V>, mut visit: impl FnMut(Number)) {
        for queue in [&self.probation, &self.main] {
            let mut number = queue.first;
            while number != NONE {
                visit(number);
                number = chunks.links(number).after.load(Ordering::Relaxed);
            }
        }
    }

    /// Returns the place of a hash among the ghosts.
    fn ghost(&mut self, hash: HashPart) -> Option<&mut u32> {
        // By other bits than the shard: those of one shard are alike.
        let at = HashPart::from_bits(hash.to_bits().rotate_left(16)).scaled(self.ghosts.len());
        self.ghosts.get_mut(at)
    }

    fn keep_ghost(&mut self, hash: HashPart) {
        if self.ghosts.is_empty() {
            self.ghosts = vec![0; GHOSTS * self.length() / 100 + 1].into();
        }
        if let Some(ghost) = self.ghost(hash) {
            *ghost = hash.to_bits() | 1;
        }
    }

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

/// Returns the length of the probation of a shard.
fn probation(entries: usize) -> usize {
    (entries / PROBATION).max(1)
}

/// Returns the hash of an entry.
pub(super) fn hash_of(links: &Links) -> HashPart {
    HashPart::from_bits(links.hash.load(Ordering::Relaxed))
}

impl Queue {
    fn new() -> Self {
        Self { first: NONE, last: NONE, length: 0 }
    }

    fn push<V>(&mut self, chunks: &Chunks<V>, number: Number) {
        let links = chunks.links(number);
        links.before.store(self.last, Ordering::Relaxed);
        links.after.store(NONE, Ordering::Relaxed);
        if self.last == NONE {
            self.first = number;
        } else {
            chunks.links(self.last).after.store(number, Ordering::Relaxed);
        }
        self.last = number;
        self.length += 1;
    }

    fn remove<V>(&mut self, chunks: &Chunks<V>, number: Number) {
        let links = chunks.links(number);
        let [before, after] =
            [&links.before, &links.after].map(|link| link.load(Ordering::Relaxed));
        match before {
            NONE => self.first = after,
            before => chunks.links(before).after.store(after, Ordering::Relaxed),
        }
        match after {
            NONE => self.last = before,
            after => chunks.links(after).before.store(before, Ordering::Relaxed),
        }
        self.length -= 1;
    }
}

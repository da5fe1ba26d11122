//! Seats, and who may sit where.

use std::sync::OnceLock;

use crate::front::seat::{Entry, Seat};
use crate::sync::{AtomicU32, Ordering};

/// Seats for entries of so many words. A key has two where it may sit.
#[derive(Debug)]
pub(super) struct Table<const WORDS: usize> {
    /// There are none before somebody is expected.
    rows: OnceLock<Rows<WORDS>>,
    /// How many seats there will be: a power of two.
    count: usize,
}

#[derive(Debug)]
struct Rows<const WORDS: usize> {
    seats: Box<[Seat<WORDS>]>,
    /// For each seat half of the hash of the key that sits there, or is about to. Instead of its two
    /// lowest bits: whether it was asked for once lately, and whether it was again.
    tags: Box<[AtomicU32]>,
}

const ONCE: u32 = 1;
const TWICE: u32 = 2;
const TOUCHED: u32 = ONCE | TWICE;

impl<const WORDS: usize> Table<WORDS> {
    /// `count` must be a power of two.
    pub(super) fn new(count: usize) -> Self {
        Self { rows: OnceLock::new(), count }
    }

    /// The entry of a key with this hash that begins with these words. Of the first reads after a
    /// while, `touched` is told.
    #[inline(always)]
    pub(super) fn get<const WANTED: usize>(
        &self,
        hash: u64,
        wanted: [u64; WANTED],
        touched: impl FnOnce(),
    ) -> Option<Entry<WORDS>> {
        let rows = self.rows.get()?;
        let [first, second] = self.places(hash);
        // The tags of many seats are in one cache line, and say at once who sits nowhere.
        let (place, tag) = match rows.tags.get(first)? {
            tag if is_of(tag, hash) => (first, tag),
            _ => (second, rows.tags.get(second).filter(|tag| is_of(tag, hash))?),
        };
        let entry = rows.seats.get(place)?.read(wanted)?;
        if tag.load(Ordering::Relaxed) & TOUCHED != TOUCHED {
            touch(tag);
            touched();
        }
        Some(entry)
    }

    /// Whether there is a seat for keys with this hash on which nobody has ever sat, or which such a key
    /// had to leave.
    pub(super) fn has_room(&self, hash: u64) -> bool {
        self.rows.get().is_some_and(|rows| rows.vacant(self.places(hash), hash).is_some())
    }

    /// There will be seats from here on.
    #[inline]
    pub(super) fn expect(&self) {
        self.rows.get_or_init(|| Rows {
            seats: (0..self.count).map(|_| Seat::new()).collect(),
            tags: (0..self.count).map(|_| AtomicU32::new(0)).collect(),
        });
    }

    /// Offers a key with this hash one of its seats, if one is free. See [`Seat::offer`].
    pub(super) fn offer(&self, hash: u64, find: impl Fn() -> Option<Entry<WORDS>>) {
        let Some(rows) = self.rows.get() else { return };
        let places = self.places(hash);
        let place =
            rows.vacant(places, hash).or_else(|| places.into_iter().find(|&at| rows.is_free(at)));
        if let Some((seat, tag)) =
            place.and_then(|at| Some((rows.seats.get(at)?, rows.tags.get(at)?)))
        {
            seat.offer(|| {
                // Whoever changes the entry after it was found here finds it by this.
                tag.store(tag_of(hash), Ordering::Relaxed);
                find()
            });
        }
    }

    /// Takes their seats away from keys with this hash.
    #[inline]
    pub(super) fn withdraw(&self, hash: u64) {
        self.rows_of(hash).for_each(|(seat, _)| seat.empty());
    }

    /// Whether somebody has asked for a key with this hash since this was last asked.
    pub(super) fn was_touched(&self, hash: u64) -> bool {
        self.rows_of(hash).any(|(_, tag)| {
            tag.load(Ordering::Relaxed) & TOUCHED != 0
                && tag.fetch_and(!TOUCHED, Ordering::Relaxed) & TOUCHED != 0
        })
    }

    /// Whether there is nobody here.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.get().is_none()
    }

    /// The seats of keys with this hash.
    #[inline]
    fn rows_of(&self, hash: u64) -> impl Iterator<Item = (&Seat<WORDS>, &AtomicU32)> {
        let rows = self.rows.get();
        self.places(hash)
            .into_iter()
            .filter_map(move |place| Some((rows?.seats.get(place)?, rows?.tags.get(place)?)))
            .filter(move |(_, tag)| is_of(tag, hash))
    }

    /// The map takes its places by other bits.
    #[inline(always)]
    fn places(&self, hash: u64) -> [usize; 2] {
        let first = (hash >> 24) as usize & (self.count - 1);
        [first, first ^ 1]
    }
}

impl<const WORDS: usize> Rows<WORDS> {
    /// The first of these places on which nobody has ever sat, or which a key with this hash had to
    /// leave: any other is not worth a look at the seat itself.
    fn vacant(&self, places: [usize; 2], hash: u64) -> Option<usize> {
        places.into_iter().find(|&place| {
            self.tags.get(place).is_some_and(|tag| {
                tag.load(Ordering::Relaxed) == 0
                    || (is_of(tag, hash) && self.seats.get(place).is_some_and(Seat::is_empty))
            })
        })
    }

    /// Whether nobody has asked for who sits at a place for a while.
    fn is_free(&self, place: usize) -> bool {
        self.tags.get(place).is_some_and(|tag| !forget_touch(tag))
    }
}

#[inline(always)]
fn tag_of(hash: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "half of the hash is wanted")]
    let half = hash as u32;
    half & !TOUCHED
}

/// Whether a tag may be that of a key with this hash.
#[inline(always)]
fn is_of(tag: &AtomicU32, hash: u64) -> bool {
    tag.load(Ordering::Relaxed) & !TOUCHED == tag_of(hash)
}

/// Bits are set and cleared one by one: another key may have come here meanwhile, whose hash must stay.
#[cold]
fn touch(tag: &AtomicU32) {
    let is_first = tag.load(Ordering::Relaxed) & ONCE == 0;
    tag.fetch_or(if is_first { ONCE } else { TWICE }, Ordering::Relaxed);
}

/// Takes one touch back, if there was one.
fn forget_touch(tag: &AtomicU32) -> bool {
    let touched = tag.load(Ordering::Relaxed) & TOUCHED;
    if touched != 0 {
        tag.fetch_and(if touched & TWICE != 0 { !TWICE } else { !ONCE }, Ordering::Relaxed);
    }
    touched != 0
}

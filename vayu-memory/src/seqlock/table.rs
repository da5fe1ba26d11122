//! Seats, and who may sit where.

use std::sync::OnceLock;

use crate::seqlock::slot::{Entry, Seat};
use crate::seqlock::tags::{SIDE_BY_SIDE, Tag, Tags, favourite};

/// Seats for entries of so many words. A key may sit anywhere in one row of them.
#[derive(Debug)]
pub(super) struct Table<const WORDS: usize> {
    /// There are none before somebody is expected.
    rows: OnceLock<Rows<WORDS>>,
    /// How many rows there will be.
    count: usize,
    /// The process that makes them.
    process: u32,
}

#[derive(Debug)]
struct Rows<const WORDS: usize> {
    seats: Box<[[Seat<WORDS>; SIDE_BY_SIDE]]>,
    tags: Box<[Tags]>,
}

/// A row of seats, and who sits there or is about to.
#[derive(Debug, Clone, Copy)]
struct Row<'a, const WORDS: usize> {
    seats: &'a [Seat<WORDS>; SIDE_BY_SIDE],
    tags: &'a Tags,
}

impl<const WORDS: usize> Table<WORDS> {
    /// So many seats, in whole rows, of which there is at least one.
    pub(super) fn new(seats: usize) -> Self {
        let count = (seats / SIDE_BY_SIDE).max(1);
        Self { rows: OnceLock::new(), count, process: std::process::id() }
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
        let row = self.row(hash)?;
        let (place, entry) = row.find(hash, wanted)?;
        if !row.tags.is_touched(place) {
            row.tags.touch(place);
            touched();
        }
        Some(entry)
    }

    /// Whether there is a seat for keys with this hash on which nobody has ever sat, or which such a key
    /// had to leave.
    pub(super) fn has_room(&self, hash: u64) -> bool {
        self.row(hash).is_some_and(|row| row.vacant(hash).is_some())
    }

    /// There will be seats from here on.
    #[inline]
    pub(super) fn expect(&self) {
        if self.rows.get().is_none() {
            self.make_rows();
        }
    }

    /// A child process makes none: a thread of the parent, which does not exist there, may have begun.
    #[cold]
    fn make_rows(&self) {
        if self.process == std::process::id() {
            self.rows.get_or_init(|| Rows {
                seats: (0..self.count).map(|_| std::array::from_fn(|_| Seat::new())).collect(),
                tags: (0..self.count).map(|_| Tags::new()).collect(),
            });
        }
    }

    /// Offers a key with this hash a seat of its row, if one is free. See [`Seat::offer`].
    #[cold]
    pub(super) fn offer(&self, hash: u64, find: impl Fn() -> Option<Entry<WORDS>>) {
        let Some(row) = self.row(hash) else { return };
        let place = row.vacant(hash).or_else(|| row.free(hash));
        if let Some((place, seat)) = place.and_then(|at| Some((at, row.seats.get(at)?))) {
            seat.offer(|| {
                // Whoever changes the entry after it was found here finds it by this.
                row.tags.set(place, Tag::of(hash));
                find()
            });
        }
    }

    /// Takes their seats away from keys with this hash.
    #[inline]
    pub(super) fn withdraw(&self, hash: u64) {
        let Some(row) = self.row(hash) else { return };
        for place in row.tags.places(Tag::of(hash)) {
            row.seats.get(place).into_iter().for_each(Seat::empty);
        }
    }

    /// Takes all seats away.
    pub(super) fn clear(&self) {
        let rows = self.rows.get().map(|rows| &rows.seats[..]);
        rows.unwrap_or_default().as_flattened().iter().for_each(Seat::empty);
    }

    /// Whether somebody has asked for a key with this hash since this was last asked.
    pub(super) fn was_touched(&self, hash: u64) -> bool {
        self.row(hash).is_some_and(|row| {
            let touched = |place| row.tags.forget_touches(place);
            row.tags.places(Tag::of(hash)).filter(|&place| touched(place)).count() > 0
        })
    }

    /// Whether there is nobody here.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.get().is_none()
    }

    /// The row of keys with this hash. The map takes its places by other bits.
    #[inline(always)]
    fn row(&self, hash: u64) -> Option<Row<'_, WORDS>> {
        let rows = self.rows.get()?;
        // The upper half of the hash as a part of one: so large a part of the rows comes before.
        let index = ((hash >> 32) * self.count as u64) >> 32;
        let index = usize::try_from(index).ok()?;
        Some(Row { seats: rows.seats.get(index)?, tags: rows.tags.get(index)? })
    }
}

impl<const WORDS: usize> Row<'_, WORDS> {
    /// The entry that begins with these words, and where it sits.
    #[inline(always)]
    fn find<const WANTED: usize>(
        self,
        hash: u64,
        wanted: [u64; WANTED],
    ) -> Option<(usize, Entry<WORDS>)> {
        // A processor guesses that it is there, and need not wait for the tag to know where to read.
        let first = favourite(hash);
        if self.tags.is_at(first, Tag::of(hash))
            && let Some(entry) = self.read(first, wanted)
        {
            return Some((first, entry));
        }
        self.find_elsewhere(hash, wanted)
    }

    /// [`find`](Self::find) out of the way of those who sit where they want to.
    #[inline(never)]
    fn find_elsewhere<const WANTED: usize>(
        self,
        hash: u64,
        wanted: [u64; WANTED],
    ) -> Option<(usize, Entry<WORDS>)> {
        let mut places = self.tags.places(Tag::of(hash));
        places.find_map(|place| Some((place, self.read(place, wanted)?)))
    }

    #[inline(always)]
    fn read<const WANTED: usize>(
        self,
        place: usize,
        wanted: [u64; WANTED],
    ) -> Option<Entry<WORDS>> {
        self.seats.get(place)?.read(wanted)
    }

    /// A place which a key with this hash had to leave, or, if it sits nowhere, where nobody has ever
    /// sat: any other is not worth a look at the seat itself.
    fn vacant(self, hash: u64) -> Option<usize> {
        let mut own = self.tags.places(Tag::of(hash)).peekable();
        if own.peek().is_none() {
            return places(hash).find(|&place| self.tags.is_new(place));
        }
        own.find(|&place| self.seats.get(place).is_some_and(Seat::is_empty))
    }

    /// A place of which nobody has asked for who sits there for a while.
    fn free(self, hash: u64) -> Option<usize> {
        places(hash).find(|&place| !self.tags.forget_touch(place))
    }
}

/// The places of a row, as a key with this hash takes them.
fn places(hash: u64) -> impl Iterator<Item = usize> {
    (0..SIDE_BY_SIDE).map(move |n| favourite(hash) ^ n)
}

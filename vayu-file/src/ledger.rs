//! How much is in a directory, as far as this process knows.

use std::time::{Duration, Instant};

use vayu_core::Timestamp;

use crate::layout::SHARDS;

/// A few numbers for each shard, however many entries there are.
#[derive(Debug)]
pub(crate) struct Ledger {
    shards: [Shard; SHARDS],
    max_entries: u64,
    max_bytes: u64,
    /// When the next sweep may begin that no limit asks for.
    rested: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Shard {
    /// When it was last looked at; before that the numbers are zero.
    seen: Option<Instant>,
    content: Content,
}

/// What a shard holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) entries: u64,
    /// In whole blocks, as [`charge`] counts.
    pub(crate) bytes: u64,
    /// When the oldest entry was written, or earlier.
    pub(crate) oldest: Timestamp,
    /// When the first entry may be forgotten, or earlier.
    pub(crate) due: Timestamp,
}

/// Where to look for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// At a shard of which nothing is known.
    Unseen(usize),
    /// In the shard with the oldest entry.
    Oldest(usize),
}

/// How long a look at a shard is good for: then other processes may have changed it.
const TRUST: Duration = Duration::from_secs(60 * 60);

/// How many times longer than a sweep the rest after it is.
const REST: u32 = 8;

/// File systems keep files in blocks of this many bytes.
const BLOCK: u64 = 4096;

/// What a file of this length takes of the limit.
pub(crate) fn charge(length: u64) -> u64 {
    length.div_ceil(BLOCK).max(1).saturating_mul(BLOCK)
}

impl Content {
    pub(crate) const EMPTY: Self =
        Self { entries: 0, bytes: 0, oldest: Timestamp::NEVER, due: Timestamp::NEVER };

    /// There is one more entry.
    pub(crate) fn add(&mut self, length: u64, created: Timestamp, end: Timestamp) {
        self.entries += 1;
        self.bytes += charge(length);
        self.oldest = self.oldest.min(created);
        self.due = self.due.min(end);
    }

    /// There is one entry less.
    pub(crate) fn subtract(&mut self, length: u64) {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(charge(length));
    }
}

impl Ledger {
    pub(crate) fn new(max_entries: u64, max_bytes: u64, is_known_to_be_empty: bool) -> Self {
        let seen = is_known_to_be_empty.then(Instant::now);
        let shard = Shard { seen, content: Content::EMPTY };
        Self { shards: [shard; SHARDS], max_entries, max_bytes, rested: None }
    }

    /// Changes what is known of a shard, if anything is.
    pub(crate) fn update(&mut self, shard: usize, update: impl FnOnce(&mut Content)) {
        let shard = &mut self.shards[shard];
        if shard.seen.is_some() {
            update(&mut shard.content);
        }
    }

    /// The shard was looked at, or could not be: then what was known stays.
    pub(crate) fn record(&mut self, shard: usize, content: Option<Content>) {
        let shard = &mut self.shards[shard];
        shard.seen = Some(Instant::now());
        shard.content = content.unwrap_or(shard.content);
    }

    /// Everything is gone.
    pub(crate) fn clear(&mut self) {
        for shard in &mut self.shards {
            *shard = Shard { seen: Some(Instant::now()), content: Content::EMPTY };
        }
    }

    /// A sweep that no limit asked for took this long.
    pub(crate) fn rest(&mut self, after: Duration) {
        self.rested = Some(Instant::now() + after * REST);
    }

    pub(crate) fn is_rested(&self) -> bool {
        self.rested.is_none_or(|rested| Instant::now() >= rested)
    }

    pub(crate) fn entries(&self) -> u64 {
        self.shards.iter().map(|shard| shard.content.entries).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.content.bytes).sum()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.entries() > self.max_entries || self.bytes() > self.max_bytes
    }

    /// Where to look for room: at a shard that was never looked at, or in the one with the oldest
    /// entry.
    pub(crate) fn victim(&self) -> Victim {
        if let Some(unseen) = self.unseen() {
            return Victim::Unseen(unseen);
        }
        let oldest = (0..SHARDS).min_by_key(|&index| self.shards[index].content.oldest);
        Victim::Oldest(oldest.unwrap_or(0))
    }

    /// A shard that should be looked at: nobody has for a while, or an entry may be forgotten.
    pub(crate) fn neglected(&self, now: Timestamp) -> Option<usize> {
        let instant = Instant::now();
        (0..SHARDS).find(|&index| {
            let Shard { seen, content } = &self.shards[index];
            let is_forgotten = |seen| instant.saturating_duration_since(seen) >= TRUST;
            content.due <= now || seen.is_none_or(is_forgotten)
        })
    }

    /// A shard that nobody has looked at.
    pub(crate) fn unseen(&self) -> Option<usize> {
        (0..SHARDS).find(|&index| self.shards[index].seen.is_none())
    }
}

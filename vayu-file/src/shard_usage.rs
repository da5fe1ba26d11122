//! How much is in a directory, as far as is known.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime};

use vayu_core::Timestamp;

use crate::counts::Counts;
use crate::layout::SHARDS;

/// A few numbers for each shard, however many entries there are.
pub(crate) struct Ledger {
    shards: [Shard; SHARDS],
    /// The counts that were taken over last, as they were read.
    merged: Vec<u8>,
    max_entries: u64,
    max_bytes: u64,
    /// When the next sweep may begin that no limit asks for.
    rested: Option<Instant>,
    /// The shard that is looked at next when there is nothing to choose by. Each process begins at
    /// another one.
    next: usize,
}

/// Seconds since 1970 by the clock of the system, which all processes have.
pub(crate) type Seconds = u32;

/// What is known of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shard {
    /// When it was last looked through; before that the numbers are zero.
    pub(crate) seen: Option<Seconds>,
    pub(crate) content: Content,
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

/// How much is to go to keep the limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// How long a look at a shard is good for: then others may have changed it without a record.
const TRUST: Seconds = 60 * 60;

/// How many times longer than a sweep the rest after it is.
const REST: u32 = 8;

/// File systems keep files in blocks of this many bytes.
pub(crate) const BLOCK: u64 = 4096;

/// What a file of this length takes of the limit.
pub(crate) fn charge(length: u64) -> u64 {
    length.div_ceil(BLOCK).max(1).saturating_mul(BLOCK)
}

pub(crate) fn seconds() -> Seconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Seconds::try_from(since.as_secs()).unwrap_or(Seconds::MAX)
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

    /// Adds what was written since the content was `before`.
    fn add_since(&mut self, before: &Self, now: &Self) {
        self.entries += now.entries.saturating_sub(before.entries);
        self.bytes += now.bytes.saturating_sub(before.bytes);
        if now.entries > before.entries {
            self.oldest = self.oldest.min(now.oldest);
            self.due = self.due.min(now.due);
        }
    }
}

impl Ledger {
    pub(crate) fn new(max_entries: u64, max_bytes: u64, is_known_to_be_empty: bool) -> Self {
        let seen = is_known_to_be_empty.then(seconds);
        let shard = Shard { seen, content: Content::EMPTY };
        let random = RandomState::new().hash_one(0_u8) % SHARDS as u64;
        let next = usize::try_from(random).unwrap_or(0);
        Self {
            shards: [shard; SHARDS],
            merged: Vec::new(),
            max_entries,
            max_bytes,
            rested: None,
            next,
        }
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter()
    }

    pub(crate) fn shard(&self, index: usize) -> &Shard {
        &self.shards[index]
    }

    /// Takes over what other processes have learnt.
    pub(crate) fn merge(&mut self, counts: &Counts) {
        let Self { shards, merged, .. } = self;
        counts.changes(merged, |index, shard| shards[index] = shard);
    }

    /// Changes what is known of a shard, if anything is.
    pub(crate) fn update(&mut self, shard: usize, update: impl FnOnce(&mut Content)) {
        let shard = &mut self.shards[shard];
        if shard.seen.is_some() {
            update(&mut shard.content);
        }
    }

    /// The shard was looked through, or could not be: then what was known stays. What was known
    /// before the look tells what was written in the meantime.
    pub(crate) fn record(&mut self, shard: usize, before: &Shard, content: Option<Content>) {
        let shard = &mut self.shards[shard];
        if let Some(mut content) = content {
            if before.seen.is_some() {
                content.add_since(&before.content, &shard.content);
            }
            shard.content = content;
        }
        shard.seen = Some(seconds());
    }

    /// Everything is gone.
    pub(crate) fn clear(&mut self) {
        self.shards = [Shard { seen: Some(seconds()), content: Content::EMPTY }; SHARDS];
    }

    /// A sweep that no limit asked for took this long.
    pub(crate) fn rest(&mut self, after: Duration) {
        self.rested = Some(Instant::now() + after * REST);
    }

    pub(crate) fn is_rested(&self) -> bool {
        self.rested.is_none_or(|rested| Instant::now() >= rested)
    }

    /// Whether every shard was looked through.
    pub(crate) fn is_complete(&self) -> bool {
        self.shards.iter().all(|shard| shard.seen.is_some())
    }

    pub(crate) fn entries(&self) -> u64 {
        self.shards.iter().map(|shard| shard.content.entries).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.content.bytes).sum()
    }

    /// How much is beyond the limits, if anything is.
    pub(crate) fn excess(&self) -> Option<Excess> {
        let excess = Excess {
            entries: self.entries().saturating_sub(self.max_entries),
            bytes: self.bytes().saturating_sub(self.max_bytes),
        };
        (excess != Excess::default()).then_some(excess)
    }

    /// Where to look for room: the shard with the oldest entry, of those that may be taken.
    pub(crate) fn victim(&self, may_be_taken: impl Fn(usize) -> bool) -> Option<usize> {
        let shards = (0..SHARDS).filter(|&index| self.shards[index].content.entries > 0);
        shards
            .filter(|&index| may_be_taken(index))
            .min_by_key(|&index| self.shards[index].content.oldest)
    }

    /// A shard that should be looked through: that was not done for a while, or an entry may be
    /// forgotten.
    pub(crate) fn neglected(&mut self, now: Timestamp) -> Option<usize> {
        let second = seconds();
        let found = (0..SHARDS).map(|index| (self.next + index) % SHARDS).find(|&index| {
            let Shard { seen, content } = &self.shards[index];
            // A clock that was set back must not keep everybody from looking.
            content.due <= now || seen.is_none_or(|seen| second.abs_diff(seen) >= TRUST)
        })?;
        self.next = (found + 1) % SHARDS;
        Some(found)
    }
}

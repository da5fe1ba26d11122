//! The usage of a directory: a record of a few numbers for each shard, however many entries there are.
//!
//! The records replace an index. The sums say whether a limit is exceeded, the oldest entry which shard
//! to evict from, and the next expiry which shard to sweep.

use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::time::{Duration, Instant, SystemTime};

use vayu_core::Timestamp;

use crate::layout::SHARDS;

/// The records of all shards, and the limits.
pub(crate) struct ShardUsage {
    shards: [ShardState; SHARDS],
    /// The bytes of the shared file at the last merge.
    last_counts: Vec<u8>,
    max_entries: u64,
    max_bytes: u64,
    /// The earliest time of the next maintenance.
    next_maintenance: Option<Instant>,
    /// The shard at which the next search for a due shard starts. Each process begins at a random one.
    next: usize,
}

/// Seconds since 1970 by the system clock, which all processes share.
pub(crate) type Seconds = u32;

/// The record of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardState {
    /// The time of the last count. `None` before the first; the numbers are zero then.
    pub(crate) counted_at: Option<Seconds>,
    pub(crate) content: ShardContent,
}

/// The content of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShardContent {
    pub(crate) entries: u64,
    /// The sum of [`disk_size`] of all entries.
    pub(crate) bytes: u64,
    /// A lower bound of the time at which the oldest entry was written.
    pub(crate) oldest: Timestamp,
    /// A lower bound of the time at which the first entry can be removed.
    pub(crate) next_expiry: Timestamp,
}

/// The amount by which the limits are exceeded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// A shard is counted again after this time, since other processes may have changed it without
/// updating its record.
const RECOUNT_INTERVAL: Seconds = 60 * 60;

/// The pause after maintenance, as a multiple of its duration.
const COOLDOWN_FACTOR: u32 = 8;

/// The block size of file systems in bytes.
pub(crate) const BLOCK: u64 = 4096;

/// Returns the disk space of a file of this length, in whole blocks.
pub(crate) fn disk_size(length: u64) -> u64 {
    length.div_ceil(BLOCK).max(1).saturating_mul(BLOCK)
}

fn seconds() -> Seconds {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Seconds::try_from(since.as_secs()).unwrap_or(Seconds::MAX)
}

impl ShardContent {
    pub(crate) const EMPTY: Self =
        Self { entries: 0, bytes: 0, oldest: Timestamp::NEVER, next_expiry: Timestamp::NEVER };

    /// Adds an entry.
    pub(crate) fn add(&mut self, length: u64, created: Timestamp, expires: Timestamp) {
        self.entries += 1;
        self.bytes += disk_size(length);
        self.oldest = self.oldest.min(created);
        self.next_expiry = self.next_expiry.min(expires);
    }

    /// Subtracts an entry.
    pub(crate) fn subtract(&mut self, length: u64) {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(disk_size(length));
    }

    /// Adds the difference between two records: the entries that were written during a count.
    fn add_difference(&mut self, before: &Self, after: &Self) {
        self.entries += after.entries.saturating_sub(before.entries);
        self.bytes += after.bytes.saturating_sub(before.bytes);
        if after.entries > before.entries {
            self.oldest = self.oldest.min(after.oldest);
            self.next_expiry = self.next_expiry.min(after.next_expiry);
        }
    }
}

impl ShardUsage {
    /// Creates the records of a directory: all zero if it is new, otherwise all uncounted.
    pub(crate) fn new(max_entries: u64, max_bytes: u64, is_new: bool) -> Self {
        let counted_at = is_new.then(seconds);
        let shard = ShardState { counted_at, content: ShardContent::EMPTY };
        let random = RandomState::new().hash_one(0_u8) % SHARDS as u64;
        let next = usize::try_from(random).unwrap_or(0);
        Self {
            shards: [shard; SHARDS],
            last_counts: Vec::new(),
            max_entries,
            max_bytes,
            next_maintenance: None,
            next,
        }
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = &ShardState> {
        self.shards.iter()
    }

    pub(crate) fn shard(&self, index: usize) -> &ShardState {
        &self.shards[index]
    }

    pub(crate) fn set_shard(&mut self, index: usize, shard: ShardState) {
        self.shards[index] = shard;
    }

    /// Stores the bytes of the shared file, and returns those of the last merge.
    pub(crate) fn replace_last_counts(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        mem::replace(&mut self.last_counts, bytes)
    }

    /// Updates the record of a shard, if it was counted.
    pub(crate) fn update(&mut self, shard: usize, update: impl FnOnce(&mut ShardContent)) {
        let shard = &mut self.shards[shard];
        if shard.counted_at.is_some() {
            update(&mut shard.content);
        }
    }

    /// Stores the result of counting a shard, or `None` after a failure, which keeps the record.
    /// `before` is the record at the start of the count; later writes are added to the result.
    pub(crate) fn record_count(
        &mut self,
        shard: usize,
        before: &ShardState,
        content: Option<ShardContent>,
    ) {
        let shard = &mut self.shards[shard];
        if let Some(mut content) = content {
            if before.counted_at.is_some() {
                content.add_difference(&before.content, &shard.content);
            }
            shard.content = content;
        }
        shard.counted_at = Some(seconds());
    }

    /// Records that all shards are empty.
    pub(crate) fn clear(&mut self) {
        let shard = ShardState { counted_at: Some(seconds()), content: ShardContent::EMPTY };
        self.shards = [shard; SHARDS];
    }

    /// Starts the pause after maintenance that took this long.
    pub(crate) fn postpone_maintenance(&mut self, duration: Duration) {
        self.next_maintenance = Some(Instant::now() + duration * COOLDOWN_FACTOR);
    }

    pub(crate) fn is_maintenance_due(&self) -> bool {
        self.next_maintenance.is_none_or(|next| Instant::now() >= next)
    }

    /// Returns whether every shard was counted.
    pub(crate) fn is_complete(&self) -> bool {
        self.shards.iter().all(|shard| shard.counted_at.is_some())
    }

    pub(crate) fn entries(&self) -> u64 {
        self.shards.iter().map(|shard| shard.content.entries).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.content.bytes).sum()
    }

    /// Returns by how much the limits are exceeded. `None` if they hold.
    pub(crate) fn excess(&self) -> Option<Excess> {
        let excess = Excess {
            entries: self.entries().saturating_sub(self.max_entries),
            bytes: self.bytes().saturating_sub(self.max_bytes),
        };
        (excess != Excess::default()).then_some(excess)
    }

    /// Returns the shard to evict from: the one with the oldest entry among those that `is_eligible`.
    pub(crate) fn victim(&self, is_eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let shards = (0..SHARDS).filter(|&index| self.shards[index].content.entries > 0);
        shards
            .filter(|&index| is_eligible(index))
            .min_by_key(|&index| self.shards[index].content.oldest)
    }

    /// Returns a shard that has expired entries, or was not counted within [`RECOUNT_INTERVAL`].
    pub(crate) fn next_due(&mut self, now: Timestamp) -> Option<usize> {
        let second = seconds();
        let found = (0..SHARDS).map(|index| (self.next + index) % SHARDS).find(|&index| {
            let ShardState { counted_at, content } = &self.shards[index];
            // `abs_diff`: a clock that was set back must not stop the counting.
            let is_outdated = |at: Seconds| second.abs_diff(at) >= RECOUNT_INTERVAL;
            content.next_expiry <= now || counted_at.is_none_or(is_outdated)
        })?;
        self.next = (found + 1) % SHARDS;
        Some(found)
    }
}

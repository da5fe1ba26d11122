//! Expiry and eviction: which shard is swept, and when.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use vayu_core::{Result, Usage};

use super::Store;
use crate::errno::is_absence;
use crate::layout::SHARDS;
use crate::offload::{CancelFlag, cancelled};
use crate::shard_usage::{BLOCK, Excess};
use crate::sweep::{Eviction, Sweep, Swept};

/// The time that a write spends on maintenance at most, and the number of shards that it sweeps.
const MAINTENANCE_TIME: Duration = Duration::from_millis(1);
const MAINTENANCE_SHARDS: usize = 8;

/// The number of entries that a sweep inspects in one shard at most. A write inspects this many to
/// enforce the limits, plus those that it needs to free as much as it has written.
const MAX_INSPECTED: usize = 1024;

/// The cost of listing a shard, as a number of inspected entries.
const SHARD_COST: usize = 4;

impl Store {
    /// Sweeps all shards, and returns the updated usage.
    pub(crate) fn sweep_all(&self, cancel: &CancelFlag) -> Result<Usage> {
        let mut result = Ok(());
        for shard in 0..SHARDS {
            if cancel.is_set() {
                return Err(cancelled());
            }
            // `None`: another thread is sweeping the shard.
            if let Some(Err(error)) = self.sweep(shard, None, usize::MAX)
                && !is_absence(&error)
            {
                result = result.and(Err(self.outages.error("sweep cache directory", error)));
            }
        }
        result.map(|()| self.usage())
    }

    /// Sweeps a few shards in which entries have expired, or which were not counted recently.
    pub(super) fn maintain(&self) {
        let started = Instant::now();
        let mut swept = 0;
        while started.elapsed() < MAINTENANCE_TIME && swept < MAINTENANCE_SHARDS {
            let now = self.now();
            let due = {
                let mut usage = self.shard_usage();
                if swept > 0 || usage.is_maintenance_due() { usage.next_due(now) } else { None }
            };
            let Some(shard) = due else { break };
            self.sweep(shard, None, MAX_INSPECTED);
            swept += 1;
        }
        if swept > 0 {
            self.shard_usage().postpone_maintenance(started.elapsed());
        }
    }

    /// Evicts entries until the limits hold, or this write has done its share of the work.
    pub(super) fn enforce_limits(&self, written: u64) {
        let blocks = usize::try_from(written / BLOCK).unwrap_or(usize::MAX);
        let budget = blocks.saturating_mul(SHARD_COST + 1).saturating_add(MAX_INSPECTED);
        let mut spent = 0;
        let mut is_exhausted = [false; SHARDS];
        while spent < budget {
            let (excess, victim) = {
                let usage = self.shard_usage();
                let Some(excess) = usage.excess() else { return };
                let is_free = |shard: usize| {
                    !is_exhausted[shard] && !self.sweep_locks[shard].load(Ordering::Relaxed)
                };
                (excess, usage.victim(is_free))
            };
            let Some(shard) = victim else { return };
            let swept = self.sweep(shard, Some(self.eviction(excess)), MAX_INSPECTED);
            spent += SHARD_COST;
            match swept {
                Some(Ok(swept)) if swept.has_freed_space() => {
                    spent += swept.inspected;
                    self.log_eviction(swept.evicted);
                }
                Some(Ok(swept)) => {
                    spent += swept.inspected;
                    is_exhausted[shard] = true;
                }
                // Otherwise it would be the victim again.
                Some(Err(_)) | None => is_exhausted[shard] = true,
            }
        }
    }

    /// Returns what to evict from a shard: down to half of its share of the limits.
    fn eviction(&self, excess: Excess) -> Eviction {
        let half = 2 * SHARDS as u64;
        let (keep_entries, keep_bytes) = (self.max_entries / half, self.max_bytes / half);
        Eviction { excess, keep_entries, keep_bytes }
    }

    #[cold]
    fn log_eviction(&self, evicted: u64) {
        if evicted > 0 && !self.logged_eviction.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "vayu",
                max_bytes = self.max_bytes,
                max_entries = self.max_entries,
                "cache directory is full, evicting oldest entries",
            );
        }
    }

    /// Evicts some of the oldest entries because the disk is full. Returns whether there were any.
    pub(crate) fn free_space(&self) -> bool {
        let mut is_exhausted = [false; SHARDS];
        for _ in 0..SHARDS {
            let victim = {
                let usage = self.shard_usage();
                let victim = usage.victim(|shard| !is_exhausted[shard]);
                // A shard that was never counted may contain entries.
                victim.or_else(|| (0..SHARDS).find(|&shard| !is_exhausted[shard]))
            };
            let Some(shard) = victim else { return false };
            let eviction = self.eviction(Excess::default());
            let swept = self.sweep(shard, Some(eviction), MAX_INSPECTED);
            if let Some(Ok(swept)) = swept
                && swept.has_freed_space()
            {
                return true;
            }
            is_exhausted[shard] = true;
        }
        false
    }

    /// Sweeps a shard. `None` if another thread is sweeping it.
    fn sweep(
        &self,
        shard: usize,
        eviction: Option<Eviction>,
        max_inspected: usize,
    ) -> Option<io::Result<Swept>> {
        let guard = SweepGuard::try_new(&self.sweep_locks[shard])?;
        let before = *self.shard_usage().shard(shard);
        let is_reported = !self.ends.is_empty();
        let sweep = Sweep { now: self.now(), eviction, max_inspected, is_reported };
        let mut result = self.open_files.with_fd_retry(|| sweep.run(&*self.root, shard));
        self.sweeps.fetch_add(1, Ordering::Relaxed);
        let content = result.as_ref().ok().map(|swept| swept.content);
        self.update_counts(shard, |usage| usage.record_count(shard, &before, content));
        drop(guard);
        if let Ok(swept) = &mut result {
            self.report(swept.ended.take().unwrap_or_default());
            if swept.has_freed_space() {
                self.open_files.close_shard(shard);
            }
            self.evictions.fetch_add(swept.evicted, Ordering::Relaxed);
            self.expirations.fetch_add(swept.expired, Ordering::Relaxed);
            self.corrupt_entries.fetch_add(swept.corrupt, Ordering::Relaxed);
        }
        Some(result)
    }
}

/// The lock of a shard for sweeping.
struct SweepGuard<'a>(&'a AtomicBool);

impl<'a> SweepGuard<'a> {
    fn try_new(lock: &'a AtomicBool) -> Option<Self> {
        (!lock.swap(true, Ordering::Acquire)).then_some(Self(lock))
    }
}

impl Drop for SweepGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

//! The generations of the tier below. The cache keeps those that were fetched; what is here says for how
//! long they are valid.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use vayu_core::{Backend, ChangeCount, Generations, Group, Result};

use crate::backend::{Inner, TieredBackend};

/// What is known of changes of generations.
#[derive(Debug)]
pub(crate) struct Changes {
    count: AtomicU64,
    /// Whether a generation could not be read the last time.
    is_offline: AtomicBool,
    /// The generation of all groups while none can be read: what is computed then is found again in
    /// this process, until they can be read.
    offline: AtomicU64,
}

impl Changes {
    pub(crate) fn new() -> Self {
        Self {
            count: AtomicU64::new(0),
            is_offline: AtomicBool::new(false),
            offline: AtomicU64::new(random()),
        }
    }

    /// Any generation may have changed.
    pub(crate) fn advance(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
    }

    /// What was computed while generations could not be read is not found any more.
    fn rotate_offline(&self) {
        self.offline.store(random(), Ordering::Release);
    }

    /// Returns the generation of a group that could not be read.
    pub(crate) fn offline_generation(&self, group: Group) -> u64 {
        self.is_offline.store(true, Ordering::Release);
        self.offline.load(Ordering::Acquire) ^ group.number()
    }

    fn note<T>(&self, result: &Result<T>) {
        if result.is_ok() && self.is_offline.swap(false, Ordering::AcqRel) {
            self.rotate_offline();
        }
    }
}

fn random() -> u64 {
    RandomState::new().hash_one(std::process::id()) | 1
}

/// A renewal that is under way. The generations of before are not valid any more, whether its caller
/// stays until the end or not.
struct Renewal<'a, F> {
    inner: &'a Inner<F>,
    is_done: bool,
}

impl<'a, F> Renewal<'a, F> {
    fn begin(inner: &'a Inner<F>) -> Self {
        inner.changes.advance();
        Self { inner, is_done: false }
    }

    fn end(mut self, result: Result<()>) -> Result<()> {
        self.is_done = result.is_ok();
        result
    }
}

impl<F> Drop for Renewal<'_, F> {
    /// Where it is not known whether the group was renewed, memory alone gives up all that it has.
    fn drop(&mut self) {
        self.inner.changes.advance();
        if !self.is_done {
            self.inner.changes.rotate_offline();
            self.inner.revisions.advance_all();
        }
    }
}

/// Only of a tier below that has generations: without them the cache keeps its own.
#[async_trait]
impl<F: Backend<Stored = Bytes>> Generations for TieredBackend<F> {
    fn generation(&self, group: Group) -> Result<u64> {
        let Some(below) = self.backing().sharing().generations else { return Ok(0) };
        let result = below.generation(group);
        self.shared().changes.note(&result);
        result
    }

    fn bump(&self, group: Group) -> Result<()> {
        let Some(below) = self.backing().sharing().generations else { return Ok(()) };
        let renewal = Renewal::begin(self.shared());
        let result = below.bump(group);
        renewal.end(result)
    }

    #[inline]
    fn change_count(&self) -> Option<ChangeCount> {
        // In this order: to ask may be to notice that changes were missed.
        let is_connected = self.hears();
        let count = self.shared().changes.count.load(Ordering::Acquire);
        Some(ChangeCount { count, is_connected })
    }

    async fn generation_async(&self, group: Group) -> Result<u64> {
        let Some(below) = self.backing().sharing().generations else { return Ok(0) };
        let result = below.generation_async(group).await;
        self.shared().changes.note(&result);
        result
    }

    async fn bump_async(&self, group: Group) -> Result<()> {
        let Some(below) = self.backing().sharing().generations else { return Ok(()) };
        let renewal = Renewal::begin(self.shared());
        let result = below.bump_async(group).await;
        renewal.end(result)
    }
}

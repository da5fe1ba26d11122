//! The generations of the tier below, as memory knows them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use vayu_core::{Backend, ErrorKind, Generations, Group, Result};

use crate::backend::TieredBackend;

/// What was asked for, until somebody says that something was renewed.
#[derive(Debug)]
pub(crate) struct Known {
    generations: RwLock<HashMap<Group, u64>>,
    /// How often something has become unknown.
    revision: AtomicU64,
    /// The generation of all groups while nobody can be asked: what is computed then is found again
    /// in this process, until somebody can be asked.
    island: AtomicU64,
}

/// Groups that are remembered. Past that all are asked for again.
const REMEMBERED: usize = 65_536;

impl Known {
    pub(crate) fn new() -> Self {
        Self {
            generations: RwLock::default(),
            revision: AtomicU64::new(0),
            island: AtomicU64::new(random()),
        }
    }

    pub(crate) fn forget(&self) {
        let mut generations = self.write();
        generations.clear();
        self.revision.fetch_add(1, Ordering::AcqRel);
    }

    /// What is computed while nobody can be asked is not found any more.
    pub(crate) fn leave_island(&self) {
        self.island.store(random(), Ordering::Release);
    }

    fn get(&self, group: Group) -> Option<u64> {
        self.read().get(&group).copied()
    }

    fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Remembers a generation that was asked for at a revision, if nothing was renewed since.
    fn learn(&self, group: Group, generation: u64, at: u64) {
        let mut generations = self.write();
        if self.revision() != at {
            return;
        }
        if generations.len() >= REMEMBERED {
            generations.clear();
        }
        generations.insert(group, generation);
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Group, u64>> {
        self.generations.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Group, u64>> {
        self.generations.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) | 1
}

impl<F: Backend> TieredBackend<F> {
    /// What came of asking for a generation at a revision. Memory goes on where nobody can be asked. A
    /// timeout is handed on, so that the call does not wait again.
    fn asked(&self, group: Group, answer: Result<u64>, at: u64) -> Result<u64> {
        let known = &self.shared().known;
        match answer {
            Ok(generation) => {
                if self.far().news().is_some() {
                    known.learn(group, generation, at);
                }
                if self.shared().was_cut_off.swap(false, Ordering::AcqRel) {
                    known.leave_island();
                }
                Ok(generation)
            }
            Err(error) => {
                self.shared().was_cut_off.store(true, Ordering::Release);
                if error.kind() == ErrorKind::Timeout {
                    return Err(error);
                }
                Ok(self.offline_generation(group))
            }
        }
    }

    /// Returns what stands in for a generation that cannot be asked for.
    pub(crate) fn offline_generation(&self, group: Group) -> u64 {
        let known = &self.shared().known;
        known.get(group).unwrap_or_else(|| known.island.load(Ordering::Acquire) ^ group.number())
    }
}

/// Only of a tier below that has generations: without them the cache keeps its own.
#[async_trait]
impl<F: Backend> Generations for TieredBackend<F> {
    fn generation(&self, group: Group) -> Result<u64> {
        let at = self.shared().known.revision();
        let Some(below) = self.far().generations() else { return Ok(0) };
        self.asked(group, below.generation(group), at)
    }

    fn renew(&self, group: Group) -> Result<()> {
        let Some(below) = self.far().generations() else { return Ok(()) };
        let result = below.renew(group);
        self.renewed(result.is_ok());
        result
    }

    fn known(&self, group: Group) -> Option<u64> {
        if self.hears() { self.shared().known.get(group) } else { None }
    }

    #[inline]
    fn revision(&self) -> Option<u64> {
        self.hears().then(|| self.shared().known.revision())
    }

    async fn generation_async(&self, group: Group) -> Result<u64> {
        let at = self.shared().known.revision();
        let Some(below) = self.far().generations() else { return Ok(0) };
        self.asked(group, below.generation_async(group).await, at)
    }

    async fn renew_async(&self, group: Group) -> Result<()> {
        let Some(below) = self.far().generations() else { return Ok(()) };
        let result = below.renew_async(group).await;
        self.renewed(result.is_ok());
        result
    }
}

impl<F: Backend> TieredBackend<F> {
    /// A group was renewed, or should have been: then memory alone forgets all it has.
    fn renewed(&self, is_done: bool) {
        self.shared().known.forget();
        if !is_done {
            self.shared().known.leave_island();
            self.shared().revisions.advance_all();
        }
    }
}

//! The simplest correct backend.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use crate::backend::{Backend, Capabilities, Clear, ReportEnds, ReportUsage, Usage};
use crate::clock::{Clock, SystemClock};
use crate::error::Result;
use crate::generation::{ChangeCount, Generations, Group};
use crate::key::{BuildKeyHasher, Key};
use crate::observer::{EndCause, EndListener, EndListeners};
use crate::record::Record;
use crate::sync::IgnorePoison;

/// A map behind a mutex, without a limit. It stores bytes, or values of another type `V`, and the
/// generations of groups. Clones share both.
#[derive(Clone)]
pub struct MapBackend<V = Bytes> {
    records: Arc<Mutex<Records<V>>>,
    generations: Arc<MapGenerations>,
    ends: Arc<EndListeners>,
    clock: Arc<dyn Clock>,
}

type Records<V> = HashMap<Key, Record<V>, BuildKeyHasher>;

/// Generations in a map, and the number of times that one was bumped.
#[derive(Debug, Default)]
struct MapGenerations {
    of: Mutex<HashMap<Group, u64>>,
    bumps: AtomicU64,
}

impl MapGenerations {
    fn of(&self) -> MutexGuard<'_, HashMap<Group, u64>> {
        self.of.lock().ignore_poison()
    }
}

impl Generations for MapGenerations {
    fn generation(&self, group: Group) -> Result<u64> {
        Ok(self.of().get(&group).copied().unwrap_or(0))
    }

    fn bump(&self, group: Group) -> Result<()> {
        let mut of = self.of();
        of.insert(group, self.bumps.load(Ordering::Relaxed) + 1);
        self.bumps.fetch_add(1, Ordering::Release);
        Ok(())
    }

    fn change_count(&self) -> Option<ChangeCount> {
        Some(ChangeCount { count: self.bumps.load(Ordering::Acquire), is_connected: true })
    }
}

impl<V> MapBackend<V> {
    /// Creates an empty map with this clock.
    pub fn with_clock(clock: impl Clock) -> Self {
        Self {
            records: Arc::default(),
            generations: Arc::default(),
            ends: Arc::default(),
            clock: Arc::new(clock),
        }
    }

    fn records(&self) -> MutexGuard<'_, Records<V>> {
        self.records.lock().ignore_poison()
    }
}

impl<V> Default for MapBackend<V> {
    fn default() -> Self {
        Self::with_clock(SystemClock)
    }
}

impl<V> fmt::Debug for MapBackend<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapBackend").field("entries", &self.records().len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl<V: Clone + Send + Sync + 'static> Backend for MapBackend<V> {
    type Stored = V;

    fn read(&self, key: &Key) -> Result<Option<Record<V>>> {
        Ok(self.records().get(key).cloned())
    }

    fn write(&self, key: &Key, record: Record<V>) -> Result<()> {
        let new = record.as_ref().map(|_| ());
        let replaced = self.records().insert(key.clone(), record);
        // Dropped here, after the lock: it may be a value of the user.
        if let Some(old) = replaced {
            self.ends.report(key.prefix().as_str(), EndCause::of_replaced(&old, &new));
        }
        Ok(())
    }

    fn delete(&self, key: &Key) -> Result<bool> {
        let removed = self.records().remove(key);
        if removed.is_some() {
            self.ends.report(key.prefix().as_str(), EndCause::Invalidated);
        }
        Ok(removed.is_some())
    }

    async fn read_async(&self, key: &Key) -> Result<Option<Record<V>>> {
        self.read(key)
    }

    async fn write_async(&self, key: &Key, record: Record<V>) -> Result<()> {
        self.write(key, record)
    }

    async fn delete_async(&self, key: &Key) -> Result<bool> {
        self.delete(key)
    }

    /// Returns the parts of a map. Its generations stay when it is cleared.
    fn capabilities(&self) -> Capabilities<'_, V> {
        let capabilities = Capabilities::none().with_generations(&*self.generations);
        capabilities.with_clear(self).with_usage(self).with_ends(self)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }
}

impl<V: Send + Sync> Clear for MapBackend<V> {
    fn clear(&self) -> Result<()> {
        let removed = std::mem::take(&mut *self.records());
        self.ends.report_all(removed.keys().map(|key| (key.prefix(), EndCause::Invalidated)));
        Ok(())
    }
}

impl<V: Send + Sync> ReportUsage for MapBackend<V> {
    fn usage(&self) -> Usage {
        Usage { entries: Some(self.records().len() as u64), ..Usage::default() }
    }
}

impl<V: Send + Sync> ReportEnds for MapBackend<V> {
    fn report_ends(&self, listener: EndListener) {
        self.ends.add(listener);
    }
}

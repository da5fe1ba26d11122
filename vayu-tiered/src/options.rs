//! The options of tiered caches.

use std::time::Duration;

use bytes::Bytes;
use vayu_core::{Backend, Cache};
use vayu_memory::MemoryOptions;

use crate::TieredCache;
use crate::backend::TieredBackend;
use crate::serializer::TieredSerializer;

/// The options of tiers.
///
/// # Examples
///
/// ```
/// use vayu_core::testing::MapBackend;
/// use vayu_core::{Cache, MessagePack};
/// use vayu_memory::MemoryOptions;
/// use vayu_tiered::TieredOptions;
///
/// let backing: Cache<MapBackend, MessagePack> = Cache::new();
/// let memory = MemoryOptions::new().max_entries(500);
/// let cache = TieredOptions::new().memory(memory).over(&backing);
/// # assert!(cache.stats().usage.max_entries.is_some_and(|max| max <= 500));
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct TieredOptions {
    memory: MemoryOptions,
    near_ttl: Option<Duration>,
}

impl TieredOptions {
    /// The default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// The options of memory. Its clock is that of the cache below. Where there is a limit by
    /// weight, what was found below and not yet asked for by its type weighs what the function
    /// answers for an unknown type.
    pub fn memory(mut self, memory: MemoryOptions) -> Self {
        self.memory = memory;
        self
    }

    /// Serves a copy from memory no longer than this after it was read below or written, whatever
    /// happens to the news of what others change, also while the tier below fails. Then it is read below
    /// again. The ttl of a value is not changed by this. Without this option a copy is served for the
    /// rest of its ttl, unless it is known that it was changed.
    ///
    /// So this bounds for how long a process that hears nothing of others serves what they have
    /// changed. With a time of zero memory serves nothing.
    pub fn near_ttl(mut self, near_ttl: Duration) -> Self {
        self.near_ttl = Some(near_ttl);
        self
    }

    /// Memory in front of this backend.
    pub fn backend<F: Backend<Stored = Bytes>>(self, backing: F) -> TieredBackend<F> {
        TieredBackend::with_near_ttl(self.memory, backing, self.near_ttl)
    }

    /// Memory in front of this cache.
    pub fn over<F, S>(self, backing: &Cache<F, S>) -> TieredCache<F, S>
    where
        F: Backend<Stored = Bytes> + Clone,
        S: Clone,
    {
        let backend = self.backend(backing.backend().clone());
        let cache: Cache<_, ()> = Cache::with_backend(backend);
        cache.with_serializer(TieredSerializer::new(backing.serializer().clone()))
    }
}

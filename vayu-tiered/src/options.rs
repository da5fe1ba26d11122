//! The options of tiered caches.

use std::time::Duration;

use vayu_memory::MemoryOptions;

/// The options of a tiered cache.
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
    pub(crate) memory: MemoryOptions,
    pub(crate) near_ttl: Option<Duration>,
}

impl TieredOptions {
    /// Creates the default options.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the options of memory. The clock is that of the backing tier. With a limit by weight, a value
    /// of the backing tier that was not decoded yet has the weight of a value of an unknown type.
    pub fn memory(mut self, memory: MemoryOptions) -> Self {
        self.memory = memory;
        self
    }

    /// Limits the time for which memory serves a copy after it was read from the backing tier or written.
    /// Then the backing tier is read again. This holds even if invalidations by other processes are lost,
    /// and while the backing tier fails. It does not change the ttl of a value. The default is the rest of
    /// the ttl, or until the copy is invalidated.
    ///
    /// A process that does not receive invalidations serves outdated values for this time at most. Zero
    /// disables memory.
    pub fn near_ttl(mut self, near_ttl: Duration) -> Self {
        self.near_ttl = Some(near_ttl);
        self
    }
}

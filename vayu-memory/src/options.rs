//! Options of caches in memory.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vayu_core::__internal::catch_panic;
use vayu_core::{AnyValue, Clock, Key, MonotonicClock, Result};

/// The largest part of a limit by weight that one value may take.
const HEAVIEST: f64 = 0.99;

/// The options of a cache in memory.
///
/// # Examples
///
/// ```
/// use vayu_memory::MemoryOptions;
///
/// let few = MemoryOptions::new().max_entries(500).build();
///
/// // Up to 64 MiB of strings, where all values are strings.
/// let strings = MemoryOptions::new()
///     .max_weight(64 << 20, |_key, value| {
///         value.downcast_ref::<String>().map_or(1, |string| string.len() as u32)
///     })
///     .build();
/// # assert!(few.stats().usage.max_entries.is_some_and(|max| max <= 500));
/// # assert_eq!(strings.stats().usage.max_weight, Some(64 << 20));
/// ```
#[derive(Clone)]
#[must_use]
pub struct MemoryOptions {
    pub(crate) max_entries: u64,
    pub(crate) weights: Option<WeightLimit>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A limit by weight.
#[derive(Clone)]
pub(crate) struct WeightLimit {
    pub(crate) max: u64,
    pub(crate) weigh: Arc<Weigh>,
    /// Values that were too heavy to be stored.
    pub(crate) rejections: Arc<AtomicU64>,
}

impl WeightLimit {
    /// Returns the weight of a value, or `None` if it is too heavy to be stored.
    ///
    /// # Errors
    ///
    /// When the function of the user panics.
    pub(crate) fn weigh(&self, key: &Key, value: &AnyValue) -> Result<Option<u32>> {
        let weight = catch_panic("write entry", || Ok((self.weigh)(key, value)))?.max(1);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part of a number"
        )]
        let heaviest = (self.max as f64 * HEAVIEST) as u64;
        if u64::from(weight) <= heaviest {
            return Ok(Some(weight));
        }
        if self.rejections.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                target: "vayu",
                weight,
                max_weight = self.max,
                "value is too heavy for its memory cache and is not stored"
            );
        }
        Ok(None)
    }
}

pub(crate) type Weigh = dyn Fn(&Key, &AnyValue) -> u32 + Send + Sync;

impl MemoryOptions {
    /// The default limit on entries.
    pub const DEFAULT_MAX_ENTRIES: u64 = 10_000;

    /// Creates the default options.
    pub fn new() -> Self {
        Self {
            max_entries: Self::DEFAULT_MAX_ENTRIES,
            weights: None,
            clock: Arc::new(MonotonicClock),
        }
    }

    /// Sets the maximum number of entries. The default is [`DEFAULT_MAX_ENTRIES`]; with zero nothing is
    /// stored.
    ///
    /// A cache of up to 1,024 entries evicts nothing before it is full. A higher limit is split evenly over a
    /// few shards, each of at least 256 entries, so such a cache may begin to evict a little before it is
    /// full.
    ///
    /// An entry takes about 95 bytes if its key is up to 16 bytes long and its value is a number, and up to
    /// 115 more otherwise, plus what the value allocates. Memory is allocated as the cache fills. The index of the keys grows
    /// eightfold at 16,384 entries, 131,072 and so on: one writer then moves all keys to the new one, which
    /// takes about 10 ms for 131,072, and other writers wait.
    ///
    /// [`DEFAULT_MAX_ENTRIES`]: Self::DEFAULT_MAX_ENTRIES
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.max_entries = entries;
        self
    }

    /// Sets the maximum weight of all entries, in the unit of what `weigh` returns for one. There is
    /// then no limit on the number of entries, and [`max_entries`](Self::max_entries) has no effect.
    ///
    /// `weigh` is called once for each value that is stored, and a weight of zero counts as one.
    /// A value of up to 99 % of the limit is stored, and others are evicted for it. A heavier one is
    /// returned to its caller and not stored; that is counted in
    /// [`Usage::rejections`](vayu_core::Usage::rejections) and logged the first time.
    ///
    /// The limit applies to the whole cache, which is therefore not split into shards: unlike with a
    /// limit on entries, concurrent writers contend for one lock.
    pub fn max_weight(
        mut self,
        max: u64,
        weigh: impl Fn(&Key, &AnyValue) -> u32 + Send + Sync + 'static,
    ) -> Self {
        self.weights =
            Some(WeightLimit { max, weigh: Arc::new(weigh), rejections: Arc::default() });
        self
    }

    /// Sets the clock. The default is [`MonotonicClock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryOptions")
            .field("max_entries", &self.max_entries)
            .field("max_weight", &self.weights.as_ref().map(|weights| weights.max))
            .field("clock", &self.clock)
            .finish()
    }
}

//! Statistics for each function.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use crate::backend::Usage;
use crate::error::Error;
use crate::observer::{CallEvent, EndCause, Observer};
use crate::outcome::CallOutcome;
use crate::stats::{Counters, Stats};
use crate::sync::IgnorePoison;

/// An [`Observer`] that counts for each function separately. Clones share their counts, and one may
/// observe several caches.
///
/// # Examples
///
/// ```
/// # #[cfg(all(feature = "testing", feature = "message-pack"))] {
/// # mod vayu { pub use vayu_core::*; pub mod telemetry { pub use vayu_core::*; } }
/// use std::time::Duration;
/// use vayu::telemetry::PerFunctionStats;
/// use vayu::testing::MapBackend;
/// use vayu::{Cache, Key, MessagePack};
///
/// let cache: Cache<MapBackend, MessagePack> = Cache::new();
/// let stats = PerFunctionStats::new();
/// cache.observe(stats.clone());
///
/// let key = Key::from_text("squares", "12");
/// for _ in 0..3 {
///     cache.get_or_insert_with(&key, Duration::from_secs(60), || 144);
/// }
/// let squares = &stats.functions()[0];
/// assert_eq!(squares.function, "squares");
/// assert_eq!((squares.stats.hits, squares.stats.misses), (2, 1));
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct PerFunctionStats(Arc<RwLock<HashMap<String, Arc<Counts>>>>);

/// The statistics of one function: see [`PerFunctionStats`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FunctionStats {
    /// The path of the function, or the string that is its prefix.
    pub function: String,
    /// Its counts. The usage and the computations in progress, which are those of a whole cache, are
    /// empty.
    pub stats: Stats,
    /// The entries of the function that have left the caches.
    pub ends: EndCounts,
    /// The total time that cached values and errors have saved, by the times that it took to compute them.
    pub time_saved: Duration,
}

/// The numbers of entries that have left a cache, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndCounts {
    /// Those of the cause [`EndCause::Evicted`].
    pub evicted: u64,
    /// Those of the cause [`EndCause::Expired`].
    pub expired: u64,
    /// Those of the cause [`EndCause::Replaced`].
    pub replaced: u64,
    /// Those of the cause [`EndCause::Invalidated`].
    pub invalidated: u64,
}

impl EndCounts {
    /// Returns the number of entries, whatever the cause.
    pub fn total(&self) -> u64 {
        self.evicted + self.expired + self.replaced + self.invalidated
    }
}

#[derive(Debug, Default)]
struct Counts {
    counters: Counters,
    /// By the position of the cause in [`EndCause`].
    ends: [AtomicU64; 4],
    saved_micros: AtomicU64,
}

/// The maximum number of functions that are counted separately.
const FUNCTIONS: usize = if cfg!(miri) { 16 } else { 4096 };

impl PerFunctionStats {
    /// The name under which the functions past the first 4,096 are counted together.
    pub const OTHERS: &str = "(others)";

    /// Creates empty statistics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the statistics of each function, ordered by name.
    pub fn functions(&self) -> Vec<FunctionStats> {
        let counts = self.0.read().ignore_poison().clone();
        let mut functions: Vec<_> = counts
            .into_iter()
            .map(|(function, counts)| FunctionStats {
                function,
                ends: counts.ends(),
                stats: counts.counters.snapshot(0, Usage::default()),
                time_saved: Duration::from_micros(counts.saved_micros.load(Ordering::Relaxed)),
            })
            .collect();
        functions.sort_unstable_by(|one, other| one.function.cmp(&other.function));
        functions
    }

    fn of(&self, function: &str) -> Arc<Counts> {
        let known = self.0.read().ignore_poison().get(function).cloned();
        known.unwrap_or_else(|| {
            let mut all = self.0.write().ignore_poison();
            let is_known = all.contains_key(function) || all.len() < FUNCTIONS;
            let name = if is_known { function } else { Self::OTHERS };
            Arc::clone(all.entry(name.to_owned()).or_default())
        })
    }
}

impl Counts {
    fn ends(&self) -> EndCounts {
        let of = |cause: EndCause| self.ends[cause as usize].load(Ordering::Relaxed);
        EndCounts {
            evicted: of(EndCause::Evicted),
            expired: of(EndCause::Expired),
            replaced: of(EndCause::Replaced),
            invalidated: of(EndCause::Invalidated),
        }
    }
}

impl Observer for PerFunctionStats {
    fn on_call(&self, call: &CallEvent<'_>) {
        let counts = self.of(call.function);
        counts.counters.call(call.outcome);
        if !matches!(call.outcome, CallOutcome::Miss | CallOutcome::Refresh) {
            let micros = u64::try_from(call.compute_time.as_micros()).unwrap_or(u64::MAX);
            counts.saved_micros.fetch_add(micros, Ordering::Relaxed);
        }
    }

    fn on_insert(&self, function: &str) {
        self.of(function).counters.insert();
    }

    fn on_end(&self, function: &str, cause: EndCause) {
        self.of(function).ends[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn on_error(&self, function: &str, error: &Error) {
        self.of(function).counters.error(error.kind());
    }

    fn on_refresh_error(&self, function: &str, _: Option<&str>) {
        self.of(function).counters.failed_refresh();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_functions_is_bounded() {
        let stats = PerFunctionStats::new();
        for n in 0..2 * FUNCTIONS {
            stats.on_insert(&n.to_string());
        }
        let functions = stats.functions();
        assert_eq!(functions.len(), FUNCTIONS + 1);
        let others =
            functions.iter().find(|f| f.function == PerFunctionStats::OTHERS).expect("others");
        assert_eq!(others.stats.inserts, FUNCTIONS as u64);
    }
}

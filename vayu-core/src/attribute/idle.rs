//! The time after which an entry that is not used expires: `idle = ..`.

use std::time::Duration;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::WithIdle;

/// A backend in memory, which keeps the time of the last use of an entry.
#[diagnostic::on_unimplemented(
    message = "`idle` needs a `MemoryCache`",
    label = "this cache does not keep the times of uses",
    note = "a `MemoryCache` keeps them, and `max_entries = ..` creates one for this function alone; in files, in Redis \
            and in tiers, where each use would be a write, entries expire by their `ttl`"
)]
pub trait TracksUses: Backend {}

/// Adds an idle time to a ttl.
#[inline]
pub fn idle<B: TracksUses, S, L>(_cache: &Cache<B, S>, ttl: L, idle: Duration) -> WithIdle<L> {
    WithIdle::new(ttl, idle)
}

//! Caches that are off: those that could not be opened, and those disabled by choice.

use std::sync::Arc;

use crate::backend::{AnyBackend, Backend, NoStorage, OpenBackend};
use crate::cache::engine::Inner;
use crate::cache::{Cache, Engine};
use crate::error::{Error, Result};

/// A backend that can replace one that could not be opened.
pub trait OffBackend: Backend + Sized {
    /// Creates a backend that stores nothing. A cache that is off does not call it.
    fn off() -> Self;
}

impl<B: OpenBackend + OffBackend, S: Default> Cache<B, S> {
    /// Opens the cache at a location, or returns one that is [`off`](Self::off) if that fails.
    /// For statics: `LazyLock::new(|| FileCache::open_or_off("reports"))`.
    pub fn open_or_off(place: impl Into<B::Location>) -> Self {
        Self::open(place).unwrap_or_else(Self::off)
    }
}

impl<B: OffBackend, S: Default> Cache<B, S> {
    /// Creates a cache that is off, since it could not be opened:
    /// `options.open(path).unwrap_or_else(FileCache::off)`.
    ///
    /// Every call runs its function; nothing is read or stored. The error is logged once as a
    /// warning, counts in [`Stats::errors`](crate::Stats::errors), and is in
    /// [`Stats::off`](crate::Stats::off) with its causes. What was stored before, and what other processes store,
    /// cannot be changed by this cache, so `remove`, `clear` and `invalidate_*` return an error of
    /// the same kind.
    pub fn off(why: Error) -> Self {
        tracing::warn!(
            target: "vayu",
            "a cache could not be opened and is off, calls run their function: {why:?}"
        );
        let mut inner = Inner::new(B::off());
        inner.counters.error(why.kind());
        inner.flags.begin_pause();
        inner.why_off = Some(why);
        Self::over(Arc::new(inner))
    }

    /// Creates a cache that is off by choice: every call runs its function. There is nothing that
    /// could be removed or invalidated, so these succeed.
    pub fn off_by_choice() -> Self {
        let inner = Inner::new(B::off());
        inner.flags.begin_pause();
        Self::over(Arc::new(inner))
    }
}

impl<B: Backend> Engine<B> {
    /// Returns an error if the cache is off, since stored entries cannot be changed.
    pub(super) fn check_on(&self) -> Result<()> {
        let Some(why) = &self.shared.why_off else { return Ok(()) };
        Err(Error::new(
            why.kind(),
            format!("the cache is off, since it could not be opened: {why:?}"),
        ))
    }
}

impl<V: Clone + Send + Sync + 'static> OffBackend for AnyBackend<V> {
    fn off() -> Self {
        Self::new(NoStorage::new("off"))
    }
}

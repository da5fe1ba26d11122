//! Pausing of one cache.

use std::fmt;
use std::sync::Arc;

use crate::backend::Backend;
use crate::cache::engine::{Engine, Inner};

/// A guard during whose lifetime its cache neither reads nor stores. See [`Cache::pause`](crate::Cache::pause).
#[must_use = "the pause ends when this is dropped"]
pub struct PauseGuard<B: Backend> {
    shared: Arc<Inner<B>>,
}

impl<B: Backend> PauseGuard<B> {
    pub(super) fn begin(engine: &Engine<B>) -> Self {
        let shared = Arc::clone(&engine.shared);
        shared.flags.begin_pause();
        Self { shared }
    }

    /// Ends this pause.
    pub fn resume(self) {
        drop(self);
    }
}

impl<B: Backend> Drop for PauseGuard<B> {
    fn drop(&mut self) {
        self.shared.flags.end_pause();
    }
}

impl<B: Backend> fmt::Debug for PauseGuard<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PauseGuard").finish_non_exhaustive()
    }
}

//! Switching a cache off for a while.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::backend::Backend;
use crate::cache::Inner;

/// While this lives, its cache neither reads nor stores. See [`Cache::pause`](crate::Cache::pause).
#[must_use = "the pause ends when this is dropped"]
pub struct Pause<B: Backend> {
    shared: Arc<Inner<B>>,
}

impl<B: Backend> Pause<B> {
    pub(super) fn begin(shared: Arc<Inner<B>>) -> Self {
        shared.pauses.fetch_add(1, Ordering::SeqCst);
        Self { shared }
    }

    /// Ends this pause.
    pub fn resume(self) {
        drop(self);
    }
}

impl<B: Backend> Drop for Pause<B> {
    fn drop(&mut self) {
        self.shared.pauses.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<B: Backend> fmt::Debug for Pause<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause").finish_non_exhaustive()
    }
}

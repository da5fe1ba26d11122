//! The value of a key, computed where there is none.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::{FixedTtl, PlainOutput, Policy, ResultOutput, blocking, future};
use crate::error::Result;
use crate::key::Key;
use crate::serializer::Serializer;

impl<B: Backend, S> Cache<B, S> {
    /// The value of a key: the one that is stored, or else what `compute` answers, which is then
    /// stored for `ttl`.
    ///
    /// Where the key is not that of the function whose entry it is meant for (see [`get`](Self::get)),
    /// `compute` runs each time, nothing is stored, and the error is counted and logged.
    ///
    /// # Panics
    ///
    /// When `compute` does, in the caller whose `compute` it was.
    pub fn get_or_insert_with<T>(&self, key: &Key, ttl: Duration, compute: impl FnOnce() -> T) -> T
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.is_refused::<T>(key) {
            return compute();
        }
        let policy = Policy::by_key(key, PlainOutput::new(), &self.serializer, FixedTtl::new(ttl));
        blocking::run(&self.engine, &policy, compute)
    }

    /// [`get_or_insert_with`](Self::get_or_insert_with) for async callers.
    ///
    /// # Cancellation
    ///
    /// When the future is dropped while it computes, another caller that waits takes over.
    ///
    /// # Panics
    ///
    /// When `compute` does, in the caller whose `compute` it was.
    pub async fn get_or_insert_with_async<T>(
        &self,
        key: &Key,
        ttl: Duration,
        compute: impl Future<Output = T>,
    ) -> T
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.is_refused::<T>(key) {
            return compute.await;
        }
        let policy = Policy::by_key(key, PlainOutput::new(), &self.serializer, FixedTtl::new(ttl));
        future::run(&self.engine, &policy, pin!(compute)).await
    }

    /// [`get_or_insert_with`](Self::get_or_insert_with) for a computation that may fail. An error
    /// is not stored.
    ///
    /// # Errors
    ///
    /// That of `compute`.
    ///
    /// # Panics
    ///
    /// When `compute` does, in the caller whose `compute` it was.
    pub fn try_get_or_insert_with<T, E>(
        &self,
        key: &Key,
        ttl: Duration,
        compute: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.is_refused::<T>(key) {
            return compute();
        }
        let policy = Policy::by_key(key, ResultOutput::new(), &self.serializer, FixedTtl::new(ttl));
        blocking::run(&self.engine, &policy, compute)
    }

    /// [`try_get_or_insert_with`](Self::try_get_or_insert_with) for async callers.
    ///
    /// # Cancellation
    ///
    /// When the future is dropped while it computes, another caller that waits takes over.
    ///
    /// # Errors
    ///
    /// That of `compute`.
    ///
    /// # Panics
    ///
    /// When `compute` does, in the caller whose `compute` it was.
    pub async fn try_get_or_insert_with_async<T, E>(
        &self,
        key: &Key,
        ttl: Duration,
        compute: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E>
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.is_refused::<T>(key) {
            return compute.await;
        }
        let policy = Policy::by_key(key, ResultOutput::new(), &self.serializer, FixedTtl::new(ttl));
        future::run(&self.engine, &policy, pin!(compute)).await
    }

    /// Whether a key must not be used, which is counted and logged then.
    #[inline]
    fn is_refused<T>(&self, key: &Key) -> bool
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        match self.check_before::<T>(key) {
            Err(error) if !self.engine.is_paused() => {
                self.engine.count_bypass(key.prefix(), Some(&error), false);
                true
            }
            _ => false,
        }
    }
}

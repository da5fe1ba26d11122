//! Computation of missing values: `get_or_insert_with` and its variants.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use crate::backend::Backend;
use crate::cache::Cache;
use crate::call::previous::{InRun, in_run};
use crate::call::{FixedTtl, PlainOutput, Policy, ResultOutput, blocking, future};
use crate::error::Result;
use crate::key::Key;
use crate::serializer::Serializer;

impl<B: Backend, S> Cache<B, S> {
    /// Returns the stored value of a key, or else that of `compute`, which is then stored for `ttl`.
    ///
    /// If the key does not match the function that it is for (see [`get`](Self::get)), `compute` runs
    /// each time, nothing is stored, and the error is counted and logged.
    ///
    /// # Panics
    ///
    /// When `compute` panics, in the caller that runs it.
    pub fn get_or_insert_with<T>(&self, key: &Key, ttl: Duration, compute: impl FnOnce() -> T) -> T
    where
        S: Serializer<T, Stored = B::Stored>,
    {
        if self.is_refused::<T>(key) {
            return in_run(None, compute);
        }
        let policy = Policy::by_key(key, PlainOutput::new(), &self.serializer, FixedTtl::new(ttl));
        blocking::run(&self.engine, policy, compute)
    }

    /// [`get_or_insert_with`](Self::get_or_insert_with) for async callers.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped while it computes, one of the waiting callers computes instead.
    ///
    /// # Panics
    ///
    /// When `compute` panics, in the caller that runs it.
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
            return InRun::bypassed(pin!(compute)).await;
        }
        let policy = Policy::by_key(key, PlainOutput::new(), &self.serializer, FixedTtl::new(ttl));
        future::run(&self.engine, &policy, pin!(compute)).await
    }

    /// Returns the stored value of a key, or else the result of `compute`. A value is then stored for
    /// `ttl`, an error is not. Callers that wait for one whose `compute` fails run their own: unlike that of a
    /// function under the attribute, an error is never shared.
    ///
    /// # Errors
    ///
    /// That of `compute`.
    ///
    /// # Panics
    ///
    /// When `compute` panics, in the caller that runs it.
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
            return in_run(None, compute);
        }
        let policy = Policy::by_key(key, ResultOutput::new(), &self.serializer, FixedTtl::new(ttl));
        blocking::run(&self.engine, policy, compute)
    }

    /// [`try_get_or_insert_with`](Self::try_get_or_insert_with) for async callers.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped while it computes, one of the waiting callers computes instead.
    ///
    /// # Errors
    ///
    /// That of `compute`.
    ///
    /// # Panics
    ///
    /// When `compute` panics, in the caller that runs it.
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
            return InRun::bypassed(pin!(compute)).await;
        }
        let policy = Policy::by_key(key, ResultOutput::new(), &self.serializer, FixedTtl::new(ttl));
        future::run(&self.engine, &policy, pin!(compute)).await
    }

    /// Returns whether a key must not be used. If so, the error is counted and logged.
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

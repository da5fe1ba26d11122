//! Entries: handles to read, refresh and invalidate the result of one call.

mod query;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

pub use self::query::Query;
pub(crate) use self::query::Subject;
use crate::cache::Cache;
use crate::call::{CachedOutput, forced_refresh};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyError};

/// The entry of one call of a cached function, with methods to read, refresh and invalidate it.
///
/// It is returned by the companion function of `#[cached(handle = ..)]`. It holds the arguments of the
/// call, and runs nothing until a method is called. Values are returned in the return type of the
/// function: if that is a `Result`, a cached value is an `Ok`.
///
/// Every method that accesses the backend exists for sync callers and, with the suffix `_async`, for
/// async callers, for sync and async functions alike. Only [`get`](Self::get) and
/// [`refresh`](Self::refresh) are for sync functions, and [`get_async`](Self::get_async) and
/// [`refresh_async`](Self::refresh_async) for async ones.
#[must_use = "an entry does nothing until a method is called"]
pub struct Entry<Q, F> {
    query: Q,
    call: F,
}

impl<Q: Query, F> Entry<Q, F> {
    /// Creates the entry of a call. `call` runs the function, through its cache.
    pub(crate) fn new(query: Q, call: F) -> Self {
        Self { query, call }
    }

    /// Returns the key of the call.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Encode`] when the arguments cannot be serialized; such a call is never
    /// cached.
    pub fn key(&self) -> Result<&Key> {
        self.query.key().map_err(KeyError::to_error)
    }

    /// Returns the cache of the function, a [`MemoryCache`] if the attribute names none.
    ///
    /// [`MemoryCache`]: https://docs.rs/vayu-cache/latest/vayu/type.MemoryCache.html
    pub fn cache(&self) -> Cache<Q::Backend, Q::Serializer> {
        self.query.cache().clone()
    }

    /// Returns the value that a call would return without running the function, or `None`: one within its
    /// ttl, or past it and within `stale`. Nothing is counted.
    ///
    /// # Errors
    ///
    /// Those of [`key`](Self::key) and those of the backend.
    pub fn peek(&self) -> Result<Option<Q::Output>> {
        Ok(self.read()?.map(|found| found.output))
    }

    /// [`peek`](Self::peek) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek).
    pub fn peek_async(&self) -> impl Future<Output = Result<Option<Q::Output>>> {
        let read = self.read_async();
        async move { Ok(read.await?.map(|found| found.output)) }
    }

    /// Returns the value of [`peek`](Self::peek), or an error if there is none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Miss`] if there is none; those of [`peek`](Self::peek).
    pub fn require(&self) -> Result<Q::Output> {
        self.peek()?.ok_or_else(missing)
    }

    /// [`require`](Self::require) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`require`](Self::require).
    pub fn require_async(&self) -> impl Future<Output = Result<Q::Output>> {
        let peek = self.peek_async();
        async move { peek.await?.ok_or_else(missing) }
    }

    /// Returns the age of the value of [`peek`](Self::peek).
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek).
    pub fn age(&self) -> Result<Option<Duration>> {
        Ok(self.read()?.map(|found| found.age))
    }

    /// [`age`](Self::age) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek).
    pub fn age_async(&self) -> impl Future<Output = Result<Option<Duration>>> {
        let read = self.read_async();
        async move { Ok(read.await?.map(|found| found.age)) }
    }

    /// Returns the remaining ttl of the value of [`peek`](Self::peek), zero if it is past its ttl.
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek).
    pub fn ttl_left(&self) -> Result<Option<Duration>> {
        Ok(self.read()?.map(|found| found.ttl_left))
    }

    /// [`ttl_left`](Self::ttl_left) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`peek`](Self::peek).
    pub fn ttl_left_async(&self) -> impl Future<Output = Result<Option<Duration>>> {
        let read = self.read_async();
        async move { Ok(read.await?.map(|found| found.ttl_left)) }
    }

    /// Removes the entry, and returns whether there was one. A computation in progress returns its value
    /// to the callers that already wait for it, but does not store it.
    ///
    /// # Errors
    ///
    /// Those of [`key`](Self::key) and those of the backend.
    pub fn invalidate(&self) -> Result<bool> {
        self.query.remove(self.key()?)
    }

    /// [`invalidate`](Self::invalidate) for async callers.
    ///
    /// # Errors
    ///
    /// Those of [`invalidate`](Self::invalidate).
    pub fn invalidate_async(&self) -> impl Future<Output = Result<bool>> {
        let query = &self.query;
        async move { query.remove_async(query.key().map_err(KeyError::to_error)?).await }
    }

    fn read(&self) -> Result<Option<CachedOutput<Q::Output>>> {
        let found = self.query.read(self.key()?)?;
        Ok(found.and_then(|found| self.query.decode(found)))
    }

    /// Reads and decodes the entry. The future does not borrow the call: that of an async function is
    /// rarely `Sync`.
    fn read_async(
        &self,
    ) -> impl Future<Output = Result<Option<CachedOutput<Q::Output>>>> + use<'_, Q, F> {
        let query = &self.query;
        async move {
            let found = query.read_async(query.key().map_err(KeyError::to_error)?).await?;
            Ok(found.and_then(|found| query.decode(found)))
        }
    }
}

fn missing() -> Error {
    Error::new(ErrorKind::Miss, "no value is cached for this call")
}

impl<Q: Query, F: FnOnce() -> Q::Output> Entry<Q, F> {
    /// Calls the function, as without a handle: it runs unless its value is cached.
    pub fn get(self) -> Q::Output {
        (self.call)()
    }

    /// Runs the function even if its value is cached, and caches the new one.
    ///
    /// Other callers get the cached value until the function returns. If it fails, that value stays.
    /// Callers without a value wait for this run, and another computation of the same call in progress
    /// does not store its value.
    pub fn refresh(self) -> Q::Output {
        let Self { query, call } = self;
        forced_refresh::with(&mut query.key().ok().cloned(), call)
    }
}

impl<Q: Query, F: Future<Output = Q::Output>> Entry<Q, F> {
    /// [`get`](Self::get) for async functions.
    pub fn get_async(self) -> F {
        self.call
    }

    /// [`refresh`](Self::refresh) for async functions.
    pub fn refresh_async(self) -> impl Future<Output = Q::Output> {
        let mut request = self.query.key().ok().cloned();
        let call = self.call;
        async move {
            let mut call = pin!(call);
            poll_fn(|context| forced_refresh::with(&mut request, || call.as_mut().poll(context)))
                .await
        }
    }
}

impl<Q: Query, F> fmt::Debug for Entry<Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("key", &self.query.key().ok()).finish_non_exhaustive()
    }
}

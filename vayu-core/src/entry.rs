//! Entries: handles to read, refresh and invalidate the result of one call.

mod explanation;
mod query;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

pub use self::explanation::Explanation;
pub use self::query::Query;
pub(crate) use self::query::Subject;
use crate::cache::Cache;
use crate::call::CachedOutput;
use crate::call::request::{self, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, KeyError};
use crate::panic::drop_quietly;

/// The entry of one call of a cached function, with methods to read, set, refresh and invalidate it.
///
/// It is returned by the companion function of `#[cached(handle = ..)]`. It holds the arguments of the
/// call, and runs nothing until a method is called. Values are returned in the return type of the
/// function: if that is a `Result`, a cached value is an `Ok`.
///
/// Every method that accesses the backend exists for sync callers and, with the suffix `_async`, for
/// async callers, for sync and async functions alike. Only [`get`](Self::get), [`run`](Self::run) and
/// [`refresh`](Self::refresh), which call the function, are for sync functions, and their `_async` twins
/// for async ones.
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

    /// Stores a value as if the function had returned it now: under its ttl, `jitter`, `stale`, `version`
    /// and tags, with its serializer, in all tiers. A computation of the call in progress does not store
    /// its value.
    ///
    /// Returns `false` if nothing was stored, and what was stored before stays: the value is an `Err`,
    /// `cache_if` rejects it, its ttl by a closure is zero, its `expires_at` has passed, or the cache is paused or off. A value that is
    /// heavier than the limit of a memory cache is not kept, nor is the one before: as after any write, the
    /// entry may be evicted at once.
    ///
    /// # Errors
    ///
    /// Those of [`key`](Self::key) and those of the backend; [`ErrorKind::Encode`] for a value that the
    /// serializer cannot restore, and [`ErrorKind::Configuration`] if the ttl of the function is zero.
    pub fn set(&self, value: Q::Output) -> Result<bool> {
        let key = self.key()?;
        let encoded = self.query.encode(key, &value)?;
        drop(value);
        match encoded {
            Some(encoded) => self.query.write(key, encoded),
            None => Ok(false),
        }
    }

    /// [`set`](Self::set) for async callers. The value is encoded before the future is returned.
    ///
    /// # Errors
    ///
    /// Those of [`set`](Self::set).
    pub fn set_async(
        &self,
        value: Q::Output,
    ) -> impl Future<Output = Result<bool>> + use<'_, Q, F> {
        let query = &self.query;
        let encoded = self.key().and_then(|key| Ok((key, query.encode(key, &value)?)));
        drop(value);
        async move {
            match encoded? {
                (key, Some(encoded)) => query.write_async(key, encoded).await,
                (_, None) => Ok(false),
            }
        }
    }

    /// Returns what the next call would do, and why: for logs and for debugging. It reads the entry and
    /// decodes its value. Nothing is counted.
    pub fn explain(&self) -> Explanation {
        let key = match self.key() {
            Ok(key) => key,
            Err(error) => return Explanation::NoKey(error),
        };
        let judged = self.query.examine(key).map(|found| self.query.judge(found));
        let explanation = match judged {
            Ok(Ok(explanation)) | Err(explanation) => explanation,
            Ok(Err(stamp)) => self.query.invalidated(key, stamp),
        };
        or_error(&self.query, key, explanation)
    }

    /// [`explain`](Self::explain) for async callers.
    pub fn explain_async(&self) -> impl Future<Output = Explanation> + use<'_, Q, F> {
        let query = &self.query;
        async move {
            let key = match query.key().map_err(KeyError::to_error) {
                Ok(key) => key,
                Err(error) => return Explanation::NoKey(error),
            };
            let judged = query.examine_async(key).await.map(|found| query.judge(found));
            let explanation = match judged {
                Ok(Ok(explanation)) | Err(explanation) => explanation,
                Ok(Err(stamp)) => query.invalidated_async(key, stamp).await,
            };
            or_error(query, key, explanation)
        }
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

/// Returns the explanation of a call, or that of its cached error if it finds no value.
fn or_error<Q: Query>(query: &Q, key: &Key, explanation: Explanation) -> Explanation {
    let has_value = matches!(explanation, Explanation::Hit | Explanation::Stale);
    let has_value = has_value || matches!(explanation, Explanation::Paused);
    if !has_value && query.has_cached_error(key) { Explanation::ErrorHit } else { explanation }
}

fn missing() -> Error {
    Error::new(ErrorKind::Miss, "no value is cached for this call")
}

impl<Q: Query, F: FnOnce() -> Q::Output> Entry<Q, F> {
    /// Calls the function, as without a handle: it runs unless its value is cached.
    pub fn get(self) -> Q::Output {
        (self.call)()
    }

    /// Runs the function without the cache: nothing is read or stored, and no other caller shares the run.
    pub fn run(self) -> Q::Output {
        let mut request = request_of(&self.query, Request::Bypass);
        request::with(&mut request, self.call)
    }

    /// Runs the function even if its value is cached, and caches the new one.
    ///
    /// Other callers get the cached value until the function returns. If it fails, that value stays, and
    /// is returned if the function has `stale`; [`refresh_strict`](Self::refresh_strict) returns the
    /// failure. A value that `cache_if` rejects, that has no ttl left, or that cannot be stored, because it is too long or the
    /// serializer refuses it, is not a failure: it is returned, the cached value is removed, and the next call runs the
    /// function. Callers without a value wait for this run, and another computation of the same call in
    /// progress does not store its value.
    ///
    /// A call that bypasses the cache, because `bypass_if` is true or the cache is paused, runs the function and
    /// stores nothing.
    pub fn refresh(self) -> Q::Output {
        let Self { query, call } = self;
        let output = force(&query, call);
        if !query.is_failure(&output) {
            return output;
        }
        let old = Entry::new(query, ()).peek();
        or_old(output, old)
    }

    /// [`refresh`](Self::refresh), but returns the failure of the function even if there is a cached value.
    pub fn refresh_strict(self) -> Q::Output {
        force(&self.query, self.call)
    }
}

/// Returns the request of an entry to the next call of its key.
fn request_of<Q: Query>(query: &Q, request: Request) -> Option<(Key, Request)> {
    query.key().ok().map(|key| (key.clone(), request))
}

/// Runs the call of an entry as a forced refresh.
fn force<Q: Query, T>(query: &Q, call: impl FnOnce() -> T) -> T {
    request::with(&mut request_of(query, Request::Refresh), call)
}

/// Returns the cached output in the place of a failure, if there is one.
fn or_old<T>(failure: T, old: Result<Option<T>>) -> T {
    match old {
        Ok(Some(old)) => {
            drop_quietly(failure);
            old
        }
        _ => failure,
    }
}

impl<Q: Query, F: Future<Output = Q::Output>> Entry<Q, F> {
    /// [`get`](Self::get) for async functions.
    pub fn get_async(self) -> F {
        self.call
    }

    /// [`run`](Self::run) for async functions.
    pub fn run_async(self) -> impl Future<Output = Q::Output> {
        let request = request_of(&self.query, Request::Bypass);
        with_request(request, self.call)
    }

    /// [`refresh`](Self::refresh) for async functions.
    pub fn refresh_async(self) -> impl Future<Output = Q::Output> {
        let Self { query, call } = self;
        let refresh = with_request(request_of(&query, Request::Refresh), call);
        async move {
            let output = refresh.await;
            if !query.is_failure(&output) {
                return output;
            }
            let entry = Entry::new(query, ());
            let old = entry.peek_async().await;
            or_old(output, old)
        }
    }

    /// [`refresh_strict`](Self::refresh_strict) for async functions.
    pub fn refresh_strict_async(self) -> impl Future<Output = Q::Output> {
        let request = request_of(&self.query, Request::Refresh);
        with_request(request, self.call)
    }
}

/// Awaits `call`, in which the first call of the key takes the request.
async fn with_request<F: Future>(mut request: Option<(Key, Request)>, call: F) -> F::Output {
    let mut call = pin!(call);
    poll_fn(|context| request::with(&mut request, || call.as_mut().poll(context))).await
}

impl<Q: Query, F> fmt::Debug for Entry<Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("key", &self.query.key().ok()).finish_non_exhaustive()
    }
}
